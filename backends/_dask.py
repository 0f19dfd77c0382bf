"""Dask: gradients by closed forms, as a task graph; the filters run block by block."""

import functools
from collections.abc import Callable
from typing import Any

import array_api_compat
import array_api_compat.dask.array
import dask.array as da
import numpy as np
from dask.array.utils import meta_from_array

from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter


class DaskAdapter(ArrayAPIAdapter):
    """Lazy arrays: nothing is computed before the caller computes it."""

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.dask.array

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.compute())

    def synchronize(self, x: Array) -> None:
        x.compute()  # a lazy array has not been started, so there is nothing to wait for

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
