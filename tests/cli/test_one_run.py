"""One run of ``evaluate`` holds its output, and touches no file that it did not write."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.cli import main

RNG = np.random.default_rng(8)
SPIKES = (RNG.random((6, 3, 20)) < 0.2).astype(np.float32)
LABEL = RNG.integers(3, size=6)
EXPECTED = np.asarray([sx.SpikeMax()(SPIKES[i : i + 1], LABEL[i : i + 1]) for i in range(6)])

WAITING_PROGRAM = """
import sys
from pathlib import Path
from spikeloss_xp.cli import _results, _task, main
evaluate, (file, output, ready, *options) = _task.Task.evaluate, sys.argv[1:]
def losses(self, start, stop):
    if start == 2:
        Path(ready).touch()
        if sys.stdin.read() == "full":
            import resource  # a system limit stands for the disk: no file can be written any more
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return evaluate(self, start, stop)
_task.Task.evaluate, _results.SECONDS = losses, 0
arguments = ["evaluate", file, "--loss", "SpikeMax", "--batch", "2", "--output", output]
sys.exit(main(arguments + options))
"""


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "own.npz", input=SPIKES, label=LABEL)
    return tmp_path / "own.npz"


@pytest.fixture
def waiting(tmp_path, file):
    """Start a run in another process that holds its output until its standard input ends.

    By then it has recorded the first batch. After the input "full" it cannot write any more.
    """
    ready = tmp_path / "ready"
    command = [sys.executable, "-c", WAITING_PROGRAM, file, tmp_path / "out.npy", ready]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(command, text=True, **pipes)
    for _ in range(6000):
        if ready.exists():
            break
        time.sleep(0.01)
    yield process
    process.kill()
    process.communicate()


def run(capsys, file, *options):
    output = file.with_name("out.npy")
    arguments = ["evaluate", str(file), "--loss", "SpikeMax", "--output", str(output), *options]
    return main(arguments), *capsys.readouterr()


@pytest.mark.slow(but=1)
@pytest.mark.parametrize("options", [(), ("--restart",), ("--option", "moving_window=3")])
def test_second_run_on_one_output_fails(capsys, file, waiting, options):
    status, out, err = run(capsys, file, *options)
    assert (status, out) == (2, "")
    assert f"out.npy: another run writes to it, process {waiting.pid}: wait for it" in err
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, err) == (0, "")
    np.testing.assert_allclose(np.load(file.with_name("out.npy")), EXPECTED, rtol=1e-6)
    assert not file.with_name("out.npy.lock").exists()
    status, out, _ = run(capsys, file)
    assert (status, "all were done before" in out) == (0, True)


@pytest.mark.skipif(sys.platform == "win32", reason="processes are ended otherwise on Windows")
def test_lock_of_a_killed_run_is_taken_over(capsys, file, waiting):
    waiting.send_signal(signal.SIGKILL)
    waiting.communicate(timeout=60)
    assert file.with_name("out.npy.lock").exists()
    assert run(capsys, file)[0] == 0
    np.testing.assert_allclose(np.load(file.with_name("out.npy")), EXPECTED, rtol=1e-6)
    assert not file.with_name("out.npy.lock").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of file sizes on Windows")
def test_full_disk_during_a_held_run_loses_nothing(capsys, tmp_path, file, waiting):
    assert run(capsys, file)[0] == 2
    before = sorted(path.name for path in tmp_path.iterdir())
    _, err = waiting.communicate("full", timeout=60)
    assert waiting.returncode == 2
    assert "out.npy: cannot be written: " in err
    assert len(err.splitlines()) == 1
    after = sorted(path.name for path in tmp_path.iterdir())
    assert after == sorted(set(before) - {"out.npy.lock"})  # and no temporary file
    done = json.loads((tmp_path / "out.npy.json").read_text())["done"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy")[:done], EXPECTED[:done], rtol=1e-6)
    assert done == 2
    status, out, err = run(capsys, file, "--json")
    summary = json.loads(out)
    assert (status, err, summary["evaluated"], summary["samples"]) == (0, "", 4, 6)
    np.testing.assert_allclose(summary["mean"], EXPECTED.mean(), rtol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), EXPECTED, rtol=1e-6)


def test_files_of_others_with_similar_names_stay(capsys, tmp_path, file):
    mine = tmp_path / "mine.txt"
    for path in (tmp_path / "out.npy.part", tmp_path / "out.npy.json.part.txt", mine):
        path.write_text("mine")
    os.symlink(mine, tmp_path / "out.npy.json.part")
    assert run(capsys, file)[0] == 0
    for path in (tmp_path / "out.npy.part", tmp_path / "out.npy.json.part.txt", mine):
        assert path.read_text() == "mine"
    assert os.readlink(tmp_path / "out.npy.json.part") == str(mine)
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("content", ["", "mine"])
def test_lock_file_of_another_program_stays(capsys, tmp_path, file, content, link):
    lock = tmp_path / "out.npy.lock"
    mine = tmp_path / "mine.txt" if link else lock
    mine.write_text(content)
    if link:
        os.symlink(mine, lock)
    status, _, err = run(capsys, file)
    assert status == 2
    assert "out.npy.lock" in err
    assert mine.read_text() == content
    assert not (tmp_path / "out.npy").exists()


def test_output_has_the_permissions_of_the_umask(capsys, tmp_path, file):
    before = os.umask(0o027)
    try:
        assert run(capsys, file)[0] == 0
    finally:
        os.umask(before)
    for name in ("out.npy", "out.npy.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["input", "label", "target", "lengths"])
def test_output_that_would_be_read_as_input_fails(capsys, tmp_path, name):
    folder = tmp_path / "own"
    folder.mkdir()
    np.save(folder / "input.npy", SPIKES)
    np.save(folder / "label.npy", LABEL)
    before = sorted(folder.iterdir())
    output = folder / f"{name}.npy"
    assert main(["evaluate", str(folder), "--loss", "SpikeMax", "--output", str(output)]) == 2
    assert f"is the input `{name}` of" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before
