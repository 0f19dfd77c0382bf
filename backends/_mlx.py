"""The MLX adapter, which uses MLX's automatic differentiation and rejects float64 arrays."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter

BLOCK = 64  # a sum of more than BLOCK terms is split into blocks of BLOCK terms


class MLXAdapter(ArrayAPIAdapter):
    """The adapter for MLX arrays, which are lazy. Operations run on MLX's default device."""

    differentiates: ClassVar[bool] = True

    def __init__(self, xp: Namespace) -> None:
        created = ("arange", "asarray", "astype", "full", "zeros")
        names = vars(mx) | {name: _without_options(getattr(mx, name)) for name in created}
        names |= {"bool": mx.bool_, "minimum": _minimum, "where": _where}
        del names["float64"]  # `check_dense` raises an error for float64
        super().__init__(SimpleNamespace(**names))

    def devices(self) -> list[str]:
        mx.eval(mx.zeros(1))  # MLX raises an error if it cannot create an array
        return [mx.default_device().type.name]

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        return mx.array(values.copy())  # the copy has no negative strides

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x)

    def check_dense(self, x: Array, argument: str) -> None:
        if x.dtype == mx.float64:
            raise TypeError(
                f"{argument} must not be float64, because MLX computes exponentials only to the "
                f"accuracy of float32: pass {argument}.astype(mlx.core.float32)"
            )

    def device(self, x: Array) -> Any:
        """Return None, because MLX arrays have no device."""

    def synchronize(self, x: Array) -> None:
        mx.eval(x)

    def sum_all(self, x: Array) -> Array:
        # MLX adds the terms of a sum sequentially, which accumulates rounding errors.
        x = mx.reshape(x, (-1,))
        while x.size > BLOCK:
            x = mx.sum(mx.reshape(mx.pad(x, (0, -x.size % BLOCK)), (-1, BLOCK)), axis=1)
        return mx.sum(x)

    def stop_gradient(self, x: Array) -> Array:
        return mx.stop_gradient(x)

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        cotangents = [mx.ones(()) if cotangent is None else cotangent]
        (value,), (gradient,) = mx.vjp(function, [x], cotangents)
        return value, gradient


def _without_options(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return a function that ignores the options `device` and `copy`, which MLX does not have."""
    return lambda *args, device=None, copy=None, **options: function(*args, **options)


def _minimum(x: Array, y: Array) -> Array:
    """Return the elementwise minimum.

    If two entries are equal, each entry receives half of the gradient, unlike in MLX's own
    `minimum`.
    """
    smaller = mx.minimum(x, y)
    if not mx.issubdtype(smaller.dtype, mx.floating):
        return smaller
    return mx.where(x == y, x / 2 + y / 2, smaller)


def _where(condition: Array, x: Any, y: Any) -> Array:
    """Return ``mx.where(condition, x, y)``. An entry that is not selected has gradient 0.

    MLX's own `where` multiplies the gradient of an unselected entry by 0, which gives NaN if the
    gradient is NaN.
    """
    return mx.where(condition, _selected(condition, x), _selected(~condition, y))


def _selected(condition: Array, x: Any) -> Any:
    numbers = isinstance(x, mx.array) and mx.issubdtype(x.dtype, mx.floating)
    return _with_selected_gradient(*mx.broadcast_arrays(condition, x)) if numbers else x


def _select_gradient(primals: Any, cotangent: Array, output: Array) -> tuple[Array, Array]:
    condition, _ = primals
    return mx.zeros_like(condition), mx.where(condition, cotangent, 0.0)


_with_selected_gradient = mx.custom_function(lambda condition, x: x)
_with_selected_gradient.vjp(_select_gradient)
