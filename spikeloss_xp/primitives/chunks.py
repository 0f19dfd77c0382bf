"""Chunks of arrays, and the evaluation of losses in chunks that fit in the cache.

A large array is read once and its gradient is written once, while the intermediate arrays of a
chunk stay in the cache. Without chunks, every intermediate array goes through main memory, which
the allocator often has to request from the operating system first. On two CPU cores, processing 8e6
entries in windows of 100 steps took at most 0.6 times as long as without chunks.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spikeloss_xp._typing import Array, Axes, ChunkFunction, Pullback, Sums

if TYPE_CHECKING:
    from spikeloss_xp.backends.base import ArrayAPIAdapter


def slices(length: int, size: int) -> list[slice]:
    """Return slices of `size` entries each (at least 1) that together cover an axis."""
    size = max(size, 1)
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def split(shape: tuple[int, ...], axes: Axes, entries: int) -> tuple[int, int] | None:
    """Return the axis to split, and the length of chunks with about `entries` entries each.

    Return None if splitting is not worth its overhead. The first axis that is long enough is
    chosen, because chunks along a leading axis are contiguous.
    """
    size = math.prod(shape)
    if not axes or size < 2 * entries:
        return None
    longest = max(axes, key=lambda axis: shape[axis])
    axis = next((axis for axis in axes if shape[axis] * entries >= size), longest)
    if shape[axis] == 1:
        return None
    return axis, max(entries * shape[axis] // size, 1)


def take_chunk(x: Any, index: tuple[Any, ...], axis: int) -> Any:
    """Return a chunk of an array, or of each array in a tuple. For None, return None."""
    if x is None:
        return None
    if isinstance(x, tuple):
        chunk = [take_chunk(y, index, axis) for y in x]
        return type(x)(*chunk) if hasattr(x, "_fields") else tuple(chunk)
    return x if x.shape[axis] == 1 else x[index]


def map_chunks(
    adapter: "ArrayAPIAdapter", function: ChunkFunction, arrays: Any, axes: Axes, entries: int
) -> Sums:
    """Evaluate a function in chunks of about `entries` entries; see `ArrayAPIAdapter.map_chunks`.

    Each chunk is differentiated before the next chunk is evaluated, so that only the gradients of
    earlier chunks have to be kept.
    """
    x, chosen = arrays[0], split(arrays[0].shape, axes, entries)
    if chosen is None:
        return function(*arrays)
    axis, length = chosen
    one = adapter.xp.reshape(adapter.scalar(x, 1.0), (1,) * x.ndim)

    def evaluate(*chunk: Any) -> tuple[Any, Array | None]:
        sums, pullback = function(*chunk)
        return sums, None if pullback is None else pullback(one)

    sums, gradient = [], None
    for start in range(0, x.shape[axis], length):
        index = (*(slice(None) for _ in range(axis)), slice(start, start + length), ...)
        of_chunk, part = evaluate(*(take_chunk(array, index, axis) for array in arrays))
        sums.append(of_chunk)
        if part is not None:
            gradient = adapter.xp.empty_like(x) if gradient is None else gradient
            gradient[index] = part
    totals = tuple(_add_up(adapter, numbers) for numbers in zip(*sums, strict=True))
    return totals, None if gradient is None else scaled_once(adapter, gradient)


def _add_up(adapter: "ArrayAPIAdapter", numbers: tuple[Any, ...]) -> Any:
    if numbers[0] is None or isinstance(numbers[0], int):
        return None if numbers[0] is None else sum(numbers)
    return adapter.sum_all(adapter.xp.stack(numbers))


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


def scaled_once(adapter: "ArrayAPIAdapter", gradient: Array) -> Pullback:
    """Return a pullback that scales `gradient` in place and returns it.

    Scaling in place avoids another pass over memory. The pullback may be called only once.
    """

    def scaled(cotangent: Array) -> Array:
        nonlocal gradient
        values = adapter.concrete_or_none(cotangent)
        if values is None or values != 1:  # the cotangent of a plain sum is 1
            gradient *= cotangent
        return gradient

    return single_use(scaled)
