"""Damaged or malicious files of ``compare`` fail with one line of text; unusual ones are read."""

import io
import math
import os
import re
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from _support.damage import (
    LABEL,
    REFUSED,
    SPIKES,
    archive,
    bomb,
    header,
    member,
    mutants,
    npy,
    patched,
)
from spikeloss_xp.cli import _compare, _files, main

FAST = ["--backend", "numpy", "--loss", "SparsityEnforcer"]


def short_id(parameter):
    return parameter[:20] if isinstance(parameter, str) else "file"


@pytest.fixture
def compare_error(capsys, tmp_path):
    """Return a function that runs ``compare`` on bytes and returns its error message, or None."""

    def run(data, name="own.npz", arguments=FAST):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        status = main(["compare", str(path), *arguments])
        out, err = capsys.readouterr()
        if status == 0:
            assert err == ""
            return None
        assert (status, out) == (2, "")
        assert re.fullmatch(r"spikeloss-xp: error: .*own.*\n", err), err  # one line
        assert len(err) < len(str(path)) + 600
        assert not err.endswith(": \n")  # some exceptions have no message
        return err

    return run


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archive_fails_or_reads_correctly(compare_error, tmp_path, method):
    valid = archive(npy(SPIKES), method)
    assert compare_error(valid) is None
    errors = set()
    for data in mutants(valid, 400):
        error = compare_error(data)
        if error is None:  # the damaged bytes do not matter, such as a date
            recording = _compare.load(str(tmp_path / "own.npz"))
            np.testing.assert_array_equal(recording.input, SPIKES)
            np.testing.assert_array_equal(recording.targets["classes"], LABEL)
        errors.add(error)
    assert len(errors) > 20  # the damage reaches different checks


def test_damaged_npy_header_never_crashes(compare_error):
    # The checksum is correct, so that the header is parsed.
    pieces = ["-", "9" * 20, "(", ")", "0", "'", "O", "L", "\\", "\n", ",", "{", "<f8", "|V9", "#"]
    pieces += ["1e5", "True", "None", "\t", "\xff", "\0", "M8", "c16", "a4", "0x7fffffffffffffff"]
    rng = np.random.default_rng(2)
    for _ in range(400):
        text = header()
        for _ in range(rng.integers(1, 4)):
            position, piece = rng.integers(len(text)), rng.choice(pieces)
            text = text[:position] + piece + text[position + rng.integers(3) :]
        compare_error(archive(member(text)))


@pytest.mark.parametrize(
    ("input", "message"),
    [
        *REFUSED,
        (member(header(shape="(-4, -3, 40)")), "its header gives the shape (-4, -3, 40)"),
        (member(header(shape="(0, 4611686018427387904, 8)"), b""), "cannot be read"),
        (member(header(shape="(True, 3, 160)")), "its header gives the shape (True, 3, 160)"),
        (member("-" * 9000 + "1"), "cannot be read"),
        (member("1+" * 4000 + "1"), "cannot be read"),
        (member("'''"), "cannot be read"),
        (member("{[]: 1}"), "cannot be read"),
        (member("{1: 1, 'a': 2}"), "cannot be read"),
        (member("9" * 9000), "cannot be read"),
        (member("{" + " " * 60000 + "}"), "cannot be read: Header info length"),
        (npy(SPIKES, (3, 0)), "as numpy.savez writes it"),
        (b"spikes", "cannot be read"),
        (npy(SPIKES * np.nan), "holds NaN or infinity"),
        (npy(SPIKES * np.float64(1e300)), "holds numbers too large for float32"),
    ],
    ids=short_id,
)
def test_invalid_array_fails(compare_error, input, message):
    assert message in compare_error(archive(input))


