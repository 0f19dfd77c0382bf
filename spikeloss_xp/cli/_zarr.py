"""Zarr arrays that are read in batches of samples."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikeloss_xp.cli._recording import UsageError, check_dtype

METADATA = ("zarr.json", ".zarray")  # of versions 3 and 2 of the format
LARGEST_METADATA = 1 << 20  # bytes
# The codecs that zarr may run to decode a chunk. Others, such as pickle, can run arbitrary code.
CODECS = (
    "blosc",
    "bytes",
    "crc32c",
    "gzip",
    "lz4",
    "sharding_indexed",
    "transpose",
    "zlib",
    "zstd",
)


class ZarrRows:
    """A Zarr array in a folder. Chunks that were never written read as the fill value."""

    def __init__(self, folder: Path, name: str) -> None:
        _check_metadata(folder, f"`{name}`")
        self._array = _import_zarr().open_array(folder, mode="r")
        self.shape = tuple(int(length) for length in self._array.shape)
        self.dtype = np.dtype(self._array.dtype)
        check_dtype(f"`{name}`", self.dtype)
        self.chunk = tuple(int(length) for length in self._array.chunks)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`."""
        return np.asarray(self._array[start:stop] if self.shape else self._array[...])


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


def _check_metadata(folder: Path, subject: str) -> None:
    """Raise a `UsageError` unless zarr can safely open an array and run the codecs it names.

    `subject` names the array in error messages.
    """
    file = next(folder / name for name in METADATA if (folder / name).is_file())
    if file.stat().st_size > LARGEST_METADATA:
        raise UsageError(f"{subject} is damaged: its {file.name} is not that of an array")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    if metadata.get("zarr_format") == 2:
        data_type = metadata.get("dtype")
        filters = metadata.get("filters") or []
        codecs = [codec["id"] for codec in (metadata.get("compressor"), *filters) if codec]
    else:
        data_type = metadata.get("data_type")
        codecs = list(_codec_names(metadata.get("codecs", [])))
    if not isinstance(data_type, str):  # a structured dtype, or an extension of the format
        raise UsageError(
            f"{subject} is not an array of real numbers of up to 64 bits, but {data_type}"
        )
    check_dtype(subject, np.dtype(data_type))
    for name in codecs:
        if name not in CODECS:
            raise UsageError(f"{subject} is encoded by {name!r}, which is not one of {CODECS}")


def _codec_names(codecs: Any) -> Iterator[Any]:
    """Yield the names of codecs and of the codecs nested in them."""
    for codec in codecs:
        if isinstance(codec, str):
            yield codec
            continue
        yield codec["name"]
        configuration = codec.get("configuration", {})
        for key in ("codecs", "index_codecs"):
            yield from _codec_names(configuration.get(key, []))
