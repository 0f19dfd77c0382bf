"""Zarr input of ``evaluate``: chunks, metadata that are refused, and damage."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr")

from _support.damage import SPIKES, TouchWhenUnpickled, mutants, save
from spikeloss_xp.cli import _zarr

EXPECTED = np.asarray([max(abs(sample).mean() - 0.01, 0) ** 2 for sample in SPIKES])
EVALUATE = "evaluate own.zarr --loss SparsityEnforcer --batch 3 --overwrite"
METADATA = Path("own.zarr/input/zarr.json")


@pytest.fixture
def error_with(command):
    """Return a function that changes the metadata of `input`, and returns the error."""
    save("own.zarr", {"input": SPIKES}, chunks=(2, 3, 40))
    fields = json.loads(METADATA.read_text())

    def run(**changes):
        METADATA.write_text(json.dumps({**fields, **changes}))
        return command.error(EVALUATE)

    return run


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
UNKNOWN = {"name": "numcodecs.pickle", "id": "zstd"}


def grid(*chunk):
    return {"name": "regular", "configuration": {"chunk_shape": chunk}}


def shards(codecs, index=(BYTES,), chunk=(1, 3, 40)):
    configuration = {"chunk_shape": chunk, "codecs": codecs, "index_codecs": index}
    return [{"name": "sharding_indexed", "configuration": configuration}]


READ, NO_NUMBERS = "cannot be read", "not an array of real numbers"
ENCODED = "`input` is encoded by 'numcodecs.pickle'; supported: blosc, bytes, crc32c"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [4, 3]}, READ),
        ({"shape": [-4, 3, 40]}, READ),
        ({"shape": []}, READ),
        ({"data_type": "complex64"}, NO_NUMBERS),
        ({"data_type": "string"}, READ),
        ({"data_type": {"name": "struct", "configuration": {}}}, NO_NUMBERS),
        ({"data_type": "float99"}, READ),
        ({"codecs": []}, READ),
        ({"codecs": [7]}, READ),
        ({"zarr_format": 9}, READ),
        ({"node_type": "group"}, READ),
        ({"chunk_grid": {"name": "other"}}, READ),
        ({"chunk_grid": grid(1, 3, 40), "codecs": [BYTES]}, READ),  # chunks of the wrong size
        ({"chunk_grid": grid(1, 1, 10**14)}, "is too large (save it in smaller chunks): to eval"),
        (
            {"shape": [4, 10**9, 10**9]},
            "chunks in a sample (save it in larger chunks): to read them takes",
        ),
        # Most chunks of this shape were never written, so reading them gives zeros.
        ({"shape": [10**15, 3, 40]}, "to hold the losses of 1000000000000000 samples takes 74505"),
        (
            {"chunk_grid": grid(1, 1, 1), "shape": [4, 10**4, 10**6]},
            "10000000000 chunks in a sample (save",
        ),
        (
            {"chunk_grid": grid(4, 10**5, 10**6), "codecs": shards([BYTES], chunk=(1, 1, 1))},
            "400000000000 chunks in a shard (save it in",
        ),
        ({"codecs": [BYTES, UNKNOWN]}, ENCODED),
        ({"codecs": shards([BYTES, UNKNOWN])}, ENCODED),
        ({"codecs": shards(shards([BYTES, UNKNOWN]))}, ENCODED),
        ({"codecs": shards([BYTES], [BYTES, "unknown"])}, "`input` is encoded by 'unknown'; supp"),
        ({"codecs": shards(["x"], ())}, "by 'x'"),
    ],
)
def test_wrong_metadata_fail(error_with, changes, message):
    assert message in error_with(**changes)


def test_damaged_chunk_or_text_fails(command, error_with):
    assert error_with() is None
    np.testing.assert_allclose(np.load("own.SparsityEnforcer.npy"), EXPECTED, rtol=1e-6)
    chunk = Path("own.zarr/input/c/0/0/0")
    compressed, text = chunk.read_bytes(), METADATA.read_bytes()
    for damaged in (compressed[:-3], compressed[:4], b"", b"spikes"):
        chunk.write_bytes(damaged)
        assert READ in command.error(EVALUATE)
    for broken in (text[:-5], b"", b"[]", b"[" * 10**5, b"\0"):
        METADATA.write_bytes(broken)
        assert READ in command.error(EVALUATE)
    METADATA.write_bytes(b" " * (1 << 20) + text)
    assert "`input` is damaged" in command.error(EVALUATE)
    METADATA.unlink()
    message = "it must hold an array `input` or `times`; it holds nothing"
    assert message in command.error(EVALUATE)


@pytest.mark.parametrize("made", [{"zarr_format": 2}, {"zarr_format": 3}, {"shards": (4, 3, 40)}])
def test_random_damage_never_crashes(command, made):
    save("own.zarr", {"input": SPIKES}, **{"chunks": (2, 3, 40), **made})
    errors = set()
    for file in sorted(p for p in Path("own.zarr").rglob("*") if p.is_file()):
        whole = file.read_bytes()
        for damaged in mutants(whole, 20, cuts=10):
            file.write_bytes(damaged)
            errors.add(command.error(EVALUATE))
        file.write_bytes(whole)
    assert len(errors) > 5


def test_pickles_are_never_loaded(command):
    payload = TouchWhenUnpickled(Path("mark").absolute())
    save("own.zarr", {"input": SPIKES}, zarr_format=2, compressors=None)
    for chunk in Path("own.zarr/input").glob("0.*"):
        chunk.write_bytes(pickle.dumps(payload))
    metadata = Path("own.zarr/input/.zarray")
    fields = json.loads(metadata.read_text())
    codec = {"id": "pickle", "name": "zstd", "protocol": 5}
    for change in ({"filters": [codec]}, {"compressor": codec}, {"dtype": "|O"}):
        metadata.write_text(json.dumps({**fields, **change}))
        message = command.error(EVALUATE)
        assert "encoded by 'pickle'" in message or "but object" in message
    assert not Path("mark").exists()


# The second array combines these codecs on purpose. The command ignores the warning, too.
@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_chunk_is_smallest_readable_block(command):
    save("own.zarr", {"input": SPIKES}, chunks=(1, 3, 20), shards=(4, 3, 40))
    assert _zarr.ZarrRows(METADATA.parent, "input").chunk == (1, 3, 20)
    fields = json.loads(METADATA.read_text())
    # The checksum covers the whole shard, so the shard must be read at once.
    fields["codecs"].append({"name": "crc32c"})
    METADATA.write_text(json.dumps(fields))
    assert _zarr.ZarrRows(METADATA.parent, "input").chunk == (4, 3, 40)


@pytest.mark.parametrize("made", [{"zarr_format": 2}, {"shards": (4, 6, 20)}])
def test_samples_of_many_chunks_are_read_in_parts(command, monkeypatch, made):
    values = np.arange(7 * 6 * 20, dtype=">i4").reshape(7, 6, 20)
    save("own.zarr", {"input": values}, chunks=(2, 3, 10), **made)
    rows = _zarr.ZarrRows(METADATA.parent, "input")
    for chunks in (1, 8, 10**4):
        monkeypatch.setattr(_zarr, "CHUNKS", chunks)
        for start, stop in ((0, 7), (1, 6), (3, 4), (5, 7)):
            read = rows.read(start, stop)
            np.testing.assert_array_equal(read, values[start:stop])
            assert read.dtype.isnative  # some libraries take no other order
