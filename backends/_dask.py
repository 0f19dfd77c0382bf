"""Dask: the closed-form gradients, built as a task graph; the two filters run block by block."""

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
from spikeloss_xp.backends import generic
from spikeloss_xp.backends.generic import (
    at_a_time,
    beside,
    compiled,
    device,
    devices,
    from_host,
    mapped,
    peek,
    scope,
    total,
    value_and_grad,
    value_of,
    version,
)

__all__ = [
    "at_a_time",
    "beside",
    "causal_filter",
    "compiled",
    "device",
    "devices",
    "from_host",
    "mapped",
    "moving_sum",
    "namespace",
    "peek",
    "scope",
    "synchronize",
    "to_host",
    "total",
    "value_and_grad",
    "value_of",
    "version",
]


def namespace(library: str) -> Namespace:
    return array_api_compat.dask.array


def to_host(x: Array) -> np.ndarray:
    return np.array(x.compute())


def synchronize(x: Array) -> None:
    x.compute()  # nothing has been started that could be waited for


def causal_filter(
    xp: Namespace, x: Array, kernel: Array | Exponential, reverse: bool, axis: int = -1
) -> Array:
    if isinstance(kernel, Exponential):
        return _along_time(generic.causal_filter, x, axis, kernel=kernel, reverse=reverse)
    return _along_time(generic.causal_filter, x, -1, kernel, reverse=reverse)


def moving_sum(xp: Namespace, x: Array, window: int, reverse: bool, axis: int = -1) -> Array:
    return _along_time(generic.moving_sum, x, axis, window=window, reverse=reverse)


def _along_time(
    run: Callable[..., Array], x: Array, axis: int, *kernel: Array, **options: Any
) -> Array:
    """Run a filter on each block, with all of time in it.

    Run on the whole, it would cut time into many small blocks, with tasks for each.
    """
    whole = x.rechunk({axis % x.ndim: -1})
    indices = tuple(range(x.ndim))
    taps = [part for k in kernel for part in (k, (x.ndim,))]
    filtered = da.blockwise(
        functools.partial(_run, run),
        indices,
        whole,
        indices,
        *taps,
        concatenate=True,  # the taps come as an array, not as a list of blocks
        dtype=x.dtype,
        meta=meta_from_array(x),  # known, so that nothing is run to find out
        axis=axis,
        **options,
    )
    return filtered.rechunk(x.chunks)


def _run(run: Callable[..., Array], block: Array, *kernel: Array, **options: Any) -> Array:
    return run(array_api_compat.array_namespace(block), block, *kernel, **options)
