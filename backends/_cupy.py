"""The CuPy adapter, which computes closed-form gradients on a CUDA GPU."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import array_api_compat.cupy
import cupy
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends._copies import Copies
from spikeloss_xp.backends.base import ArrayAPIAdapter


class CuPyAdapter(ArrayAPIAdapter):
    """The adapter for CuPy arrays, which are on CUDA GPUs with names such as ``cuda:0``."""

    has_current_device: ClassVar[bool] = True

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp)
        self._copies = Copies()

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.cupy

    def devices(self) -> list[str]:
        count = cupy.cuda.runtime.getDeviceCount()  # CuPy raises an error if there is no GPU
        cupy.ones(1)  # CuPy raises an error if it cannot compile a kernel
        current = cupy.cuda.Device().id
        return [f"cuda:{i}" for i in sorted(range(count), key=lambda i: i != current)]

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        if isinstance(device, str):
            device = cupy.cuda.Device(int(device.removeprefix("cuda:")))
        with device:
            return cupy.array(values)

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        make = functools.partial(cupy.asarray, values, dtype=like.dtype)
        return self._made_once(make, like, like.dtype, values)

    def scalar(self, like: Array, value: float) -> Array:
        make = functools.partial(super().scalar, like, value)
        return self._made_once(make, like, like.dtype, ("full", value))

    def arange(self, stop: int, like: Array) -> Array:
        make = functools.partial(super().arange, stop, like)
        return self._made_once(make, like, None, ("arange", stop))

    def _made_once(self, make: Callable[[], Array], like: Array, dtype: Any, key: Any) -> Array:
        """Return an array from the cache, or create it with `make` on the device of `like`."""

        def make_and_wait() -> Array:
            with like.device:
                made = make()
            self.synchronize(made)
            return made

        return self._copies.get(key, dtype, like.device, make_and_wait)

    def number(self, mask: Array, dtype: Any, axis: int | None = None) -> Array:
        return cupy.sum(mask, axis=axis, keepdims=axis is not None, dtype=dtype)

    def shielded(self, u: Array, mask: Array) -> Array:
        return u  # the loss masks its terms and their gradient later

    def in_place(self, x: Array) -> bool:
        return True

    def evaluate(self, loss: Any, input: Array, options: dict[str, Any]) -> Array:
        with input.device:
            return super().evaluate(loss, input, options)

    def scatter(self, axis: int, x: Array, entries: Any, values: Any) -> None:
        cupy.copyto(x, values, where=entries)

    def to_host(self, x: Array) -> np.ndarray:
        host: np.ndarray = cupy.asnumpy(x)
        return host

    def synchronize(self, x: Array) -> None:
        with x.device:
            cupy.cuda.get_current_stream().synchronize()
