"""Adapters for array libraries, and a report on the libraries that work on this machine.

An adapter is imported when an array of its library is first used, or when `available` is called.
"""

from spikeloss_xp.backends._available import BackendInfo, available
from spikeloss_xp.backends.base import ArrayAPIAdapter

__all__ = ["ArrayAPIAdapter", "BackendInfo", "available"]
