"""The class `Axis`, which represents the batch, class or time axis of arrays."""

import functools
from collections.abc import Callable

from spikeloss_xp._typing import Adapter, Array

AlongAxis = Callable[..., Array]


class Axis:
    """The batch, class or time axis of arrays, and the operations along this axis.

    Reductions and `gather` keep the axis, with length 1.
    """

    def __init__(self, adapter: Adapter, index: int) -> None:
        self.adapter: Adapter = adapter
        self.index: int = index
        self.sum: AlongAxis = functools.partial(adapter.sum, index)
        self.spread: AlongAxis = functools.partial(adapter.spread, index)
        self.at: AlongAxis = functools.partial(adapter.at, index)
        self.entries_at: AlongAxis = functools.partial(adapter.entries_at, index)
        self.gather: AlongAxis = functools.partial(adapter.gather, index)
        self.scatter: AlongAxis = functools.partial(adapter.scatter, index)

    def length(self, x: Array) -> int:
        """Return the length of `x` along the axis."""
        return x.shape[self.index]  # type: ignore[no-any-return]

    def max(self, x: Array) -> Array:
        """Return the maximum along the axis."""
        return self.adapter.xp.max(x, axis=self.index, keepdims=True)

    def any(self, x: Array) -> Array:
        """Return whether any entry along the axis is True."""
        return self.adapter.xp.any(x, axis=self.index, keepdims=True)

    def argmax(self, x: Array) -> Array:
        """Return the position of the first maximum along the axis."""
        return self.adapter.xp.argmax(x, axis=self.index, keepdims=True)

    def positions(self, like: Array) -> Array:
        """Return the indices 0, 1, 2, ... along the axis, as an array that broadcasts to `like`."""
        return self.adapter.along(self.index, like)
