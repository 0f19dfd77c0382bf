"""The Dask adapter, which computes losses, gradients and filters block by block in a task graph.

Each block includes the earlier time steps that its loss terms depend on, so that the sums of all
blocks add up to the sum over the whole input.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import array_api_compat
import array_api_compat.dask.array
import dask.array as da
import numpy as np
from dask.array.overlap import ensure_minimum_chunksize, overlap
from dask.array.utils import meta_from_array

from spikeloss_xp import _tuning
from spikeloss_xp._checks import check_range
from spikeloss_xp._typing import Array, Namespace, ValueAndPullback
from spikeloss_xp.backends.base import ArrayAPIAdapter, split_call
from spikeloss_xp.primitives.kernels import Exponential

# The arguments of a loss, in the order in which `_chunks` expects them.
ARGUMENTS = ("target", "where", "lengths", "weight")
CLASSES, PLACE = -1, -2  # labels of axes that the input does not have


class DaskAdapter(ArrayAPIAdapter):
    """The adapter for Dask arrays, which are lazy."""

    is_lazy = True

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.dask.array

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.compute())

    def synchronize(self, x: Array) -> None:
        x.compute()

    def check_dense(self, x: Array, argument: str) -> None:
        if any(math.isnan(length) for length in x.shape):
            raise ValueError(
                f"{argument} has chunks of unknown size: call compute_chunk_sizes() on it first"
            )

    def evaluate(self, loss: Any, input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss, computed block by block if the loss can be split."""
        x = _without_empty_chunks(input)
        options = {name: _without_empty_chunks(value) for name, value in options.items()}
        blocks = _blocks(loss, x, options)
        return loss.value(x, **options) if blocks is None else blocks.value()

    def value_and_pullback(
        self, loss: Any, input: Array, *targets: Any, **options: Any
    ) -> ValueAndPullback:
        """Return the value and pullback of a loss, computed block by block if possible."""
        x, *given = (_without_empty_chunks(value) for value in (input, *targets))
        options = {name: _without_empty_chunks(value) for name, value in options.items()}
        named = {"target": given[0], **options} if len(given) == 1 else options
        blocks = _blocks(loss, x, named)
        if blocks is None:
            value, pullback = loss.value_and_pullback(x, *given, **options)
        else:
            value, pullback = blocks.value(), blocks.gradient

        def to_input(cotangent: Array) -> Array:
            return pullback(_without_empty_chunks(cotangent)).rechunk(input.chunks)

        return value, to_input

    def causal_filter(
        self, x: Array, kernel: Array | Exponential, axis: int = -1, *, reverse: bool = False
    ) -> Array:
        """Return the filtered array, computed in blocks that span the whole time axis.

        Short blocks, such as the blocks of the base method, would each add tasks to the graph.
        """
        run = functools.partial(_filter_block, axis=axis, reverse=reverse)
        taps: tuple[Any, ...] = (kernel, (x.ndim,))
        if isinstance(kernel, Exponential):
            run, taps = functools.partial(run, kernel=kernel), ()
        indices = tuple(range(x.ndim))
        filtered = da.blockwise(
            run,
            indices,
            x.rechunk({axis % x.ndim: -1}),
            indices,
            *taps,
            concatenate=True,  # the taps are passed as an array, not as a list of blocks
            dtype=x.dtype,
            meta=meta_from_array(x),  # without `meta`, Dask would run the filter to infer the type
        )
        return filtered.rechunk(x.chunks)


def _filter_block(block: Array, kernel: Array | Exponential, *, axis: int, reverse: bool) -> Array:
    library = ArrayAPIAdapter(array_api_compat.array_namespace(block))
    return library.causal_filter(block, kernel, axis, reverse=reverse)


def _without_empty_chunks(x: Any) -> Any:
    """Return a Dask array without its empty chunks, and any other object unchanged.

    Indexing a Dask array can leave empty chunks, and the maximum of an empty chunk is undefined.
    """
    if not isinstance(x, da.Array):
        return x
    filled = {
        axis: tuple(filter(None, lengths))
        for axis, lengths in enumerate(x.chunks)
        if 0 in lengths and any(lengths)
    }
    return x.rechunk(filled)


