"""Reports on array libraries: version and devices, or the error why one cannot be used."""

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.programs import run_python
from spikeloss_xp.backends import BackendInfo
from spikeloss_xp.backends._available import BUILT_IN, describe

# A stub of CuPy: only the names that importing the adapter and array_api_compat needs.
CUPY = {
    "cupy/__init__.py": """
from numpy import *
from numpy import abs, bool_, isdtype, max, min, ndarray, round, unstack, vecdot
__version__ = "99.1"
from cupy import cuda
made_on = []
def array(values):
    made_on.append(cuda.device.current)
    return values.copy()
""",
    "cupy/fft.py": "from numpy.fft import *",
    "cupy/linalg.py": "from numpy.linalg import *",
    "cupy/cuda/__init__.py": "from cupy.cuda import device, runtime\nDevice = device.Device",
    "cupy/cuda/device.py": """
current = 1
class Device:
    def __init__(self, id=None):
        self.id = current if id is None else id
    def __enter__(self):
        global current
        self.before, current = current, self.id
    def __exit__(self, *error):
        global current
        current = self.before
""",
    "cupy/cuda/runtime.py": "def getDeviceCount():\n    return 2",
}
NO_DRIVER = """
class CUDARuntimeError(RuntimeError):
    pass
def getDeviceCount():
    raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
"""


def describe_stub(folder: Path, library: str, files: dict[str, str]) -> dict[str, Any]:
    """Write a stub of a library from `files`, and return its `BackendInfo` as a dict."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    program = (
        "import dataclasses, json; from spikeloss_xp.backends._available import describe\n"
        f"print(json.dumps(dataclasses.asdict(describe({library!r}))))"
    )
    return json.loads(run_python(program, path=folder))


def test_built_in_adapters_are_always_listed():
    infos = sx.backends.available()
    assert (
        tuple(infos)[: len(BUILT_IN)]
        == tuple(BUILT_IN)
        == ("numpy", "cupy", "torch", "jax", "dask", "ndonnx")
    )
    assert all(info == describe(name) and info.library == name for name, info in infos.items())
    assert infos["numpy"] == BackendInfo("numpy", np.__version__, ("cpu",), None)


@pytest.mark.parametrize("library", [*BUILT_IN, "array_api_strict"])
def test_library_has_version_and_devices_or_problem(library):
    info = describe(library)
    if importlib.util.find_spec(library) is None:
        problem = f"ModuleNotFoundError: No module named {library!r}"
        assert info == BackendInfo(library, problem=problem)
    elif info.usable:
        assert info.problem is None
        assert info.version
        assert len(info.devices) == len(set(info.devices)) >= 1
    else:
        assert info.devices == ()
        assert ": " in info.problem


@pytest.mark.parametrize("library", ["jax", "numpy", "torch"])
def test_version_equals_distribution_version(library):
    pytest.importorskip(library)
    version = describe(library).version
    assert version.partition("+")[0] == importlib.metadata.version(library).partition("+")[0]


def test_library_not_installed_has_problem():
    problem = "ModuleNotFoundError: No module named 'no_such_library'"
    assert describe("no_such_library") == BackendInfo("no_such_library", problem=problem)


@pytest.mark.parametrize(
    ("raised", "problem"),
    {
        "ImportError('libfoo.so.1 not found')": "ImportError: libfoo.so.1 not found",
        "OSError(22, 'no such driver')": "OSError: [Errno 22] no such driver",
        "RuntimeError()": "RuntimeError: RuntimeError()",
    }.items(),
)
@pytest.mark.parametrize("library", ["cupy", "jax", "torch"])
def test_library_that_fails_to_import_has_problem(tmp_path, library, raised, problem):
    info = describe_stub(tmp_path, library, {f"{library}/__init__.py": f"raise {raised}"})
    assert info == {"library": library, "version": None, "devices": [], "problem": problem}


def test_gpu_library_without_gpu_has_problem(tmp_path):
    info = describe_stub(tmp_path, "cupy", CUPY | {"cupy/cuda/runtime.py": NO_DRIVER})
    assert info["version"] == "99.1"
    assert info["devices"] == []
    assert info["problem"] == (
        "CUDARuntimeError: cudaErrorNoDevice: no CUDA-capable device is detected"
    )


def test_gpus_are_listed_with_current_first(tmp_path):
    info = describe_stub(tmp_path, "cupy", CUPY)
    assert info == {
        "library": "cupy",
        "version": "99.1",
        "devices": ["cuda:1", "cuda:0"],
        "problem": None,
    }


def test_from_host_uses_named_gpu_and_keeps_current(tmp_path):
    describe_stub(tmp_path, "cupy", CUPY)
    program = (
        "import cupy, numpy as np\n"
        "from spikeloss_xp.backends._available import adapter\n"
        "for device in 'cuda:0', 'cuda:1', cupy.cuda.Device(0):\n"
        "    adapter('cupy').from_host(np.ones(2), device)\n"
        "print(cupy.made_on, cupy.cuda.device.current)"
    )
    assert run_python(program, path=tmp_path).strip() == "[0, 1, 0] 1"
