"""Damaged or malicious files fail with one line and use little memory; unusual ones are read.

Both commands read them by the same functions.
"""

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
    save,
)
from spikeloss_xp.cli import _compare, _files

FAST = {
    "compare": "--backend numpy --loss SparsityEnforcer",
    "evaluate": "--loss SparsityEnforcer --batch 3 --overwrite --output losses.npy",
}
LONG = "longdouble" if np.dtype("longdouble").itemsize > 8 else "c16"
BOTH = pytest.mark.parametrize("name", FAST)
STORED, DEFLATED = archive(npy(SPIKES)), archive(npy(SPIKES), zipfile.ZIP_DEFLATED)
EXPECTED = np.asarray([max(abs(sample).mean() - 0.01, 0) ** 2 for sample in SPIKES])


def short_id(parameter):
    return parameter[:24] if isinstance(parameter, str) else "file"


@pytest.fixture
def error_of(command):
    """Return a function that runs a command and returns its error, a short line, or None.

    The file is bytes, or a dictionary of arrays or bytes for a folder of .npy files, or None if it
    has been written before.
    """

    def run(name, file, *arguments, path="own.npz"):
        if isinstance(file, bytes):
            Path(path).write_bytes(file)
        elif file is not None:
            save(path, file)
        return command.error(name, Path(path), *(arguments or [FAST[name]]))

    return run


