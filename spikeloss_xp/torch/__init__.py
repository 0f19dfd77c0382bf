"""For PyTorch only: a loss as a module, and functions for networks of modules.

Importing this package imports PyTorch.
"""

from spikeloss_xp.torch.module import LossModule
from spikeloss_xp.torch.parameters import parameter_groups
from spikeloss_xp.torch.recording import record
from spikeloss_xp.torch.scaling import scale_network

__all__ = ["LossModule", "parameter_groups", "record", "scale_network"]
