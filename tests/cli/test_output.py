"""The output of ``evaluate``: written once, never over an input, and what ends a run early."""

import contextlib
import errno
import itertools
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.damage import save
from _support.forks import at_call, run_in_forks
from spikeloss_xp.cli import _evaluate

RNG = np.random.default_rng(8)
SPIKES = (RNG.random((6, 3, 20)) < 0.2).astype(np.float32)
LABEL = RNG.integers(3, size=6)
FILE = {"input": SPIKES, "label": LABEL}
EXPECTED = [sx.SpikeMax()(SPIKES[i : i + 1], LABEL[i : i + 1]) for i in range(6)]
OPTIONS = "--loss SpikeMax --batch 2"
OWN = f"evaluate own.npz {OPTIONS} --output out.npy"
OUTPUT = Path("out.npy")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="others have no /proc")
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals, no forks")


@pytest.fixture(autouse=True)
def in_batch(command, monkeypatch):
    """Save own.npz; return a function that has another called before the second batch."""
    save("own.npz", FILE)
    evaluate = _evaluate.Task.evaluate

    def patch(call):
        def evaluate_after_call(self, start, stop):
            if start == 2:
                call()
            return evaluate(self, start, stop)

        monkeypatch.setattr(_evaluate.Task, "evaluate", evaluate_after_call)

    return patch


def fail(error):
    def raise_it(*arguments, **options):
        raise error

    return raise_it


def content():
    """Return what each file holds, by its path."""
    return {str(p): p.is_file() and p.read_bytes() for p in Path().rglob("*")}


def assert_written(path=OUTPUT):
    np.testing.assert_allclose(np.load(path), EXPECTED, rtol=1e-6)


NO_FOLDER, NO_FILE = "there is no folder", "out.npy: it is not a file: name another --output"
IS_INPUT, WOULD_BE = "it is a file of the input", "it would be the input"
PARTS = {"own.npz": "own.npz", "own": "own/label.npy", "own.zarr": "own.zarr/input/c/0/0/0"}
REFUSED = [  # the input, the output, what lies at the output before the run, and the error
    *(("own.npz", "out.npy", kind, NO_FILE) for kind in ("folder", "pipe", "link to out.npy")),
    *(("own.npz", "out.npy", f"link to {name}", NO_FILE) for name in (".", "nowhere.npy")),
    *((path, "out.npy", f"link to {part}", IS_INPUT) for path, part in PARTS.items()),
    *((path, "out.npy", f"hard link to {part}", IS_INPUT) for path, part in PARTS.items()),
    ("out.npy", "out.npy", "hard link to own.npz", IS_INPUT),
    *(("own", f"{where}/{name}.npy", "", IS_INPUT) for where in ("own", "linked") for name in FILE),
    *(("own", f"own/{name}.npy", "", WOULD_BE) for name in ("target", "lengths", "times")),
    ("own", "linked/target.npy", "", f"{WOULD_BE} `target` of own"),
    *(("own.npz", f"{where}/out.npy", "", NO_FOLDER) for where in ("nowhere", "own.npz", "loop")),
    *(
        ("own.npz", f"{where}.npy", "", "File name too long")
        for where in ("a" * 300, "a" * 300 + "/")
    ),
    pytest.param("own.npz", "/proc/out.npy", "", "cannot be written: ", marks=LINUX),
]


@pytest.mark.parametrize(("path", "output", "before", "message"), REFUSED)
def test_output_is_refused_before_the_first_sample(
    command, in_batch, path, output, before, message
):
    in_batch(fail(AssertionError("a sample was evaluated")))
    for name in PARTS:
        save(name, FILE)
    os.symlink("own", "linked")
    os.symlink("loop", "loop")
    match before.rsplit(maxsplit=1):
        case ["folder"]:
            OUTPUT.mkdir()
        case ["pipe"]:
            os.mkfifo(OUTPUT)
        case ["link to", target]:
            os.symlink(target, OUTPUT)
        case ["hard link to", target]:
            os.link(target, OUTPUT)
    files = content()
    for option in ("", "--overwrite"):
        found = command.error(f"evaluate {path} {OPTIONS} --output {output} {option}")
        assert f"{output}: " in found
        assert message in found
    assert content() == files


def test_existing_output_is_replaced_only_on_request(command, in_batch):
    Path("mine.txt").write_text("mine")
    os.symlink("mine.txt", OUTPUT)  # which is not followed
    assert "out.npy: it exists: pass --overwrite to replace it, or name" in command.error(OWN)
    assert command(OWN, "--overwrite")[::2] == (0, "")
    assert not OUTPUT.is_symlink()
    assert_written()
    in_batch(fail(AssertionError("a sample was evaluated")))
    assert "out.npy: it exists" in command.error(OWN)
    assert Path("mine.txt").read_text() == "mine"
    assert content().keys() == {"own.npz", "mine.txt", "out.npy"}


def test_too_small_disk_fails_before_the_first_sample(command, monkeypatch, in_batch):
    in_batch(fail(AssertionError("a sample was evaluated")))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 47}))
    assert "6 losses take 48 bytes, and the disk has 47 free" in command.error(OWN)


