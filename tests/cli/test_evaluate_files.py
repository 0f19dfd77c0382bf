"""Damaged or malicious files of ``evaluate`` fail with one line of text and use little memory."""

import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

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
    save_zarr_bomb,
    zarr_bombs,
)
from spikeloss_xp.cli import _files, _terminal, _zarr, main

FAST = ["--loss", "SparsityEnforcer"]
STORED, DEFLATED = archive(npy(SPIKES)), archive(npy(SPIKES), zipfile.ZIP_DEFLATED)
EXPECTED = np.asarray([max(abs(sample).mean() - 0.01, 0) ** 2 for sample in SPIKES])


def evaluate(capsys, path, arguments):
    """Return the losses, or the error message, which must be one short line."""
    output = path.parent / f"{path.name}.losses.npy"
    for file in (output, path.parent / f"{output.name}.json"):
        file.unlink(missing_ok=True)
    given = ["--json", "--batch", "3", "--output", str(output), *arguments]
    status = main(["evaluate", str(path), *given])
    out, err = capsys.readouterr()
    if status == 0:
        assert err == ""
        return np.load(output)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"spikeloss-xp: error: .*\n", err), err  # one line
    assert len(err) < len(str(path)) + 600
    assert not err.endswith(": \n")
    return err


@pytest.fixture
def evaluate_bytes(capsys, tmp_path):
    """Return a function that evaluates a file of these bytes."""

    def run(data, arguments=FAST, name="own.npz"):
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        return evaluate(capsys, path, arguments)

    return run


@pytest.fixture
def evaluate_folder(capsys, tmp_path):
    """Return a function that evaluates a folder of these .npy files, given as arrays or bytes."""

    def run(arguments=FAST, **files):
        shutil.rmtree(tmp_path / "own", ignore_errors=True)
        (tmp_path / "own").mkdir()
        for name, data in files.items():
            written = data if isinstance(data, bytes) else npy(data)
            (tmp_path / "own" / f"{name}.npy").write_bytes(written)
        return evaluate(capsys, tmp_path / "own", arguments)

    return run


def assert_expected(losses):
    np.testing.assert_allclose(losses, EXPECTED, rtol=1e-6)


@pytest.mark.parametrize("data", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_damaged_archive_fails_or_gives_correct_losses(evaluate_bytes, data):
    assert_expected(evaluate_bytes(data))
    messages = set()
    for damaged in mutants(data, 400):
        result = evaluate_bytes(damaged)
        if isinstance(result, str):
            messages.add(result)
        else:  # the damaged bytes do not matter, such as a date
            assert_expected(result)
    assert len(messages) > 20  # the damage reaches different checks


def test_damaged_npy_in_folder_never_crashes(evaluate_folder):
    messages = set()
    for damaged in mutants(npy(SPIKES), 200):  # .npy files have no checksum
        result = evaluate_folder(input=damaged)
        messages.add(result if isinstance(result, str) else None)
    assert len(messages) > 5


@settings(max_examples=150, deadline=None)
@given(
    place=st.sampled_from(["stored", "deflated", "input.npy"]),
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=4),
    end=st.integers(0, 3000),
    cut=st.booleans(),
)
def test_random_damage_never_crashes(place, changes, end, cut):
    data = {"stored": STORED, "deflated": DEFLATED}.get(place, npy(SPIKES))
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(data)] = value
    changed = changed[: end % len(data)] if cut else changed
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own"
        if place == "input.npy":
            path.mkdir()
            (path / place).write_bytes(changed)
        else:
            path.write_bytes(changed)
        output = ["--output", f"{folder}/losses.npy", "--json", "--batch", "3"]
        status = main(["evaluate", str(path), *FAST, *output])
        assert status in (0, 2)
        if status == 0 and place != "input.npy":
            assert_expected(np.load(f"{folder}/losses.npy"))


