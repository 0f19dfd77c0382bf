"""The command ``compare``, run from its command line."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.damage import LABEL, SPIKES
from spikeloss_xp.backends import BackendInfo, available
from spikeloss_xp.backends._available import INSTALLED_BY
from spikeloss_xp.cli import _compare, main
from spikeloss_xp.cli._compare import load

ROOT = Path(__file__).parents[2]
EXAMPLES = re.findall("^  (spike.*)", _compare.EXAMPLES, re.MULTILINE)
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
    """Return an output without what differs by machine and run: versions, times and errors."""
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
    status, out, _ = command(line, "--backend numpy --backend torch --backend jax")
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
    np.savez("own.npz", input=SPIKES * np.float32(1e38), label=LABEL)
    status, out, err = command("compare own.npz --backend numpy")
    assert (status, err) == (1, "")
    assert " DISAGREES\n    the value is inf" in out


def test_unusable_library_is_reported_in_words(command, monkeypatch):
    for problem, words in (
        ("ModuleNotFoundError: No module named 'cupy'", f"not installed; {INSTALLED_BY['cupy']}"),
        ("ImportError: libcuda.so.1: cannot open", "ImportError: libcuda.so.1: cannot open"),
    ):
        info = BackendInfo("cupy", problem=problem)
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


def test_help_shows_its_examples_in_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")  # Python 3.14 colours the help
    for arguments in (["--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
        assert all(f"  {example}\n" in out for example in EXAMPLES)
    np.savez("recording.npz", input=SPIKES, target=SPIKES[::-1], label=LABEL)
    for example in EXAMPLES:
        assert command(example.removeprefix("spikeloss-xp "), "--backend numpy")[0] == 0


RATES = {"SpikeRate", "SpikeMax", "CrossEntropy", "SpikeMoid", "SparsityEnforcer"}
TARGETS = {
    "trains": SPIKES[::-1],
    "classes": LABEL.astype(np.int32),
    "per step": np.ones((4, 40), np.int64),
    "hot": np.eye(3)[[0, 1, 2, 2]],
    "hot per step": SPIKES > 0,
}


@pytest.mark.parametrize(
    ("targets", "evaluated"),
    [
        ({"target": "trains"}, {"SpikeTime", "SparsityEnforcer"}),
        ({"target": "classes"}, RATES),
        ({"label": "hot"}, {"SpikeMoid", "SparsityEnforcer"}),
        ({"target": "trains", "label": "classes"}, {"SpikeTime", *RATES}),
        ({"label": "per step"}, RATES),
        ({"label": "hot per step"}, {"SpikeMoid", "SparsityEnforcer"}),
    ],
)
def test_targets_in_file_select_the_losses(command, targets, evaluated):
    np.savez("own.npz", input=SPIKES, **{key: TARGETS[kind] for key, kind in targets.items()})
    status, out, err = command("compare own.npz --backend numpy --json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    losses = {row["loss"] for row in result["rows"]}
    assert {name.partition(",")[0] for name in losses} == evaluated
    assert all("window" not in name or name.endswith(", window 40") for name in losses)
    assert result["shape"] == [4, 3, 40]
    per_step = any("step" in kind for kind in targets.values())
    global_rate = losses & {"SpikeRate", "SpikeMax", "SpikeMoid"}
    assert bool(global_rate) == (not per_step and "SpikeMoid" in evaluated)
    no_target = "the file has no target for this loss"
    assert (result["left_out"].get("SpikeTime") == no_target) == ("SpikeTime" not in evaluated)


@pytest.mark.parametrize(
    ("arguments", "arrays", "message"),
    [
        ("", {"input": None}, "must hold an array `input`"),
        ("", {"label": None}, "`target` or `label`; it holds 'input'"),
        ("", {"label": LABEL[:3]}, "(3,)"),
        ("", {"label": None, "target": np.swapaxes(SPIKES, 1, 2)}, "(4, 40, 3)"),
        ("", {"label": LABEL + 3}, "`label`: labels must be classes, from 0 to 2; got values from"),
        ("--loss SpikeMax", {"label": None, "target": SPIKES}, "nothing to evaluate"),
        ("--loss SpikeMax", {"input": -SPIKES}, "SpikeMax refuses these arrays"),
        ("--backend numpy --backend nosuchlibrary", {}, "nosuchlibrary: not installed"),
        ("--device toaster", {}, "numpy: it has no device 'toaster'; its devices: cpu"),
    ],
)
def test_wrong_arrays_or_options_fail(command, arguments, arrays, message):
    file = {"input": SPIKES, "label": LABEL, **arrays}
    np.savez("own.npz", **{name: array for name, array in file.items() if array is not None})
    assert message in command.error("compare own.npz", arguments)


@pytest.mark.parametrize("arguments", ["", "x", "compare --loss Spike", "compare --dtype int8"])
def test_unknown_argument_prints_usage(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        main(arguments.split())
    assert "usage" in capsys.readouterr().err


def test_command_runs_as_script():
    script = Path(sys.executable).with_name("spikeloss-xp")
    printed = subprocess.check_output([script, "--version"], text=True)
    assert printed == f"spikeloss-xp {sx.__version__}\n"
