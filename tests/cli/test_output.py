"""The output of ``evaluate``: written once, never over an input, and what ends a run early."""

import os
import shutil
import signal
import sys

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import terminal
from _support.forks import run_in_forks
from spikeloss_xp.cli import _evaluate, main

RNG = np.random.default_rng(8)
SPIKES = (RNG.random((6, 3, 20)) < 0.2).astype(np.float32)
LABEL = RNG.integers(3, size=6)
EXPECTED = np.asarray([sx.SpikeMax()(SPIKES[i : i + 1], LABEL[i : i + 1]) for i in range(6)])
LOSS = ["--loss", "SpikeMax"]


@pytest.fixture
def file(tmp_path):
    np.savez(tmp_path / "own.npz", input=SPIKES, label=LABEL)
    return tmp_path / "own.npz"


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.npy"


@pytest.fixture
def in_batch(monkeypatch):
    """Return a function that has another function called before the second batch of two samples."""
    evaluate = _evaluate.Task.evaluate

    def patch(call):
        def evaluate_after_call(self, start, stop):
            if start == 2:
                call()
            return evaluate(self, start, stop)

        monkeypatch.setattr(_evaluate.Task, "evaluate", evaluate_after_call)

    return patch


def run(capsys, file, output, *options):
    arguments = [file, *LOSS, "--batch", "2", "--output", output, *options]
    return terminal.run(capsys, "evaluate", *arguments)


def assert_error(result, message):
    """Check that a command failed with one line that contains the message."""
    assert message in str(terminal.error_of(result, "a" * 300))


def fail(error):
    def raise_it(*arguments, **options):
        raise error

    return raise_it


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_existing_output_fails_before_the_first_sample(capsys, file, output, in_batch, tmp_path):
    output.write_text("mine")
    calls = []
    in_batch(lambda: calls.append(1))
    assert_error(
        run(capsys, file, output), "out.npy: it exists: pass --overwrite to replace it, or"
    )
    assert (output.read_text(), calls) == ("mine", [])
    assert run(capsys, file, output, "--overwrite")[::2] == (0, "")
    np.testing.assert_allclose(np.load(output), EXPECTED, rtol=1e-6)
    assert names(tmp_path) == ["out.npy", "own.npz"]


def test_losses_are_complete_on_the_disk_before_they_replace_the_output(
    capsys, monkeypatch, file, output, tmp_path
):
    output.write_text("mine")
    sync, written = os.fsync, []

    def recorded(number):
        sync(number)
        (partial,) = set(tmp_path.iterdir()) - {file, output}
        written.append((np.load(partial), output.read_bytes(), partial.name))

    monkeypatch.setattr("os.fsync", recorded)
    assert run(capsys, file, output, "--overwrite")[0] == 0
    ((losses, before, name),) = written
    np.testing.assert_array_equal(losses, np.load(output))
    assert before == b"mine"
    assert len(name) < 50  # whatever the name of the output, which may be the longest possible
    monkeypatch.undo()
    assert run(capsys, file, tmp_path / f"{'a' * 251}.npy")[0] == 0


@pytest.mark.parametrize("old", [None, "mine"])
@pytest.mark.parametrize(
    ("place", "error", "status"),
    [
        ("batch", KeyboardInterrupt(), 130),
        ("batch", MemoryError(), 2),
        ("os.fsync", OSError(28, "No space left on device"), 2),
        ("os.fsync", KeyboardInterrupt(), 130),
        ("pathlib.Path.replace", PermissionError(13, "Permission denied"), 2),
    ],
)
def test_run_that_ends_early_leaves_the_old_file(
    capsys, monkeypatch, tmp_path, file, output, in_batch, place, error, status, old
):
    if old is not None:
        output.write_text(old)
    if place == "batch":
        in_batch(fail(error))
    else:
        monkeypatch.setattr(place, fail(error))
    got, out, err = run(capsys, file, output, "--overwrite")
    assert (got, out) == (status, "")
    assert err.count("\n") == 1
    assert names(tmp_path) == ["out.npy"] * (old is not None) + ["own.npz"]
    assert old is None or output.read_text() == old


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals on Windows")
@pytest.mark.parametrize("place", ["batch", "write"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_run_once(
    capsys, monkeypatch, tmp_path, file, output, in_batch, number, place
):
    output.write_text("mine")
    # Shells start background jobs with SIGINT ignored, and child processes inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    unlink = _evaluate.Path.unlink

    def interrupt(*arguments):
        os.kill(os.getpid(), number)

    def unlink_and_interrupt(self, **options):  # more signals while the run cleans up
        for more in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), more)
        unlink(self, **options)

    if place == "batch":
        in_batch(interrupt)
    else:
        monkeypatch.setattr("os.fsync", interrupt)

        def check_output(*arguments, **options):  # which removes a temporary file too
            monkeypatch.setattr(_evaluate.Path, "unlink", unlink_and_interrupt)

        monkeypatch.setattr(_evaluate, "_check_output", check_output)
    try:
        got = run(capsys, file, output, "--overwrite")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if (number, place) == (signal.SIGINT, "batch"):  # ignored, as in the background of a shell
            assert run(capsys, file, tmp_path / "other.npy")[0] == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert got == (128 + number, "", "spikeloss-xp: interrupted\n")
    assert output.read_text() == "mine"
    assert set(names(tmp_path)) <= {"other.npy", "out.npy", "own.npz"}


