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
from _support.root import STAND_INS
from spikeloss_xp.backends import BackendInfo
from spikeloss_xp.backends._available import BUILT_IN, describe


def described(before: str, library: str, path: Path) -> dict[str, Any]:
    """Return the `BackendInfo` of a library, as a dict, in a process that runs a program before."""
    return json.loads(
        run_python(
            f"{before}\nimport dataclasses, json\n"
            "from spikeloss_xp.backends._available import describe\n"
            f"print(json.dumps(dataclasses.asdict(describe({library!r}))))",
            path=path,
        )
    )


def test_built_in_adapters_are_always_listed():
    infos = sx.backends.available()
    names = ("numpy", "cupy", "torch", "jax", "dask", "dpnp", "mlx", "ndonnx")
    assert tuple(infos)[: len(names)] == tuple(BUILT_IN) == names
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
        if library in ("jax", "numpy", "torch"):  # the distributions of CuPy have other names
            distributed = importlib.metadata.version(library).partition("+")[0]
            assert info.version.partition("+")[0] == distributed
        assert len(info.devices) == len(set(info.devices)) >= 1
    else:
        assert info.devices == ()
        assert ": " in info.problem


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
def test_library_that_fails_to_import_has_problem(tmp_path, raised, problem):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(f"raise {raised}", encoding="utf-8")
    info = described("", "cupy", tmp_path)
    assert info == {"library": "cupy", "version": None, "devices": [], "problem": problem}


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("cuda.runtime.getDeviceCount", "cudaErrorNoDevice"),
        ("ones", "libnvrtc.so.12 cannot be loaded"),
    ],
)
def test_gpu_library_that_can_compute_nothing_has_problem(broken, problem):
    program = f"import cupy\ndef fail(*_): raise RuntimeError({problem!r})\ncupy.{broken} = fail"
    info = described(program, "cupy", STAND_INS)
    assert (info["devices"], info["problem"]) == ([], f"RuntimeError: {problem}")


def test_gpus_are_listed_with_current_first():
    info = described("import cupy; cupy.cuda.Device(1).__enter__()", "cupy", STAND_INS)
    assert (info["devices"], info["problem"]) == (["cuda:1", "cuda:0"], None)


def test_gpu_that_a_driver_counts_and_cannot_use_is_not_listed(monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("the GPU of this machine can be used")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert describe("torch").devices == ("cpu",)


def test_from_host_uses_named_gpu_and_keeps_current():
    program = """
import cupy, numpy as np
from spikeloss_xp.backends._available import adapter
for device in "cuda:0", "cuda:1", cupy.cuda.Device(0):
    print(adapter("cupy").from_host(np.ones(2), device).device.id, cupy.cuda.Device().id)
"""
    assert run_python(program, path=STAND_INS).split() == ["0", "0", "1", "0", "0", "0"]
