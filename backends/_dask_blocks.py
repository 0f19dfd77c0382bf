"""Dask: the sum of a loss and its gradient, one block after the other.

A block of the input is evaluated with the entries of the target and of the masks that belong to
it, as an array of its own library. Blocks of time overlap by the memory of the loss, so that their
sums add up.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import array_api_compat
import dask.array as da
import numpy as np
from dask.array.overlap import ensure_minimum_chunksize, overlap
from dask.array.utils import meta_from_array

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array

if TYPE_CHECKING:
    from spikeloss_xp.losses.split import Chunk, Split

ARGUMENTS = ("target", "where", "lengths")  # in the order in which a block gets them
CLASSES, PLACE, WEIGHT = -1, -2, -3  # indices of the axes that the input does not have


class Blocks:
    """A call of a loss on Dask arrays, in blocks that add up.

    Parameters
    ----------
    split : Split
        The loss, and how its call may be split.
    input : dask array
        The spikes, without empty chunks.
    arguments : dict
        The other arguments of the call, by name.
    """

    def __init__(self, split: "Split", input: da.Array, arguments: dict[str, Any]) -> None:
        self.split, self.time = split, split.layout.time_axis
        self.reach = min(split.loss.memory or 0, split.layout.steps - 1)
        dependent = set(range(input.ndim)) - split.independent
        x = input.rechunk(dict.fromkeys(dependent, -1))
        if x.numblocks[self.time] > 1:  # a block has to reach into one neighbour only
            longer = ensure_minimum_chunksize(max(self.reach, 1), x.chunks[self.time])
            x = x.rechunk({self.time: longer})
        self.input, self.arguments = x, arguments

    def value(self) -> da.Array:
        """Return the value of the loss."""
        one_each = {axis: (1,) * number for axis, number in enumerate(self.input.numblocks)}
        total = self._blockwise(_sum_of_block, 0, one_each, self.split.dtype).sum()
        return total if self.split.divisor is None else total / self.split.divisor

    def gradient(self, cotangent: da.Array) -> da.Array:
        """Return the gradient with respect to the input, for a cotangent of the value."""
        if self.split.divisor is not None:
            cotangent = cotangent / self.split.divisor
        dtype = self.input.dtype if self.input.dtype.kind == "f" else self.split.dtype
        own = {self.time: self.input.chunks[self.time]}
        return self._blockwise(_gradient_of_block, self.reach, own, dtype, cotangent)

    def _blockwise(
        self,
        function: Any,
        ahead: int,
        chunks: dict[int, tuple[int, ...]],
        dtype: Any,
        *scalars: da.Array,
    ) -> da.Array:
        """Call a function with each block, the entries that belong to it, and its place.

        A block includes the last steps of the one before, and so many of the one after.
        """
        x, weight = self.input, self.arguments.get("weight")
        if isinstance(weight, da.Array):
            weight = weight.rechunk(-1)
        elif weight is not None:
            weight = np.asarray(weight)
        pairs = [weight, (WEIGHT,) if isinstance(weight, da.Array) else None]
        pairs += [self._places(), (self.time, PLACE), *self._overlapping("input", x, ahead)]
        for name in ARGUMENTS:
            pairs += self._overlapping(name, self._aligned(name), ahead)
        for scalar in scalars:
            pairs += [scalar, ()]
        return da.blockwise(
            functools.partial(function, self.split.without_arrays()),
            tuple(range(x.ndim)),
            *pairs,
            adjust_chunks=chunks,
            align_arrays=False,
            concatenate=True,  # a block comes as an array, not as a list of blocks
            dtype=dtype,
            meta=meta_from_array(x, x.ndim, dtype),  # given, so that dask runs nothing to infer it
        )

    def _aligned(self, name: str) -> da.Array | None:
        """Return an argument in chunks that are those of the input along their common axes."""
        value = self.arguments.get(name)
        if value is None:
            return None
        axes = self.split.axes[name]
        chunks = tuple(-1 if axis is None else self.input.chunks[axis] for axis in axes)
        if isinstance(value, da.Array):
            return value.rechunk(chunks)
        return da.from_array(np.asarray(value), chunks=chunks)

    def _overlapping(self, name: str, x: da.Array | None, ahead: int) -> list[Any]:
        """Return an argument whose blocks include steps of their neighbours, and its indices."""
        if x is None:
            return [None, None]
        axes = self.split.axes[name]
        indices = tuple(CLASSES if axis is None else axis for axis in axes)
        if self.reach and self.time in axes and x.numblocks[axes.index(self.time)] > 1:
            depth = {axes.index(self.time): (self.reach, ahead)}
            x = overlap(x, depth=depth, boundary="none", allow_rechunk=False)
        return [x, indices]

    def _places(self) -> da.Array:
        """Return the place of each block in time: see `Split.chunks`."""
        own = np.asarray(self.input.chunks[self.time])
        first = np.cumsum(own) - own
        places = np.stack([np.minimum(first, self.reach), own, first], axis=1)
        return da.from_array(places, chunks=(1, 3))


def _chunks(split: "Split", block: tuple[Any, ...], **options: Any) -> Iterator["Chunk"]:
    spikes, *others = block
    on_host = isinstance(spikes, np.ndarray)
    entries = _tuning.CHUNK if on_host else spikes.size  # a GPU takes all at once
    arguments = dict(zip(ARGUMENTS, others, strict=True))
    return split.chunks(spikes, arguments, entries=entries, **options)


def _sum_of_block(split: "Split", weight: Any, place: Array, *block: Any) -> Array:
    """Return the sum of a block, with an axis of length 1 for each axis of the block."""
    xp = array_api_compat.array_namespace(block[0])
    with np.errstate(all="ignore"):
        sums = [
            xp.asarray(split.loss.sum_and_weight(chunk.spikes, **chunk.options, weight=weight)[0])
            for chunk in _chunks(split, block, place=place[0], ahead=False)
        ]
        return xp.reshape(xp.sum(xp.stack(sums)), (1,) * block[0].ndim)


def _gradient_of_block(
    split: "Split", weight: Any, place: Array, *block_and_cotangent: Any
) -> Array:
    """Return the gradient with respect to the own steps of a block."""
    *block, cotangent = block_and_cotangent
    xp = array_api_compat.array_namespace(block[0])
    shape, joined = list(block[0].shape), None
    shape[split.layout.time_axis] = int(place[0, 1])
    with np.errstate(all="ignore"):
        for chunk in _chunks(split, tuple(block), place=place[0], ahead=True):
            _, _, pullback = split.loss.sum_weight_and_pullback(
                chunk.spikes, **chunk.options, weight=weight
            )
            inside = split.selection("input", slice(None), chunk.inside)
            gradient = pullback(cotangent)[inside]
            if joined is None:
                joined = xp.empty(tuple(shape), dtype=gradient.dtype)
            joined[split.selection("input", chunk.samples, chunk.own)] = gradient
    return joined
