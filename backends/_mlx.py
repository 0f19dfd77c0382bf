"""MLX: gradients by its automatic differentiation, in float32."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import mlx.core as mx
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter


class MLXAdapter(ArrayAPIAdapter):
    """Lazy arrays, which have no device: operations run on the device of their stream."""

    differentiates: ClassVar[bool] = True

    def __init__(self, xp: Namespace) -> None:
        # Functions of MLX take no `device`, and its `astype` no `copy`.
        names = ("arange", "asarray", "astype", "full", "zeros")
        wrapped = {name: _without_placement(getattr(xp, name)) for name in names}
        super().__init__(SimpleNamespace(**(vars(xp) | wrapped), bool=xp.bool_))

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return mx

    def devices(self) -> list[str]:
        mx.eval(mx.zeros(1))  # raises where no array can be made
        return [mx.default_device().type.name]

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        return mx.array(np.ascontiguousarray(values))  # with strides that MLX accepts

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.astype(mx.float32) if x.dtype == mx.bfloat16 else x)

    def check_dense(self, x: Array, argument: str) -> None:
        if x.dtype == mx.float64:
            raise TypeError(
                f"{argument} must not be float64, in which the functions of MLX are only as "
                "accurate as in float32: pass x.astype(mlx.core.float32)"
            )

    def device(self, x: Array) -> Any:
        """Return None: arrays have no device."""

    def to_device_of(self, x: Array, like: Array) -> Array:
        return x

    def synchronize(self, x: Array) -> None:
        mx.eval(x)

    def constant_of(self, x: Array) -> Array:
        return mx.stop_gradient(x)

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        cotangent = mx.ones(()) if cotangent is None else cotangent
        (value,), (gradient,) = mx.vjp(function, [x], [cotangent])
        return value, gradient


def _without_placement(function: Callable[..., Array]) -> Callable[..., Array]:
    """Return a function that takes `device` and `copy`, and ignores them."""
    return lambda *args, device=None, copy=None, **options: function(*args, **options)
