"""Zarr arrays, read some samples at a time."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikeloss_xp.cli._recording import UsageError, check_dtype

METADATA = ("zarr.json", ".zarray")  # of versions 3 and 2 of the format
LARGEST_METADATA = 1 << 20  # bytes
# What zarr may run to decode a chunk. There are others that do what the file says: unpickle, say.
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
    """A Zarr array in a folder; what of it was never written is its fill value."""

    def __init__(self, folder: Path, name: str) -> None:
        _check_metadata(folder, f"`{name}`")
        self._array = _zarr().open_array(folder, mode="r")
        self.shape = tuple(int(length) for length in self._array.shape)
        self.dtype = np.dtype(self._array.dtype)
        check_dtype(f"`{name}`", self.dtype)
        self.chunk = tuple(int(length) for length in self._array.chunks)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples from `start` to before `stop`."""
        return np.asarray(self._array[start:stop])


def is_zarr(folder: Path) -> bool:
    """Tell whether a folder holds Zarr arrays, by its name or what is in it."""
    return folder.suffix == ".zarr" or any((folder / m).is_file() for m in ("zarr.json", ".zgroup"))


def zarr_rows(folder: Path, names: tuple[str, ...]) -> dict[str, ZarrRows]:
    """Return the arrays of these names that a folder holds."""
    _zarr()  # first of all: without it nothing can be read
    held = [name for name in names if any((folder / name / m).is_file() for m in METADATA)]
    return {name: ZarrRows(folder / name, name) for name in held}


def _zarr() -> Any:
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


def _check_metadata(folder: Path, what: str) -> None:
    """Make sure that zarr may open an array, and run the codecs that it names."""
    file = next(folder / name for name in METADATA if (folder / name).is_file())
    if file.stat().st_size > LARGEST_METADATA:
        raise UsageError(f"{what} is damaged: its {file.name} is not that of an array")
    metadata = json.loads(file.read_text(encoding="utf-8"))
    if metadata.get("zarr_format") == 2:
        kind = metadata.get("dtype")
        filters = metadata.get("filters") or []
        codecs = [codec["id"] for codec in (metadata.get("compressor"), *filters) if codec]
    else:
        kind = metadata.get("data_type")
        codecs = list(_names(metadata.get("codecs", [])))
    if not isinstance(kind, str):  # of several fields, or an extension of the format
        raise UsageError(f"{what} is not an array of real numbers of up to 64 bits, but {kind}")
    check_dtype(what, np.dtype(kind))
    for name in codecs:
        if name not in CODECS:
            raise UsageError(f"{what} is encoded by {name!r}, which is not one of {CODECS}")


def _names(codecs: Any) -> Iterator[Any]:
    """Yield the names of codecs, and of those within them."""
    for codec in codecs:
        if isinstance(codec, str):
            yield codec
            continue
        yield codec["name"]
        inside = codec.get("configuration", {})
        for key in ("codecs", "index_codecs"):
            yield from _names(inside.get(key, []))
