"""A stopped run of ``evaluate`` resumes, or fails with the reason."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.cli import _results, _task, main

RNG = np.random.default_rng(6)
SPIKES = (RNG.random((12, 3, 40)) < 0.2).astype(np.float32)
LABEL = RNG.integers(3, size=12)
EXPECTED = np.asarray([sx.SpikeMax()(SPIKES[i : i + 1], LABEL[i : i + 1]) for i in range(12)])
RIGHT = round(12 * float(sx.Rate().accuracy(SPIKES, LABEL)))


def run(capsys, file, *arguments, loss="SpikeMax"):
    status = main(["evaluate", str(file), "--loss", loss, "--batch", "3", *map(str, arguments)])
    return status, *capsys.readouterr()


def record(folder):
    return json.loads((folder / "own.SpikeMax.npy.json").read_text())


def losses(folder):
    return np.load(folder / "own.SpikeMax.npy")


@pytest.fixture(params=["npz", "compressed", "folder", "zarr"])
def file(request, tmp_path):
    """Return the path of a file or folder of spikes and labels, in each format."""
    path = tmp_path / {"folder": "own", "zarr": "own.zarr"}.get(request.param, "own.npz")
    if request.param == "npz":
        np.savez(path, input=SPIKES, label=LABEL)
    elif request.param == "compressed":
        np.savez_compressed(path, input=SPIKES, label=LABEL)
    elif request.param == "folder":
        path.mkdir()
        np.save(path / "input.npy", SPIKES)
        np.save(path / "label.npy", LABEL)
    else:
        group = pytest.importorskip("zarr").open_group(path, mode="w")
        group.create_array("input", data=SPIKES, chunks=(5, 3, 40))
        group.create_array("label", data=LABEL)
    return path


@pytest.fixture
def npz_file(tmp_path):
    """Return the path of an .npz file of spikes and labels, for tests of no particular format."""
    np.savez(tmp_path / "own.npz", input=SPIKES, label=LABEL)
    return tmp_path / "own.npz"


@pytest.fixture
def fail_in_batch(monkeypatch):
    """Return a function that makes the batch of this index raise an error."""
    evaluate = _task.Task.evaluate

    def patch(batch, error=KeyboardInterrupt):
        batches = iter(range(99))

        def failing_losses(*arguments):
            if next(batches) == batch:
                raise error
            return evaluate(*arguments)

        monkeypatch.setattr(_task.Task, "evaluate", failing_losses)

    yield patch
    monkeypatch.undo()


@pytest.fixture
def count_evaluated(monkeypatch):
    """Return a function that starts to list the evaluated samples and returns the list."""
    evaluate, counted = _task.Task.evaluate, []

    def count(self, start, stop):
        counted.extend(range(start, stop))
        return evaluate(self, start, stop)

    def start():
        monkeypatch.setattr(_task.Task, "evaluate", count)
        return counted

    return start


@pytest.mark.parametrize("stopped", [1, 3])
def test_interrupted_run_resumes_to_identical_file(
    capsys, monkeypatch, tmp_path, file, fail_in_batch, stopped
):
    assert run(capsys, file)[0] == 0
    uninterrupted = (tmp_path / "own.SpikeMax.npy").read_bytes()
    np.testing.assert_allclose(losses(tmp_path), EXPECTED, rtol=1e-6)
    counts = {name: record(tmp_path)[name] for name in ("done", "right", "labels")}
    assert counts == {"done": 12, "right": RIGHT, "labels": 12}
    for written in tmp_path.glob("own.SpikeMax.npy*"):
        written.unlink()

    fail_in_batch(stopped)
    status, out, err = run(capsys, file)
    monkeypatch.undo()
    assert (status, out) == (130, "")
    assert err == (
        f"spikeloss-xp: interrupted: {3 * stopped} of 12 samples are done; run the same "
        "command again to go on\n"
    )
    assert record(tmp_path)["done"] == 3 * stopped
    np.testing.assert_array_equal(np.isnan(losses(tmp_path)), np.arange(12) >= 3 * stopped)

    status, out, _ = run(capsys, file, "--json")
    assert status == 0
    assert json.loads(out)["evaluated"] == 12 - 3 * stopped
    assert json.loads(out)["accuracy"] == RIGHT / 12
    assert (tmp_path / "own.SpikeMax.npy").read_bytes() == uninterrupted
    assert counts.items() <= record(tmp_path).items()


def test_finished_samples_are_not_evaluated_again(
    capsys, monkeypatch, npz_file, fail_in_batch, count_evaluated
):
    fail_in_batch(2)
    assert run(capsys, npz_file)[0] == 130
    monkeypatch.undo()
    evaluated = count_evaluated()
    assert run(capsys, npz_file, "--batch", 4)[0] == 0  # the batch size may differ between runs
    assert evaluated == list(range(6, 12))
    status, out, _ = run(capsys, npz_file, "--json")
    assert (status, len(evaluated)) == (0, 6)
    summary = json.loads(out)
    assert (summary["evaluated"], summary["samples_per_second"]) == (0, None)
    assert summary["mean"] == pytest.approx(EXPECTED.mean(), rel=1e-6)
    assert "all were done before" in run(capsys, npz_file)[1]


def test_interruption_before_first_batch_leaves_no_files(
    capsys, monkeypatch, tmp_path, npz_file, fail_in_batch
):
    fail_in_batch(0)
    status, _, err = run(capsys, npz_file)
    assert status == 130
    assert "0 of 12 samples" in err
    assert list(tmp_path.iterdir()) == [npz_file]
    monkeypatch.undo()
    assert run(capsys, npz_file)[0] == 0


def test_interruption_while_creating_output_can_be_resumed(capsys, monkeypatch, tmp_path, npz_file):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(_results.Results, "_write_nan", interrupt)
    assert run(capsys, npz_file)[0] == 130
    monkeypatch.undo()
    assert record(tmp_path)["done"] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"own.npz", "own.SpikeMax.npy.json"}
    assert run(capsys, npz_file)[0] == 0
    np.testing.assert_allclose(losses(tmp_path), EXPECTED, rtol=1e-6)


def test_compare_interruption_exits_with_130(capsys, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", interrupt)
    assert main(["compare", "--backend", "numpy"]) == 130
    assert capsys.readouterr().err == "spikeloss-xp: interrupted\n"


def test_losses_before_an_error_are_kept(capsys, monkeypatch, tmp_path, npz_file, fail_in_batch):
    label = LABEL.copy()
    label[7] = 3
    np.savez(npz_file, input=SPIKES, label=label)
    status, _, err = run(capsys, npz_file)
    assert status == 2
    assert "SpikeMax refuses samples 6 to 8: target must be between 0 and 2" in err
    assert record(tmp_path)["done"] == 6
    np.savez(npz_file, input=SPIKES, label=LABEL)  # the new modification time makes it another file
    status, _, err = run(capsys, npz_file)
    assert status == 2
    assert "was begun with other settings: input was {'name': 'own.npz'" in err


KILLED_PROGRAM = """
import os, signal, sys
from spikeloss_xp.cli import _results, _task, main
_results.SECONDS = float(sys.argv[3])
evaluate = _task.Task.evaluate
def losses(self, start, stop):
    if start >= 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return evaluate(self, start, stop)
