"""The registry of adapters, and reports on array libraries: version and devices, or an error.

Adapters of third parties are found by an entry point of their distribution.
"""

import dataclasses
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
from spikeloss_xp.backends import ArrayAPIAdapter, BackendInfo
from spikeloss_xp.backends._available import BUILT_IN, adapter, describe


def evaluated(expression: str, before: str, path: Path) -> Any:
    """Evaluate an expression in a process that runs a program before; the result is JSON."""
    imports = (
        "import dataclasses, json\nfrom spikeloss_xp.backends._available import adapter, describe"
    )
    return json.loads(
        run_python(f"{imports}\n{before}\nprint(json.dumps({expression}))", path=path)
    )


def described(before: str, path: Path) -> dict[str, Any]:
    """Return the `BackendInfo` of CuPy, as a dict, in a process that runs a program before."""
    return evaluated("dataclasses.asdict(describe('cupy'))", before, path)


def test_built_in_adapters_are_always_listed():
    infos = sx.backends.available()
    names = ("numpy", "cupy", "torch", "jax", "dask", "dpnp", "mlx", "ndonnx")
    assert tuple(infos)[: len(names)] == tuple(BUILT_IN) == names
    assert all(info == describe(name) and info.library == name for name, info in infos.items())
    assert infos["numpy"] == BackendInfo("numpy", np.__version__, ("cpu",), None)


@pytest.mark.parametrize("library", [*BUILT_IN, "array_api_strict", "no_such_library"])
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


def test_library_that_fails_to_import_has_problem(tmp_path):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text("raise OSError(22, 'no driver')")
    (tmp_path / "dpnp.py").write_text("raise RuntimeError")
    both = evaluated("[dataclasses.asdict(describe(x)) for x in ('cupy', 'dpnp')]", "", tmp_path)
    problems = {"cupy": "OSError: [Errno 22] no driver", "dpnp": "RuntimeError: RuntimeError()"}
    none = {"version": None, "devices": []}
    assert both == [{"library": x, **none, "problem": why} for x, why in problems.items()]


@pytest.mark.parametrize("broken", ["cuda.runtime.getDeviceCount", "ones"])
def test_gpu_library_that_can_compute_nothing_has_problem(broken):
    program = f"import cupy\ndef fail(*_): raise RuntimeError('no device')\ncupy.{broken} = fail"
    info = described(program, STAND_INS)
    assert (info["devices"], info["problem"]) == ([], "RuntimeError: no device")


def test_gpus_are_listed_with_current_first():
    info = described("import cupy; cupy.cuda.Device(1).__enter__()", STAND_INS)
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


# Adapters of third parties -----------------------------------------------------------------------

DISTRIBUTION = {  # an adapter for array-api-strict
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


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return a folder in which the third party's distribution is installed."""
    for name, text in DISTRIBUTION.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_registered_adapter_is_used_and_cannot_replace_a_built_in_one(elsewhere):
    before = """
import array_api_strict as xp, numpy as np, spikeloss_xp as sx, toyadapter
spikes = np.random.default_rng(1).integers(0, 2, (3, 4, 20)).astype("float64")
evaluate = sx.value_and_grad(sx.SpikeRate(0.5, 0.0, moving_window=5))
got, expected = evaluate(xp.asarray(spikes), [0, 1, 3]), evaluate(spikes, [0, 1, 3])
assert {type(x) for x in got} == {type(xp.asarray(spikes))}
host = adapter("array_api_strict").to_host
differences = [float(np.max(abs(host(g) - e))) for g, e in zip(got, expected)]
"""
    results = "[differences, toyadapter.windows, repr(adapter('numpy'))]"
    differences, windows, of_numpy = evaluated(results, before, elsewhere)
    assert differences == pytest.approx([0.0, 0.0], abs=1e-12)
    assert windows == [5, 5]  # forwards, and backwards for the gradient
    assert "NumPyAdapter" in of_numpy


@pytest.mark.slow
def test_available_lists_registered_libraries_and_problems_after_built_in_ones(elsewhere):
    infos = "{k: dataclasses.asdict(x) for k, x in available().items()}"
    found = evaluated(infos, "from spikeloss_xp.backends import available", elsewhere)
    assert list(found)[len(BUILT_IN) :] == ["array_api_strict", "decimal", "json"]
    known = dataclasses.asdict(describe("array_api_strict"))
    assert found["array_api_strict"] == known | {"devices": list(known["devices"])}
    problem = "ModuleNotFoundError: No module named 'no_such_adapter'"
    assert found["json"]["problem"] == problem
    problem = found["decimal"]["problem"]
    assert problem.startswith("TypeError: entry point 'toyadapter' of group spikeloss_xp.backends")
    assert "must be a subclass of spikeloss_xp.backends.ArrayAPIAdapter" in problem


def test_adapter_is_loaded_once():
    assert adapter("numpy") is adapter("numpy")


def test_library_without_an_adapter_gets_the_base_class():
    pytest.importorskip("array_api_strict")
    assert type(adapter("array_api_strict")) is ArrayAPIAdapter
    assert "array_api_strict" not in sx.backends.available()