def assert_read(name):
    """Check that the file that was read last had the right content."""
    if name == "compare":
        recording = _compare.load("own.npz")
        np.testing.assert_array_equal(recording.input, SPIKES)
        np.testing.assert_array_equal(recording.targets["classes"], LABEL)
    else:
        np.testing.assert_allclose(np.load("losses.npy"), EXPECTED, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("data", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_damaged_archive_fails_or_is_read_correctly(error_of, name, data):
    assert error_of(name, data) is None
    errors = set()
    for damaged in mutants(data, 200):
        error = error_of(name, damaged)
        if error is None:  # the damaged bytes do not matter, such as a date
            assert_read(name)
        errors.add(error)
    assert len(errors) > 15  # the damage reaches different checks


def test_damaged_npy_in_folder_never_crashes(error_of):
    folders = ({"input": damaged} for damaged in mutants(npy(SPIKES), 99))  # without a checksum
    assert len({error_of("evaluate", folder, path="own") for folder in folders}) > 5


def test_damaged_npy_header_never_crashes(error_of):
    # The checksum is correct, so that the header is parsed.
    pieces = ["-", "9" * 20, "(", ")", "0", "'", "O", "L", "\\", "\n", ",", "{", "<f8", "|V9", "#"]
    pieces += ["1e5", "True", "None", "\t", "\xff", "\0", "M8", "c16", "a4", "0x7fffffffffffffff"]
    rng = np.random.default_rng(2)
    for _ in range(400):
        text = header()
        for _ in range(rng.integers(1, 4)):
            position, piece = rng.integers(len(text)), rng.choice(pieces)
            text = text[:position] + piece + text[position + rng.integers(3) :]
        error_of("compare", archive(member(text)))


PICKLE = b"\x80\x04]\x94K\x01a."
HEADERS = ("[" * 4000, "-" * 9000 + "1", "9" * 9000, "1+" * 4000 + "1", "'''", "{[]: 1}", "{1: 1}")


@pytest.mark.parametrize(
    ("input", "message"),
    [
        (member(header(shape="(1000000, 1000, 1000)")), "takes 4000000000000 bytes, and the file"),
        (member(header(shape="(4294967296, 4294967296, 2)")), "`input` is damaged"),
        (member(header(shape=f"(1{'0' * 400}, 3, 40)")), "`input` is damaged"),
        *(
            (member(header(shape=shape)), f"its header gives the shape {shape}")
            for shape in ("(-4, 3, 40)", "(-4, -3, 40)", "(-1, -5, 96)", "(True, 12, 40)")
        ),
        (member(header(shape="(0, 4611686018427387904, 8)"), b""), "and elements; got shape (0,"),
        (member(header(shape="(4, 4611686018427387904, 0)"), b""), "and elements; got shape (4,"),
        (member(header("|b1"), bytes([7]) * 480), "a bool is 0 or 1, and it holds 7"),
        (member(header(shape=str((1,) * 99)), b"1234"), "own"),
        (member(header(shape="(4.0, 3, 40)")), "shape is not valid"),
        (member(header("<f8")), "takes 3840 bytes, and the file has 1920"),
        (member(header("|u1")), "takes 480 bytes, and the file has 1920"),
        (npy(SPIKES)[:-1], "takes 1920 bytes, and the file has 1919"),
        (npy(SPIKES) + b"1", "takes 1920 bytes, and the file has 1921"),
        *((data, "cannot be read") for data in (npy(SPIKES)[:100], b"", b"spikes", PICKLE)),
        *((member(text), "cannot be read") for text in HEADERS),
        (member("{" + " " * 60000 + "}"), "cannot be read: Header info length"),
        *((npy(SPIKES, (major, 0)), "as numpy.savez writes it") for major in (2, 3)),
        (npy(np.float32(1)), "got shape ()"),
        (npy(SPIKES[:, 0, 0]), "got shape (4,)"),
        (npy(SPIKES[..., :0]), "got shape (4, 3, 0)"),
        (npy(SPIKES[:0]), "got shape (0, 3, 40)"),
        (member(header("|V2000000000")), "not an array of real numbers"),
        *(
            (npy(np.zeros((4, 3, 40), dtype)), "of real numbers of up to 64 bits, but ")
            for dtype in ("S8", "U8", "M8[s]", "m8[s]", "c8", "V4", "f4,f4", LONG)
        ),
    ],
    ids=short_id,
)
def test_invalid_array_fails(error_of, input, message):
    for name in FAST:
        assert message in error_of(name, archive(input))
    assert message in error_of("evaluate", {"input": input}, path="own")


def test_arrays_that_one_command_refuses(error_of):
    assert "holds NaN or infinity" in error_of("compare", archive(npy(SPIKES * np.nan)))
    large = archive(npy(SPIKES * np.float64(1e300)))
    assert "holds numbers too large for float32" in error_of("compare", large)
    negative = error_of("compare", archive(npy(-SPIKES)), "--backend numpy --loss SpikeMax")
    assert "SpikeMax refuses these arrays" in negative
    fortran = archive(npy(np.asfortranarray(SPIKES)))
    assert "`input` is in Fortran order" in error_of("evaluate", fortran)
    assert error_of("evaluate", fortran, "--loss SparsityEnforcer") is None
    assert error_of("compare", fortran) is None


TWICE = archive_of({"input": npy(SPIKES), "other": npy(SPIKES), "label": npy(LABEL)})
END = DEFLATED.index(b"PK\x05\x06")
METHOD = "compressed by a method other than deflate: save it by numpy.savez_compressed"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (patched(DEFLATED, [(6, "<H", 1)], [(8, "<H", 1)]), "is encrypted"),
        (patched(DEFLATED, [(6, "<H", 0x20)], [(8, "<H", 0x20)]), "cannot be read"),
        (patched(DEFLATED, [(8, "<H", 99)], [(10, "<H", 99)]), METHOD),
        *((archive(npy(SPIKES), way), METHOD) for way in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)),
        (patched(DEFLATED, central=[(6, "<H", 255)]), "zip file version"),
        (patched(DEFLATED, central=[(16, "<I", 1)]), "Bad CRC-32"),
        (patched(DEFLATED, central=[(24, "<I", 4000000000)]), "`input` is damaged"),
        (patched(DEFLATED, central=[(24, "<I", 300)]), "Bad CRC-32"),
        (patched(DEFLATED, central=[(42, "<I", 4000000000)]), "cannot be read"),
        (patched(DEFLATED, [(END + 12, "<I", 4000000000)]), "cannot be read"),
        (patched(DEFLATED, [(END + 16, "<I", 4000000000)]), "cannot be read"),
        (patched(DEFLATED, [(6, "<H", 2048), (30, "B", 255)]), "cannot be read"),
        (DEFLATED.replace(b"input", b"in\nut"), "it holds 'in\\nut', 'label'"),
        (DEFLATED.replace(b"input", b"INPUT"), "it holds 'INPUT', 'label'"),
        (DEFLATED.replace(b"input.npy", b"\x1b[31m.npy"), "it holds '\\x1b[31m', 'label'"),
        (archive_of({f"{i}" * 30: b"" for i in range(1000)}), " ..."),
        (TWICE.replace(b"other", b"input"), "it holds two arrays `input`"),
        (b"PK\x05\x06" + bytes(18), "it holds nothing"),
        *((data, "not an .npz file") for data in (b"", b"spikes")),
    ],
    ids=short_id,
)
@BOTH
def test_invalid_archive_fails(error_of, name, data, message):
    assert message in error_of(name, data)


