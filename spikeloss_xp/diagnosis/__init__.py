"""Find out why a network does not learn, and scale its layers to a given firing rate."""

from spikeloss_xp.diagnosis._diagnose import diagnose as diagnose
from spikeloss_xp.diagnosis._losses import findings
from spikeloss_xp.diagnosis._report import Finding, Gradient, Layer, Report
from spikeloss_xp.diagnosis._scaling import scale_to_rate as scale_to_rate

__all__ = ["Finding", "Gradient", "Layer", "Report", "findings"]