_task.Task.evaluate = losses
main(["evaluate", sys.argv[1], "--loss", "SpikeMax", "--batch", "3", "--output", sys.argv[2]])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="processes are ended otherwise on Windows")
@pytest.mark.parametrize(("seconds", "done"), [(0, 6), (1000, 0)])
def test_killed_run_resumes_from_its_record(capsys, tmp_path, npz_file, seconds, done):
    output = tmp_path / "own.SpikeMax.npy"
    killed = subprocess.run([sys.executable, "-c", KILLED_PROGRAM, npz_file, output, str(seconds)])
    assert killed.returncode == -signal.SIGKILL
    assert record(tmp_path)["done"] == done
    status, out, _ = run(capsys, npz_file, "--json")
    assert status == 0
    assert json.loads(out)["evaluated"] == 12 - done
    np.testing.assert_allclose(losses(tmp_path), EXPECTED, rtol=1e-6)


@pytest.mark.slow(but=1)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal on Windows")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_interrupts_the_run(tmp_path, number, status):
    spikes = np.zeros((2_000_000, 2, 5), np.uint8)  # far more than are done before the signal
    np.savez(tmp_path / "own.npz", input=spikes)
    # Shells start background jobs with SIGINT ignored, and child processes inherit that.
    program = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "runpy.run_module('spikeloss_xp', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", program, "evaluate", tmp_path / "own.npz"]
    command += ["--loss", "SparsityEnforcer", "--batch", "10"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "own.SparsityEnforcer.npy").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in err
    assert "samples are done; run the same command again to go on" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--option", "moving_window=5"], "loss was SpikeMax(moving_window=None"),
        (["--dtype", "float64"], "dtype was float32 and is float64"),
        (["--backend", "array_api_strict"], "backend was numpy"),
    ],
)
def test_resume_with_other_options_fails(capsys, tmp_path, npz_file, arguments, said):
    if "array_api_strict" in arguments:
        pytest.importorskip("array_api_strict")
    assert run(capsys, npz_file)[0] == 0
    before = (tmp_path / "own.SpikeMax.npy").read_bytes()
    status, out, err = run(capsys, npz_file, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert "Name another --output, or begin anew with --restart" in err
    assert (tmp_path / "own.SpikeMax.npy").read_bytes() == before
    assert run(capsys, npz_file, *arguments, "--restart")[0] == 0
    assert run(capsys, npz_file, *arguments)[0] == 0
    assert run(capsys, npz_file)[0] == 2


def test_resume_with_other_version_fails(capsys, monkeypatch, npz_file):
    assert run(capsys, npz_file)[0] == 0
    monkeypatch.setattr("spikeloss_xp.__version__", "99")
    status, _, err = run(capsys, npz_file)
    assert status == 2
    assert "and is 99" in err


def test_resume_with_changed_file_fails(capsys, tmp_path, file):
    assert run(capsys, file)[0] == 0
    files = [file, file / "input.npy", *(file / "input").rglob("*")]
    changed = next(path for path in files if path.is_file())
    stat = changed.stat()
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    status, _, err = run(capsys, file)
    assert status == 2
    assert "'modified'" in err
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(capsys, file)[0] == 0
    file.rename(file.with_name(f"other{file.suffix}"))
    arguments = ["--output", tmp_path / "own.SpikeMax.npy"]
    status, _, err = run(capsys, file.with_name(f"other{file.suffix}"), *arguments)
    assert status == 2
    assert "'name'" in err


def test_restart_evaluates_all_samples_again(
    capsys, monkeypatch, tmp_path, npz_file, fail_in_batch, count_evaluated
):
    assert run(capsys, npz_file)[0] == 0
    fail_in_batch(2)
    assert run(capsys, npz_file, "--restart")[0] == 130
    monkeypatch.undo()
    np.testing.assert_array_equal(np.isnan(losses(tmp_path)), np.arange(12) >= 6)
    evaluated = count_evaluated()
    assert run(capsys, npz_file, "--restart")[0] == 0
    assert evaluated == list(range(12))


def test_foreign_files_are_never_overwritten(capsys, tmp_path, npz_file):
    losses_path = tmp_path / "own.SpikeMax.npy"
    np.save(losses_path, np.arange(12.0))
    for more in ([], ["--restart"]):
        status, _, err = run(capsys, npz_file, *more)
        assert status == 2
        assert "exists, and there is no record own.SpikeMax.npy.json which says" in err
    assert (np.load(losses_path) == np.arange(12.0)).all()
    losses_path.unlink()
    record_path = tmp_path / "own.SpikeMax.npy.json"
    for text in ('{"command": "other"}', "[1]", "", "{", "[" * 10**5, '"x"', "\0" * 9):
        record_path.write_text(text)
        for more in ([], ["--restart"]):
            status, _, err = run(capsys, npz_file, *more)
            assert status == 2
            assert "is not a record of this command" in err
        assert record_path.read_text() == text
    assert not losses_path.exists()
    status, _, err = run(capsys, npz_file, "--output", tmp_path / "own.npy")
    assert status == 0
    linked = tmp_path / "linked.npy"
    os.symlink(npz_file, linked)
    assert run(capsys, npz_file, "--output", linked, "--restart")[0] == 2
    assert np.load(npz_file)["label"].shape == (12,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"done": 13}, "says that 13 samples are done"),
        ({"done": -1}, "says that -1 samples are done"),
        ({"done": "3"}, "says that 3 samples are done"),
        ({"done": True}, "says that True samples are done"),
        ({"right": 13}, "that 13 of 12 labels are predicted"),
        ({"right": -1}, "that -1 of 12 labels are predicted"),
        ({"labels": None}, "of None labels are predicted"),
        ({"more": 1}, "it also has more"),
        ({"samples": 11}, "samples was 11 and is 12"),
        ({"input": None}, "input was None and is"),
    ],
)
def test_invalid_record_fails_until_restart(capsys, tmp_path, npz_file, changes, message):
    assert run(capsys, npz_file)[0] == 0
    path = tmp_path / "own.SpikeMax.npy.json"
    path.write_text(json.dumps({**record(tmp_path), **changes}))
    status, _, err = run(capsys, npz_file)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert run(capsys, npz_file, "--restart")[0] == 0


