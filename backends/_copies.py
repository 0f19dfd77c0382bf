"""A cache for constant arrays that have been copied to a device, such as a GPU."""

from collections.abc import Callable
from typing import Any

from spikeloss_xp._typing import Array

USES = 500
"""After every `USES` lookups, the cache evicts each entry that none of these lookups used."""


class Copies:
    """A cache of device arrays, which evicts entries that are no longer used."""

    def __init__(self) -> None:
        self._uses = 0
        self._recent: dict[Any, Any] = {}
        self._older: dict[Any, Any] = {}

    def get(self, values: Any, dtype: Any, device: Any, copy: Callable[[], Array]) -> Array:
        """Return the cached array, or call `copy` to create the array if it is not in the cache.

        Arrays are compared by identity, so the caller must not modify `values` later.
        """
        self._uses += 1
        if self._uses % USES == 0:
            self._older, self._recent = self._recent, {}
        key = values if isinstance(values, tuple) else id(values), dtype, device
        found = self._recent.get(key) or self._older.get(key) or (values, copy())
        self._recent[key] = found  # keeping `values` alive prevents Python from reusing its id
        return found[1]
