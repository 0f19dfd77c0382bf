"""Adapters of third parties are found by an entry point of their distribution."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import spikeloss_xp as sx
from _support.programs import run_python
from spikeloss_xp.backends import ArrayAPIAdapter, _numpy
from spikeloss_xp.backends._available import BUILT_IN, adapter, describe

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

PREAMBLE = """
import dataclasses, json, array_api_strict as xp, numpy as np, spikeloss_xp as sx, toyadapter
from spikeloss_xp.backends._available import adapter
spikes = np.random.default_rng(1).integers(0, 2, (3, 4, 20)).astype("float64")
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Any:
    """Evaluate an expression where the third party's distribution is installed; it returns JSON."""
    for name, text in DISTRIBUTION.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    def run(expression: str, before: str = "") -> Any:
        program = f"{PREAMBLE}\n{before}\nprint(json.dumps({expression}))"
        return json.loads(run_python(program, path=tmp_path))

    return run


def test_registered_adapter_is_used_and_cannot_replace_a_built_in_one(elsewhere):
    before = """
losses = [(sx.SpikeRate(0.5, 0.0, moving_window=5), [0, 1, 3])]
losses += [(sx.SpikeTime(), spikes[::-1]), (sx.SpikeMax(mode="softmax"), [0, 1, 3])]
losses += [(sx.SpikeMoid(alpha=0.3, theta=0), np.eye(4)[:3]), (sx.SparsityEnforcer(0.1),)]
def difference(loss, *target):
    got = sx.value_and_grad(loss)(xp.asarray(spikes), *target)
    expected = sx.value_and_grad(loss)(spikes, *target)
    assert {type(x) for x in got} == {type(xp.asarray(spikes))}
    host = adapter("array_api_strict").to_host
    return max(float(np.max(abs(host(g) - e))) for g, e in zip(got, expected))
"""
    results = "[difference(*case) for case in losses], toyadapter.windows, repr(adapter('numpy'))"
    differences, windows, of_numpy = elsewhere(results, before)
    assert differences == pytest.approx([0.0] * 5, abs=1e-12)
    assert windows == [5, 5]  # forwards, and backwards for the gradient
    assert "NumPyAdapter" in of_numpy


@pytest.mark.slow
def test_available_lists_registered_libraries_and_problems_after_built_in_ones(elsewhere):
    found = elsewhere("{k: dataclasses.asdict(x) for k, x in sx.backends.available().items()}")
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
    assert type(adapter("numpy")) is _numpy.NumPyAdapter


def test_library_without_an_adapter_gets_the_base_class():
    xp = pytest.importorskip("array_api_strict")
    assert type(adapter("array_api_strict")) is ArrayAPIAdapter
    spikes = xp.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]], dtype=xp.float64)
    value, gradient = sx.value_and_grad(sx.SpikeRate(0.5, 0.0))(spikes, [0])
    assert float(value) == 0.125
    assert xp.all(gradient == 0.125)
    assert "array_api_strict" not in sx.backends.available()
