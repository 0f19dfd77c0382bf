"""Damaged or malicious files fail with one line, before they take memory; others are read."""

import math
import os
import pickle
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from _support.damage import LABEL, SPIKES, archive, archive_of, damaged_copies, member, npy, patched
from spikeloss_xp.cli import _compare, _files, _terminal

FAST = "--backend numpy --loss SparsityEnforcer"
LONG = "longdouble" if np.dtype("longdouble").itemsize > 8 else "c16"
STORED, DEFLATED = archive(npy(SPIKES)), archive(npy(SPIKES), zipfile.ZIP_DEFLATED)
BOTH = {"input": npy(SPIKES), "label": npy(LABEL)}
TWICE = archive_of({"other": npy(SPIKES), **BOTH})
METHOD = "compressed by a method other than deflate: save it by numpy.savez_compressed"
SAVEZ = "save its arrays by numpy.savez"


@pytest.fixture
def error_of(command):
    """Return a function that compares on a file with these bytes and returns its error, or None.

    The file is the one written before if there are no bytes.
    """

    def run(data=None, path="own.npz"):
        if data is not None:
            Path(path).write_bytes(data)
        return command.error("compare", Path(path), FAST)

    return run


def assert_read():
    """Check that the file that was read last had the right content."""
    recording = _compare.load("own.npz")
    np.testing.assert_array_equal(recording.input, SPIKES)
    np.testing.assert_array_equal(recording.targets["classes"], LABEL)
    assert recording.input.dtype.isnative
    assert recording.targets["classes"].dtype.isnative


INPUTS = {  # the .npy file of `input`, and the message
    "larger than the file": (member(shape="(1000000, 1000, 1000)"), "takes 4000000000000 bytes"),
    "longer than an integer": (member(shape=f"(1{'0' * 400}, 3, 40)"), "`input` is damaged"),
    "two lengths negative": (member(shape="(-4, -3, 40)"), "gives the shape (-4, -3, 40)"),
    "length is a bool": (member(shape="(True, 12, 40)"), "gives the shape (True, 12, 40)"),
    "too many entries": (member(shape="(0, 4611686018427387904, 8)", data=b""), "cannot be read: "),
    "wrong bool": (member("|b1", data=bytes([7]) * 480), "a bool is 0 or 1, and it holds 7"),
    "one byte missing": (npy(SPIKES)[:-1], "takes 1920 bytes, and the file has 1919"),
    "one byte too many": (npy(SPIKES) + b"1", "takes 1920 bytes, and the file has 1921"),
    "long header": (member(text="9" * 9000), "cannot be read"),
    "later version": (npy(SPIKES, (2, 0)), "as numpy.savez writes it"),
    "no axis": (npy(np.float32(1)), "got shape ()"),
    "two axes": (npy(SPIKES[0]), "got shape (3, 40)"),
    "no time step": (npy(SPIKES[..., :0]), "got shape (4, 3, 0)"),
    "pickle": (pickle.dumps(SPIKES), "cannot be read"),
    "pickled objects": (member("|O"), "up to 64 bits, but object"),
    **{
        f"dtype {name}": (npy(np.zeros((4, 3, 40), name)), "of real numbers of up to 64 bits, but ")
        for name in ("M8[s]", "c8", "f4,f4", LONG)
    },
    "NaN": (npy(np.where(SPIKES, np.nan, SPIKES)), "holds NaN or infinity"),
    "too large for float32": (npy(SPIKES * np.float64(1e300)), "holds numbers too large for"),
    "Python 2": (member(shape="(4L, 3L, 40L)"), None),  # NumPy warns about it
    **{
        f"dtype {name}, columns first": (npy(np.asfortranarray(SPIKES.astype(name))), None)
        for name in (">f4", "f2", "?")
    },
}
ARCHIVES = {  # and the message
    "encrypted": (patched(DEFLATED, [(6, "<H", 1)], [(8, "<H", 1)]), "is encrypted"),
    "bzip2": (archive(npy(SPIKES), zipfile.ZIP_BZIP2), METHOD),
    "wrong sum": (patched(DEFLATED, central=[(16, "<I", 1)]), "Bad CRC-32"),
    "wrong size": (patched(DEFLATED, central=[(24, "<I", 4000000000)]), "`input` is damaged"),
    "wrong name": (
        DEFLATED.replace(b"input.npy", b"\x1b[31m.npy"),
        "it holds '\\x1b[31m', 'label'",
    ),
    "many names": (archive_of({f"{i}" * 30: b"" for i in range(1000)}), " ..."),
    "name twice": (TWICE.replace(b"other", b"input"), "it holds two arrays `input`"),
    "no array": (b"PK\x05\x06" + bytes(18), "it holds nothing"),
    "empty": (b"", "not an .npz file"),
    "an .npy file": (npy(SPIKES), SAVEZ),
    "a file of PyTorch": (archive_of({"data": b"data"}), SAVEZ),
    "deflated": (DEFLATED, None),
    "large": (archive_of(BOTH, zip64=True), None),
    "more after it": (STORED + b"more", None),
    "other label": (archive_of({**BOTH, "label": npy(LABEL.astype(">i4"))}), None),
}
FILES = {name: (archive(input), message) for name, (input, message) in INPUTS.items()} | ARCHIVES


