"""Zarr arrays that are read in batches of samples."""

import importlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from spikeloss_xp.cli._recording import UsageError, check_bytes, check_dtype
from spikeloss_xp.cli._zarr_chunks import Encoding, check_file, chunk_errors, encoding_of

METADATA = ("zarr.json", ".zarray")  # of versions 3 and 2 of the format
LARGEST_METADATA = 1 << 20  # bytes
CHUNK_OVERHEAD = 4096  # bytes that zarr takes for each chunk of a read, about twice those measured
INDEX_OVERHEAD = 64  # and for each chunk in the index of a shard
CHUNKS = 1 << 14  # that are read at a time


class ZarrRows:
    """A Zarr array in a folder. Chunks that were never written read as the fill value."""

    def __init__(self, folder: Path, name: str) -> None:
        self._encoding = _check_metadata(folder, f"`{name}`")
        self._array, self._folder = _import_zarr().open_array(folder, mode="r"), folder
        self.shape = tuple(int(length) for length in self._array.shape)
        self.dtype = np.dtype(self._array.dtype)
        check_dtype(f"`{name}`", self.dtype)
        self.chunk = tuple(int(length) for length in self._array.chunks)
        self._file_shape = tuple(int(n) for n in self._array.shards or self.chunk)
        self._subject = f"`{name}`"
        self._unchecked = 0  # the first row of files, along the first axis, that is not checked
        self._check_chunks()

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`.

        They are read some chunks at a time, because zarr takes memory for each.
        """
        if not self.shape:  # a number
            self._check_file(())
            return np.asarray(self._array[...])
        self._check_files(start, stop)
        length = self.chunk[0] * max(CHUNKS // self._chunks_of_a_sample(), 1)
        edges = [start, *range(start - start % length + length, stop, length), stop]
        if len(edges) == 2:
            return np.asarray(self._array[start:stop])
        samples = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for first, last in itertools.pairwise(edges):
            samples[first - start : last - start] = self._array[first:last]
        return samples

    def _chunks_of_a_sample(self) -> int:
        lengths = zip(self.shape[1:], self.chunk[1:], strict=True)
        return math.prod(-(-length // chunk) for length, chunk in lengths)

    def _check_chunks(self) -> None:
        """Raise a `UsageError` if a sample, or a shard, has more chunks than memory allows."""
        if 0 in self.chunk or 0 in self._file_shape:
            raise UsageError(f"{self._subject} is damaged: its chunks have shape {self.chunk}")
        shard = zip(self._file_shape, self.chunk, strict=True)
        in_shard = math.prod(length // chunk for length, chunk in shard)
        for number, whole, overhead in (
            (self._chunks_of_a_sample(), "sample", CHUNK_OVERHEAD),
            (in_shard, "shard", INDEX_OVERHEAD),
        ):
            subject = f"{self._subject} has {number} chunks in a {whole} (save it in larger chunks)"
            check_bytes(f"{subject}: to read them", overhead * number)

    def _check_files(self, start: int, stop: int) -> None:
        """Check the files of the chunks that hold samples in a range, each of them once."""
        first, *others = self._file_shape
        lengths = zip(self.shape[1:], others, strict=True)
        grid = [range(-(-length // chunk)) for length, chunk in lengths]
        rows = range(max(start // first, self._unchecked), -(-stop // first))
        for place in itertools.product(rows, *grid):
            self._check_file(place)
        self._unchecked = max(rows.stop, self._unchecked)

    def _check_file(self, place: tuple[int, ...]) -> None:
        name = self._array.metadata.encode_chunk_key(place)
        with chunk_errors(f"{self._subject}, file {name}"):
            path = self._folder / name
            check_file(path, self._encoding, self._file_shape, self.dtype.itemsize)


def is_zarr(folder: Path) -> bool:
    """Return whether a folder is a Zarr group, judged by its suffix or its metadata files."""
    return folder.suffix == ".zarr" or any((folder / m).is_file() for m in ("zarr.json", ".zgroup"))


def zarr_names(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Return those of the names that arrays in a folder have."""
    _import_zarr()  # first, so that a missing zarr is reported even if the folder is empty
    return [name for name in names if any((folder / name / m).is_file() for m in METADATA)]


def zarr_rows(folder: Path, names: list[str]) -> dict[str, ZarrRows]:
    """Return the arrays in a folder that have these names."""
    return {name: ZarrRows(folder / name, name) for name in names}


def _import_zarr() -> Any:
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        raise UsageError(f"reading it needs zarr: pip install zarr ({error})") from None
    if int(zarr.__version__.partition(".")[0]) < 3:
        raise UsageError(
            f"reading it needs zarr 3 or newer, and {zarr.__version__} is installed: "
            "pip install --upgrade zarr"
        )
    return zarr


def _check_metadata(folder: Path, subject: str) -> Encoding:
    """Return how an array is encoded. Raise a `UsageError` unless zarr can safely open and read it.

    `subject` names the array in error messages.
    """
    file = next(folder / name for name in METADATA if (folder / name).is_file())
    if file.stat().st_size > LARGEST_METADATA:
        raise UsageError(f"{subject} is damaged: its {file.name} is too large to describe an array")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    key = "dtype" if metadata.get("zarr_format") == 2 else "data_type"
    data_type = metadata.get(key)
    if not isinstance(data_type, str):  # a structured dtype, or an extension of the format
        raise UsageError(
            f"{subject} is not an array of real numbers of up to 64 bits, but {data_type}"
        )
    check_dtype(subject, np.dtype(data_type))
    return encoding_of(metadata, subject)
