"""The command ``compare``, run from its command line."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import terminal
from spikeloss_xp.backends import BackendInfo, available
from spikeloss_xp.backends._available import INSTALLED_BY
from spikeloss_xp.cli import _compare, _evaluate, main
from spikeloss_xp.cli._compare import load, table
from spikeloss_xp.testing import Comparison, Place

ROOT = Path(__file__).parents[2]
LOSSES = 12  # SpikeTime, SparsityEnforcer, and five of classes with and without a window
EXAMPLES = {
    "compare": re.findall("^  (spike.*)", _compare.EXAMPLES, flags=re.MULTILINE),
    "evaluate": re.findall("^  (spike.*)", _evaluate.EXAMPLES, flags=re.MULTILINE),
}
USABLE = [name for name, info in available().items() if info.usable]


def run(capsys, *arguments):
    """Return exit status, standard output and standard error."""
    return terminal.run(capsys, "compare", *arguments)


@pytest.fixture
def save_npz(tmp_path):
    """Return a function that writes arrays to an .npz file and returns its path."""

    def write(**arrays):
        path = tmp_path / "own.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def spikes():
    return (np.random.default_rng(0).random((4, 3, 40)) < 0.2).astype(np.float32)


@pytest.mark.slow
def test_shipped_recording_agrees_on_all_backends(capsys):
    status, out, err = run(capsys)
    assert status == 0
    assert err == ""
    heading, rows = out.split("\n\n")[:2]
    assert "[10, 2, 1000], float32" in heading
    rows = rows.splitlines()
    assert len(rows) == 2 + LOSSES * (1 + len(USABLE))
    assert sum(row.endswith("  agrees") for row in rows) == LOSSES * len(USABLE)
    assert max(map(len, out.splitlines())) <= 80
    assert f"All {LOSSES * len(USABLE)} rows agree" in out
    for name, info in available().items():
        assert (f"Not used: {name}: " in out) == (not info.usable)
    assert "\033" not in out  # only a terminal gets colour


def test_row_equals_library_results(capsys):
    _, out, _ = run(capsys, "--loss", "SpikeTime", "--backend", "numpy", "--json")
    (row,) = json.loads(out)["rows"]
    recording = load(None)
    value, gradient = sx.value_and_grad(sx.SpikeTime())(
        recording.input.astype(np.float32), recording.targets["trains"]
    )
    assert row["value"] == pytest.approx(float(value))
    assert row["gradient_norm"] == pytest.approx(np.linalg.norm(gradient))
    assert 0 < row["gradient_difference"] < 1e-6  # float32 rounds
    assert row["seconds"] > 0


@pytest.mark.slow(but=1)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_dtype_agrees_or_is_reported_as_missing(capsys, dtype):
    status, out, err = run(capsys, "--dtype", dtype, "--loss", "SpikeTime")
    if dtype == "bfloat16" and not {"torch", "jax"} & set(USABLE):
        assert status == 2
        assert "numpy: it has no bfloat16" in err
    else:
        assert status == 0
        assert ("Not used: numpy: it has no bfloat16" in out) == (dtype == "bfloat16")
    assert dtype in out + err


def test_unusable_backend_beside_a_usable_one_fails(capsys):
    status, out, err = run(capsys, "--backend", "numpy", "--backend", "no_such_library")
    assert (status, out) == (2, "")
    assert "no_such_library: not installed" in err


def test_disagreeing_backend_is_marked(capsys, monkeypatch):
    reference = _compare.reference

    def perturbed_reference(*arguments):
        value, gradient = reference(*arguments)
        gradient[0, 1, 7] += 1.0
        return value, gradient

    monkeypatch.setattr(_compare, "reference", perturbed_reference)
    status, out, _ = run(capsys, "--loss", "SpikeRate", "--backend", "numpy")
    assert status == 1
    assert len(re.findall(r" DISAGREES\n    the gradient is .* at \[0, 1, 7\]\s+where", out)) == 2
    assert "2 of 2 rows DISAGREE" in out
    status, out, _ = run(capsys, "--loss", "SpikeRate", "--backend", "numpy", "--json")
    assert status == 1
    assert json.loads(out)["agree"] is False


def test_failing_backend_becomes_a_row(capsys, monkeypatch):
    def fail(*arguments, **more):
        raise MemoryError("no room")

    monkeypatch.setattr(_compare, "compare", fail)
    status, out, _ = run(capsys, "--loss", "SparsityEnforcer", "--backend", "numpy")
    assert status == 1
    assert " FAILED\n    MemoryError: no room\n" in out


def test_longest_row_has_80_columns():
    place = Place("array_api_strict", "2.4.1", "cuda:0")
    problem = "the gradient is " + "1.2345678 " * 30
    rows = [
        Comparison(
            "SpikeMax, softmax, window 50", place, 1.23456789e-5, 1.0, 1e-7, 1e-7, 1.23e-5, problem
        ),
        Comparison("SpikeTime", place, 123456789.0, 1.0, 1e-7, 1e-7, 12.345),
        Comparison("SpikeTime", place, problem="MemoryError: no room"),
    ]
    lines = table(rows, colour=False).splitlines()
    assert max(map(len, lines)) == 80
    assert [line.split()[-1] for line in lines if line.startswith("  array")] == [
        "DISAGREES",
        "agrees",
        "FAILED",
    ]
    bare = re.sub(r"\033\[\d+m", "", table(rows, colour=True))
    assert bare.splitlines() == lines


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("cupy", "not installed; extra cuda12 or cuda13"),
        ("torch", "not installed; extra torch"),
        ("jax", "not installed; extra jax"),
        ("dask", "not installed; package dask[array]"),
        ("dpnp", "not installed; extra dpnp"),
        ("mlx", "not installed; extra mlx"),
        ("no_such_library", "not installed"),
    ],
)
def test_missing_library_is_reported_in_words(capsys, monkeypatch, library, words):
    monkeypatch.setitem(sys.modules, library, None)  # an import of it fails
    missing = f"ModuleNotFoundError: No module named {library!r}"
    monkeypatch.setattr(
        "spikeloss_xp.testing.describe", lambda name: BackendInfo(name, problem=missing)
    )
    assert run(capsys, "--backend", library)[::2] == (
        2,
        f"spikeloss-xp: error: no result for {library}: {words}\n",
    )


def test_broken_library_is_reported_by_its_own_error(capsys, monkeypatch):
    problem = "ImportError: libcuda.so.1: cannot open shared object file"
    monkeypatch.setattr(
        "spikeloss_xp.testing.describe", lambda name: BackendInfo(name, problem=problem)
    )
    assert f"cupy: {problem}" in run(capsys, "--backend", "cupy")[2]


def test_extras_of_missing_libraries_exist():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = pyproject["project"]["optional-dependencies"]
    for library, words in INSTALLED_BY.items():
        kind, _, names = words.partition(" ")
        for name in names.split(" or "):
            if kind == "extra":
                assert any(requirement.startswith(library) for requirement in extras[name])


@pytest.mark.parametrize("command", [[], ["compare"], ["evaluate"]])
def test_help_shows_its_examples_in_80_columns(capsys, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")  # Python 3.14 colours the help
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for name in command or EXAMPLES:
        for example in EXAMPLES[name]:
            assert f"  {example}\n" in out


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_examples_of_the_help_run(capsys, monkeypatch, tmp_path, spikes, example):
    monkeypatch.chdir(tmp_path)
    for name in ("recording.npz", "test.npz"):
        np.savez(name, input=spikes, target=spikes[::-1], label=[0, 2, 1, 0])
    program, *arguments = example.split()
    assert program == "spikeloss-xp"
    if arguments == ["compare"]:
        arguments += ["--backend", "numpy"]  # another test compares every library
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("targets", "evaluated"),
    [
        ({"target": "trains"}, {"SpikeTime", "SparsityEnforcer"}),
        (
            {"label": "classes"},
            {"SpikeRate", "SpikeMax", "CrossEntropy", "SpikeMoid", "SparsityEnforcer"},
        ),
        (
            {"target": "classes"},
            {"SpikeRate", "SpikeMax", "CrossEntropy", "SpikeMoid", "SparsityEnforcer"},
        ),
        ({"label": "hot"}, {"SpikeMoid", "SparsityEnforcer"}),
        (
            {"target": "trains", "label": "classes"},
            {"SpikeTime", "SpikeRate", "SpikeMax", "CrossEntropy", "SpikeMoid", "SparsityEnforcer"},
        ),
        (
            {"label": "per step"},
            {"SpikeRate", "SpikeMax", "CrossEntropy", "SpikeMoid", "SparsityEnforcer"},
        ),
        ({"label": "hot per step"}, {"SpikeMoid", "SparsityEnforcer"}),
    ],
)
def test_targets_in_file_select_the_losses(capsys, save_npz, spikes, targets, evaluated):
    kinds = {
        "trains": spikes[::-1],
        "classes": np.asarray([0, 2, 1, 0], np.int32),
        "per step": np.ones((4, 40), np.int64),
        "hot": np.eye(3)[[0, 1, 2, 2]],
        "hot per step": spikes > 0,
    }
    path = save_npz(input=spikes, **{key: kinds[kind] for key, kind in targets.items()})
    status, out, err = run(capsys, path, "--backend", "numpy", "--json")
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert {row["loss"].partition(",")[0] for row in result["rows"]} == evaluated
    assert result["shape"] == [4, 3, 40]
    per_step = any("step" in kind for kind in targets.values())
    global_rate = {row["loss"] for row in result["rows"]} & {"SpikeRate", "SpikeMax", "SpikeMoid"}
    assert bool(global_rate) == (not per_step and evaluated != {"SpikeTime", "SparsityEnforcer"})


def test_skipped_losses_are_reported(capsys, save_npz, spikes):
    path = save_npz(input=spikes, target=spikes)
    _, out, _ = run(capsys, path, "--backend", "numpy")
    assert "Left out: SpikeMax: the file has no target for this loss" in out
    status, _, err = run(capsys, path, "--backend", "numpy", "--loss", "SpikeMax")
    assert status == 2
    assert "nothing to evaluate" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": None}, "must hold an array `input`"),
        ({"label": None}, "`target` or `label`; it holds 'input'"),
        ({"input": np.zeros((3, 40))}, "got shape (3, 40)"),
        ({"label": np.zeros(3, int)}, "(3,)"),
        ({"label": None, "target": np.zeros((4, 40, 3))}, "(4, 40, 3)"),
        (
            {"label": np.full(4, 3)},
            "`label`: labels must be classes, from 0 to 2; got values from 3",
        ),
    ],
)
def test_arrays_that_do_not_fit_fail(capsys, save_npz, spikes, changes, message):
    arrays = {"input": spikes, "label": np.zeros(4, int), **changes}
    path = save_npz(**{name: array for name, array in arrays.items() if array is not None})
    assert message in terminal.error_of(run(capsys, path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "nosuchlibrary"], "no result for nosuchlibrary: not installed"),
        (["--device", "toaster"], "numpy: it has no device 'toaster'; its devices: cpu"),
        (["--backend", "numpy", "--dtype", "bfloat16"], "numpy: it has no bfloat16"),
    ],
)
def test_unavailable_backend_device_or_dtype_fails(capsys, arguments, message):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["x"], ["compare", "--loss", "Spike"], ["compare", "--dtype", "int8"]),
        *(["evaluate", "own.npz"], ["evaluate", "--loss", "SpikeMax"]),
        ["evaluate", "own.npz", "--loss", "Spike"],
        ["evaluate", "own.npz", "--loss", "SpikeMax", "--dtype", "float16"],
        ["evaluate", "own.npz", "--loss", "SpikeMax", "--batch", "0"],
        ["evaluate", "own.npz", "--loss", "SpikeMax", "--batch", "many"],
    ],
)
def test_unknown_argument_prints_usage(capsys, arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_device_can_be_selected_by_kind(capsys):
    status, out, _ = run(capsys, "--device", "cpu", "--loss", "SparsityEnforcer", "--json")
    assert status == 0
    rows = json.loads(out)["rows"]
    assert [row["backend"] for row in rows] == [name for name in USABLE if name != "cupy"]


def test_command_runs_as_module_and_as_script():
    script = Path(sys.executable).with_name("spikeloss-xp")
    arguments = ["compare", "--loss", "SparsityEnforcer", "--backend", "numpy"]
    for command in ([sys.executable, "-m", "spikeloss_xp"], [script]):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        assert "All 1 rows agree" in done.stdout
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"spikeloss-xp {sx.__version__}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals on Windows")
@pytest.mark.parametrize("no_colour", [None, "", "1"])  # https://no-color.org: empty is not set
def test_terminal_shows_colour_and_progress(no_colour):
    program = (
        "import sys, spikeloss_xp.cli as cli, spikeloss_xp.cli._compare as compare\n"
        "compare.reference = lambda *a, r=compare.reference: (2 * r(*a)[0], r(*a)[1])\n"
        "sys.exit(cli.main(['compare', '--backend', 'numpy', '--loss', 'SparsityEnforcer']))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    environment["TERM"] = "xterm"
    if no_colour is not None:
        environment["NO_COLOR"] = no_colour
    output = terminal.run_on_terminal([sys.executable, "-c", program], status=1, env=environment)
    assert b"1 of 1: SparsityEnforcer on numpy" in output
    assert (b"\033[31mDISAGREES\033[0m" in output) != bool(no_colour)
    assert (b"\033[1mSparsityEnforcer" in output) != bool(no_colour)
