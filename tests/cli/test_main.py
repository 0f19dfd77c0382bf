"""The command line: its help, its errors, and how it ends."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.cli import _compare, main

EXAMPLES = re.findall("^  (spike.*)", _compare.EXAMPLES, re.MULTILINE)
FAST = "compare --backend numpy --loss SparsityEnforcer"


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"]])
def test_help_shows_the_examples_in_80_columns(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")  # Python 3.14 colours the help
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert all(f"  {example}\n" in out for example in EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_the_help_runs(command, example):
    spikes = np.ones((2, 3, 40))
    np.savez("recording.npz", input=spikes, target=spikes)
    status, _, err = command(f"{example.removeprefix('spikeloss-xp ')} --backend numpy")
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    "line", ["", "x", "compare --loss Spike", "compare --dtype int8", "compare --no-such-option"]
)
def test_wrong_argument_prints_usage(capsys, line):
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    assert capsys.readouterr().err.startswith("usage: spikeloss-xp")


def test_command_runs_as_script():
    script = Path(sys.executable).with_name("spikeloss-xp")
    printed = subprocess.check_output([script, "--version"], text=True)
    assert printed == f"spikeloss-xp {sx.__version__}\n"


def test_interruption_prints_one_line(command, monkeypatch):
    monkeypatch.setattr(_compare, "reference", Mock(side_effect=KeyboardInterrupt))
    assert command(FAST) == (130, "", "spikeloss-xp: interrupted\n")


@pytest.mark.compiles
@pytest.mark.skipif(sys.platform == "win32", reason="Windows reports a closed pipe differently")
def test_closed_pipe_prints_no_traceback():
    """The reader of the output may end early, such as `head`."""
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", "spikeloss_xp", *FAST.split()]
    done = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (2, "")