def test_pickles_are_never_loaded(error_of):
    payload = TouchWhenUnpickled(Path("mark").absolute())
    stream = io.BytesIO()
    np.save(stream, np.asarray([payload]), allow_pickle=True)
    for data in (stream.getvalue(), pickle.dumps(payload)):
        for name in FAST:
            assert error_of(name, archive(data)) is not None
            assert error_of(name, data) is not None
        assert error_of("evaluate", {"input": data}, path="own") is not None
        assert error_of("evaluate", {"input": SPIKES, "lengths": data}, path="own") is not None
    assert not Path("mark").exists()
    pickle.loads(pickle.dumps(payload))
    assert Path("mark").exists()  # the payload works, so the test can fail


@BOTH
def test_path_without_arrays_fails(error_of, monkeypatch, name):
    assert "no such file" in error_of(name, None, path="nowhere.npz")
    Path("folder").mkdir()
    if name == "compare":
        assert "not a file" in error_of(name, None, path="folder")
    else:
        message = "it must hold an array `input` or `times`; it holds "
        assert f"{message}nothing" in error_of(name, {}, path="folder")
        assert f"{message}'spikes'" in error_of(name, {"spikes": SPIKES}, path="own")
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe")  # opening it would block
        assert "not a file" in error_of(name, None, path="pipe")
        os.mkfifo("folder/input.npy")
        if name == "evaluate":
            assert "it holds nothing" in error_of(name, None, path="folder")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    assert error_of(name, STORED) is None
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in error_of(name, None)


@pytest.mark.parametrize(
    ("loss", "files", "message"),
    [
        ("SpikeTime", {"label": LABEL}, "SpikeTime needs target; the file holds input, label"),
        ("SpikeMoid", {}, "SpikeMoid needs label or target; the file holds input"),
        ("SpikeMax", {"target": SPIKES}, "target must hold integers"),
        ("SpikeTime", {"target": SPIKES[:3]}, "`target` of shape (3, 3, 40) does not"),
        ("SpikeTime", {"target": SPIKES[:, :2]}, "SpikeTime refuses samples 0"),
        ("SpikeMax", {"label": LABEL[:3]}, "`label` of shape (3,) does not fit an"),
        ("SpikeMax", {"label": np.int64(0)}, "`label` of shape () does not fit"),
        ("SpikeMax", {"label": LABEL[:, None]}, "target must hold class indices"),
        ("SpikeMax", {"label": LABEL * 1.0}, "target must hold integers"),
        ("SpikeMax", {"label": LABEL + 1}, "samples 0 to 2: target must be between"),
        ("SpikeMax", {"label": np.zeros((4, 3, 41), "u1")}, "does not fit an `input`"),
        ("SpikeMoid", {"label": LABEL - 1}, "must be classes, from 0 to 2; got values"),
        ("SpikeMoid", {"label": LABEL + 2**62}, "must be classes, from 0 to 2"),
        ("SpikeMoid", {"label": np.zeros((4, 3, 1), int)}, "target must hold multi-hot"),
        ("SpikeMoid", {"label": np.zeros((4, 3), int)}, "target must hold multi-hot"),
        ("SpikeMoid", {"label": np.full((4, 3), np.nan)}, "multi-hot labels, between 0 and 1"),
        ("SparsityEnforcer", {"lengths": LABEL[:3]}, "`lengths` of shape (3,) does not fit"),
        ("SparsityEnforcer", {"lengths": SPIKES[:, 0]}, "`lengths` of shape (4, 40) does not fit"),
        ("SparsityEnforcer", {"lengths": LABEL * 1.0}, "lengths must hold integers"),
        ("SparsityEnforcer", {"lengths": LABEL - 1}, "lengths must be between 0 and 40; got"),
        ("SparsityEnforcer", {"lengths": LABEL + 39}, "lengths must be between 0 and 40; got"),
    ],
)
def test_mismatched_arrays_fail(error_of, loss, files, message):
    file, arguments = {"input": SPIKES, **files}, f"--loss {loss} --batch 3"
    assert message in error_of("evaluate", file, arguments, path="own")


