"""Damaged or malicious files fail with one line and use little memory; unusual ones are read."""

import io
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from _support.damage import (
    LABEL,
    SPIKES,
    TouchWhenUnpickled,
    archive,
    archive_of,
    bomb,
    header,
    member,
    mutants,
    npy,
    patched,
)
from spikeloss_xp.cli import _compare, _files

FAST = "--backend numpy --loss SparsityEnforcer"
LONG = "longdouble" if np.dtype("longdouble").itemsize > 8 else "c16"
STORED, DEFLATED = archive(npy(SPIKES)), archive(npy(SPIKES), zipfile.ZIP_DEFLATED)


def short_id(parameter):
    return parameter[:24] if isinstance(parameter, str) else "file"


@pytest.fixture
def error_of(command):
    """Return a function that compares on a file and returns the error, a short line, or None.

    The file is bytes, or None if it has been written before.
    """

    def run(file, arguments=FAST, path="own.npz"):
        if file is not None:
            Path(path).write_bytes(file)
        return command.error("compare", Path(path), arguments)

    return run


def assert_read():
    """Check that the file that was read last had the right content."""
    recording = _compare.load("own.npz")
    np.testing.assert_array_equal(recording.input, SPIKES)
    np.testing.assert_array_equal(recording.targets["classes"], LABEL)


@pytest.mark.parametrize("data", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_damaged_archive_fails_or_is_read_correctly(error_of, data):
    assert error_of(data) is None
    errors = set()
    for damaged in mutants(data, 200):
        error = error_of(damaged)
        if error is None:  # the damaged bytes do not matter, such as a date
            assert_read()
        errors.add(error)
    assert len(errors) > 15  # the damage reaches different checks


def test_damaged_npy_header_never_crashes(error_of):
    # The checksum is correct, so that the header is parsed.
    pieces = ["-", "9" * 20, "(", ")", "0", "'", "O", "L", "\\", "\n", ",", "{", "<f8", "|V9", "#"]
    pieces += ["1e5", "True", "None", "\t", "\xff", "\0", "M8", "c16", "a4", "0x7fffffffffffffff"]
    rng = np.random.default_rng(2)
    for _ in range(200):
        text = header()
        for _ in range(rng.integers(1, 4)):
            position, piece = rng.integers(len(text)), rng.choice(pieces)
            text = text[:position] + piece + text[position + rng.integers(3) :]
        error_of(archive(member(text)))


@pytest.mark.parametrize(
    ("input", "message"),
    [
        (member(header(shape="(1000000, 1000, 1000)")), "takes 4000000000000 bytes, and the file"),
        (member(header(shape=f"(1{'0' * 400}, 3, 40)")), "`input` is damaged"),
        *(
            (member(header(shape=shape)), f"its header gives the shape {shape}")
            for shape in ("(-4, 3, 40)", "(-4, -3, 40)", "(True, 12, 40)")
        ),
        (member(header(shape="(0, 4611686018427387904, 8)"), b""), "cannot be read: "),
        (member(header("|b1"), bytes([7]) * 480), "a bool is 0 or 1, and it holds 7"),
        (member(header(shape=str((1,) * 99)), b"1234"), "own"),
        (member(header("|u1")), "takes 480 bytes, and the file has 1920"),
        (npy(SPIKES)[:-1], "takes 1920 bytes, and the file has 1919"),
        (npy(SPIKES) + b"1", "takes 1920 bytes, and the file has 1921"),
        *((member(text), "cannot be read") for text in ("-" * 9000 + "1", "9" * 9000, "{[]: 1}")),
        *((npy(SPIKES, (major, 0)), "as numpy.savez writes it") for major in (2, 3)),
        (npy(np.float32(1)), "got shape ()"),
        (npy(SPIKES[:, 0, 0]), "got shape (4,)"),
        (npy(SPIKES[..., :0]), "got shape (4, 3, 0)"),
        *(
            (npy(np.zeros((4, 3, 40), dtype)), "of real numbers of up to 64 bits, but ")
            for dtype in ("S8", "M8[s]", "c8", "f4,f4", LONG)
        ),
    ],
    ids=short_id,
)
def test_invalid_array_fails(error_of, input, message):
    assert message in error_of(archive(input))


def test_values_that_cannot_be_compared_fail(error_of):
    assert "holds NaN or infinity" in error_of(archive(npy(np.where(SPIKES, np.nan, SPIKES))))
    large = archive(npy(SPIKES * np.float64(1e300)))
    assert "holds numbers too large for float32" in error_of(large)
    negative = error_of(archive(npy(-SPIKES)), "--backend numpy --loss SpikeMax")
    assert "SpikeMax refuses these arrays" in negative


TWICE = archive_of({"input": npy(SPIKES), "other": npy(SPIKES), "label": npy(LABEL)})
METHOD = "compressed by a method other than deflate: save it by numpy.savez_compressed"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patched(DEFLATED, [(6, "<H", 1)], [(8, "<H", 1)]), "is encrypted"),
        (patched(DEFLATED, [(8, "<H", 99)], [(10, "<H", 99)]), METHOD),
        *((archive(npy(SPIKES), way), METHOD) for way in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        (patched(DEFLATED, central=[(16, "<I", 1)]), "Bad CRC-32"),
        (patched(DEFLATED, central=[(24, "<I", 4000000000)]), "`input` is damaged"),
        (patched(DEFLATED, [(6, "<H", 2048), (30, "B", 255)]), "cannot be read"),
        (DEFLATED.replace(b"input", b"in\nut"), "it holds 'in\\nut', 'label'"),
        (DEFLATED.replace(b"input.npy", b"\x1b[31m.npy"), "it holds '\\x1b[31m', 'label'"),
        (archive_of({f"{i}" * 30: b"" for i in range(1000)}), " ..."),
        (TWICE.replace(b"other", b"input"), "it holds two arrays `input`"),
        (b"PK\x05\x06" + bytes(18), "it holds nothing"),
        *((data, "not an .npz file") for data in (b"", b"spikes")),
    ],
    ids=short_id,
)
def test_invalid_archive_fails(error_of, data, message):
    assert message in error_of(data)


