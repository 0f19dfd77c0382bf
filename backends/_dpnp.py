"""The dpnp adapter, which computes closed-form gradients on SYCL devices."""

from types import SimpleNamespace
from typing import Any

import dpctl
import dpnp
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends.base import ArrayAPIAdapter


class DpnpAdapter(ArrayAPIAdapter):
    """The adapter for arrays on SYCL devices, which have names such as ``opencl:cpu:0``."""

    def __init__(self, xp: Namespace) -> None:
        super().__init__(SimpleNamespace(**(vars(xp) | {"where": _where})))

    def devices(self) -> list[str]:
        default = dpnp.empty(1).sycl_device.filter_string  # raises if dpnp cannot create an array
        names = [device.filter_string for device in dpctl.get_devices()]
        return sorted(names, key=lambda name: name != default)

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        return dpnp.asarray(values, device=device, copy=True)

    def synchronize(self, x: Array) -> None:
        x.sycl_queue.wait()


def _where(condition: Array, x: Any, y: Any) -> Array:
    """Return ``dpnp.where(condition, x, y)``, after making the condition contiguous.

    If both `condition` and `x` have negative strides, dpnp 0.20 reads from the wrong memory.
    """
    return dpnp.where(dpnp.asarray(condition, order="C"), x, y)
