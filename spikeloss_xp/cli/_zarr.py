"""Zarr arrays that are read in batches of samples."""

import contextlib
import importlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spikeloss_xp.cli._files import Rows, Select, check_bytes, check_dtype, unchanged
from spikeloss_xp.cli._terminal import UsageError

METADATA = {"zarr.json": 3, ".zarray": 2}  # the version of the format, by the name of the file
LARGEST_METADATA = 1 << 20  # bytes
# None of these codecs runs anything that a file contains.
SAFE = ("blosc", "bytes", "crc32c", "gzip", "lz4", "sharding_indexed", "transpose", "zlib", "zstd")
CHUNK_OVERHEAD = 4096  # bytes that zarr takes for each chunk of a read, about twice those measured
INDEX_OVERHEAD = 64  # and for each chunk in the index of a shard
CHUNKS = 1 << 14  # that are read at a time


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a Zarr group, judged by its suffix or its metadata files."""
    return folder.suffix == ".zarr" or any((folder / m).is_file() for m in ("zarr.json", ".zgroup"))


def open_zarr(folder: Path, select: Select, stack: contextlib.ExitStack) -> Mapping[str, Rows]:
    """Return arrays of a Zarr group, whose files must not change before the stack is closed."""
    _import_zarr()  # first, so that a missing zarr is reported even if the folder is empty
    present = {p.parent.name for m in METADATA for p in folder.glob(f"*/{m}") if p.is_file()}
    names = select(present)
    for name in names:
        stack.enter_context(unchanged(folder / name))
    return {name: ZarrRows(folder / name, name) for name in names}


class ZarrRows:
    """A Zarr array in a folder. Chunks that were never written read as the fill value."""

    def __init__(self, folder: Path, name: str) -> None:
        subject = f"`{name}`"
        file = next(folder / name for name in METADATA if (folder / name).is_file())
        _check_metadata(file, subject)
        array = _import_zarr().open_array(folder, mode="r", zarr_format=METADATA[file.name])
        self._array, self.dtype = array, np.dtype(array.dtype).newbyteorder("=")
        self.shape = tuple(int(length) for length in array.shape)
        self.chunk = tuple(int(length) for length in array.chunks)
        shard = tuple(int(length) for length in array.shards or self.chunk)
        if 0 in self.chunk or 0 in shard:
            raise UsageError(f"{subject} is damaged: its chunks have shape {self.chunk}")
        self._chunks_of_a_sample = each = _count_chunks(self.shape[1:], self.chunk[1:])
        inside = _count_chunks(shard, self.chunk)
        remedy = "(save it in larger chunks): to read them"
        check_bytes(f"{subject} has {each} chunks in a sample {remedy}", CHUNK_OVERHEAD * each)
        check_bytes(f"{subject} has {inside} chunks in a shard {remedy}", INDEX_OVERHEAD * inside)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`.

        They are read some chunks at a time, because zarr takes memory for each.
        """
        if not self.shape:  # a number
            return np.asarray(self._array[...], self.dtype)
        samples = np.empty((stop - start, *self.shape[1:]), self.dtype)
        length = self.chunk[0] * max(CHUNKS // self._chunks_of_a_sample, 1)
        edges = [start, *range(start - start % length + length, stop, length), stop]
        for first, last in itertools.pairwise(edges):
            samples[first - start : last - start] = self._array[first:last]
        return samples


def _count_chunks(lengths: tuple[int, ...], chunk: tuple[int, ...]) -> int:
    return math.prod(-(-n // size) for n, size in zip(lengths, chunk, strict=True))


def _import_zarr() -> Any:
    try:
        zarr = importlib.import_module("zarr")
        if int(zarr.__version__.partition(".")[0]) < 3:
            raise ImportError(f"{zarr.__version__} is installed")
    except ImportError as error:
        remedy = "pip install --upgrade zarr"
        raise UsageError(f"reading it needs zarr 3 or newer: {remedy} ({error})") from None
    return zarr


def _check_metadata(file: Path, subject: str) -> None:
    """Raise a `UsageError` unless zarr can safely open the array that a file describes.

    `subject` names the array in error messages.
    """
    if file.stat().st_size > LARGEST_METADATA:
        raise UsageError(f"{subject} is damaged: its {file.name} is too large to describe an array")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    if METADATA[file.name] == 2:
        data_type, key = metadata["dtype"], "id"
        codecs = [metadata.get("compressor"), *(metadata.get("filters") or [])]
    else:
        data_type, key, codecs = metadata["data_type"], "name", metadata["codecs"]
    # Others are structured dtypes and extensions of the format.
    check_dtype(subject, np.dtype(data_type) if isinstance(data_type, str) else data_type)
    for name in _codec_names(codecs, key):
        if name not in SAFE:
            raise UsageError(f"{subject} is encoded by {name!r}; supported: {', '.join(SAFE)}")


def _codec_names(codecs: Any, key: str) -> Iterator[Any]:
    """Yield the names of the codecs in metadata, and of those inside of shards."""
    for codec in filter(None, codecs):
        fields: dict[str, Any] = {key: codec} if isinstance(codec, str) else codec
        yield fields[key]
        configuration = fields.get("configuration") or {}
        for inner in ("codecs", "index_codecs"):
            yield from _codec_names(configuration.get(inner, []), key)
