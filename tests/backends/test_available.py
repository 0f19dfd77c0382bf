"""The registry of adapters, and reports on array libraries: version and devices, or an error.

Adapters of third parties are found by an entry point of their distribution.
"""

import importlib.metadata
import importlib.util

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.programs import run_python
from _support.root import STAND_INS
from spikeloss_xp.backends import ArrayAPIAdapter, BackendInfo
from spikeloss_xp.backends._available import BUILT_IN, adapter, adapter_class, describe


def test_built_in_adapters_are_always_listed():
    infos = sx.backends.available()
    names = ("numpy", "cupy", "torch", "jax", "dask", "dpnp", "mlx", "ndonnx")
    assert tuple(infos)[: len(names)] == tuple(BUILT_IN) == names
    assert all(info == describe(name) and info.library == name for name, info in infos.items())
    assert infos["numpy"] == BackendInfo("numpy", np.__version__, ("cpu",), None)
    assert adapter("numpy") is adapter("numpy")
    assert "array_api_strict" not in infos
    assert adapter_class("array_api_strict") is ArrayAPIAdapter


def test_library_has_its_version_or_a_problem():
    """`test_devices_are_names_with_default_first` of test_adapters.py has the devices."""
    for library in filter(importlib.util.find_spec, ("torch", "jax")):
        assert describe(library).version.startswith(importlib.metadata.version(library))
    problem = "ModuleNotFoundError: No module named 'no_such_library'"
    assert describe("no_such_library") == BackendInfo("no_such_library", problem=problem)


ON_TWO_GPUS = """
import cupy, numpy as np
from spikeloss_xp.backends._available import adapter, describe

for device, number in ("cuda:0", 0), ("cuda:1", 1), (cupy.cuda.Device(0), 0):
    assert adapter("cupy").from_host(np.ones(2), device).device.id == number
    assert cupy.cuda.Device().id == 0
with cupy.cuda.Device(1):
    info = describe("cupy")
    assert (info.devices, info.problem) == (("cuda:1", "cuda:0"), None)

def fail(*_):
    raise RuntimeError("no device")

for owner, name in (cupy.cuda.runtime, "getDeviceCount"), (cupy, "ones"):
    works = getattr(owner, name)
    setattr(owner, name, fail)
    info = describe("cupy")
    assert (info.devices, info.problem) == ((), "RuntimeError: no device"), name
    setattr(owner, name, works)
"""


def test_gpus_are_listed_with_current_first_or_have_a_problem():
    run_python(ON_TWO_GPUS, path=STAND_INS)


def test_gpu_that_a_driver_counts_and_cannot_use_is_not_listed(monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("the GPU of this machine can be used")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert describe("torch").devices == ("cpu",)


INSTALLED = {  # an adapter for array-api-strict, and libraries that fail to import
    **{f"{library}.py": "raise RuntimeError" for library in BUILT_IN if library != "numpy"},
    "cupy.py": "raise OSError(22, 'no driver')",
    "toyadapter.py": """
from spikeloss_xp.backends import ArrayAPIAdapter

windows = []

class ToyAdapter(ArrayAPIAdapter):
    def moving_sum(self, x, window, axis=-1, *, reverse=False):
        windows.append(window)
        return super().moving_sum(x, window, axis, reverse=reverse)
""",
    "toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
    "toy-1.0.dist-info/entry_points.txt": """
[spikeloss_xp.backends]
array_api_strict = toyadapter:ToyAdapter
json = no_such_adapter:Adapter
decimal = toyadapter
numpy = toyadapter:ToyAdapter
""",
}
REGISTERED = """
import array_api_strict as xp, numpy as np, spikeloss_xp as sx, toyadapter
from spikeloss_xp.backends._available import BUILT_IN, adapter, describe

spikes = np.random.default_rng(1).integers(0, 2, (3, 4, 20)).astype("float64")
evaluate = sx.value_and_grad(sx.SpikeRate(0.5, 0.0, time_axis=-1, moving_window=5))
for got, expected in zip(evaluate(xp.asarray(spikes), [0, 1, 3]), evaluate(spikes, [0, 1, 3])):
    assert type(got) is type(xp.asarray(spikes))
    np.testing.assert_allclose(adapter("array_api_strict").to_host(got), expected, rtol=1e-12)
assert toyadapter.windows == [5, 5]  # forwards, and backwards for the gradient
assert "NumPyAdapter" in repr(adapter("numpy"))

infos = sx.backends.available()
assert list(infos)[len(BUILT_IN) :] == ["array_api_strict", "decimal", "json"]
assert infos["array_api_strict"].usable
for library, problem in {
    "cupy": "OSError: [Errno 22] no driver",
    "dpnp": "RuntimeError: RuntimeError()",
    "json": "ModuleNotFoundError: No module named 'no_such_adapter'",
    "decimal": "TypeError: entry point 'toyadapter' of group spikeloss_xp.backends must be a "
    "subclass of spikeloss_xp.backends.ArrayAPIAdapter",
}.items():
    assert infos[library].problem.startswith(problem), infos[library]
    assert infos[library].version is None
    assert infos[library].devices == ()
"""


def test_registered_adapters_are_used_and_listed_after_built_in_ones(tmp_path):
    """They cannot replace a built-in one. A library that fails to import has a problem."""
    pytest.importorskip("array_api_strict")
    for name, text in INSTALLED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    run_python(REGISTERED, path=tmp_path)
