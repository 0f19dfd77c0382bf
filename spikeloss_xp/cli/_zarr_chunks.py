"""The memory that zarr takes to read a chunk, checked in the file of the chunk beforehand.

zarr decodes whatever a file holds, and compares its size with that of the chunk afterwards: a few
kilobytes can decode to gigabytes. Compressed data say how large they are, or are decompressed here
a block at a time, so a file is refused before zarr allocates memory for it.
"""

import contextlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from spikeloss_xp.cli._recording import UsageError

COMPRESSORS = ("blosc", "gzip", "lz4", "zlib", "zstd")
ARRANGEMENTS = ("bytes", "crc32c", "transpose")  # these change the size by a few bytes at most
SHARDS = "sharding_indexed"
INDEX_ENTRY, CHECKSUM = 16, 4  # bytes
SLACK = 4096  # bytes of headers and checksums
MISSING = 2**64 - 1  # the offset of a chunk that is not in its shard
BLOCK_BYTES = 1 << 20  # the most bytes that are decompressed at a time
LONGEST_HEADER = 32  # bytes, more than the size of a zstd or Blosc header


@dataclass(frozen=True)
class Encoding:
    """How the chunks of an array are encoded.

    Attributes
    ----------
    compressor : str or None
        The codec that compresses a chunk; with `shard`, a chunk inside a shard.
    shard : dict or None
        The configuration of the codec whose files hold many chunks and an index.
    index_checksum : bool
        Whether a checksum follows the index of a shard.
    checksums : int
        The number of checksums after a shard.
    """

    compressor: str | None = None
    shard: dict[str, Any] | None = field(default=None)
    index_checksum: bool = False
    checksums: int = 0


def encoding_of(metadata: dict[str, Any], subject: str) -> Encoding:
    """Return the encoding that the metadata of an array describe.

    Raise a `UsageError` if it has a codec that is unknown, or more than one compressor, since only
    the size of what the last one compressed is known.
    """
    if metadata.get("zarr_format") == 2:
        filters = metadata.get("filters") or []
        names = [codec["id"] for codec in (metadata.get("compressor"), *filters) if codec]
        return Encoding(_one_compressor(names, subject, COMPRESSORS))
    codecs = metadata.get("codecs", [])
    names = [_name(codec) for codec in codecs]
    if SHARDS not in names:
        return Encoding(_one_compressor(names, subject, (*ARRANGEMENTS, *COMPRESSORS)))
    _one_compressor(names, subject, (*ARRANGEMENTS, SHARDS))
    shard = codecs[names.index(SHARDS)]["configuration"]
    inside, index = ([_name(c) for c in shard.get(key, [])] for key in ("codecs", "index_codecs"))
    compressor = _one_compressor(inside, subject, (*ARRANGEMENTS, *COMPRESSORS))
    _one_compressor(index, subject, ("bytes", "crc32c"))
    if "big" in str(shard["index_codecs"]):
        raise UsageError(f"{subject} has shards with a big-endian index, which is not supported")
    return Encoding(compressor, shard, "crc32c" in index, names.count("crc32c"))


def _name(codec: Any) -> Any:
    return codec if isinstance(codec, str) else codec["name"]


def _one_compressor(names: list[Any], subject: str, allowed: tuple[str, ...]) -> str | None:
    for name in names:
        if name not in allowed:
            raise UsageError(f"{subject} is encoded by {name!r}; supported: {', '.join(allowed)}")
    compressors = [name for name in names if name in COMPRESSORS]
    if len(compressors) > 1:
        raise UsageError(
            f"{subject} is compressed by {' and '.join(compressors)}; at most one is supported"
        )
    return compressors[0] if compressors else None


