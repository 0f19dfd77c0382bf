"""Tools for PyTorch: a module that holds a loss, and functions that inspect or scale a network.

Importing this package imports PyTorch.
"""

from spikeloss_xp.torch.diagnosis import diagnose_network
from spikeloss_xp.torch.module import LossModule
from spikeloss_xp.torch.recording import Recording, record
from spikeloss_xp.torch.scaling import parameter_groups, scale_network

__all__ = [
    "LossModule",
    "Recording",
    "diagnose_network",
    "parameter_groups",
    "record",
    "scale_network",
]