@pytest.mark.parametrize("damage", ["gone", "short", "other", "long"])
def test_damaged_losses_fail_until_restart(capsys, tmp_path, npz_file, damage):
    assert run(capsys, npz_file)[0] == 0
    path = tmp_path / "own.SpikeMax.npy"
    valid = path.read_bytes()
    match damage:
        case "gone":
            path.unlink()
        case "short":
            path.write_bytes(valid[:-1])
        case "other":
            np.save(path, np.zeros(24, np.float32))
        case "long":
            path.write_bytes(valid + b"1")
    status, _, err = run(capsys, npz_file)
    assert status == 2
    assert "is not the file of 12 losses that its record describes" in err
    assert run(capsys, npz_file, "--restart")[0] == 0
    assert path.read_bytes() == valid


def test_full_disk_fails_and_later_run_succeeds(
    capsys, monkeypatch, tmp_path, npz_file, fail_in_batch
):
    usage = type("Usage", (), {"free": 95})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    status, _, err = run(capsys, npz_file)
    assert status == 2
    assert "12 losses take 96 bytes, and the disk has 95 free" in err
    monkeypatch.undo()
    assert run(capsys, npz_file)[0] == 0

    def fail(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    status, _, err = run(capsys, npz_file, "--restart")
    assert status == 2
    assert "cannot be written: [Errno 28] No space left on device" in err
    monkeypatch.undo()
    assert run(capsys, npz_file)[0] == 0  # the failed restart does not prevent it


def test_losses_are_flushed_before_they_are_recorded(capsys, monkeypatch, tmp_path, npz_file):
    events, sync = [], os.fsync

    def recording_fsync(file):
        sync(file)
        name = os.readlink(f"/proc/self/fd/{file}").removeprefix(str(tmp_path))
        events.append((name, np.isfinite(losses(tmp_path)).sum() if len(events) > 1 else 0))

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("there is no telling which file it is")
    monkeypatch.setattr(_results, "SECONDS", 0)
    monkeypatch.setattr("os.fsync", recording_fsync)
    assert run(capsys, npz_file)[0] == 0
    losses_name, record_name = "/own.SpikeMax.npy", "/.own.SpikeMax.npy.json.*.part"
    expected = [(record_name, 0), ("/.own.SpikeMax.npy.*.part", 0)]
    for done in (3, 6, 9, 12, 12):
        expected += [(losses_name, done), (record_name, done)]
    without_random_part = [(re.sub(r"[0-9a-f]{16}", "*", name), done) for name, done in events]
    assert without_random_part == expected
