"""Array libraries: one adapter module each, and the record of what is usable here.

Nothing in this package is imported before an array of its library arrives, or before somebody
asks what is available.
"""

from spikeloss_xp.backends._available import BackendInfo, available
from spikeloss_xp.backends._protocol import Adapter

__all__ = ["Adapter", "BackendInfo", "available"]
