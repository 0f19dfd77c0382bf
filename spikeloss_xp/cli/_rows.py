"""Arrays that are read some samples at a time, of which the first axis is the batch."""

import io
import math
import os
import zipfile
from typing import Protocol

import numpy as np

from spikeloss_xp.cli._recording import UsageError, read_header

PIECE = 1 << 20  # bytes that are read in one go


class Rows(Protocol):
    """An array on disk.

    Attributes
    ----------
    shape, dtype
        What they are of an array in memory.
    chunk : tuple of int
        The shape of what is read at once, however little of it is asked for.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk: tuple[int, ...]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples from `start` to before `stop`; nothing that lies behind the last."""


class NpyRows:
    """An array in an .npy file, or in a member of an .npz file: read, in one direction.

    Not by a memory map. That takes addresses for all of a file, and ends the process if the file
    is cut short meanwhile; and in an archive nobody would look at the checksum.
    """

    def __init__(self, stream: io.BufferedIOBase, name: str, size: int) -> None:
        self._stream, self._what = stream, f"`{name}`"
        self.shape, by_column, self.dtype = read_header(stream, self._what, size)
        if min(self.shape, default=0) < 0:
            raise UsageError(f"{self._what} is damaged: it says that its shape is {self.shape}")
        if by_column and len(self.shape) > 1:
            raise UsageError(
                f"{self._what} is in Fortran order, in which a sample lies all over the file; save "
                "what numpy.ascontiguousarray makes of it"
            )
        self.chunk = (1, *self.shape[1:])
        self._row = math.prod(self.shape[1:]) * self.dtype.itemsize
        self._next = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples from `start` to before `stop`."""
        self._skip((start - self._next) * self._row)
        values = np.empty((stop - start) * self._row, np.uint8)
        for at in range(0, values.size, PIECE):
            self._fill(values.data[at : at + PIECE])
        self._next = stop
        return values.view(self.dtype).reshape(stop - start, *self.shape[1:])

    def _fill(self, piece: memoryview) -> None:
        while len(piece):
            count = self._stream.readinto(piece)
            if not count:
                raise UsageError(f"{self._what} ends before its last sample")
            piece = piece[count:]

    def _skip(self, count: int) -> None:
        if not isinstance(self._stream, zipfile.ZipExtFile):
            self._stream.seek(count, os.SEEK_CUR)
            return
        while count > 0:  # by reading, which the checksum at the end goes by
            skipped = len(self._stream.read(min(count, PIECE)))
            if not skipped:
                raise UsageError(f"{self._what} ends before its last sample")
            count -= skipped