@pytest.mark.parametrize(("data", "message"), FILES.values(), ids=FILES)
def test_file_is_read_or_fails_with_its_message(error_of, data, message):
    error = error_of(data)
    if message is None:
        assert error is None
        assert_read()
    else:
        assert message in error


def test_damaged_archive_fails_or_is_read_correctly(error_of):
    for data in (STORED, DEFLATED):
        errors = set()
        for damaged in damaged_copies(data, 75):
            error = error_of(damaged)
            if error is None:  # the damaged bytes do not matter, such as a date
                assert_read()
            errors.add(error)
        assert len(errors) > 10  # the damage reaches different checks


def test_path_that_cannot_be_read_fails(error_of, monkeypatch):
    assert "error: nowhere.npz: no such file" in error_of(path="nowhere.npz")
    Path("folder").mkdir()
    assert "not a file" in error_of(path="folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")
        assert "not a file" in error_of(path="pipe")
    assert "cannot be read: " in error_of(path=f"{'a' * 300}.npz")
    assert error_of(STORED) is None
    refuse = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr(Path, "open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in error_of()


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such names")
def test_unprintable_file_names_are_escaped(command, error_of, monkeypatch):
    for name, shown in ((b"own\xe9.npz", "own\\udce9.npz"), (b"own\n\x1b.npz", "own\\n\\x1b.npz")):
        path = Path(os.fsdecode(name))
        assert shown in error_of(STORED[:-9], path)
        path.write_bytes(STORED)
        assert f"{shown}: spikes [4, 3, 40]" in command("compare", path, FAST)[1]
    assert _terminal.printable("é") == "é"
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(encoding="ascii"))
    assert _terminal.printable("é") == "\\xe9"


def test_array_larger_than_memory_fails_before_it_is_read(error_of, monkeypatch):
    needed = 5 * 8 * SPIKES.size  # the bytes that evaluating a loss takes
    monkeypatch.setattr(_files, "_memory", lambda: needed)
    assert error_of(DEFLATED) is None
    monkeypatch.setattr(np.lib.format, "read_array", None)
    assert "takes 4000000000000 bytes" in error_of(FILES["larger than the file"][0])
    monkeypatch.setattr(_files, "_memory", lambda: needed - 1)
    assert "`input` of shape (4, 3, 40) is too large" in error_of(DEFLATED)


def test_memory_is_plausible_or_infinite(monkeypatch):
    assert _files._memory() > 2**28
    monkeypatch.delattr(os, "sysconf", raising=False)  # as on Windows
    assert _files._memory() == math.inf


def test_memory_error_during_evaluation_is_reported(error_of, monkeypatch):
    monkeypatch.setattr(_compare, "reference", Mock(side_effect=MemoryError))
    assert "there is not enough memory" in error_of(DEFLATED)
