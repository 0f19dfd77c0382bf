"""Numerical building blocks: filters, survival products, slices, and pullbacks in place."""

import functools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array, Pullback

if TYPE_CHECKING:
    from spikeloss_xp.backends.base import ArrayAPIAdapter as Adapter


def slices(length: int, size: int) -> list[slice]:
    """Return slices of `size` entries each (at least 1) that together cover an axis."""
    size = max(size, 1)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def sum_of_products(adapter: "Adapter", axis: int, x: Array, factor: Array) -> Array:
    """Return the sum of ``x * factor`` over an axis, which is kept with length 1.

    The products are made in chunks, because an array of all products may cost more to allocate than
    to compute.
    """
    rows = _tuning.CHUNK * x.shape[0] // math.prod(x.shape)
    chunks = slices(x.shape[0], rows)
    sums = [adapter.sum(axis, x[chosen, ...] * factor[chosen, ...]) for chosen in chunks]
    return functools.reduce(operator.add, sums) if axis == 0 else adapter.xp.concat(sums)


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
