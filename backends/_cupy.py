"""CuPy: gradients by closed forms, on a CUDA GPU."""

import functools
from typing import Any, ClassVar

import array_api_compat.cupy
import cupy
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends._copies import Copies
from spikeloss_xp.backends.base import ArrayAPIAdapter


class CuPyAdapter(ArrayAPIAdapter):
    """Arrays on a GPU: devices have numbers, and work is queued in a stream."""

    has_current_device: ClassVar[bool] = True

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp)
        self._copies = Copies()

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.cupy

    def devices(self) -> list[str]:
        count = cupy.cuda.runtime.getDeviceCount()  # raises where there is no driver or no GPU
        current = cupy.cuda.Device().id
        return [f"cuda:{i}" for i in sorted(range(count), key=lambda i: i != current)]

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        if isinstance(device, str):
            device = cupy.cuda.Device(int(device.removeprefix("cuda:")))
        with device:
            return cupy.array(values)

    def host_constant(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        def copy() -> Array:
            with like.device:
                made = cupy.asarray(values, dtype=like.dtype)
                self.synchronize(made)  # later calls may compute in another stream
                return made

        return self._copies.get(values, like.dtype, like.device, copy)

    def constant(self, like: Array, value: float) -> Array:
        make = functools.partial(super().constant, like, value)
        return self._copies.get(("full", value), like.dtype, like.device, make)

    def arange(self, stop: int, like: Array) -> Array:
        make = functools.partial(super().arange, stop, like)
        return self._copies.get(("arange", stop), None, like.device, make)

    def shielded(self, u: Array, mask: Array, value: float) -> Array:
        return u  # a closed form selects the terms and their gradient

    def in_place(self, x: Array) -> bool:
        return True

    def scatter(self, x: Array, entries: Any, values: Any, axis: int) -> None:
        cupy.copyto(x, values, where=entries)

    def to_host(self, x: Array) -> np.ndarray:
        host: np.ndarray = cupy.asnumpy(x)
        return host

    def synchronize(self, x: Array) -> None:
        with x.device:
            cupy.cuda.get_current_stream().synchronize()