@pytest.mark.parametrize("dtype", [">f4", ">i8", "f2", "?"])
def test_dtypes_and_orders_are_read_on_every_library(error_of, dtype):
    label = LABEL.astype(">i4" if dtype.startswith(">") else "u1")
    files = {"input": npy(np.asfortranarray(SPIKES.astype(dtype))), "label": npy(label)}
    assert error_of("compare", archive_of(files), "--loss SparsityEnforcer") is None
    recording = _compare.load("own.npz")
    assert recording.input.dtype.isnative
    assert recording.targets["classes"].dtype.isnative
    assert_read("compare")


@BOTH
def test_unusual_archives_are_read(error_of, name):
    python2_array = member(header(shape="(4L, 3L, 40L)"))  # NumPy warns about it
    assert error_of(name, archive(python2_array)) is None
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for key, array in (("input", SPIKES), ("label", LABEL)):
            with file.open(f"{key}.npy", "w", force_zip64=True) as zip64:
                zip64.write(npy(array))
    assert error_of(name, stream.getvalue()) is None
    assert error_of(name, stream.getvalue() + b"more") is None


@BOTH
@pytest.mark.parametrize("path", ["own.npy", "own.h5", "own.pt"])
def test_file_of_another_format_is_told_how_to_convert(error_of, path, name):
    data = archive_of({"data": b"data"}) if path == "own.pt" else npy(SPIKES)
    remedy = "save its arrays by numpy.savez, as input.npy and so on of a folder, or as Zarr"
    assert remedy in error_of(name, data, path=path)


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
        assert shown in error_of("compare", DEFLATED[:-9], path=path)
        path.write_bytes(DEFLATED)
        assert f"{shown}: spikes [4, 3, 40]" in command("compare", path, FAST["compare"])[1]
    strict = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    words = [sys.executable, "-m", "spikeloss_xp", "compare", path, *FAST["compare"].split()]
    assert subprocess.run(words, env=strict, capture_output=True, check=True).stdout.isascii()


def test_arrays_larger_than_memory_fail(error_of, monkeypatch):
    sample = 5 * 8 * SPIKES.size // 4  # the bytes that evaluating a loss takes
    batch = "--loss SparsityEnforcer --overwrite --batch 1"
    monkeypatch.setattr(_files, "_memory", lambda: sample)
    assert "`input` of shape (4, 3, 40) is too large" in error_of("compare", DEFLATED)
    message = "3 samples at once, is too large (choose a smaller --batch)"
    assert message in error_of("evaluate", DEFLATED)
    assert error_of("evaluate", DEFLATED, batch) is None
    monkeypatch.setattr(_files, "_memory", lambda: sample - 1)
    message = "1 samples at once, is too large (cut the recording"
    assert message in error_of("evaluate", DEFLATED, batch)
    monkeypatch.setattr(_files, "_memory", lambda: 4 * sample)
    assert error_of("compare", DEFLATED) is None


def test_memory_size_is_plausible_or_infinite(monkeypatch):
    if sys.platform != "win32":
        assert 2**28 < _files._memory() < 2**50
    monkeypatch.delattr(os, "sysconf", raising=False)
    assert _files._memory() == math.inf


