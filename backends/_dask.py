"""Dask: gradients by closed forms, as a task graph; the filters run block by block."""

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import array_api_compat
import array_api_compat.dask.array
import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array

from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.backends._dask_blocks import Blocks
from spikeloss_xp.backends.base import ArrayAPIAdapter

if TYPE_CHECKING:
    from spikeloss_xp.gradients import ClosedForm
    from spikeloss_xp.losses.base import Loss


class DaskAdapter(ArrayAPIAdapter):
    """Lazy arrays: nothing is computed before the caller computes it."""

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.dask.array

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.compute())

    def synchronize(self, x: Array) -> None:
        x.compute()  # a lazy array has not been started, so there is nothing to wait for

    def check_dense(self, x: Array, argument: str) -> None:
        if any(math.isnan(length) for length in x.shape):
            raise ValueError(
                f"{argument} has chunks of unknown size: call its compute_chunk_sizes() first"
            )

    def evaluate(self, loss: "Loss", input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss, block by block if the blocks add up."""
        x = _without_empty_chunks(input)
        options = {name: _without_empty_chunks(value) for name, value in options.items()}
        blocks = _blocks(loss, x, options)
        return loss.value(x, **options) if blocks is None else blocks.value()

    def value_and_pullback(
        self, loss: "ClosedForm", input: Array, *targets: Any, **options: Any
    ) -> tuple[Array, Pullback]:
        """Return the value of a loss and its pullback, block by block if the blocks add up."""
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
        self, x: Array, kernel: Array | Exponential, *, axis: int = -1, reverse: bool = False
    ) -> Array:
        """Filter each block, with all of time in it.

        Filtered as a whole, time would be split into many small blocks, with tasks for each.
        """
        options: dict[str, Any] = {"axis": axis, "reverse": reverse}
        run: Callable[..., Array] = _filter_block
        taps: tuple[Any, ...] = ()
        if isinstance(kernel, Exponential):
            run = functools.partial(_filter_block, kernel=kernel)
        else:
            taps = (kernel, (x.ndim,))
        indices = tuple(range(x.ndim))
        filtered = da.blockwise(
            run,
            indices,
            x.rechunk({axis % x.ndim: -1}),
            indices,
            *taps,
            concatenate=True,  # the taps come as an array, not as a list of blocks
            dtype=x.dtype,
            meta=meta_from_array(x),  # given, so that dask runs nothing to infer it
            **options,
        )
        return filtered.rechunk(x.chunks)


def _filter_block(block: Array, kernel: Array | Exponential, *, axis: int, reverse: bool) -> Array:
    library = ArrayAPIAdapter(array_api_compat.array_namespace(block))
    return library.causal_filter(block, kernel, axis=axis, reverse=reverse)


def _without_empty_chunks(x: Any) -> Any:
    """Return a Dask array without the empty chunks that a selection leaves: they have no maximum.

    Anything else is returned as it is.
    """
    if not isinstance(x, da.Array):
        return x
    filled = {
        axis: tuple(filter(None, lengths))
        for axis, lengths in enumerate(x.chunks)
        if 0 in lengths and any(lengths)
    }
    return x.rechunk(filled)


def _blocks(loss: Any, input: Array, arguments: dict[str, Any]) -> Blocks | None:
    """Return a call of a loss in blocks, or None if it has to be evaluated as a whole."""
    names = ("target", "where", "lengths", "weight")
    if not hasattr(loss, "split") or "target" not in arguments or not set(arguments) <= set(names):
        return None
    split = loss.split(input, {name: arguments.get(name) for name in names})
    if split is None:
        return None
    time = split.layout.time_axis
    if input.numblocks[time] > 1 and time not in split.independent:
        return None  # a loss of whole trains sums them chunk by chunk
    return Blocks(split, input, arguments)
