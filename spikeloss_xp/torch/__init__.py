"""For PyTorch only: a loss as a module, and functions for networks of modules.

Importing this package imports PyTorch.
"""

from spikeloss_xp.torch.module import LossModule
from spikeloss_xp.torch.recording import Recording, record
from spikeloss_xp.torch.scaling import parameter_groups, scale_network

__all__ = ["LossModule", "Recording", "parameter_groups", "record", "scale_network"]
