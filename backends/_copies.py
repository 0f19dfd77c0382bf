"""Copies of numbers of the host on devices, so that only a first call copies them."""

from collections.abc import Callable
from typing import Any

from spikeloss_xp._typing import Array

USES = 500
"""The number of look-ups in a row. A copy that a whole row of them does not use is dropped."""


class Copies:
    """A cache of copies on devices, which drops those that are not used any more."""

    def __init__(self) -> None:
        self._uses = 0
        self._recent: dict[Any, Any] = {}
        self._older: dict[Any, Any] = {}

    def get(self, values: Any, dtype: Any, device: Any, copy: Callable[[], Array]) -> Array:
        """Return the copy of an array or tuple, which must not change, on a device."""
        self._uses += 1
        if self._uses % USES == 0:
            self._older, self._recent = self._recent, {}
        key = values if isinstance(values, tuple) else id(values), dtype, device
        found = self._recent.get(key) or self._older.get(key) or (values, copy())
        self._recent[key] = found  # with the array, so that no other one gets its identity
        return found[1]
