"""ndonnx: arrays of a graph for an ONNX file, in which the length of the batch may be unknown."""

import types
from collections.abc import Callable
from typing import Any

import ndonnx

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter


class NdonnxAdapter(ArrayAPIAdapter):
    """Arrays without values: an unknown length is None in a shape, as in the standard."""

    def __init__(self, xp: Namespace) -> None:
        super().__init__(types.SimpleNamespace(**{**vars(xp), **OPERATIONS}))

    def spread(self, x: Array, number: int, axis: int) -> Array:
        return _broadcast_to(x, (*x.shape[:axis], number, *x.shape[axis:][1:]))


def _broadcast_to(x: Array, shape: Any) -> Array:
    # An unknown length is that of `x`.
    return _reshape(ndonnx.broadcast_to(x, tuple(1 if n is None else n for n in shape)), shape)


def _logaddexp(a: Array, b: Array) -> Array:
    return ndonnx.maximum(a, b) + ndonnx.log1p(ndonnx.exp(-abs(a - b)))  # theirs overflows


def _reshape(x: Array, shape: Any) -> Array:
    if tuple(x.shape) == tuple(shape):
        return x
    return ndonnx.reshape(x, tuple(-1 if n is None else n for n in shape))


def _reduced(x: Array, *, axis: Any = None, keepdims: bool = False) -> list[Any]:
    axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    removed = {axis % x.ndim for axis in axes}
    return [1 if i in removed else n for i, n in enumerate(x.shape) if keepdims or i not in removed]


def _shaped(name: str, shape: Callable[..., Any]) -> Callable[..., Array]:
    """Return an operation whose result has a shape, of which ndonnx forgets the known lengths."""

    def call(*arrays: Array, **options: Any) -> Array:
        return _reshape(getattr(ndonnx, name)(*arrays, **options), shape(*arrays, **options))

    return call


OPERATIONS = {
    "broadcast_to": _broadcast_to,
    "logaddexp": _logaddexp,
    "reshape": _reshape,
    "matmul": _shaped("matmul", lambda a, b: (*(a if a.ndim > 2 else b).shape[:-2], a.shape[-2], b.shape[-1])),
    **{name: _shaped(name, _reduced) for name in ("all", "any", "max", "min")},
    **{
        name: _shaped(name, lambda x, *_, **__: x.shape)
        for name in ("argsort", "full_like", "ones_like", "sort", "zeros_like")
    },
}
