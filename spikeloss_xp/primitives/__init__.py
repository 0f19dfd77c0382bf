"""Numerical helper functions that the losses and the adapters share."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Adapter, Array, ChunkFunction, Pullback, Sums


def slices(length: int, size: int) -> list[slice]:
    """Return slices of `size` entries that together cover an axis of the given length.

    If `size` is below 1, each slice has one entry.
    """
    size = max(size, 1)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def sums_in_chunks(
    adapter: Adapter, function: ChunkFunction, arrays: Any, axes: tuple[int, ...], entries: int
) -> Sums:
    """Implement `FastPaths.map_chunks` with chunks of about `entries` entries.

    The gradient of a chunk is computed before the next chunk is evaluated, so that intermediate
    arrays stay in the cache.
    """
    x = arrays[0]
    size = math.prod(x.shape)
    if not axes or size < 2 * entries:
        return function(*arrays)
    longest = max(axes, key=lambda axis: x.shape[axis])
    axis = next((axis for axis in axes if x.shape[axis] * entries >= size), longest)
    one, gradient = adapter.xp.ones_like(x[(slice(0, 1),) * x.ndim]), adapter.xp.empty_like(x)
    sums = []

    def chunk(index: tuple[Any, ...]) -> Any:
        return map_arrays(lambda y: y if y.shape[axis] == 1 else y[index], arrays)

    for chosen in slices(x.shape[axis], entries * x.shape[axis] // size):
        index = (*(slice(None) for _ in range(axis)), chosen, ...)
        of_chunk, pullback = function(*chunk(index))
        sums.append(of_chunk)
        if pullback is not None:
            gradient[index] = pullback(one)
    totals = tuple(None if each[0] is None else sum(each) for each in zip(*sums, strict=True))
    if pullback is None:
        return totals, None

    def scaled(cotangent: Array) -> Array:
        nonlocal gradient
        gradient *= cotangent
        return gradient

    return totals, single_use(scaled)


def map_arrays(function: Callable[[Array], Array], x: Any) -> Any:
    """Apply a function to an array, or to each array in nested tuples. None is left unchanged."""
    if x is None:
        return None
    if isinstance(x, tuple):
        parts = [map_arrays(function, y) for y in x]
        return type(x)(*parts) if hasattr(x, "_fields") else tuple(parts)
    return function(x)


def sum_of_products(adapter: Adapter, axis: int, x: Array, factor: Array) -> Array:
    """Return the sum of ``x * factor`` over an axis. The axis is kept, with length 1.

    The products are computed in chunks, because allocating an array for all products may take
    longer than computing the products.
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
