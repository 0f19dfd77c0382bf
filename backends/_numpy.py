"""NumPy: the closed-form gradients, and values that are always at hand."""

import math
from typing import Any

import array_api_compat.numpy
import numpy as np

from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends import generic
from spikeloss_xp.backends.generic import (
    beside,
    compiled,
    device,
    devices,
    mapped,
    scope,
    synchronize,
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


CACHED = 1 << 17  # entries that are filtered at a time; terms are computed of twice as many


def namespace(library: str) -> Namespace:
    return array_api_compat.numpy


def from_host(xp: Namespace, values: np.ndarray, device: Any) -> Array:
    return values.copy()


def to_host(x: Array) -> np.ndarray:
    return np.array(x)


def peek(x: Array) -> np.ndarray | None:
    return np.asarray(x)


def at_a_time(x: Array) -> int | None:
    return 2 * CACHED


def causal_filter(
    xp: Namespace, x: Array, kernel: Array | Exponential, reverse: bool, axis: int = -1
) -> Array:
    if not isinstance(kernel, Exponential):
        return generic.causal_filter(xp, x, kernel, reverse)

    def run(part: Array) -> Array:
        return generic.in_blocks(xp, part, kernel, reverse, axis, matmul=_matmul, way="in place")

    return generic.piecewise(run, xp, x, axis, CACHED)


def moving_sum(xp: Namespace, x: Array, window: int, reverse: bool, axis: int = -1) -> Array:
    return causal_filter(xp, x, Exponential(math.inf, window), reverse, axis)


def _matmul(a: Array, b: Array) -> Array:
    """Multiply by a matrix as one product, where `matmul` takes one for each entry of a batch."""
    if b.ndim > 2:
        return a @ b
    return np.reshape(np.reshape(a, (-1, a.shape[-1])) @ b, (*a.shape[:-1], b.shape[-1]))
