"""The ndonnx adapter, which exports losses to ONNX.

During the export, arrays have no values, and the sizes of their axes may be unknown.
"""

from types import SimpleNamespace
from typing import Any

import ndonnx

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter


class NdonnxAdapter(ArrayAPIAdapter):
    """The adapter for arrays in an ONNX graph. The size of an axis is None if it is unknown."""

    is_lazy = True

    def __init__(self, xp: Namespace) -> None:
        super().__init__(SimpleNamespace(**{**vars(xp), **OPERATIONS}))

    def to_host(self, x: Array) -> Any:
        return x.unwrap_numpy().copy()  # ndonnx raises an error if `x` has no values

    def spread(self, axis: int, x: Array, number: int) -> Array:
        # Broadcasting adds fewer graph nodes than `repeat`.
        return _broadcast_to(x, (*x.shape[:axis], number, *x.shape[axis:][1:]))


def _reshape(x: Array, shape: Any) -> Array:
    return ndonnx.reshape(x, tuple(-1 if n is None else n for n in shape))


def _broadcast_to(x: Array, shape: Any) -> Array:
    """Broadcast `x` to a shape. An axis whose size is given as None is not changed.

    In ONNX, broadcasting an axis to the size 1 leaves the axis unchanged.
    """
    return _reshape(ndonnx.broadcast_to(x, tuple(1 if n is None else n for n in shape)), shape)


def _logaddexp(a: Array, b: Array) -> Array:
    """Return ``log(exp(a) + exp(b))`` without the overflow that `ndonnx.logaddexp` can cause."""
    return ndonnx.maximum(a, b) + ndonnx.log1p(ndonnx.exp(-abs(a - b)))


def _shaped(name: str, shape: Any) -> Any:
    """Return a version of an ndonnx function whose result has a known shape.

    ndonnx itself sets only the rank of the result. The function `shape` computes the shape of the
    result from the arguments.
    """
    return lambda *arrays, **options: _reshape(
        getattr(ndonnx, name)(*arrays, **options), shape(*arrays, **options)
    )


def _of_sum(x: Array, **options: Any) -> Any:
    return ndonnx.sum(ndonnx.astype(x, ndonnx.float32), **options).shape


def _of_product(a: Array, b: Array) -> Any:
    return (*(a if a.ndim > 2 else b).shape[:-2], a.shape[-2], b.shape[-1])


OPERATIONS = {"reshape": _reshape, "broadcast_to": _broadcast_to, "logaddexp": _logaddexp}
OPERATIONS |= {"matmul": _shaped("matmul", _of_product)}
OPERATIONS |= {name: _shaped(name, _of_sum) for name in ("all", "any", "max", "min")}
OPERATIONS |= {name: _shaped(name, lambda x, **_: x.shape) for name in ("ones_like", "zeros_like")}
