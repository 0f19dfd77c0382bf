"""Array libraries: one adapter class each, and a report of those that are usable here.

An adapter is imported when the first array of its library arrives, or when `available` is called.
"""

from spikeloss_xp.backends._available import BackendInfo, available
from spikeloss_xp.backends.base import ArrayAPIAdapter

__all__ = ["ArrayAPIAdapter", "BackendInfo", "available"]
