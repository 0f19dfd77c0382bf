"""Adapters for array libraries, and a report on which libraries can be used on this machine.

Each adapter is imported when an array of its library is first used or `available` is called.
"""

from spikeloss_xp.backends._available import BackendInfo, available
from spikeloss_xp.backends.base import ArrayAPIAdapter

HINT_FOR_TREES = (
    "pass nested lists and dicts of arrays, in the order of the layers. jax.tree.leaves(gradients) "
    "returns the arrays in a module, such as an equinox module"
)

__all__ = ["ArrayAPIAdapter", "BackendInfo", "available"]
