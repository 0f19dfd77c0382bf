"""The array libraries under test."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spikeloss_xp._arrays import adapter_of
from spikeloss_xp.backends import ArrayAPIAdapter
from spikeloss_xp.backends._available import adapter, describe

REQUIRED = set(os.environ.get("SPIKELOSS_XP_REQUIRED_BACKENDS", "").split())
"""Backends that have to be tested: a run fails where one of them is missing."""

BACKENDS = {  # how the test names it: library, device, the widest floating dtype
    "numpy": ("numpy", "cpu", "float64"),
    "torch": ("torch", "cpu", "float64"),
    "jax": ("jax", "cpu:0", "float32"),
    "jax-x64": ("jax", "cpu:0", "float64"),
    "array-api-strict": ("array_api_strict", "CPU_DEVICE", "float64"),
    "array-api-strict-device1": ("array_api_strict", "device1", "float64"),
    "dpnp": ("dpnp", "opencl:cpu:0", "float64"),
    "mlx": ("mlx", "cpu", "float32"),
    "cupy": ("cupy", "cuda:0", "float64"),
    "torch-cuda": ("torch", "cuda:0", "float64"),
    "jax-cuda": ("jax", "gpu:0", "float64"),
}
ON_GPU = ("cupy", "torch-cuda", "jax-cuda")
STAND_INS = os.environ.get("SPIKELOSS_XP_STAND_INS", "").split()
"""Those of "cupy" and "torch-cuda" that a stand-in on the CPU takes the place of in this run."""

if STAND_INS:
    sys.path.insert(0, str(Path(__file__).with_name("stand_ins")))  # `cupy` is there
if "torch-cuda" in STAND_INS:
    import torch_device

    torch_device.install()
    BACKENDS["torch-cuda"] = ("torch", torch_device.DEVICE, "float64")
JAX = tuple(name for name, (library, _, _) in BACKENDS.items() if library == "jax")


@dataclass(frozen=True)
class Backend:
    """An array library under test."""

    name: str
    library: str
    place: str
    dtype: str
    """The floating dtype that tests compute in unless they say otherwise."""

    @property
    def adapter(self) -> ArrayAPIAdapter:
        """The adapter of the library, which the core hands on as its library object."""
        return adapter(self.library)

    @property
    def xp(self) -> Any:
        return self.adapter.xp

    @property
    def device(self) -> object:
        """What the library's adapter takes for the device under test."""
        return self.xp.Device(self.place) if self.library == "array_api_strict" else self.place

    @property
    def on_gpu(self) -> bool:
        return self.name in ON_GPU

    def has(self, dtype: str) -> bool:
        """Return whether losses accept a dtype of the library in the state it is tested in."""
        if self.name == "jax" and dtype.endswith("64"):  # without its 64-bit mode
            return False
        return hasattr(self.xp, dtype)

    @property
    def rtol(self) -> float:
        """A few hundred roundings of `dtype`: sums of that many terms lose no more."""
        return {"float64": 1e-12, "float32": 1e-5}[self.dtype]

    @property
    def differentiates(self) -> bool:
        """Whether gradients come from automatic differentiation."""
        return self.adapter.differentiates

    @property
    def reads_values(self) -> bool:
        """Whether the values of an array can be read for free."""
        return self.adapter.concrete_or_none(self.asarray([0])) is not None

    @staticmethod
    def device_of(x: Any) -> Any:
        """Return the device of an array, or None for arrays of MLX, which have none."""
        return getattr(x, "device", None)

    def compiled(self, function: Any) -> Any:
        """Compile a function as users of the library would; many small ones run sooner for it."""
        return self.adapter.compiled(function)

    def asarray(self, values: Any, dtype: str | None = None) -> Any:
        """Make an array on the device under test; floating values in `dtype`, by default."""
        host = np.asarray(values)
        if dtype is None and host.dtype.kind == "f":
            dtype = self.dtype
        made = self.adapter.from_host(host, self.device)
        return made if dtype is None else self.xp.astype(made, getattr(self.xp, dtype))

    def numpy(self, x: Any) -> np.ndarray:
        """Copy an array of the library to NumPy, after making sure that it is one."""
        assert adapter_of(x) is self.adapter
        return self.adapter.to_host(x)


def problem(name: str) -> str | None:
    """Return why a backend cannot be tested on this machine, or None."""
    library, place, _ = BACKENDS[name]
    found = describe(library)
    if found.usable and name in ON_GPU and place not in found.devices:
        return f"no CUDA device: {', '.join(found.devices)} only"
    return found.problem


MISSING = {name: why for name in BACKENDS if (why := problem(name))}
"""The backends that this machine does not have, and why."""

TESTED = tuple(name for name in BACKENDS if name not in MISSING or name in REQUIRED)
"""The backends that tests are collected for. A missing one makes its tests fail."""


def parameters(item: pytest.Item) -> set[str]:
    """Return the parameters of a test that are strings; the name of its backend is one."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return {value for value in values if isinstance(value, str)}


@contextlib.contextmanager
def on(name: str) -> Iterator[Backend]:
    """Yield a backend in the state it is tested in; fail, or skip if it need not be there."""
    if name in MISSING:
        (pytest.fail if name in REQUIRED else pytest.skip)(f"{name}: {MISSING[name]}")
    library, place, dtype = BACKENDS[name]
    with contextlib.ExitStack() as state:
        state.enter_context(adapter(library).scope(dtype))
        if library == "jax":
            import jax

            state.enter_context(jax.numpy_rank_promotion("raise"))
        if library == "array_api_strict":
            import array_api_strict

            strictest = array_api_strict.ArrayAPIStrictFlags(
                boolean_indexing=False, data_dependent_shapes=False
            )
            state.enter_context(strictest)
        yield Backend(name, library, place, dtype)
