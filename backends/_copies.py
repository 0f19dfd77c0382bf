"""A cache of constants that have been copied to devices."""

from collections.abc import Callable
from typing import Any

from spikeloss_xp._typing import Array

USES = 500
"""After every `USES` lookups, entries that none of these lookups used are evicted."""


class Copies:
    """A cache of device arrays, which evicts entries that are no longer used."""

    def __init__(self) -> None:
        self._uses = 0
        self._recent: dict[Any, Any] = {}
        self._older: dict[Any, Any] = {}

    def get(self, values: Any, dtype: Any, device: Any, copy: Callable[[], Array]) -> Array:
        """Return the cached result of `copy`, which is called on the first lookup.

        The cache key consists of `values`, the dtype and the device. Tuples are compared by value
        and arrays by identity, so an array must not change.
        """
        self._uses += 1
        if self._uses % USES == 0:
            self._older, self._recent = self._recent, {}
        key = values if isinstance(values, tuple) else id(values), dtype, device
        found = self._recent.get(key) or self._older.get(key) or (values, copy())
        self._recent[key] = found  # keeps the array, so that its id is not reused
        return found[1]
