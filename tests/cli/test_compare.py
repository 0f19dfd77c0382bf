"""The command ``compare``, run from its command line."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.damage import LABEL, SPIKES
from spikeloss_xp.backends import BackendInfo, available
from spikeloss_xp.backends._available import INSTALLED_BY
from spikeloss_xp.cli import _compare, _terminal, main
from spikeloss_xp.cli._compare import load, table
from spikeloss_xp.testing import Comparison, Place

ROOT = Path(__file__).parents[2]
LOSSES = 12  # SpikeTime, SparsityEnforcer, and five of classes with and without a window
EXAMPLES = re.findall("^  (spike.*)", _compare.EXAMPLES, re.MULTILINE)
USABLE = [name for name, info in available().items() if info.usable]


@pytest.mark.slow
def test_shipped_recording_agrees_on_all_backends(command):
    status, out, err = command("compare")
    assert (status, err) == (0, "")
    heading, rows = out.split("\n\n")[:2]
    assert "[10, 2, 1000], float32" in heading
    rows = rows.splitlines()
    assert len(rows) == 2 + LOSSES * (1 + len(USABLE))
    assert sum(row.endswith("  agrees") for row in rows) == LOSSES * len(USABLE)
    assert f"All {LOSSES * len(USABLE)} rows agree" in out
    for name, info in available().items():
        assert (f"Not used: {name}: " in out) == (not info.usable)
    assert "\033" not in out  # only a terminal gets colour


def test_row_equals_library_results(command):
    _, out, _ = command("compare --loss SpikeTime --backend numpy --json")
    (row,) = json.loads(out)["rows"]
    recording = load(None)
    spikes, trains = recording.input.astype(np.float32), recording.targets["trains"]
    value, gradient = sx.value_and_grad(sx.SpikeTime())(spikes, trains)
    assert row["value"] == pytest.approx(float(value))
    assert row["gradient_norm"] == pytest.approx(np.linalg.norm(gradient))
    assert 0 < row["gradient_difference"] < 1e-6  # float32 rounds
    assert row["seconds"] > 0


@pytest.mark.parametrize("dtype", [pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def test_dtype_agrees_or_is_reported_as_missing(command, dtype):
    status, out, err = command(f"compare --dtype {dtype} --loss SpikeTime")
    if dtype == "bfloat16" and not {"torch", "jax"} & set(USABLE):
        assert status == 2
        assert "numpy: it has no bfloat16" in err
    else:
        assert status == 0
        assert ("Not used: numpy: it has no bfloat16" in out) == (dtype == "bfloat16")


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


def test_disagreeing_backend_is_marked(command, monkeypatch):
    reference = _compare.reference

    def perturbed_reference(*arguments):
        value, gradient = reference(*arguments)
        gradient[0, 1, 7] += 1.0
        return value, gradient

    monkeypatch.setattr(_compare, "reference", perturbed_reference)
    status, out, _ = command("compare --loss SpikeRate --backend numpy")
    assert status == 1
    assert len(re.findall(r" DISAGREES\n    the gradient is .* at \[0, 1, 7\]\s+where", out)) == 2
    assert "2 of 2 rows DISAGREE" in out
    status, out, _ = command("compare --loss SpikeRate --backend numpy --json")
    assert (status, json.loads(out)["agree"]) == (1, False)


def test_failing_backend_becomes_a_row(command, monkeypatch):
    def fail(*arguments, **more):
        raise MemoryError("no room")

    monkeypatch.setattr(_compare, "compare", fail)
    status, out, _ = command("compare --loss SparsityEnforcer --backend numpy")
    assert status == 1
    assert " FAILED\n    MemoryError: no room\n" in out


def test_longest_row_has_80_columns():
    place = Place("array_api_strict", "2.4.1", "cuda:0")
    name, problem = "SpikeMax, softmax, window 50", "the gradient is " + "1.2345678 " * 30
    rows = [
        Comparison(name, place, 1.23456789e-5, 1.0, 1e-7, 1e-7, 1.23e-5, problem),
        Comparison("SpikeTime", place, 123456789.0, 1.0, 1e-7, 1e-7, 12.345),
        Comparison("SpikeTime", place, problem="MemoryError: no room"),
    ]
    lines = table(rows, colour=False).splitlines()
    assert max(map(len, lines)) == 80
    verdicts = [line.split()[-1] for line in lines if line.startswith("  array")]
    assert verdicts == ["DISAGREES", "agrees", "FAILED"]
    assert re.sub(r"\033\[\d+m", "", table(rows, colour=True)).splitlines() == lines


BROKEN = "ImportError: libcuda.so.1: cannot open shared object file"


@pytest.mark.parametrize(
    ("library", "problem", "words"),
    [
        ("cupy", None, "not installed; extra cuda12 or cuda13"),
        ("torch", None, "not installed; extra torch"),
        ("dask", None, "not installed; package dask[array]"),
        ("no_such_library", None, "not installed"),
        ("cupy", BROKEN, BROKEN),
    ],
)
def test_unusable_library_is_reported_in_words(command, monkeypatch, library, problem, words):
    monkeypatch.setitem(sys.modules, library, None)  # an import of it fails
    missing = f"ModuleNotFoundError: No module named {library!r}"
    info = BackendInfo(library, problem=problem or missing)
    monkeypatch.setattr("spikeloss_xp.testing.describe", lambda name: info)
    message = command.error("compare --backend", library)
    assert message == f"spikeloss-xp: error: no result for {library}: {words}\n"


def test_extras_of_missing_libraries_exist():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for library, words in INSTALLED_BY.items():
        kind, _, names = words.partition(" ")
        for name in names.split(" or ") if kind == "extra" else ():
            assert any(requirement.startswith(library) for requirement in extras[name])


def test_help_shows_its_examples_in_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")  # Python 3.14 colours the help
    for arguments in (["--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
        assert all(f"  {example}\n" in out for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_help_run(command, example):
    np.savez("recording.npz", input=SPIKES, target=SPIKES[::-1], label=LABEL)
    arguments = example.removeprefix("spikeloss-xp ")
    if arguments == "compare":
        arguments += " --backend numpy"  # another test compares every library
    assert command(arguments)[0] == 0


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
    assert {row["loss"].partition(",")[0] for row in result["rows"]} == evaluated
    assert result["shape"] == [4, 3, 40]
    per_step = any("step" in kind for kind in targets.values())
    global_rate = {row["loss"] for row in result["rows"]} & {"SpikeRate", "SpikeMax", "SpikeMoid"}
    assert bool(global_rate) == (not per_step and "SpikeMoid" in evaluated)
    no_target = "the file has no target for this loss"
    assert (result["left_out"].get("SpikeTime") == no_target) == ("SpikeTime" not in evaluated)


@pytest.mark.parametrize(
    ("arguments", "arrays", "message"),
    [
        ("", {"input": None}, "must hold an array `input`"),
        ("", {"label": None}, "`target` or `label`; it holds 'input'"),
        ("", {"input": SPIKES[0]}, "got shape (3, 40)"),
        ("", {"label": LABEL[:3]}, "(3,)"),
        ("", {"label": None, "target": np.swapaxes(SPIKES, 1, 2)}, "(4, 40, 3)"),
        ("", {"label": LABEL + 3}, "`label`: labels must be classes, from 0 to 2; got values from"),
        ("--loss SpikeMax", {"label": None, "target": SPIKES}, "nothing to evaluate"),
        ("--backend nosuchlibrary", {}, "no result for nosuchlibrary: not installed"),
        ("--backend numpy --backend nosuchlibrary", {}, "nosuchlibrary: not installed"),
        ("--device toaster", {}, "numpy: it has no device 'toaster'; its devices: cpu"),
        ("--backend numpy --dtype bfloat16", {}, "numpy: it has no bfloat16"),
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


def test_device_can_be_selected_by_kind(command):
    status, out, _ = command("compare --device cpu --loss SparsityEnforcer --json")
    assert status == 0
    rows = json.loads(out)["rows"]
    assert [row["backend"] for row in rows] == [name for name in USABLE if name != "cupy"]


def test_command_runs_as_module_and_as_script():
    arguments = ["compare", "--loss", "SparsityEnforcer", "--backend", "numpy"]
    program = [sys.executable, "-m", "spikeloss_xp", *arguments]
    assert b"All 1 rows agree" in subprocess.check_output(program)
    script = Path(sys.executable).with_name("spikeloss-xp")
    printed = subprocess.check_output([script, "--version"], text=True)
    assert printed == f"spikeloss-xp {sx.__version__}\n"


def test_terminal_shows_colour_and_progress(command, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    right = _compare.reference
    monkeypatch.setattr(_compare, "reference", lambda *a: (2 * right(*a)[0], right(*a)[1]))
    status, out, err = command("compare --backend numpy --loss SparsityEnforcer")
    assert status == 1
    assert "1 of 1: SparsityEnforcer on numpy" in err
    assert "\033[31mDISAGREES\033[0m" in out
    assert "\033[1mSparsityEnforcer" in out


@pytest.mark.parametrize(
    ("variables", "is_terminal", "expected"),
    [
        ({}, True, True),
        ({"NO_COLOR": ""}, True, True),  # https://no-color.org: empty is not set
        ({"NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({}, False, False),
    ],
)
def test_only_a_terminal_that_shows_colours_gets_them(
    monkeypatch, variables, is_terminal, expected
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    stream = SimpleNamespace(isatty=lambda: is_terminal)
    assert _terminal.has_colour(stream) == expected