@pytest.mark.parametrize(
    "dtype",
    ["O", "S8", "U8", "M8[s]", "m8[s]", "c8", [("a", "f4"), ("b", "O")], "V4", "longdouble"],
)
def test_unsupported_dtype_fails(compare_error, dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("longdouble is float64 here")
    stream = io.BytesIO()
    np.savez(stream, input=np.zeros((4, 3, 40), dtype), label=LABEL)
    assert "not an array of real numbers of up to 64 bits, but " in compare_error(stream.getvalue())


WHOLE = archive(npy(SPIKES), zipfile.ZIP_DEFLATED)
END = WHOLE.index(b"PK\x05\x06")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patched(WHOLE, [(6, "<H", 1)], [(8, "<H", 1)]), "is encrypted"),
        (patched(WHOLE, [(6, "<H", 0x20)], [(8, "<H", 0x20)]), "cannot be read"),
        (
            patched(WHOLE, [(8, "<H", 99)], [(10, "<H", 99)]),
            "compressed by a method other than deflate",
        ),
        (
            archive(npy(SPIKES), zipfile.ZIP_BZIP2),
            "compressed by a method other than deflate: save it by numpy.savez_compressed",
        ),
        (
            archive(npy(SPIKES), zipfile.ZIP_LZMA),
            "compressed by a method other than deflate: save it by numpy.savez_compressed",
        ),
        (patched(WHOLE, central=[(6, "<H", 255)]), "zip file version"),
        (patched(WHOLE, central=[(16, "<I", 1)]), "Bad CRC-32"),
        (patched(WHOLE, central=[(24, "<I", 4000000000)]), "`input` is damaged"),
        (patched(WHOLE, central=[(24, "<I", 300)]), "Bad CRC-32"),
        (patched(WHOLE, central=[(42, "<I", 4000000000)]), "cannot be read"),
        (patched(WHOLE, [(END + 12, "<I", 4000000000)]), "cannot be read"),
        (patched(WHOLE, [(END + 16, "<I", 4000000000)]), "cannot be read"),
        (patched(WHOLE, [(6, "<H", 2048), (30, "B", 255)]), "cannot be read"),
        (WHOLE.replace(b"input", b"in\nut"), "it holds 'in\\nut', 'label'"),
        (WHOLE.replace(b"input", b"INPUT"), "it holds 'INPUT', 'label'"),
        (WHOLE.replace(b"label.npy", b"other.npy"), "it holds 'input', 'other'"),
        (WHOLE.replace(b"input.npy", b"\x1b[31m.npy"), "it holds '\\x1b[31m', 'label'"),
        (b"PK\x05\x06" + bytes(18), "it holds nothing"),
        (b"", "not an .npz file"),
    ],
    ids=short_id,
)
def test_invalid_archive_fails(compare_error, data, message):
    assert message in compare_error(data)


def test_long_list_of_names_is_shortened(compare_error):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for i in range(1000):
            file.writestr(f"{i}" * 30, b"")
    assert "..." in compare_error(stream.getvalue())