def _blocks(loss: Any, input: Array, arguments: dict[str, Any]) -> "Blocks | None":
    """Split a call to a loss into blocks. Return None if the call must be evaluated as a whole."""
    if not ("target" in arguments and set(arguments) <= set(ARGUMENTS)):
        return None
    split = split_call(loss, input, {name: arguments.get(name) for name in ARGUMENTS})
    if split is None:
        return None
    time = split.layout.time_axis
    if input.numblocks[time] > 1 and time not in split.independent:
        return None  # the caller evaluates the loss on the whole Dask array
    return Blocks(split, input, {**arguments, "where": split.where})


class Blocks:
    """A call to a loss on Dask arrays, which is evaluated block by block.

    The argument `input` must have no empty chunks.
    """

    def __init__(self, split: Any, input: da.Array, arguments: dict[str, Any]) -> None:
        self.split, self.time = split, split.layout.time_axis
        self.reach = min(split.loss.memory or 0, split.layout.steps - 1)
        dependent = set(range(input.ndim)) - split.independent
        x = input.rechunk(dict.fromkeys(dependent, -1))
        # A block can include steps only from the two neighbouring blocks. Each block must therefore
        # have at least `self.reach` steps.
        if x.numblocks[self.time] > 1:
            longer = ensure_minimum_chunksize(max(self.reach, 1), x.chunks[self.time])
            x = x.rechunk({self.time: longer})
        self.input, self.arguments = x, {**arguments, "input": x}

    def value(self) -> da.Array:
        """Return the value of the loss."""
        one_each = {axis: (1,) * number for axis, number in enumerate(self.input.numblocks)}
        total = self._blockwise(_sum_of_block, one_each, self.split.dtype, ahead=0).sum()
        return total if self.split.divisor is None else total / self.split.divisor

    def gradient(self, cotangent: da.Array) -> da.Array:
        """Return the gradient with respect to the input, given the cotangent of the value."""
        if self.split.divisor is not None:
            cotangent = cotangent / self.split.divisor
        dtype = self.input.dtype if self.input.dtype.kind == "f" else self.split.dtype
        own = {self.time: self.input.chunks[self.time]}
        return self._blockwise(_gradient_of_block, own, dtype, cotangent, (), ahead=self.reach)

    def _blockwise(
        self, function: Any, chunks: dict[int, tuple[int, ...]], dtype: Any, *more: Any, ahead: int
    ) -> da.Array:
        """Call a function for each block, and return the results as a Dask array.

        A block includes the last `self.reach` steps of the previous block and the first `ahead`
        steps of the next block.
        """
        # The divisor may be a lazy array, which must not become an argument of `function`.
        x, split = self.input, self.split._replace(divisor=None)
        entries = (self._entries(name, ahead) for name in ("input", *ARGUMENTS))
        return da.blockwise(
            functools.partial(function, split),
            tuple(range(x.ndim)),
            *more,
            self._places(),
            (self.time, PLACE),
            *itertools.chain(*entries),
            adjust_chunks=chunks,
            align_arrays=False,
            concatenate=True,  # each argument is passed as an array, not as a list of blocks
            dtype=dtype,
            meta=meta_from_array(x, x.ndim, dtype),
        )

    def _entries(self, name: str, ahead: int) -> tuple[Any, Any]:
        """Split an argument into the same blocks as the input.

        Return the argument in blocks, and its index labels for `da.blockwise`.
        """
        x, axes = self.arguments.get(name), self.split.axes[name]
        if x is None:
            return None, None
        chunks = tuple(-1 if axis is None else self.input.chunks[axis] for axis in axes)
        if isinstance(x, da.Array):
            x = x.rechunk(chunks)
        else:
            x = da.from_array(np.asarray(x), chunks=chunks)
        if self.reach and self.time in axes and x.numblocks[axes.index(self.time)] > 1:
            depth = {axes.index(self.time): (self.reach, ahead)}
            x = overlap(x, depth=depth, boundary="none", allow_rechunk=False)
        return x, tuple(CLASSES if axis is None else axis for axis in axes)

    def _places(self) -> da.Array:
        """Return the argument `place` of `_chunks` for each block along the time axis."""
        own = np.asarray(self.input.chunks[self.time])
        first = np.cumsum(own) - own
        places = np.stack([np.minimum(first, self.reach), own, first], axis=1)
        return da.from_array(places, chunks=(1, 3))


class Chunk(NamedTuple):
    """A part of a block that is small enough to fit in the cache.

    Each time step of a sample belongs to exactly one chunk. A chunk also includes the earlier steps
    that its loss terms depend on.

    The slices `own` and `inside` both select the steps that belong to the chunk. `own` counts from
    the first step that belongs to the block, and `inside` counts from the start of `spikes`.
    """

    spikes: Array
    options: dict[str, Any]
    samples: slice
    own: slice
    inside: slice


