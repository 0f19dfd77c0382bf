"""Diagnosis: find out from one batch and its gradients why a network does not learn."""

from spikeloss_xp.diagnosis._diagnose import diagnose
from spikeloss_xp.diagnosis._report import Finding, Report

__all__ = ["Finding", "Report", "diagnose"]