def check_file(path: Path, encoding: Encoding, shape: tuple[int, ...], itemsize: int) -> None:
    """Raise a `UsageError` if reading the file of a chunk, or shard, takes more than its shape.

    Up to twice the size of the array is allowed, because compression may enlarge it.
    """
    if not path.is_file():
        return  # it reads as the fill value
    allowed, size = _allowed(math.prod(shape) * itemsize), path.stat().st_size
    number = 0
    if encoding.shard is not None:
        inner = tuple(encoding.shard["chunk_shape"])
        number = math.prod(shape) // math.prod(inner)  # any order of axes gives the same
        allowed += INDEX_ENTRY * number
    if size > allowed:
        raise _too_large(size, shape)
    with path.open("rb") as file:
        if encoding.shard is None:
            _check_chunk(file, encoding.compressor, (0, size), shape, itemsize)
            return
        for start, length in _chunks_of_shard(file, encoding, number, size):
            if length > _allowed(math.prod(inner) * itemsize):
                raise _too_large(length, inner)
            _check_chunk(file, encoding.compressor, (start, length), inner, itemsize)


@contextlib.contextmanager
def chunk_errors(subject: str) -> Iterator[None]:
    """Name the file of a chunk in the errors that `check_file` raises."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{subject}: {error}") from None


def _allowed(size: int) -> int:
    return 2 * size + SLACK


def _too_large(size: int, shape: tuple[int, ...]) -> UsageError:
    return UsageError(f"damaged: {size} bytes are too many for a chunk of shape {shape}")


def _chunks_of_shard(
    file: BinaryIO, encoding: Encoding, number: int, size: int
) -> Iterator[tuple[int, int]]:
    """Yield the start and length of each chunk in a shard, as its index gives them."""
    assert encoding.shard is not None
    length = INDEX_ENTRY * number + CHECKSUM * encoding.index_checksum
    size -= CHECKSUM * encoding.checksums
    at_start = encoding.shard.get("index_location", "end") == "start"
    if length > size:
        return  # zarr reports that the index is not complete
    file.seek(0 if at_start else size - length)
    index = np.frombuffer(file.read(INDEX_ENTRY * number), "<u8").reshape(-1, 2)
    for start, length in index[index[:, 0] != MISSING].tolist():
        yield start, length


def _check_chunk(
    file: BinaryIO,
    compressor: str | None,
    part: tuple[int, int],
    shape: tuple[int, ...],
    itemsize: int,
) -> None:
    """Raise a `UsageError` if a part of a file decompresses to more than a chunk of this shape."""
    if compressor is None:
        return
    (start, length), allowed = part, _allowed(math.prod(shape) * itemsize)
    decompressed: int | None
    file.seek(start)
    if compressor in ("gzip", "zlib"):
        decompressed = _inflated_size(file.read(length), allowed)
    else:
        header = file.read(min(length, LONGEST_HEADER))
        decompressed = {"blosc": _blosc_size, "lz4": _lz4_size, "zstd": _zstd_size}[compressor](
            header
        )
    if decompressed is None:
        raise UsageError(
            "cannot be read safely: its header does not say how many bytes it decompresses to"
        )
    if decompressed > allowed:
        raise _too_large(decompressed, shape)


def _blosc_size(header: bytes) -> int | None:
    return int.from_bytes(header[4:8], "little") if len(header) >= 16 else None


def _lz4_size(header: bytes) -> int | None:
    return int.from_bytes(header[:4], "little") if len(header) > 4 else None


def _zstd_size(header: bytes) -> int | None:
    """Return the size of the content of a zstd frame, or None if its header does not tell it."""
    if header[:4] != b"\x28\xb5\x2f\xfd" or len(header) < 6:
        return None
    descriptor = header[4]
    single_segment = descriptor >> 5 & 1
    length = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (1 - single_segment) + (0, 1, 2, 4)[descriptor & 3]
    if length == 0 or len(header) < start + length:
        return None
    size = int.from_bytes(header[start : start + length], "little")
    return size + 256 if length == 2 else size


def _inflated_size(data: bytes, allowed: int) -> int:
    """Return how much a gzip or zlib stream decompresses to, or more than `allowed` if it is more.

    A damaged stream counts up to the damage, which zarr reports.
    """
    size = 0
    while data and size <= allowed:
        stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # either of the two formats
        try:
            while data and not stream.eof and size <= allowed:
                size += len(stream.decompress(data, BLOCK_BYTES))
                data = stream.unconsumed_tail
        except zlib.error:
            return size
        data = stream.unused_data
    return size
