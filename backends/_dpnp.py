"""dpnp: gradients by closed forms, on the device and in the queue of the input."""

from typing import Any

import dpctl
import dpnp
import numpy as np

from spikeloss_xp._typing import Array
from spikeloss_xp.backends.base import ArrayAPIAdapter


class DpnpAdapter(ArrayAPIAdapter):
    """Arrays on a SYCL device: names such as ``opencl:cpu:0`` select one."""

    def devices(self) -> list[str]:
        default = dpnp.empty(1).sycl_device.filter_string  # raises where no array can be made
        names = [device.filter_string for device in dpctl.get_devices()]
        return sorted(names, key=lambda name: name != default)

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        return dpnp.asarray(values, device=device, copy=True)

    def to_host(self, x: Array) -> np.ndarray:
        host: np.ndarray = dpnp.asnumpy(x)
        return host

    def synchronize(self, x: Array) -> None:
        x.sycl_queue.wait()