def test_losses_are_complete_on_the_disk_before_they_replace_the_output(command, monkeypatch):
    OUTPUT.write_text("mine")
    sync, written = os.fsync, []

    def recorded(number):
        sync(number)
        (partial,) = content().keys() - {"own.npz", "out.npy"}
        written.append((np.load(partial), OUTPUT.read_text(), len(partial) < 50))

    monkeypatch.setattr("os.fsync", recorded)
    assert command(OWN, "--overwrite")[0] == 0
    ((losses, *before),) = written
    np.testing.assert_array_equal(losses, np.load(OUTPUT))
    assert before == ["mine", True]  # a short name, although that of the output may be the longest
    longest = f"{'a' * 251}.npy"
    monkeypatch.setattr("os.fsync", sync)
    assert command(f"evaluate own.npz {OPTIONS} --output {longest}")[0] == 0


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("old", [None, "mine"])
@pytest.mark.parametrize(("error", "status"), [(FULL, 2), (KeyboardInterrupt(), 130)])
def test_error_at_any_write_leaves_the_old_file(command, error, status, old):
    if old is not None:
        OUTPUT.write_text(old)
    files = content()
    for number in itertools.count(1):
        sys.setprofile(at_call("write", number, fail(error)))
        got, out, err = command(OWN, "--overwrite")
        sys.setprofile(None)
        if got == 0:
            break
        assert (got, out, err.count("\n")) == (status, "", 1)
        assert content() == files
    assert number > 9
    assert_written()


@UNIX
def test_run_killed_at_any_write_can_be_repeated(command, tmp_path):
    outputs = [Path(f"{number}.npy") for number in range(1, 15)]
    for output in outputs[::2]:
        output.write_text("mine")
    old = [content().get(output.name) for output in outputs]
    runs = [f"evaluate own.npz {OPTIONS} --overwrite --output {output}" for output in outputs]
    at = [("write", number, signal.SIGKILL) for number in range(1, 15)]
    cases = [{"arguments": run, "at": place} for run, place in zip(runs, at, strict=True)]
    statuses = [status for status, *_ in run_in_forks(tmp_path, cases)]
    assert set(statuses) == {-signal.SIGKILL, 0}
    found = [content().get(output.name) for output in outputs]
    unchanged = [one == other for one, other in zip(old, found, strict=True)]
    assert 9 < sum(unchanged) <= statuses.count(-signal.SIGKILL)
    for output, same, run in zip(outputs, unchanged, runs, strict=True):
        if not same:
            assert_written(output)
        assert command(run)[::2] == (0, "")
        assert_written(output)
    assert {Path(name).suffix for name in content()} == {".npz", ".npy", ".part"}


@contextlib.contextmanager
def sigint(handler):
    before = signal.signal(signal.SIGINT, handler)
    yield
    signal.signal(signal.SIGINT, before)


@UNIX
@pytest.mark.parametrize("place", ["batch", "write"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_run_once(command, monkeypatch, in_batch, number, place):
    OUTPUT.write_text("mine")
    files, unlink = content(), Path.unlink

    def unlink_and_interrupt(self, **options):  # more signals while the run cleans up
        for more in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), more)
        unlink(self, **options)

    def interrupt(*arguments):
        monkeypatch.setattr(Path, "unlink", unlink_and_interrupt)
        os.kill(os.getpid(), number)

    in_batch(interrupt) if place == "batch" else monkeypatch.setattr("os.fsync", interrupt)
    with sigint(signal.default_int_handler):
        result = command(OWN, "--overwrite")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert result == (128 + number, "", "spikeloss-xp: interrupted\n")
    assert content() == files


@UNIX
def test_ignored_signal_stays_ignored(command, in_batch):
    in_batch(lambda: os.kill(os.getpid(), signal.SIGINT))
    with sigint(signal.SIG_IGN):  # as shells start jobs in the background
        assert command(OWN)[0] == 0


def test_interrupted_comparison_exits_with_130(command, monkeypatch):
    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", fail(KeyboardInterrupt()))
    assert command("compare --backend numpy")[::2] == (130, "spikeloss-xp: interrupted\n")


@pytest.mark.parametrize("overwrite", ["", "--overwrite"])
def test_two_runs_at_once_leave_one_complete_result(command, in_batch, overwrite):
    other = "evaluate own.npz --loss SpikeMoid --output"
    in_batch(lambda: command(other, "out.npy", overwrite))
    if overwrite:
        assert command(OWN, overwrite)[0] == 0
        assert_written()
    else:
        message = "out.npy: another program has written it in the meantime"
        assert message in command.error(OWN)
        assert command(other, "other.npy")[0] == 0
        assert OUTPUT.read_bytes() == Path("other.npy").read_bytes()
    assert content().keys() - {"other.npy"} == {"own.npz", "out.npy"}


