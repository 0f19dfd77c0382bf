"""Numerical building blocks: filters, survival products, slices, and pullbacks in place."""

from collections.abc import Callable

from spikeloss_xp._typing import Array, Pullback


def slices(length: int, size: int) -> list[slice]:
    """Return slices of `size` entries each (at least 1) that together cover an axis."""
    size = max(size, 1)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def single_use(function: Callable[[Array], Array]) -> Pullback:
    """Return a pullback that can be called only once, because `function` overwrites its arrays."""
    available = [function]

    def pullback(cotangent: Array) -> Array:
        if not available:
            raise RuntimeError(
                "this pullback may be called only once, but was called again: evaluate the loss "
                "again to get a new pullback"
            )
        return available.pop()(cotangent)

    return pullback