def test_interrupted_comparison_exits_with_130(capsys, monkeypatch):
    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", fail(KeyboardInterrupt()))
    assert main(["compare", "--backend", "numpy"]) == 130
    assert capsys.readouterr().err == "spikeloss-xp: interrupted\n"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_two_runs_at_once_leave_one_complete_result(
    capsys, tmp_path, file, output, in_batch, overwrite
):
    statuses = []

    def run_another():
        if not statuses:
            statuses.append(2)
            arguments = ["evaluate", file, "--loss", "SpikeMoid", "--output", output, *overwrite]
            statuses[0] = terminal.run(capsys, *arguments)[0]

    in_batch(run_another)
    result = run(capsys, file, output, *overwrite)
    assert statuses == [0]
    if overwrite:
        assert result[0] == 0
        np.testing.assert_allclose(np.load(output), EXPECTED, rtol=1e-6)
    else:
        assert_error(result, "out.npy: another program has written it in the meantime")
        hot = LABEL[:, None] == np.arange(3)
        others = [sx.SpikeMoid(theta=0)(SPIKES[i : i + 1], hot[i : i + 1]) for i in range(6)]
        np.testing.assert_allclose(np.load(output), others, rtol=1e-6)
    assert names(tmp_path) == ["out.npy", "own.npz"]


def folder_of_arrays(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    np.save(folder / "input.npy", SPIKES)
    np.save(folder / "label.npy", LABEL)
    return folder


def zarr_group(tmp_path):
    group = pytest.importorskip("zarr").open_group(tmp_path / "own.zarr", mode="w")
    group.create_array("input", data=SPIKES, chunks=(2, 3, 20))
    group.create_array("label", data=LABEL)
    return tmp_path / "own.zarr"


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard", "symbolic"])
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda folder: folder / "own.npz", "."),
        (folder_of_arrays, "label.npy"),
        (zarr_group, "input/c/0/0/0"),
    ],
    ids=["npz", "folder", "zarr"],
)
def test_output_that_is_linked_to_an_input_fails(capsys, tmp_path, file, output, make, part, link):
    path = make(tmp_path)
    content = (path / part).read_bytes()
    link(path / part, output)
    for options in ([], ["--overwrite"]):
        assert_error(
            run(capsys, path, output, *options), f"out.npy: it is a file of the input {path}"
        )
    assert (path / part).read_bytes() == output.read_bytes() == content


@pytest.mark.parametrize("name", ["input", "label", "target", "lengths", "times"])
@pytest.mark.parametrize("through", ["own", "link"])
def test_output_that_would_be_read_as_input_fails(capsys, tmp_path, name, through):
    folder = folder_of_arrays(tmp_path)
    os.symlink(folder, tmp_path / "link")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    output = tmp_path / through / f"{name}.npy"
    message = (
        "it is a file of the input" if output.exists() else f"it would be the input `{name}` of"
    )
    for options in ([], ["--overwrite"]):
        assert_error(run(capsys, folder, output, *options), message)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_input_file_as_its_own_output_fails(capsys, file, output):
    shutil.move(file, output)
    content = output.read_bytes()
    assert_error(run(capsys, output, output, "--overwrite"), "it is a file of the input")
    assert output.read_bytes() == content


def test_symbolic_link_as_output_is_replaced_and_not_followed(capsys, tmp_path, file, output):
    target = tmp_path / "mine.txt"
    target.write_text("mine")
    os.symlink(target, output)
    assert_error(run(capsys, file, output), "out.npy: it exists")
    assert run(capsys, file, output, "--overwrite")[0] == 0
    assert not output.is_symlink()
    assert target.read_text() == "mine"
    np.testing.assert_allclose(np.load(output), EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("kind", ["folder", "loop", "dangling", "pipe", "link to a folder"])
def test_output_that_is_no_file_fails(capsys, tmp_path, file, output, kind):
    match kind:
        case "folder":
            output.mkdir()
        case "loop":
            os.symlink(output, output)
        case "dangling":
            os.symlink(tmp_path / "nowhere.npy", output)
        case "pipe":
            os.mkfifo(output)
        case "link to a folder":
            os.symlink(tmp_path, output)
    for options in ([], ["--overwrite"]):
        assert_error(run(capsys, file, output, *options), "out.npy: it is not a file: name another")
    assert names(tmp_path) == ["out.npy", "own.npz"]


def test_folder_that_cannot_be_written_fails_before_the_first_sample(
    capsys, monkeypatch, tmp_path, file, in_batch
):
    in_batch(fail(AssertionError("a sample was evaluated")))
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    for name, message in [
        ("nowhere/out.npy", "there is no folder"),
        ("own.npz/out.npy", "there is no folder"),
        ("loop/out.npy", "there is no folder"),
        (f"{'a' * 300}/out.npy", "File name too long"),
        (f"{'a' * 300}.npy", "File name too long"),
    ]:
        assert_error(run(capsys, file, tmp_path / name), message)
        assert_error(run(capsys, file, tmp_path / name, "--overwrite"), message)
    if sys.platform == "linux":
        assert_error(run(capsys, file, "/proc/out.npy"), "/proc/out.npy: cannot be written: ")
    assert sorted(names(tmp_path)) == ["loop", "own.npz"]


def test_full_disk_fails_before_the_first_sample(capsys, monkeypatch, file, output, in_batch):
    in_batch(fail(AssertionError("a sample was evaluated")))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 47}))
    assert_error(run(capsys, file, output), "6 losses take 48 bytes, and the disk has 47 free")


