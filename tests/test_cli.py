"""The command ``spikeloss-xp compare``: its output and its errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp import cli
from spikeloss_xp.backends import BackendInfo, available

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
"""The current folder of a command, because Python would import an sdist without its adapters."""
USABLE = [name for name, info in available().items() if info.usable]


class Command:
    """The command in this process; call it with a command line."""

    def __init__(self, capsys: Any) -> None:
        self._capsys = capsys

    def __call__(self, line: str) -> tuple[int, str, str]:
        """Run the command and return exit status, standard output and standard error."""
        return cli.main(line.split()), *self._capsys.readouterr()

    def error(self, line: str) -> str:
        """Run the command, which must fail, and return its error, which must be one line."""
        status, out, err = self(line)
        assert (status, out) == (2, "")
        assert re.fullmatch(r"spikeloss-xp: error: .*\n", err), err
        return err


@pytest.fixture
def command(capsys) -> Command:
    return Command(capsys)


def test_row_equals_library_results(command):
    _, out, _ = command("compare --loss SpikeTime --device cpu --json")
    rows = json.loads(out)["rows"]
    assert [row["backend"] for row in rows] == [name for name in USABLE if name != "cupy"]
    with np.load(Path(sx.__file__).parent / "data" / "grasshopper.npz") as arrays:
        spikes, trains = arrays["input"].astype(np.float32), arrays["target"]
    row = rows[USABLE.index("numpy")]
    assert row["value"] == pytest.approx(float(sx.SpikeTime(time_axis=-1)(spikes, trains)))
    assert 0 < row["gradient_difference"] < 1e-6  # float32 rounds


def test_all_losses_agree_on_the_recording_that_is_shipped(command):
    status, out, err = command("compare --backend numpy")
    assert (status, err) == (0, "")
    assert all(f"\n{name} " in out for name in cli.LOSSES)
    assert "\n7 of 7 rows agree with NumPy in float64" in out
    assert max(map(len, out.splitlines())) <= 80


def test_bfloat16_agrees_or_is_reported_as_missing(command):
    status, out, err = command("compare --dtype bfloat16 --loss SpikeTime")
    assert "numpy: it has no bfloat16" in out + err
    assert status == (0 if {"torch", "jax"} & set(USABLE) else 2)


def without_measures(text):
    """Remove versions, errors and missing libraries, which differ between machines."""
    text = re.sub(r"(numpy|torch|jax) \d[\w.+]*", r"\1 VERSION", text)
    text = re.sub(r"\d\.\de-\d\d", "ERROR", text)
    return re.sub(r"Not used: .*\n", "", text).strip()


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
    reference = cli.reference

    def perturbed_reference(*arguments):
        value, gradient = reference(*arguments)
        gradient[0, 1, 7] += 1.0
        return value, gradient

    monkeypatch.setattr(cli, "reference", perturbed_reference)
    status, out, _ = command("compare --loss SpikeRate --backend numpy")
    assert status == 1
    assert re.search(r" DISAGREES\n    the gradient is .* at \[0, 1, 7\] instead", out)
    assert "0 of 1 rows agree" in out
    status, out, _ = command("compare --loss SpikeRate --backend numpy --json")
    assert (status, json.loads(out)["agree"]) == (1, False)

    monkeypatch.setattr(cli, "compare", Mock(side_effect=MemoryError("no room")))
    status, out, _ = command("compare --loss SparsityEnforcer --backend numpy")
    assert status == 1
    assert " FAILED\n    MemoryError: no room\n" in out
    _, out, _ = command("compare --loss SparsityEnforcer --backend numpy --json")
    strict = json.loads(out, parse_constant=pytest.fail)  # JSON has no NaN
    assert strict["rows"][0]["value"] is None


def test_unusable_library_is_reported(command, monkeypatch):
    problem = "ImportError: libcuda.so.1: cannot open"
    info = BackendInfo("cupy", problem=problem)
    monkeypatch.setattr("spikeloss_xp.testing.describe", lambda name: info)
    message = f"spikeloss-xp: error: cannot use cupy: {problem}\n"
    assert command.error("compare --backend cupy") == message


def test_missing_device_is_reported(command):
    message = "cannot use numpy: it has no device 'xpu'; its devices: cpu"
    assert message in command.error("compare --backend numpy --device xpu")


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["--version"]])
def test_help_and_version_are_printed(arguments, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(arguments)
    assert "spikeloss-xp" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line", ["", "x", "compare --loss Spike", "compare --dtype int8", "compare --no-such-option"]
)
def test_wrong_argument_prints_usage(capsys, line):
    with pytest.raises(SystemExit, match="2"):
        cli.main(line.split())
    assert capsys.readouterr().err.startswith("usage: spikeloss-xp")


def test_command_runs_as_script_and_as_module():
    script = Path(sys.executable).with_name("spikeloss-xp")
    for program in ([script], [sys.executable, "-m", "spikeloss_xp"]):
        printed = subprocess.check_output([*program, "--version"], text=True, cwd=TESTS)
        assert printed == f"spikeloss-xp {sx.__version__}\n"


def test_closed_pipe_ends_the_command_without_a_traceback():
    """The other end is closed before the first line is written."""
    command = [
        sys.executable,
        "-m",
        "spikeloss_xp",
        *["compare", "--backend", "numpy", "--loss", "SpikeTime"],
    ]
    reader, writer = os.pipe()
    os.close(reader)
    options = {"stderr": subprocess.PIPE, "text": True, "timeout": 300, "cwd": TESTS}
    done = subprocess.run(command, stdout=writer, **options)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
