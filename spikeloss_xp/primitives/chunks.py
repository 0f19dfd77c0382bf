"""Chunks of arrays, and the evaluation of losses and filters in chunks that fit in the cache.

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


def in_chunks(
    function: Callable[..., tuple[Any, Array | None]],
    arrays: tuple[Any, ...],
    axis: int,
    length: int,
    empty_like: Callable[[Array], Array],
) -> tuple[list[Any], Array | None]:
    """Call a function on each chunk in turn, and collect the two results of each call.

    Return a list of the first results, and an array in which the second results are joined. The
    second result of a call has the shape of the chunk of the first array, or is None.
    """
    first, joined = [], None
    for start in range(0, arrays[0].shape[axis], length):
        index = (*(slice(None) for _ in range(axis)), slice(start, start + length), ...)
        result, array = function(*(take_chunk(x, index, axis) for x in arrays))
        first.append(result)
        if array is not None:
            joined = empty_like(arrays[0]) if joined is None else joined
            joined[index] = array
    return first, joined


def filter_in_chunks(
    adapter: "ArrayAPIAdapter",
    run: Callable[[Array, int], Array],
    x: Array,
    axis: int,
    entries: int,
) -> Array:
    """Run a filter along an axis, processing one chunk of trains at a time."""
    shape, axis, others = tuple(x.shape), axis % x.ndim, 0
    if axis == 0:
        shape, others = (shape[0], math.prod(shape[1:])), 1
    elif axis == x.ndim - 1:
        shape, axis = (math.prod(shape[:-1]), shape[-1]), 1
    rows, empty = adapter.xp.reshape(x, shape), adapter.xp.empty_like
    chunks = split(shape, (others,), entries)
    if chunks is None:
        return adapter.xp.reshape(run(rows, axis), x.shape)
    _, filtered = in_chunks(lambda chunk: (None, run(chunk, axis)), (rows,), *chunks, empty)
    return adapter.xp.reshape(filtered, x.shape)


def map_chunks(
    adapter: "ArrayAPIAdapter", function: ChunkFunction, arrays: Any, axes: Axes, entries: int
) -> Sums:
    """Evaluate a function in chunks of about `entries` entries; see `ArrayAPIAdapter.map_chunks`.

    Each chunk is differentiated before the next chunk is evaluated, so that only the gradients of
    earlier chunks have to be kept.
    """
    chunks = split(arrays[0].shape, axes, entries)
    if chunks is None:
        return function(*arrays)
    one = adapter.xp.reshape(adapter.scalar(arrays[0], 1.0), (1,) * arrays[0].ndim)

    def differentiated(*chunk: Any) -> tuple[Any, Array]:
        sums, pullback = function(*chunk)
        return sums, None if pullback is None else pullback(one)

    sums, gradient = in_chunks(differentiated, arrays, *chunks, adapter.xp.empty_like)
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
