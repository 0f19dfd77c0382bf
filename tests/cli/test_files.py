"""Files that are damaged, made to harm, or merely unusual: answered in one line, or evaluated."""

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
from damage import LABEL, REFUSED, SPIKES, archive, bomb, header, member, mutants, npy, patched

from spikeloss_xp.cli import _recording, main

FAST = ["--backend", "numpy", "--loss", "SparsityEnforcer"]


def shortly(parameter):
    return parameter[:20] if isinstance(parameter, str) else "file"


@pytest.fixture
def answer(capsys, tmp_path):
    """Run the command on a file of these bytes, and return what it says against it."""

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
def test_damage_anywhere_is_answered(answer, tmp_path, method):
    whole = archive(npy(SPIKES), method)
    assert answer(whole) is None
    answers = set()
    for data in mutants(whole, 400):
        said = answer(data)
        if said is None:  # what was hit does not matter: a date, say
            recording = _recording.load(str(tmp_path / "own.npz"))
            np.testing.assert_array_equal(recording.input, SPIKES)
            np.testing.assert_array_equal(recording.classes, LABEL)
        answers.add(said)
    assert len(answers) > 20  # there is more than one way


def test_damage_in_the_header_of_an_array_is_answered(answer):
    # With a checksum that is right, so that it is the header that is read.
    pieces = ["-", "9" * 20, "(", ")", "0", "'", "O", "L", "\\", "\n", ",", "{", "<f8", "|V9", "#"]
    pieces += ["1e5", "True", "None", "\t", "\xff", "\0", "M8", "c16", "a4", "0x7fffffffffffffff"]
    rng = np.random.default_rng(2)
    for _ in range(400):
        text = header()
        for _ in range(rng.integers(1, 4)):
            at, piece = rng.integers(len(text)), rng.choice(pieces)
            text = text[:at] + piece + text[at + rng.integers(3) :]
        answer(archive(member(text)))


@pytest.mark.parametrize(
    ("input", "message"),
    [
        *REFUSED,
        (member(header(shape="(-4, -3, 40)")), "cannot be read"),
        (member(header(shape="(0, 4611686018427387904, 8)"), b""), "cannot be read"),
        (member(header(shape="(True, 3, 160)")), "cannot be read"),
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
        (npy(SPIKES * np.float64(1e300)), "holds numbers that are beyond float32"),
    ],
    ids=shortly,
)
def test_an_array_that_cannot_be_had_is_answered(answer, input, message):
    assert message in answer(archive(input))


@pytest.mark.parametrize(
    "dtype",
    ["O", "S8", "U8", "M8[s]", "m8[s]", "c8", [("a", "f4"), ("b", "O")], "V4", "longdouble"],
)
def test_what_is_no_real_number_of_64_bits_is_answered(answer, dtype):
    if np.dtype(dtype) == np.float64:
        pytest.skip("longdouble is float64 here")
    stream = io.BytesIO()
    np.savez(stream, input=np.zeros((4, 3, 40), dtype), label=LABEL)
    assert "not an array of real numbers of up to 64 bits, but " in answer(stream.getvalue())


WHOLE = archive(npy(SPIKES), zipfile.ZIP_DEFLATED)
END = WHOLE.index(b"PK\x05\x06")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patched(WHOLE, [(6, "<H", 1)], [(8, "<H", 1)]), "is encrypted"),
        (patched(WHOLE, [(6, "<H", 0x20)], [(8, "<H", 0x20)]), "cannot be read"),
        (patched(WHOLE, [(8, "<H", 99)], [(10, "<H", 99)]), "not compressed as"),
        (archive(npy(SPIKES), zipfile.ZIP_BZIP2), "not compressed as numpy.savez_compressed"),
        (archive(npy(SPIKES), zipfile.ZIP_LZMA), "not compressed as numpy.savez_compressed"),
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
    ids=shortly,
)
def test_an_archive_that_is_not_as_it_should_be_is_answered(answer, data, message):
    assert message in answer(data)


def test_the_names_of_many_arrays_are_not_all_said(answer):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for i in range(1000):
            file.writestr(f"{i}" * 30, b"")
    assert "..." in answer(stream.getvalue())