def test_output_has_the_permissions_of_the_umask(capsys, file, output):
    before = os.umask(0o027)
    try:
        assert run(capsys, file, output)[0] == 0
    finally:
        os.umask(before)
    assert output.stat().st_mode & 0o777 == 0o640


def test_long_option_can_be_repeated(capsys, tmp_path, output):
    np.savez(tmp_path / "own.npz", input=SPIKES, target=SPIKES[::-1])
    kernel = f"kernel={','.join(f'{tap:.8f}' for tap in RNG.random(8000))}"
    arguments = ["evaluate", str(tmp_path / "own.npz"), "--loss", "SpikeTime", "--option", kernel]
    assert main(arguments) == 0
    assert main([*arguments, "--overwrite"]) == 0


def test_unusual_inputs_fail(capsys, tmp_path, output):
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    for path, message in [
        (tmp_path / "loop", "no such file"),
        (tmp_path / "loop" / "own.npz", "no such file"),
        (tmp_path / f"{'a' * 300}.npz", "cannot be read: "),
        (tmp_path / ("a" * 300) / "own.npz", "cannot be read: "),
    ]:
        assert_error(run(capsys, path, output), message)
        assert_error(terminal.run(capsys, "compare", path), message)
    # The default output of the root folder has no name to begin with.
    result = terminal.run(capsys, "evaluate", "/", *LOSS)
    assert_error(result, "it must hold an array `input` or `times`")


FORKS = pytest.mark.skipif(sys.platform == "win32", reason="processes do not fork on Windows")


@FORKS
def test_streams_that_cannot_be_written_never_print_a_traceback(tmp_path, file):
    compare = ["compare", "--backend", "numpy", "--loss", "SparsityEnforcer"]
    evaluate = ["evaluate", file, *LOSS, "--overwrite"]
    full, closed, pipe = "/dev/full", "closed", "pipe without a reader"
    cases = [
        (compare, {1: pipe}, 2, "standard output cannot be written: [Errno 32] Broken pipe"),
        (compare, {1: closed}, 0, ""),
        (compare, {2: closed}, 0, ""),
        (evaluate, {1: pipe}, 2, "[Errno 32] Broken pipe"),
        (evaluate, {1: closed}, 0, ""),
        (evaluate, {2: closed}, 0, ""),
        (evaluate, {0: closed, 1: closed, 2: closed}, 0, ""),
        (["--help"], {1: pipe}, 2, "[Errno 32] Broken pipe"),
        (["--version"], {1: closed}, 0, ""),
        (["evaluate"], {2: closed}, 2, ""),
        (["evaluate"], {2: pipe}, 2, ""),
        (["evaluate", tmp_path / "nowhere.npz", *LOSS], {2: closed}, 2, ""),
    ]
    if os.path.exists(full):
        cases += [
            (compare, {1: full}, 2, "standard output cannot be written: [Errno 28] No space left"),
            (evaluate, {1: full}, 2, "[Errno 28] No space left"),
            (evaluate, {2: full}, 0, ""),
            (["--version"], {1: full}, 2, "[Errno 28] No space left"),
            (["evaluate", "--help"], {1: full}, 2, "[Errno 28] No space left"),
            (["evaluate", tmp_path / "nowhere.npz", *LOSS], {2: full}, 2, ""),
        ]
    given = [{"arguments": arguments, "streams": streams} for arguments, streams, *_ in cases]
    for case, (status, _, err) in zip(cases, run_in_forks(tmp_path, given), strict=True):
        *_, expected, message = case
        assert status == expected, (case, err)
        assert message in err
        assert err.count("\n") == bool(message)
    np.testing.assert_allclose(np.load(tmp_path / "own.SpikeMax.npy"), EXPECTED, rtol=1e-6)


@FORKS
def test_interruption_of_the_imports_prints_no_traceback(tmp_path, file):
    arguments = ["evaluate", file, *LOSS, "--overwrite"]
    case = {"arguments": arguments, "interrupt": "count"}
    ((number, _, _),) = run_in_forks(tmp_path, [case])
    assert number > 12
    points = [1 + i * (number - 1) // 11 for i in range(12)]
    cases = [{"arguments": arguments, "interrupt": point} for point in points]
    for status, out, err in run_in_forks(tmp_path, cases):
        assert (status, out) == (130, "")
        assert err in ("", "spikeloss-xp: interrupted\n")
    assert names(tmp_path) == ["own.SpikeMax.npy", "own.npz"]