def test_pickles_are_never_loaded(error_of):
    payload = TouchWhenUnpickled(Path("mark").absolute())
    stream = io.BytesIO()
    np.save(stream, np.asarray([payload]), allow_pickle=True)
    pickled = pickle.dumps(payload)
    padded = pickled + bytes(-len(pickled) % 8)  # as many bytes as the header says
    of_that_size = member(header("|O", f"({len(padded) // 8},)"), padded)
    for data in (stream.getvalue(), pickled, of_that_size):
        assert error_of(archive(data)) is not None
        assert error_of(data) is not None
    assert not Path("mark").exists()
    pickle.loads(pickle.dumps(payload))
    assert Path("mark").exists()  # the payload works, so the test can fail


def test_path_without_arrays_fails(error_of, monkeypatch):
    assert "no such file" in error_of(None, path="nowhere.npz")
    Path("folder").mkdir()
    assert "not a file" in error_of(None, path="folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")  # opening it would block
        assert "not a file" in error_of(None, path="pipe")
    os.symlink("loop", "loop")
    for path in ("loop", "loop/own.npz"):
        assert "no such file" in error_of(None, path=path)
    for path in (f"{'a' * 300}.npz", f"{'a' * 300}/a.npz"):
        assert "cannot be read: " in error_of(None, path=path)

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    assert error_of(STORED) is None
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in error_of(None)


@pytest.mark.parametrize("dtype", [">f4", ">i8", "f2", "?"])
def test_dtypes_and_orders_are_read_on_every_library(error_of, dtype):
    label = LABEL.astype(">i4" if dtype.startswith(">") else "u1")
    files = {"input": npy(np.asfortranarray(SPIKES.astype(dtype))), "label": npy(label)}
    assert error_of(archive_of(files), FAST) is None
    recording = _compare.load("own.npz")
    assert recording.input.dtype.isnative
    assert recording.targets["classes"].dtype.isnative
    assert_read()


