"""Arrays on disk that are read in batches of samples. Their first axis is the batch."""

import io
import math
import os
import zipfile
from typing import Protocol

import numpy as np

from spikeloss_xp.cli._recording import UsageError, check_bools, read_header

BLOCK_BYTES = 1 << 20  # the most bytes that one call reads


class Rows(Protocol):
    """An array on disk.

    Attributes
    ----------
    shape, dtype
        As for a NumPy array.
    chunk : tuple of int
        The shape of the smallest block that can be read.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`.

        Calls must read increasing ranges: `start` is never less than the previous `stop`.
        """


class NpyRows:
    """An array in an .npy file or in a member of an .npz file, read sequentially.

    A memory map is not used. It would need address space for the whole file, a file truncated
    during the run would kill the process, and the checksum of an archive would not be checked.
    """

    def __init__(self, stream: io.BufferedIOBase, name: str, size: int) -> None:
        self._stream, self._subject = stream, f"`{name}`"
        self.shape, fortran_order, self.dtype = read_header(stream, self._subject, size)
        if fortran_order and len(self.shape) > 1:
            raise UsageError(
                f"{self._subject} is in Fortran order, which spreads each sample over the whole "
                "file: save numpy.ascontiguousarray of it"
            )
        self.chunk = (1, *self.shape[1:])
        self._sample_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._next = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`."""
        self._skip((start - self._next) * self._sample_bytes)
        values = np.empty((stop - start) * self._sample_bytes, np.uint8)
        for offset in range(0, values.size, BLOCK_BYTES):
            self._read_into(values.data[offset : offset + BLOCK_BYTES])
        self._next = stop
        samples = values.view(self.dtype).reshape(stop - start, *self.shape[1:])
        check_bools(self._subject, samples)
        return samples

    def _read_into(self, block: memoryview) -> None:
        while len(block):
            count = self._stream.readinto(block)
            if not count:
                raise UsageError(f"{self._subject} ends before its last sample")
            block = block[count:]

    def _skip(self, count: int) -> None:
        if not isinstance(self._stream, zipfile.ZipExtFile):
            self._stream.seek(count, os.SEEK_CUR)
            return
        while count > 0:  # read, do not seek: the checksum covers the bytes that are read
            skipped = len(self._stream.read(min(count, BLOCK_BYTES)))
            if not skipped:
                raise UsageError(f"{self._subject} ends before its last sample")
            count -= skipped
