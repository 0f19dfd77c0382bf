"""Find out why a network does not learn, and scale its layers to a given firing rate."""

from spikeloss_xp.diagnosis._diagnose import diagnose
from spikeloss_xp.diagnosis._losses import findings
from spikeloss_xp.diagnosis._report import Finding, Report
from spikeloss_xp.diagnosis._scaling import scale_to_rate

__all__ = ["Finding", "Report", "diagnose", "findings", "scale_to_rate"]