@pytest.mark.parametrize(
    ("input", "message"),
    [
        *REFUSED,
        (member(header(shape="(-4, -3, 40)")), "its header gives the shape (-4, -3, 40)"),
        (member(header(shape="(0, 4611686018427387904, 8)"), b""), "and elements; got shape (0,"),
        (member(header(shape="(4, 4611686018427387904, 0)"), b""), "and elements; got shape (4,"),
        (npy(SPIKES)[:-1], "takes 1920 bytes, and the file has 1919"),
        (npy(SPIKES) + b"1", "takes 1920 bytes, and the file has 1921"),
        (npy(SPIKES)[:100], "cannot be read"),
        (npy(SPIKES[:, 0, 0]), "got shape (4,)"),
        (npy(SPIKES[:0]), "got shape (0, 3, 40)"),
        (npy(SPIKES.astype(complex)), "of real numbers of up to 64 bits, but complex128"),
        (npy(SPIKES.astype(str)), "of real numbers of up to 64 bits, but <U32"),
        (npy(SPIKES.astype("M8[s]")), "of real numbers of up to 64 bits, but datetime64[s]"),
        (npy(np.asfortranarray(SPIKES)), "`input` is in Fortran order"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_invalid_array_fails(evaluate_bytes, evaluate_folder, input, message):
    assert message in evaluate_bytes(archive(input))
    assert message in evaluate_folder(input=input)


class TouchWhenUnpickled:
    """An object that creates the file `mark` when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickles_are_never_loaded(evaluate_bytes, evaluate_folder, capsys, tmp_path):
    mark = tmp_path / "mark"
    stream = io.BytesIO()
    np.save(stream, np.asarray([TouchWhenUnpickled(mark)]), allow_pickle=True)
    for data in (stream.getvalue(), pickle.dumps(TouchWhenUnpickled(mark))):
        assert isinstance(evaluate_bytes(archive(data)), str)
        assert isinstance(evaluate_folder(input=data), str)
        assert isinstance(evaluate_folder(input=SPIKES, lengths=data), str)
        assert isinstance(evaluate_bytes(data), str)
    path = save_zarr(tmp_path, zarr_format=2, compressors=None)
    metadata = path / "input" / ".zarray"
    for chunk in path.glob("input/0.*"):
        chunk.write_bytes(pickle.dumps(TouchWhenUnpickled(mark)))
    valid_metadata = json.loads(metadata.read_text())
    codec = {"id": "pickle", "protocol": 5}
    for change in ({"filters": [codec]}, {"compressor": codec}, {"dtype": "|O"}):
        metadata.write_text(json.dumps({**valid_metadata, **change}))
        message = evaluate(capsys, path, FAST)
        assert "encoded by 'pickle'" in message or "but object" in message
    assert not mark.exists()
    pickle.loads(pickle.dumps(TouchWhenUnpickled(mark)))
    assert mark.exists()  # the payload works, so the test can fail


def test_path_without_arrays_fails(evaluate_bytes, evaluate_folder, tmp_path, monkeypatch):
    assert "no such file" in evaluate_bytes(None, name="nowhere.npz")
    assert "not an .npz file" in evaluate_bytes(b"spikes")
    assert "not an .npz file" in evaluate_bytes(npy(SPIKES), name="input.npy")
    assert "it must hold an array `input` or `times`; it holds nothing" in evaluate_folder()
    assert "it must hold an array `input` or `times`; it holds 'spikes'" in evaluate_folder(
        spikes=SPIKES
    )
    assert "it holds 'in\\nput.py', 'label'" in evaluate_bytes(
        STORED.replace(b"input.npy", b"in\nput.py")
    )
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "not a file" in evaluate_bytes(None, name="pipe")
        (tmp_path / "own" / "spikes.npy").unlink()
        os.mkfifo(tmp_path / "own" / "input.npy")
        assert "it holds nothing" in evaluate_bytes(None, name="own")

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    assert_expected(evaluate_bytes(STORED))
    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert "cannot be read: [Errno 13] Permission denied" in evaluate_bytes(None)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (zipfile.ZIP_BZIP2, "compressed by a method other than deflate"),
        (zipfile.ZIP_LZMA, "compressed by a method other than deflate"),
    ],
)
def test_compression_other_than_deflate_fails(evaluate_bytes, method, message):
    assert message in evaluate_bytes(archive(npy(SPIKES), method))


@pytest.mark.parametrize(
    ("arguments", "files", "message"),
    [
        (["--loss", "SpikeTime"], {"target": SPIKES[:3]}, "`target` of shape (3, 3, 40) does not"),
        (["--loss", "SpikeTime"], {"target": SPIKES[:, :2]}, "SpikeTime refuses samples 0"),
        (["--loss", "SpikeMax"], {"label": LABEL[:3]}, "`label` of shape (3,) does not fit an"),
        (["--loss", "SpikeMax"], {"label": np.int64(0)}, "`label` of shape () does not fit"),
        (["--loss", "SpikeMax"], {"label": LABEL[:, None]}, "target must hold class indices"),
        (["--loss", "SpikeMax"], {"label": LABEL * 1.0}, "target must hold integers"),
        (["--loss", "SpikeMax"], {"label": LABEL + 1}, "samples 0 to 2: target must be between"),
        (["--loss", "SpikeMax"], {"label": np.zeros((4, 3, 41), "u1")}, "does not fit an `input`"),
        (["--loss", "SpikeMoid"], {"label": LABEL - 1}, "must be classes, from 0 to 2; got values"),
        (["--loss", "SpikeMoid"], {"label": LABEL + 2**62}, "must be classes, from 0 to 2"),
        (["--loss", "SpikeMoid"], {"label": np.zeros((4, 3, 1), int)}, "target must be multi-hot"),
        (["--loss", "SpikeMoid"], {"label": np.zeros((4, 3), int)}, "target must hold multi-hot"),
        (["--loss", "SpikeMoid"], {"label": np.full((4, 3), np.nan)}, "must be between 0 and 1"),
        (FAST, {"lengths": LABEL[:3]}, "`lengths` of shape (3,) does not fit"),
        (FAST, {"lengths": SPIKES[:, 0]}, "`lengths` of shape (4, 40) does not fit"),
        (FAST, {"lengths": LABEL * 1.0}, "lengths must hold integers"),
        (FAST, {"lengths": LABEL - 1}, "lengths must be between 0 and 40; got values from -1"),
        (FAST, {"lengths": LABEL + 39}, "lengths must be between 0 and 40; got values from"),
    ],
)
def test_mismatched_arrays_fail(evaluate_folder, arguments, files, message):
    assert message in evaluate_folder(arguments, input=SPIKES, **files)


def save_zarr(parent, spikes=SPIKES, chunks=(2, 3, 40), zarr_format=3, **options):
    zarr = pytest.importorskip("zarr")
    path = parent / "own.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("input", data=spikes, chunks=chunks, **options)
    return path


def test_zarr_damage_fails(capsys, tmp_path):
    path = save_zarr(tmp_path)
    assert_expected(evaluate(capsys, path, FAST))
    chunk, metadata = path / "input" / "c" / "0" / "0" / "0", path / "input" / "zarr.json"
    compressed, text = chunk.read_bytes(), metadata.read_text()
    for damaged in (compressed[:-3], compressed[:4], b"", b"spikes"):
        chunk.write_bytes(damaged)
        assert "cannot be read" in evaluate(capsys, path, FAST)
    chunk.write_bytes(compressed)
    valid_fields = json.loads(text)
    for change, message in [
        ({"shape": [4, 3]}, "cannot be read"),
        ({"shape": [-4, 3, 40]}, "cannot be read"),
        ({"shape": []}, "cannot be read"),
        ({"data_type": "complex64"}, "not an array of real numbers"),
        ({"data_type": "string"}, "cannot be read"),
        ({"data_type": {"name": "struct", "configuration": {}}}, "not an array of real numbers"),
        ({"data_type": "float99"}, "cannot be read"),
        ({"codecs": []}, "cannot be read"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "encoded by 'numcodecs.pickle'"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {"codecs": ["x"]}}]}, "by 'x'"),
        ({"codecs": [7]}, "cannot be read"),
        ({"zarr_format": 9}, "cannot be read"),
        ({"node_type": "group"}, "cannot be read"),
        ({"chunk_grid": {"name": "other"}}, "cannot be read"),
    ]:
        metadata.write_text(json.dumps({**valid_fields, **change}))
        assert message in evaluate(capsys, path, FAST), change
    for broken in (text[:-5], "", "[]", "[" * 10**5, "\0"):
        metadata.write_text(broken)
        assert "cannot be read" in evaluate(capsys, path, FAST)
    metadata.write_text(" " * (1 << 20) + text)
    assert "`input` is damaged" in evaluate(capsys, path, FAST)
    metadata.unlink()
    assert "it must hold an array `input` or `times`; it holds nothing" in evaluate(
        capsys, path, FAST
    )


def test_zarr_metadata_with_wrong_size_fails(capsys, tmp_path):
    path = save_zarr(tmp_path, compressors=None)
    metadata = path / "input" / "zarr.json"
    metadata_fields = json.loads(metadata.read_text())
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 3, 40]}}
    metadata.write_text(json.dumps({**metadata_fields, "chunk_grid": grid}))
    assert "cannot be read" in evaluate(capsys, path, FAST)
    grid["configuration"]["chunk_shape"] = [1, 1, 10**14]
    metadata.write_text(json.dumps({**metadata_fields, "chunk_grid": grid}))
    assert "is too large (save it in smaller chunks): to evaluate" in evaluate(capsys, path, FAST)
    metadata.write_text(json.dumps({**metadata_fields, "shape": [4, 10**9, 10**9]}))
    message = "chunks in a sample (save it in larger chunks): to read them takes"
    assert message in evaluate(capsys, path, FAST)
    # Most chunks of this shape were never written, so reading them gives zeros.
    metadata.write_text(json.dumps({**metadata_fields, "shape": [10**15, 3, 40]}))
    assert "losses take 8000000000000000 bytes, and" in evaluate(capsys, path, FAST)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_zarr_random_damage_never_crashes(data):
    pytest.importorskip("zarr")
    with tempfile.TemporaryDirectory() as folder:
        kind = data.draw(st.sampled_from(["version 2", "version 3", "shards", "bomb", "in shard"]))
        path, bomb = Path(folder) / "own.zarr", zarr_bombs(1 << 20)["zstd"]
        if kind == "bomb":
            save_zarr_bomb(path, bomb)
        elif kind == "in shard":
            save_zarr_bomb(path, bomb, shards=(4, 3, 40))
        else:
            shards = {"shards": (4, 3, 40)} if kind == "shards" else {}
            save_zarr(Path(folder), zarr_format=2 if kind == "version 2" else 3, **shards)
        file = data.draw(st.sampled_from(sorted(p for p in path.rglob("*") if p.is_file())))
        changed = bytearray(file.read_bytes())
        for at, value in data.draw(st.lists(st.tuples(st.integers(0), st.integers(0, 255)))):
            changed[at % len(changed)] = value
        # A share, because the size of a file may differ from run to run.
        file.write_bytes(changed[: round(len(changed) * data.draw(st.floats(0, 1)))])
        output = ["--output", f"{folder}/losses.npy", "--json"]
        assert main(["evaluate", str(path), *FAST, *output]) in (0, 2)


# The second array combines these codecs on purpose. The command ignores the warning, too.
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_zarr_chunk_is_smallest_readable_block(tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(
        tmp_path / "input", data=SPIKES, chunks=(1, 3, 20), shards=(4, 3, 40), overwrite=True
    )
    assert _zarr.ZarrRows(tmp_path / "input", "input").chunk == (1, 3, 20)
    metadata = tmp_path / "input" / "zarr.json"
    metadata_fields = json.loads(metadata.read_text())
    # The checksum covers the whole shard, so the shard must be read at once.
    metadata_fields["codecs"].append({"name": "crc32c"})
    metadata.write_text(json.dumps(metadata_fields))
    assert _zarr.ZarrRows(tmp_path / "input", "input").chunk == array.shards == (4, 3, 40)


@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_zarr_chunk_that_decodes_to_more_does_not_allocate_memory(tmp_path):
    pytest.importorskip("zarr")
    for size in (1 << 21, 1 << 29):  # the files of the larger ones are too large already
        bombs = zarr_bombs(size)
        for codec in ("blosc", "gzip", "zstd"):
            save_zarr_bomb(tmp_path / f"{codec} {size}.zarr", bombs[codec], codec=codec)
        for codec, data in bombs.items():
            save_zarr_bomb(tmp_path / f"{codec} 2 {size}.zarr", data, codec=codec, zarr_format=2)
        save_zarr_bomb(tmp_path / f"shard {size}.zarr", bombs["zstd"], shards=(4, 3, 40))
    save_zarr_bomb(tmp_path / "uncompressed.zarr", b"", compressors=None)
    os.truncate(tmp_path / "uncompressed.zarr" / "input" / "c" / "0" / "0" / "0", 1 << 32)
    folders = sorted(tmp_path.glob("*.zarr"))
    statuses, mebibytes, stderr_lines = run_with_memory_limit(
        tmp_path, *([path, *FAST] for path in folders)
    )
    assert statuses == [2] * len(folders), stderr_lines
    assert len(stderr_lines) == len(folders) == 19
    for line in stderr_lines:
        assert re.search(r"bytes are too many for a chunk of shape \([24], 3, 40\)$", line)
    assert mebibytes < 64  # zarr itself is loaded, too


def test_zarr_encodings_of_unknown_size_fail(capsys, tmp_path):
    path = save_zarr(tmp_path)
    metadata, chunk = path / "input" / "zarr.json", path / "input" / "c" / "0" / "0" / "0"
    fields = json.loads(metadata.read_text())
    compressed = chunk.read_bytes()
    # a frame that says nothing of its size, as programs write it that compress a stream
    chunk.write_bytes(compressed[:4] + b"\0\x58" + compressed[6:])
    assert "c/0/0/0: cannot be read safely: its header does not say how many" in evaluate(
        capsys, path, FAST
    )
    (bytes_codec, zstd), index = fields["codecs"], [{"name": "bytes"}, {"name": "crc32c"}]

    def sharding(codecs, inner=(1, 3, 40), index=index):
        configuration = {"chunk_shape": list(inner), "codecs": codecs, "index_codecs": index}
        return {"name": "sharding_indexed", "configuration": configuration}

    big = {"name": "bytes", "configuration": {"endian": "big"}}
    for codecs, message in [
        (
            [bytes_codec, zstd, zstd],
            "`input` is compressed by zstd and zstd; at most one is supported",
        ),
        ([sharding([bytes_codec]), zstd], "encoded by 'zstd'; supported: "),
        ([sharding([sharding([bytes_codec])])], "encoded by 'sharding_indexed'; supported: "),
        ([sharding([bytes_codec], index=[bytes_codec, zstd])], "encoded by 'zstd'"),
        ([sharding([bytes_codec], index=[big])], "with a big-endian index"),
    ]:
        metadata.write_text(json.dumps({**fields, "codecs": codecs}))
        assert message in evaluate(capsys, path, FAST), codecs


def test_zarr_with_too_many_chunks_fails(capsys, tmp_path):
    path = save_zarr(tmp_path)
    metadata = path / "input" / "zarr.json"
    fields = json.loads(metadata.read_text())
    tiny = {"name": "regular", "configuration": {"chunk_shape": [1, 1, 1]}}
    large = {"name": "regular", "configuration": {"chunk_shape": [4, 10**5, 10**6]}}
    configuration = {
        "chunk_shape": [1, 1, 1],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    shards = [{"name": "sharding_indexed", "configuration": configuration}]
    for change, message in [
        ({"chunk_grid": tiny, "shape": [4, 10**4, 10**6]}, "10000000000 chunks in a sample (save"),
        ({"chunk_grid": large, "codecs": shards}, "400000000000 chunks in a shard (save it in"),
    ]:
        metadata.write_text(json.dumps({**fields, **change}))
        assert message in evaluate(capsys, path, FAST)


@pytest.mark.parametrize("options", [{}, {"shards": (4, 6, 20)}])
def test_zarr_samples_of_many_chunks_are_read_in_parts(monkeypatch, tmp_path, options):
    zarr = pytest.importorskip("zarr")
    values = np.arange(7 * 6 * 20).reshape(7, 6, 20)
    options = {"shape": values.shape, "dtype": values.dtype, "chunks": (2, 3, 10), **options}
    # zarr 3.1.0 loses chunks of a shard that `create_array` writes with `data=`
    zarr.create_array(tmp_path / "input", **options)[:] = values
    rows = _zarr.ZarrRows(tmp_path / "input", "input")
    for chunks in (1, 8, 10**4):
        monkeypatch.setattr(_zarr, "CHUNKS", chunks)
        for start, stop in ((0, 7), (1, 6), (3, 4), (5, 7)):
            np.testing.assert_array_equal(rows.read(start, stop), values[start:stop])


@pytest.mark.parametrize("read", [(0, 4), (3, 4)])
def test_file_truncated_while_reading_fails(tmp_path, read):
    path = tmp_path / "input.npy"
    path.write_bytes(npy(SPIKES))
    with path.open("rb", buffering=0) as file:
        rows = _files.NpyRows(file, "input", path.stat().st_size)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(_terminal.UsageError, match="`input` ends before its last sample"):
            rows.read(*read)


@pytest.mark.parametrize("command", ["compare", "evaluate"])
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("own.npy", "into a folder as input.npy, with label.npy or target.npy beside it"),
        ("own.h5", "save `input` and `label` or `target` by numpy.savez"),
        ("own.csv", "save `input` and `label` or `target` by numpy.savez"),
        ("own.pt", "save `input` and `label` or `target` by numpy.savez"),
    ],
)
def test_file_of_another_format_is_told_how_to_convert(capsys, tmp_path, name, remedy, command):
    path = tmp_path / name
    if name == "own.pt":  # an archive too
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", b"data")
    else:
        path.write_bytes(npy(SPIKES))
    options = ["--loss", "SpikeMax"] if command == "evaluate" else []
    assert main([command, str(path), *options]) == 2
    assert remedy in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "evaluate"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archive_with_two_arrays_of_a_name_fails(capsys, tmp_path, command):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as file:
        for name in ("input.npy", "input.npy", "label.npy"):
            file.writestr(name, npy(LABEL if name == "label.npy" else SPIKES))
    options = ["--loss", "SpikeMax"] if command == "evaluate" else []
    assert main([command, str(tmp_path / "own.npz"), *options]) == 2
    assert "it holds two arrays `input`" in capsys.readouterr().err


def test_mean_of_losses_that_are_not_finite_says_so(capsys, tmp_path):
    np.savez(tmp_path / "own.npz", input=np.full(SPIKES.shape, np.nan), label=LABEL)
    assert main(["evaluate", str(tmp_path / "own.npz"), "--loss", "SpikeMax"]) == 0
    assert "mean loss   none is finite\nnot finite  4 NaN" in capsys.readouterr().out


def test_batch_larger_than_memory_fails(evaluate_folder, monkeypatch):
    required_bytes = 5 * 8 * SPIKES.size // 4
    monkeypatch.setattr(_files, "_memory", lambda: required_bytes)
    assert "3 samples at once, is too large (choose a smaller --batch)" in evaluate_folder(
        input=SPIKES
    )
    assert_expected(evaluate_folder([*FAST, "--batch", "1"], input=SPIKES))
    monkeypatch.setattr(_files, "_memory", lambda: required_bytes - 1)
    assert "1 samples at once, is too large (cut the recording" in evaluate_folder(
        [*FAST, "--batch", "1"], input=SPIKES
    )


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_checksum_is_verified_on_first_and_resumed_run(capsys, tmp_path, method):
    spikes = np.random.default_rng(1).random((8, 300, 300))
    path, record = tmp_path / "own.npz", tmp_path / "own.SparsityEnforcer.npy.json"
    path.write_bytes(patched(archive(npy(spikes), method), central=[(16, "<I", 1)]))
    for _ in range(2):  # a first run, and one that resumes
        assert main(["evaluate", str(path), *FAST, "--batch", "2"]) == 2
        assert "Bad CRC-32" in capsys.readouterr().err
        assert json.loads(record.read_text())["done"] == 6


LIMITED_PROGRAM = """
import json, resource, sys
from spikeloss_xp.cli import main
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB
first, *others = json.loads(sys.argv[1])
main(["evaluate", *first, "--json"])  # loads what is loaded once
before = used()
(size,) = (int(line.split()[1]) for line in open("/proc/self/status") if "VmSize" in line)
resource.setrlimit(resource.RLIMIT_AS, (((size >> 10) + 256) << 20,) * 2)
statuses = [main(["evaluate", *arguments, "--json"]) for arguments in others]
print(*statuses, (used() - before) >> 10)
"""
LARGE = 1 << 29  # bytes; the memory limit leaves half as many to the process
SAMPLES = LARGE >> 16


def run_with_memory_limit(tmp_path, *runs):
    """Return exit statuses, the growth of memory in MiB, and the lines of standard error."""
    (tmp_path / "small.npz").write_bytes(STORED)
    arguments = [[tmp_path / "small.npz", *FAST], *runs]
    program = [sys.executable, "-c", LIMITED_PROGRAM, json.dumps(arguments, default=str)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread reserves address space
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    *statuses, mebibytes = map(int, done.stdout.split("}")[-1].split())
    # Some versions of numcodecs warn when they are imported.
    lines = [line for line in done.stderr.splitlines() if "`" in line]
    return statuses, mebibytes, lines


def npy_header_of_zeros(shape):
    """Return an .npy header for uint8 data of this shape, without the data."""
    return member(header("|u1", shape), b"")


def write_sparse(path, start, size):
    """Write a sparse file: `start`, then `size` zeros that take no space on the disk."""
    path.write_bytes(start)
    os.truncate(path, len(start) + size)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_files_larger_than_memory_are_evaluated(tmp_path):
    start = npy_header_of_zeros(f"({SAMPLES}, 64, 1024)")
    folder, deflated, stored = (tmp_path / name for name in ("folder", "deflated.npz", "own.npz"))
    folder.mkdir()
    write_sparse(folder / "input.npy", start, LARGE)
    write_sparse(folder / "target.npy", start, LARGE)
    with zipfile.ZipFile(stored, "w") as file, file.open("input.npy", "w") as out:
        out.write(start)
        for _ in range(LARGE >> 24):
            out.write(bytes(1 << 24))
    with zipfile.ZipFile(stored) as file:
        checksum = file.getinfo("input.npy").CRC
    sums = [(14, "<I", checksum)], [(16, "<I", checksum)]
    deflated.write_bytes(patched(bomb(start, len(start) + LARGE), *sums))
    runs = [[path, *FAST] for path in (folder, deflated, stored)] + [
        [folder, "--loss", "SpikeTime"]
    ]
    statuses, mebibytes, stderr_lines = run_with_memory_limit(tmp_path, *runs)
    assert stderr_lines == []
    assert statuses == [0] * len(runs)
    assert mebibytes < 128  # a batch in float32 and float64, and its intermediates
    written = sorted(tmp_path.glob("*.npy"))
    assert len(written) == len(runs) + 1
    for path in written:
        if path.name != "small.SparsityEnforcer.npy":
            losses = np.load(path)
            assert losses.shape == (SAMPLES,)
            assert not losses.any()


@pytest.mark.skipif(sys.platform != "linux", reason="others may not keep to the limit")
def test_claimed_size_does_not_allocate_memory(tmp_path):
    large = 0xFFE00000  # nearly 4 GiB, in an archive of a thousandth of that size
    start = npy_header_of_zeros(f"(1, 1, {large - len(npy_header_of_zeros(f'(1, 1, {large})'))})")
    files = {
        "says that it is large": archive(start),
        "so does the archive": patched(archive(start), central=[(24, "<I", large)]),
        "is large": bomb(start, large),
        "has a large header": bomb(b"\x93NUMPY\x02\x00" + struct.pack("<I", large - 12), large),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    folder = tmp_path / "large lengths"
    folder.mkdir()
    (folder / "input.npy").write_bytes(npy(SPIKES))
    write_sparse(folder / "lengths.npy", npy_header_of_zeros(f"(4, {large})"), 4 * large)
    paths = [*(tmp_path / name for name in files), folder]
    statuses, mebibytes, stderr_lines = run_with_memory_limit(
        tmp_path, *([path, *FAST] for path in paths)
    )
    assert statuses == [2] * len(paths), stderr_lines
    assert all(line.startswith("spikeloss-xp: error: ") for line in stderr_lines)
    assert len(stderr_lines) == len(paths)
    assert mebibytes < 32
