"""CuPy: the closed-form gradients on a CUDA GPU."""

from typing import Any

import array_api_compat.cupy
import cupy
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.generic import (
    at_a_time,
    beside,
    causal_filter,
    compiled,
    device,
    mapped,
    moving_sum,
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
    return array_api_compat.cupy


def devices(xp: Namespace) -> list[str]:
    count = cupy.cuda.runtime.getDeviceCount()  # raises where there is no driver or no GPU
    current = cupy.cuda.Device().id
    return [f"cuda:{i}" for i in sorted(range(count), key=lambda i: i != current)]


def from_host(xp: Namespace, values: np.ndarray, device: Any) -> Array:
    if isinstance(device, str):
        device = cupy.cuda.Device(int(device.removeprefix("cuda:")))
    with device:
        return cupy.array(values)


def to_host(x: Array) -> np.ndarray:
    host: np.ndarray = cupy.asnumpy(x)
    return host


def synchronize(x: Array) -> None:
    with x.device:
        cupy.cuda.get_current_stream().synchronize()