def test_unusual_archives_are_read(error_of):
    python2_array = member(header(shape="(4L, 3L, 40L)"))  # NumPy warns about it
    assert error_of(archive(python2_array)) is None
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for key, array in (("input", SPIKES), ("label", LABEL)):
            with file.open(f"{key}.npy", "w", force_zip64=True) as zip64:
                zip64.write(npy(array))
    assert error_of(stream.getvalue()) is None
    assert error_of(stream.getvalue() + b"more") is None


def test_file_of_another_format_is_told_how_to_convert(error_of):
    for path, data in {"own.npy": npy(SPIKES), "own.pt": archive_of({"data": b"data"})}.items():
        assert "save its arrays by numpy.savez" in error_of(data, path=path)


def test_overflow_disagrees_without_a_warning(command):
    Path("own.npz").write_bytes(archive(npy(SPIKES * np.float32(1e38))))
    status, out, err = command("compare own.npz --backend numpy")
    assert (status, err) == (1, "")
    assert " DISAGREES\n    the value is inf" in out


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such names")
def test_unprintable_file_names_are_escaped(command, error_of):
    for name, shown in [
        (b"own\xe9.npz", "own\\udce9.npz"),
        (b"own\n.npz", "own\\n.npz"),
        (b"own\x1b[31m.npz", "own\\x1b[31m.npz"),
        ("own é 脳.npz".encode(), "own é 脳.npz"),
    ]:
        path = Path(os.fsdecode(name))
        assert shown in error_of(DEFLATED[:-9], path=path)
        path.write_bytes(DEFLATED)
        assert f"{shown}: spikes [4, 3, 40]" in command("compare", path, FAST)[1]
    strict = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    words = [sys.executable, "-m", "spikeloss_xp", "compare", path, *FAST.split()]
    assert subprocess.run(words, env=strict, capture_output=True, check=True).stdout.isascii()


def test_arrays_larger_than_memory_fail(error_of, monkeypatch):
    needed = 5 * 8 * SPIKES.size  # the bytes that evaluating a loss takes
    monkeypatch.setattr(_files, "_memory", lambda: needed - 1)
    assert "`input` of shape (4, 3, 40) is too large" in error_of(DEFLATED)
    monkeypatch.setattr(_files, "_memory", lambda: needed)
    assert error_of(DEFLATED) is None


def test_memory_size_is_plausible_or_infinite(monkeypatch):
    if sys.platform != "win32":
        assert 2**28 < _files._memory() < 2**50
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert _files._memory() == math.inf


def test_memory_error_during_evaluation_is_reported(error_of, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", fail)
    assert "there is not enough memory" in error_of(DEFLATED)


LIMITED_PROGRAM = """
import json, resource, sys
from spikeloss_xp.cli import main
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB
runs = json.loads(sys.argv[1])
main(runs.pop(0))  # loads everything
before = used()
(size,) = (int(line.split()[1]) for line in open("/proc/self/status") if "VmSize" in line)
resource.setrlimit(resource.RLIMIT_AS, (((size >> 10) + 256) << 20,) * 2)
statuses = [main(arguments) for arguments in runs]
print(*statuses, (used() - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_claimed_size_does_not_allocate_memory(command):
    steps = 0x3FF00000  # of 4 samples: nearly 4 GiB, in an archive of a thousandth of that size
    start = member(header("|u1", f"(4, 1, {steps})"), b"")
    large = len(start) + 4 * steps
    files = {
        "small": STORED,
        "says-that-it-is-large": archive(start),
        "so-does-the-archive": patched(archive(start), central=[(24, "<I", large)]),
        "is-large": bomb(start, large),
        "has-a-large-header": bomb(b"\x93NUMPY\x02\x00" + struct.pack("<I", large - 12), large),
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    runs = json.dumps([f"compare {name} {FAST}".split() for name in files])
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space
    program = [sys.executable, "-c", LIMITED_PROGRAM, runs]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    *statuses, mebibytes = map(int, done.stdout.splitlines()[-1].split())
    errors = done.stderr.splitlines()
    assert statuses == [2] * (len(files) - 1), errors
    assert all(line.startswith("spikeloss-xp: error: ") for line in errors)
    assert len(errors) == len(statuses)
    assert mebibytes < 32
