"""The command ``compare``, run from its command line."""

import json
import re
import tomllib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.backends import BackendInfo, available
from spikeloss_xp.backends._available import INSTALLED_BY
from spikeloss_xp.cli import _compare
from spikeloss_xp.cli._compare import load

ROOT = Path(__file__).parents[2]
USABLE = [name for name, info in available().items() if info.usable]


def test_row_equals_library_results(command):
    _, out, _ = command("compare --loss SpikeTime --device cpu --json")
    rows = json.loads(out)["rows"]
    assert [row["backend"] for row in rows] == [name for name in USABLE if name != "cupy"]
    recording = load(None)
    spikes, trains = recording.input.astype(np.float32), recording.targets["trains"]
    value, gradient = sx.value_and_grad(sx.SpikeTime())(spikes, trains)
    row = rows[USABLE.index("numpy")]
    assert row["value"] == pytest.approx(float(value))
    assert row["gradient_norm"] == pytest.approx(np.linalg.norm(gradient))
    assert 0 < row["gradient_difference"] < 1e-6  # float32 rounds
    assert row["seconds"] > 0


def test_time_is_shown_with_its_unit():
    for seconds, shown in ((12.345, "12.35 s"), (0.05, "50.0 ms"), (0.0012345, "1.234 ms")):
        assert _compare._duration(seconds) == shown


def test_bfloat16_agrees_or_is_reported_as_missing(command):
    status, out, err = command("compare --dtype bfloat16 --loss SpikeTime")
    assert "numpy: it has no bfloat16" in out + err
    assert status == (0 if {"torch", "jax"} & set(USABLE) else 2)


def without_measures(text):
    """Remove versions, times, errors and missing libraries, which differ between machines."""
    text = re.sub(r"(numpy|torch|jax) \d[\w.+]*", r"\1 VERSION", text)
    text = re.sub(r"\d\.\de-\d\d", "ERROR", text)
    text = re.sub(r"\d+\.\d+ (ms|s)\b", "TIME", text)
    text = re.sub(r"Not used: .*?\n(  .*\n)*", "", text)
    return re.sub(r" +|-{2,}", " ", text).strip()


def test_output_is_the_documented_one(command):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    page = (ROOT / "docs" / "command.md").read_text(encoding="utf-8")
    line = "compare --loss SpikeTime"
    assert f"\nspikeloss-xp {line}\n" in page
    status, out, _ = command(f"{line} --backend numpy --backend torch --backend jax")
    assert status == 0
    shown = re.search(r"^```text\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert without_measures(shown[1]) == without_measures(out)


def test_backend_that_disagrees_or_fails_is_marked(command, monkeypatch):
    reference = _compare.reference

    def perturbed_reference(*arguments):
        value, gradient = reference(*arguments)
        gradient[0, 1, 7] += 1.0
        return value, gradient

    monkeypatch.setattr(_compare, "reference", perturbed_reference)
    status, out, _ = command("compare --loss SpikeRate --backend numpy")
    assert status == 1
    assert len(re.findall(r" DISAGREES\n    the gradient is .* at \[0, 1, 7\]\s+instead", out)) == 2
    assert "2 of 2 rows DISAGREE" in out
    status, out, _ = command("compare --loss SpikeRate --backend numpy --json")
    assert (status, json.loads(out)["agree"]) == (1, False)

    monkeypatch.setattr(_compare, "compare", Mock(side_effect=MemoryError("no room")))
    status, out, _ = command("compare --loss SparsityEnforcer --backend numpy")
    assert status == 1
    assert " FAILED\n    MemoryError: no room\n" in out


def test_overflow_disagrees_without_a_warning(command):
    np.savez("own.npz", input=np.full((4, 3, 40), 1e38), label=[0, 2, 1, 0])
    status, out, err = command("compare own.npz --backend numpy")
    assert (status, err) == (1, "")
    assert " DISAGREES\n    the value is inf" in out


def test_unusable_library_is_reported_in_words(command, monkeypatch):
    missing = f"not installed (install the {INSTALLED_BY['cupy']})"
    for problem, words in (
        ("ModuleNotFoundError: No module named 'cupy'", missing),
        ("ModuleNotFoundError: No module named 'own'", "not installed"),
        ("ImportError: libcuda.so.1: cannot open", "ImportError: libcuda.so.1: cannot open"),
    ):
        info = BackendInfo("own" if "own" in problem else "cupy", problem=problem)
        monkeypatch.setattr("spikeloss_xp.testing.describe", lambda name, info=info: info)
        message = f"spikeloss-xp: error: cannot use cupy: {words}\n"
        assert command.error("compare --backend cupy") == message


def test_extras_of_missing_libraries_exist():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for library, words in INSTALLED_BY.items():
        kind, _, names = words.partition(" ")
        for name in names.split(" or ") if kind == "extra" else ():
            assert any(requirement.startswith(library) for requirement in extras[name])