def _chunks(split: Any, block: tuple[Any, ...], *, place: Array, ahead: bool) -> Iterator[Chunk]:
    """Yield the block in chunks, each with about as many entries as fit in the cache.

    The array `place` holds the number of steps that are taken from the previous block, the number
    of steps of this block, and the index of this block's first step in the whole train. The lengths
    in `block` refer to whole trains. If `ahead` is True, a chunk includes the later steps that its
    gradient needs.
    """
    layout, reach, spikes = split.layout, split.loss.memory, block[0]
    # Only a NumPy block is split into chunks, because any other block may be on a GPU.
    entries = _tuning.CHUNK if isinstance(spikes, np.ndarray) else spikes.size
    before, own, first_step = map(int, place)
    batch, steps = spikes.shape[layout.batch_axis], spikes.shape[layout.time_axis]
    samples, length = max(entries * batch // spikes.size, 1), own
    if reach is not None and spikes.size // batch > 4 * entries:
        length = max(entries * batch * steps // spikes.size, 8 * reach, 1)
    names = ("input", *ARGUMENTS)
    given = {name: x for name, x in zip(names, block, strict=True) if x is not None}
    for first, start in itertools.product(
        range(0, batch, samples), range(before, before + own, length)
    ):
        stop = min(start + length, before + own)
        read = max(start - (reach or 0), 0)
        read_to = min(stop + (reach or 0), steps) if ahead else stop
        chosen = slice(first, first + samples), slice(read, read_to)
        taken = {name: x[_selection(split, name, *chosen)] for name, x in given.items()}
        lengths, taken_steps = taken.get("lengths"), read_to - read
        if lengths is not None and taken_steps < layout.steps:
            start_of_chunk = first_step - before + read
            taken["lengths"] = _from_step(lengths, layout.steps, start_of_chunk, taken_steps)
        chunk, options = taken.pop("input"), {**taken, "context": start - read}
        in_block, inside = (slice(start - n, stop - n) for n in (before, read))
        yield Chunk(chunk, options, chosen[0], in_block, inside)


def _selection(split: Any, name: str, samples: slice, steps: slice) -> tuple[slice, ...]:
    """Return the index that selects `samples` and `steps` from the argument called `name`."""
    chosen = {split.layout.batch_axis: samples, split.layout.time_axis: steps}
    return tuple(
        slice(None) if axis is None else chosen.get(axis, slice(None)) for axis in split.axes[name]
    )


def _from_step(lengths: Array, longest: int, start: int, steps: int) -> Array:
    """Convert lengths of whole trains to lengths within a segment of time.

    A length below 0 or above `longest` is invalid, and becomes -1.
    """
    xp = array_api_compat.array_namespace(lengths)
    lengths = xp.astype(lengths, xp.int64)
    check_range(lengths if isinstance(lengths, np.ndarray) else None, longest, "lengths")
    impossible = (lengths < 0) | (lengths > longest)
    return xp.where(impossible, -1, xp.clip(lengths - start, 0, steps))


def _sum_of_block(split: Any, place: Array, *block: Any) -> Array:
    """Return the sum of a block's loss terms, as an array with the rank of the block."""
    xp = array_api_compat.array_namespace(block[0])
    with np.errstate(all="ignore"):
        chunks = _chunks(split, block, place=place[0], ahead=False)
        sums = [xp.asarray(split.loss.sum_and_weight(x.spikes, **x.options)[0]) for x in chunks]
        return xp.reshape(xp.sum(xp.stack(sums)), (1,) * block[0].ndim)


def _gradient_of_block(split: Any, cotangent: Array, place: Array, *block: Any) -> Array:
    """Return the gradient with respect to the steps that belong to a block."""
    xp = array_api_compat.array_namespace(block[0])
    shape, joined = list(block[0].shape), None
    shape[split.layout.time_axis] = int(place[0, 1])
    with np.errstate(all="ignore"):
        for chunk in _chunks(split, block, place=place[0], ahead=True):
            _, _, pullback = split.loss.sum_weight_and_pullback(chunk.spikes, **chunk.options)
            inside = _selection(split, "input", slice(None), chunk.inside)
            gradient = pullback(cotangent)[inside]
            if joined is None:
                joined = xp.empty(tuple(shape), dtype=gradient.dtype)
            joined[_selection(split, "input", chunk.samples, chunk.own)] = gradient
    return joined