def test_memory_error_during_evaluation_is_reported(error_of, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr("spikeloss_xp.cli._compare.reference", fail)
    assert "there is not enough memory" in error_of("compare", DEFLATED)


LIMITED_PROGRAM = """
import json, resource, sys
from spikeloss_xp.cli import main
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB
loaded_once, runs = json.loads(sys.argv[1])
for arguments in loaded_once:
    main(arguments)
before = used()
(size,) = (int(line.split()[1]) for line in open("/proc/self/status") if "VmSize" in line)
resource.setrlimit(resource.RLIMIT_AS, (((size >> 10) + 256) << 20,) * 2)
statuses = [main(arguments) for arguments in runs]
print(*statuses, (used() - before) >> 10)
"""
LARGE = 1 << 29  # bytes; the memory limit leaves half as many to the process
SAMPLES = LARGE >> 16


def run_with_memory_limit(*runs):
    """Return exit statuses, the growth of memory in MiB, and the lines of standard error."""
    Path("small.npz").write_bytes(STORED)
    once = [f"{name} small.npz {FAST[name]}".split() for name in FAST]
    limited = json.dumps((once, [run.split() for run in runs]))
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space
    program = [sys.executable, "-c", LIMITED_PROGRAM, limited]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    *statuses, mebibytes = map(int, done.stdout.splitlines()[-1].split())
    return statuses, mebibytes, done.stderr.splitlines()


def npy_header_of_zeros(shape):
    """Return an .npy header for uint8 data of this shape, without the data."""
    return member(header("|u1", shape), b"")


def write_sparse(path, start, size):
    """Write a sparse file: `start`, then `size` zeros that take no space on the disk."""
    path = Path(path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(start)
    os.truncate(path, len(start) + size)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_files_larger_than_memory_are_evaluated(command):
    zeros = np.zeros((SAMPLES, 64, 1024), np.uint8)
    for name in ("input", "target"):
        write_sparse(f"folder/{name}.npy", npy_header_of_zeros(f"{zeros.shape}"), LARGE)
    for name in ("own.npz", "compressed.npz"):
        save(name, {"input": zeros})
    paths = ("folder", "compressed.npz", "own.npz")
    runs = [f"evaluate {path} --loss SparsityEnforcer" for path in paths]
    runs.append("evaluate folder --loss SpikeTime")
    statuses, mebibytes, stderr_lines = run_with_memory_limit(*runs)
    assert stderr_lines == []
    assert statuses == [0] * len(runs)
    assert mebibytes < 128  # a batch in float32 and float64, and its intermediates
    written = set(Path().glob("*.npy")) - {Path("losses.npy")}
    assert len(written) == len(runs)
    for path in written:
        losses = np.load(path)
        assert losses.shape == (SAMPLES,)
        assert not losses.any()


@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_claimed_size_does_not_allocate_memory(command):
    steps = 0x3FF00000  # of 4 samples: nearly 4 GiB, in an archive of a thousandth of that size
    start = npy_header_of_zeros(f"(4, 1, {steps})")
    large = len(start) + 4 * steps
    files = {
        "says-that-it-is-large": archive(start),
        "so-does-the-archive": patched(archive(start), central=[(24, "<I", large)]),
        "is-large": bomb(start, large),
        "has-a-large-header": bomb(b"\x93NUMPY\x02\x00" + struct.pack("<I", large - 12), large),
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    save("large-lengths", {"input": SPIKES})
    write_sparse("large-lengths/lengths.npy", npy_header_of_zeros(f"(4, {large})"), 4 * large)
    runs = [f"{name} {file} {options}" for name, options in FAST.items() for file in files]
    runs.append(f"evaluate large-lengths {FAST['evaluate']}")
    statuses, mebibytes, stderr_lines = run_with_memory_limit(*runs)
    assert statuses == [2] * len(runs), stderr_lines
    assert all(line.startswith("spikeloss-xp: error: ") for line in stderr_lines)
    assert len(stderr_lines) == len(runs)
    assert mebibytes < 32