@pytest.mark.parametrize("dtype", [">f4", ">i8", "f2", "?"])
def test_arrays_of_any_kind_and_order_are_read_on_every_library(capsys, tmp_path, dtype):
    label = LABEL.astype(">i4" if dtype.startswith(">") else "u1")
    np.savez(tmp_path / "own.npz", input=np.asfortranarray(SPIKES.astype(dtype)), label=label)
    status = main(["compare", str(tmp_path / "own.npz"), "--loss", "SparsityEnforcer"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, ""), out
    recording = _recording.load(str(tmp_path / "own.npz"))
    assert recording.input.dtype.isnative
    assert recording.classes.dtype.isnative
    np.testing.assert_array_equal(recording.input, SPIKES)


def test_unusual_archives_are_read(answer):
    longs = member(header(shape="(4L, 3L, 40L)"))  # as Python 2 wrote them; NumPy warns of it
    assert answer(archive(longs)) is None
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, array in (("input", SPIKES), ("label", LABEL)):
            with file.open(f"{name}.npy", "w", force_zip64=True) as zip64:
                zip64.write(npy(array))
    assert answer(stream.getvalue()) is None
    assert answer(stream.getvalue() + b"more") is None


def test_numbers_too_large_to_square_disagree_without_a_warning(capsys, tmp_path):
    (tmp_path / "own.npz").write_bytes(archive(npy(SPIKES * np.float32(1e38))))
    status = main(["compare", str(tmp_path / "own.npz"), "--backend", "numpy"])
    out, err = capsys.readouterr()
    assert (status, err) == (1, "")
    assert "DISAGREES: the value is inf" in out


def test_more_axes_than_a_loss_takes_are_answered(answer):
    stream = io.BytesIO()
    np.savez(stream, input=np.ones((1,) * 64), target=np.ones((1,) * 64))
    arguments = ["--backend", "numpy", "--loss", "SpikeTime"]
    assert "SpikeTime does not take it" in answer(stream.getvalue(), arguments=arguments)


def test_what_is_no_file_is_answered(answer, tmp_path, monkeypatch):
    assert "no such file" in answer(None, "own/nowhere.npz")
    assert "cannot be read" in answer(None, "own" * 100) or sys.platform == "win32"
    (tmp_path / "own.folder").mkdir()
    assert "not a file" in answer(None, "own.folder")
    assert answer(WHOLE) is None

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in answer(None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_not_waited_for(answer, tmp_path):
    os.mkfifo(tmp_path / "own.pipe")
    assert "not a file" in answer(None, "own.pipe")


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
def test_names_that_do_not_print_are_escaped(answer, capsys, tmp_path, name, shown):
    assert shown in answer(WHOLE[:-9], os.fsdecode(name))
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(WHOLE)
    assert main(["compare", str(path), *FAST]) == 0
    assert f"{shown}: spikes [4, 3, 40]" in capsys.readouterr().out
    strict = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    command = [sys.executable, "-m", "spikeloss_xp", "compare", path, *FAST]
    done = subprocess.run(command, env=strict, capture_output=True, check=True)
    assert done.stdout.isascii()


def test_a_recording_beyond_the_memory_is_answered(answer, monkeypatch):
    needed = 5 * 8 * SPIKES.size
    monkeypatch.setattr(_recording, "_memory", lambda: needed)
    assert answer(WHOLE) is None
    monkeypatch.setattr(_recording, "_memory", lambda: needed - 1)
    assert "`input` of shape (4, 3, 40) is too large" in answer(WHOLE)


def test_the_memory_of_the_machine(monkeypatch):
    if sys.platform != "win32":
        assert 2**28 < _recording._memory() < 2**50
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert _recording._memory() == math.inf


def test_memory_that_runs_out_on_the_way_is_answered(answer, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", fail)
    assert "there is not enough memory" in answer(WHOLE)


UNDER_A_LIMIT = """
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
def test_no_file_takes_memory_that_it_does_not_fill(tmp_path):
    large = 0xFFE00000  # nearly 4 GiB, in an archive of a thousandth of that
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
    command = [sys.executable, "-c", UNDER_A_LIMIT, *(tmp_path / name for name in files)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each takes addresses
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *statuses, mebibytes = map(int, done.stdout.split()[-len(files) :])
    assert statuses == [2] * (len(files) - 1), done.stderr
    said = done.stderr.splitlines()
    assert all(line.startswith("spikeloss-xp: error: ") for line in said)
    assert "damaged" in said[0]
    assert all("too large" in line or "cannot be read" in line for line in said[1:3])
    assert mebibytes < 32
