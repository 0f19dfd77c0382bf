"""The ndonnx adapter for ONNX export: arrays have no values, and sizes may be unknown."""

from types import SimpleNamespace
from typing import Any

import ndonnx

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter


class NdonnxAdapter(ArrayAPIAdapter):
    """The adapter for arrays in an ONNX graph; unknown sizes are None, as in the standard."""

    is_lazy = True

    def __init__(self, xp: Namespace) -> None:
        super().__init__(SimpleNamespace(**{**vars(xp), **OPERATIONS}))

    def to_host(self, x: Array) -> Any:
        return x.unwrap_numpy().copy()  # raises if `x` has no values

    def spread(self, axis: int, x: Array, number: int) -> Array:
        # Broadcasting adds fewer graph nodes than `repeat`.
        return _broadcast_to(x, (*x.shape[:axis], number, *x.shape[axis:][1:]))


def _reshape(x: Array, shape: Any) -> Array:
    return ndonnx.reshape(x, tuple(-1 if n is None else n for n in shape))


def _broadcast_to(x: Array, shape: Any) -> Array:
    """Broadcast `x` to a shape. If a size in the shape is None, the axis keeps its size.

    In that case, ONNX receives 1 instead of None. If ONNX broadcasts an axis to the size 1, the
    axis keeps its size.
    """
    return _reshape(ndonnx.broadcast_to(x, tuple(1 if n is None else n for n in shape)), shape)


def _logaddexp(a: Array, b: Array) -> Array:
    """Return ``log(exp(a) + exp(b))`` without overflow; `ndonnx.logaddexp` can overflow."""
    return ndonnx.maximum(a, b) + ndonnx.log1p(ndonnx.exp(-abs(a - b)))


def _shaped(name: str, shape: Any) -> Any:
    """Return an operation that sets the shape of its result, because ndonnx sets only the rank."""
    return lambda *arrays, **options: _reshape(
        getattr(ndonnx, name)(*arrays, **options), shape(*arrays, **options)
    )


def _of_sum(x: Array, **options: Any) -> Any:
    return ndonnx.sum(ndonnx.astype(x, ndonnx.float32), **options).shape  # only the shape is used


def _of_product(a: Array, b: Array) -> Any:
    return (*(a if a.ndim > 2 else b).shape[:-2], a.shape[-2], b.shape[-1])


OPERATIONS = {"reshape": _reshape, "broadcast_to": _broadcast_to, "logaddexp": _logaddexp}
OPERATIONS |= {"matmul": _shaped("matmul", _of_product)}
OPERATIONS |= {name: _shaped(name, _of_sum) for name in ("all", "any", "max", "min")}
OPERATIONS |= {name: _shaped(name, lambda x, **_: x.shape) for name in ("ones_like", "zeros_like")}
