"""Zarr input of ``evaluate``: chunks, metadata that are refused, and damage."""

import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hypothesis")
zarr = pytest.importorskip("zarr")

from hypothesis import given, settings
from hypothesis import strategies as st

from _support import terminal
from _support.damage import SPIKES, TouchWhenUnpickled
from spikeloss_xp.cli import _zarr, main

EXPECTED = np.asarray([max(abs(sample).mean() - 0.01, 0) ** 2 for sample in SPIKES])


def save_zarr(parent, spikes=SPIKES, chunks=(2, 3, 40), zarr_format=3, **options):
    path = parent / "own.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("input", data=spikes, chunks=chunks, **options)
    return path


@pytest.fixture
def evaluate(capsys):
    """Return a function that returns losses, or the error message, which must be one short line."""

    def run(path):
        output = path.parent / "losses.npy"
        given = ["--loss", "SparsityEnforcer", "--batch", "3", "--overwrite", "--output", output]
        result = terminal.run(capsys, "evaluate", path, *given)
        return terminal.error_of(result, path) or np.load(output)

    return run


def test_damage_fails(evaluate, tmp_path):
    path = save_zarr(tmp_path)
    np.testing.assert_allclose(evaluate(path), EXPECTED, rtol=1e-6)
    chunk, metadata = path / "input" / "c" / "0" / "0" / "0", path / "input" / "zarr.json"
    compressed, text = chunk.read_bytes(), metadata.read_text()
    for damaged in (compressed[:-3], compressed[:4], b"", b"spikes"):
        chunk.write_bytes(damaged)
        assert "cannot be read" in evaluate(path)
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
        assert message in evaluate(path), change
    for broken in (text[:-5], "", "[]", "[" * 10**5, "\0"):
        metadata.write_text(broken)
        assert "cannot be read" in evaluate(path)
    metadata.write_text(" " * (1 << 20) + text)
    assert "`input` is damaged" in evaluate(path)
    metadata.unlink()
    assert "it must hold an array `input` or `times`; it holds nothing" in evaluate(path)


def test_metadata_with_wrong_size_fails(evaluate, tmp_path):
    path = save_zarr(tmp_path, compressors=None)
    metadata = path / "input" / "zarr.json"
    metadata_fields = json.loads(metadata.read_text())
    grid = {"name": "regular", "configuration": {"chunk_shape": [1, 3, 40]}}
    metadata.write_text(json.dumps({**metadata_fields, "chunk_grid": grid}))
    assert "cannot be read" in evaluate(path)
    grid["configuration"]["chunk_shape"] = [1, 1, 10**14]
    metadata.write_text(json.dumps({**metadata_fields, "chunk_grid": grid}))
    assert "is too large (save it in smaller chunks): to evaluate" in evaluate(path)
    metadata.write_text(json.dumps({**metadata_fields, "shape": [4, 10**9, 10**9]}))
    message = "chunks in a sample (save it in larger chunks): to read them takes"
    assert message in evaluate(path)
    # Most chunks of this shape were never written, so reading them gives zeros.
    metadata.write_text(json.dumps({**metadata_fields, "shape": [10**15, 3, 40]}))
    assert "to hold the losses of 1000000000000000 samples takes 7450580.6 GiB" in evaluate(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_damage_never_crashes(data):
    with tempfile.TemporaryDirectory() as folder:
        kind = data.draw(st.sampled_from(["version 2", "version 3", "shards"]))
        shards = {"shards": (4, 3, 40)} if kind == "shards" else {}
        path = save_zarr(Path(folder), zarr_format=2 if kind == "version 2" else 3, **shards)
        file = data.draw(st.sampled_from(sorted(p for p in path.rglob("*") if p.is_file())))
        changed = bytearray(file.read_bytes())
        for at, value in data.draw(st.lists(st.tuples(st.integers(0), st.integers(0, 255)))):
            changed[at % len(changed)] = value
        # A share, because the size of a file may differ from run to run.
        file.write_bytes(changed[: round(len(changed) * data.draw(st.floats(0, 1)))])
        arguments = ["--loss", "SparsityEnforcer", "--output", f"{folder}/losses.npy"]
        assert main(["evaluate", str(path), *arguments]) in (0, 2)


def test_pickles_are_never_loaded(evaluate, tmp_path):
    mark = tmp_path / "mark"
    path = save_zarr(tmp_path, zarr_format=2, compressors=None)
    metadata = path / "input" / ".zarray"
    for chunk in path.glob("input/0.*"):
        chunk.write_bytes(pickle.dumps(TouchWhenUnpickled(mark)))
    fields = json.loads(metadata.read_text())
    codec = {"id": "pickle", "name": "zstd", "protocol": 5}
    for change in ({"filters": [codec]}, {"compressor": codec}, {"dtype": "|O"}):
        metadata.write_text(json.dumps({**fields, **change}))
        message = evaluate(path)
        assert "encoded by 'pickle'" in message or "but object" in message
    assert not mark.exists()


@pytest.mark.parametrize("place", ["codecs", "in shard", "in shard of shard", "index"])
def test_codecs_are_those_of_a_list(evaluate, tmp_path, place):
    path = save_zarr(tmp_path)
    metadata = path / "input" / "zarr.json"
    fields = json.loads(metadata.read_text())
    little = {"name": "bytes", "configuration": {"endian": "little"}}

    def sharding(codecs, index=(little,)):
        configuration = {"chunk_shape": [1, 3, 40], "codecs": codecs, "index_codecs": list(index)}
        return {"name": "sharding_indexed", "configuration": configuration}

    unknown = {"name": "numcodecs.pickle", "id": "zstd"}
    codecs = {
        "codecs": [little, unknown],
        "in shard": [sharding([little, unknown])],
        "in shard of shard": [sharding([sharding([little, unknown])])],
        "index": [sharding([little], [little, "unknown"])],
    }[place]
    metadata.write_text(json.dumps({**fields, "codecs": codecs}))
    name = "unknown" if place == "index" else "numcodecs.pickle"
    assert f"`input` is encoded by '{name}'; supported: blosc, bytes, crc32c" in evaluate(path)


# The second array combines these codecs on purpose. The command ignores the warning, too.
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_chunk_is_smallest_readable_block(tmp_path):
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


def test_too_many_chunks_fail(evaluate, tmp_path):
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
        assert message in evaluate(path)


@pytest.mark.parametrize("options", [{"zarr_format": 2}, {"shards": (4, 6, 20)}])
def test_samples_of_many_chunks_are_read_in_parts(monkeypatch, tmp_path, options):
    values = np.arange(7 * 6 * 20, dtype=">i4").reshape(7, 6, 20)
    options = {"shape": values.shape, "dtype": values.dtype, "chunks": (2, 3, 10), **options}
    # zarr 3.1.0 loses chunks of a shard that `create_array` writes with `data=`
    zarr.create_array(tmp_path / "input", **options)[:] = values
    rows = _zarr.ZarrRows(tmp_path / "input", "input")
    for chunks in (1, 8, 10**4):
        monkeypatch.setattr(_zarr, "CHUNKS", chunks)
        for start, stop in ((0, 7), (1, 6), (3, 4), (5, 7)):
            read = rows.read(start, stop)
            np.testing.assert_array_equal(read, values[start:stop])
            assert read.dtype.isnative  # some libraries take no other order