CHANGES = {
    "written over": Path.write_bytes,
    "replaced": lambda path, data: Path("new").write_bytes(data) and os.replace("new", path),
    "cut": lambda path, data: os.truncate(path, len(data) - 1),
    "removed": lambda path, data: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["own.npz", "own/input.npy", "own.zarr/input/c/1/0/0"])
def test_input_that_changes_while_it_is_read_fails(command, in_batch, path, change):
    folder, _, _ = path.partition("/")
    spikes = RNG.random((6, 3, 9000))  # more than a buffer holds
    save(folder, {**FILE, "input": 1 - spikes})
    other = Path(path).read_bytes()
    save(folder, {**FILE, "input": spikes})
    os.utime(path, (0, 0))  # clocks of file systems are coarse
    in_batch(lambda: CHANGES[change](Path(path), other))
    message = command.error(f"evaluate {folder} {OPTIONS} --output out.npy")
    if (path, change) == ("own/input.npy", "cut"):
        assert "`input` ends before its last sample" in message
    else:
        assert re.search("has changed while it was read|cannot be read", message)
    assert not OUTPUT.exists()


@LINUX
@pytest.mark.slow(but=1)
@pytest.mark.parametrize("number", [1000, 30])
def test_many_files_leave_nothing_open(command, in_batch, number):
    opened = []
    in_batch(lambda: opened.append(len(os.listdir("/proc/self/fd"))))
    for i in range(number):
        save(f"{i}.npz", {**FILE, "label": np.roll(LABEL, i)})
        assert command(f"evaluate {i}.npz {OPTIONS}")[::2] == (0, "")
    save(".", FILE)  # beside all others
    assert command(f"evaluate . {OPTIONS} --output out.npy")[::2] == (0, "")
    assert max(opened) == opened[0] + 1
    for i in range(number):
        label = np.roll(LABEL, i)
        losses = [sx.SpikeMax()(SPIKES[j : j + 1], label[j : j + 1]) for j in range(6)]
        np.testing.assert_allclose(np.load(f"{i}.SpikeMax.npy"), losses, rtol=1e-6)
    assert_written()


@UNIX
def test_output_has_the_permissions_of_the_umask(command):
    before = os.umask(0o027)
    try:
        assert command(OWN)[0] == 0
    finally:
        os.umask(before)
    assert OUTPUT.stat().st_mode & 0o777 == 0o640


def test_long_option_can_be_repeated(command):
    save("own.npz", {"input": SPIKES, "target": SPIKES[::-1]})
    kernel = f"kernel={','.join(f'{tap:.8f}' for tap in RNG.random(8000))}"
    for overwrite in ("", "--overwrite"):
        assert command(f"evaluate own.npz --loss SpikeTime --option {kernel} {overwrite}")[0] == 0


@pytest.mark.parametrize("path", ["loop", "loop/own.npz", f"{'a' * 300}.npz", f"{'a' * 300}/a.npz"])
def test_unusual_input_fails(command, path):
    os.symlink("loop", "loop")
    for words in (f"evaluate {path} {OPTIONS}", f"compare {path}"):
        assert ("no such file" if "loop" in path else "cannot be read: ") in command.error(words)


def test_root_as_input_fails(command):  # whose default output has no name to begin with
    assert "it must hold an array `input` or `times`" in command.error(f"evaluate / {OPTIONS}")


@UNIX
def test_streams_that_cannot_be_written_never_print_a_traceback(tmp_path):
    compare = "compare --backend numpy --loss SparsityEnforcer"
    evaluate = f"{OWN} --overwrite"
    prints = (compare, evaluate, "--help", "--version", "evaluate --help")
    statuses = {compare: 0, evaluate: 0, "evaluate": 2, f"evaluate nowhere.npz {OPTIONS}": 2}
    broken = {"pipe without a reader": "[Errno 32] Broken pipe"}
    if os.path.exists("/dev/full"):
        broken["/dev/full"] = "[Errno 28] No space left"
    cases = [(words, {1: where}, 2, broken[where]) for words in prints for where in broken]
    cases += [(words, {1: "closed"}, 0, "") for words in prints]
    for where in (*broken, "closed"):
        cases += [(words, {2: where}, status, "") for words, status in statuses.items()]
    cases.append((evaluate, dict.fromkeys(range(3), "closed"), 0, ""))
    given = [{"arguments": words, "streams": streams} for words, streams, *_ in cases]
    for case, (status, _, err) in zip(cases, run_in_forks(tmp_path, given), strict=True):
        *_, expected, message = case
        assert status == expected, (case, err)
        assert (f"standard output cannot be written: {message}" if message else "") in err
        assert err.count("\n") == bool(message)
    assert_written()


@UNIX
def test_interruption_of_the_imports_prints_no_traceback(tmp_path):
    at = [("import", 2**i, signal.SIGINT) for i in range(8)]
    cases = [{"arguments": OWN, "at": place} for place in at]
    for status, out, err in run_in_forks(tmp_path, cases):
        assert (status, out) == (130, "")
        assert err in ("", "spikeloss-xp: interrupted\n")
    assert content().keys() == {"own.npz"}