@pytest.mark.parametrize("dtype", [">f4", ">i8", "f2", "?"])
def test_dtypes_and_orders_are_read_on_every_library(capsys, tmp_path, dtype):
    label = LABEL.astype(">i4" if dtype.startswith(">") else "u1")
    np.savez(tmp_path / "own.npz", input=np.asfortranarray(SPIKES.astype(dtype)), label=label)
    status = main(["compare", str(tmp_path / "own.npz"), "--loss", "SparsityEnforcer"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), out
    recording = _compare.load(str(tmp_path / "own.npz"))
    assert recording.input.dtype.isnative
    assert recording.targets["classes"].dtype.isnative
    np.testing.assert_array_equal(recording.input, SPIKES)


def test_unusual_archives_are_read(compare_error):
    python2_array = member(header(shape="(4L, 3L, 40L)"))  # NumPy warns about it
    assert compare_error(archive(python2_array)) is None
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, array in (("input", SPIKES), ("label", LABEL)):
            with file.open(f"{name}.npy", "w", force_zip64=True) as zip64:
                zip64.write(npy(array))
    assert compare_error(stream.getvalue()) is None
    assert compare_error(stream.getvalue() + b"more") is None


def test_overflow_disagrees_without_a_warning(capsys, tmp_path):
    (tmp_path / "own.npz").write_bytes(archive(npy(SPIKES * np.float32(1e38))))
    status = main(["compare", str(tmp_path / "own.npz"), "--backend", "numpy"])
    out, err = capsys.readouterr()
    assert (status, err) == (1, "")
    assert " DISAGREES\n    the value is inf" in out


def test_too_many_axes_fail(compare_error):
    stream = io.BytesIO()
    np.savez(stream, input=np.ones((1,) * 64), target=np.ones((1,) * 64))
    arguments = ["--backend", "numpy", "--loss", "SpikeTime"]
    assert "SpikeTime refuses these arrays" in compare_error(stream.getvalue(), arguments=arguments)


def test_path_that_is_not_a_file_fails(compare_error, tmp_path, monkeypatch):
    assert "no such file" in compare_error(None, "own/nowhere.npz")
    assert "cannot be read" in compare_error(None, "own" * 100) or sys.platform == "win32"
    (tmp_path / "own.folder").mkdir()
    assert "not a file" in compare_error(None, "own.folder")
    assert compare_error(WHOLE) is None

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in compare_error(None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_named_pipe_fails_without_blocking(compare_error, tmp_path):
    os.mkfifo(tmp_path / "own.pipe")
    assert "not a file" in compare_error(None, "own.pipe")


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such names")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"own\xe9.npz", "own\\udce9.npz"),
        (b"own\n.npz", "own\\n.npz"),
        (b"own\x1b[31m.npz", "own\\x1b[31m.npz"),
        ("own é 脳.npz".encode(), "own é 脳.npz"),
    ],
)
def test_unprintable_file_names_are_escaped(compare_error, capsys, tmp_path, name, shown):
    assert shown in compare_error(WHOLE[:-9], os.fsdecode(name))
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(WHOLE)
    assert main(["compare", str(path), *FAST]) == 0
    assert f"{shown}: spikes [4, 3, 40]" in capsys.readouterr().out
    strict = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-m", "spikeloss_xp", "compare", path, *FAST]
    done = subprocess.run(command, env=strict, capture_output=True, check=True)
    assert done.stdout.isascii()


def test_recording_larger_than_memory_fails(compare_error, monkeypatch):
    required_bytes = 5 * 8 * SPIKES.size
    monkeypatch.setattr(_files, "_memory", lambda: required_bytes)
    assert compare_error(WHOLE) is None
    monkeypatch.setattr(_files, "_memory", lambda: required_bytes - 1)
    assert "`input` of shape (4, 3, 40) is too large" in compare_error(WHOLE)


def test_memory_size_is_plausible_or_infinite(monkeypatch):
    if sys.platform != "win32":
        assert 2**28 < _files._memory() < 2**50
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert _files._memory() == math.inf


def test_memory_error_during_evaluation_is_reported(compare_error, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", fail)
    assert "there is not enough memory" in compare_error(WHOLE)


LIMITED_PROGRAM = """
import resource, sys
from spikeloss_xp.cli import main
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB
main(["compare", sys.argv[1], "--backend", "numpy"])  # loads what is loaded once
before = used()
statuses = [main(["compare", path, "--backend", "numpy"]) for path in sys.argv[2:]]
print(*statuses, (used() - before) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_claimed_size_does_not_allocate_memory(tmp_path):
    large = 0xFFE00000  # nearly 4 GiB, in an archive of a thousandth of that size
    steps = large - len(member(header("|u1", f"(1, 1, {large})"), b""))
    start = member(header("|u1", f"(1, 1, {steps})"), b"")
    files = {
        "whole": WHOLE,
        "says that it is large": archive(start),
        "so does the archive": patched(archive(start), central=[(24, "<I", large)]),
        "is large": bomb(start, large),
        "has a large header": bomb(b"\x93NUMPY\x02\x00" + struct.pack("<I", large - 12), large),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", LIMITED_PROGRAM, *(tmp_path / name for name in files)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *statuses, mebibytes = map(int, done.stdout.split()[-len(files) :])
    assert statuses == [2] * (len(files) - 1), done.stderr
    stderr_lines = done.stderr.splitlines()
    assert all(line.startswith("spikeloss-xp: error: ") for line in stderr_lines)
    assert "damaged" in stderr_lines[0]
    assert all("too large" in line or "cannot be read" in line for line in stderr_lines[1:3])
    assert mebibytes < 32
