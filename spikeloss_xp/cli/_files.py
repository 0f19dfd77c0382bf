"""Read arrays from .npz files and folders of .npy files, in batches of samples."""

import contextlib
import io
import math
import os
import textwrap
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from spikeloss_xp.cli._terminal import UsageError

COPIES = 5  # copies of `input` in float64 that the least demanding loss holds at once
READ_BYTES = 1 << 20  # the most bytes that one call reads

REMEDY = "save its arrays by numpy.savez, as input.npy and so on of a folder, or as Zarr arrays"

Select = Callable[[Collection[str]], list[str]]
"""A function that returns the names of the arrays to read, of those that are present."""


class Rows(Protocol):
    """An array on disk. Its first axis is the batch.

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

        Calls must read one range after another: the first from 0, the next from where it stopped.
        """


@contextlib.contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn every exception into a `UsageError` of one line that begins with the path."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UsageError as error:
        raise UsageError(f"{path}: {one_line(error)}") from None
    except Exception as error:  # zipfile and NumPy document no complete list of them
        reason = one_line(error) or type(error).__name__
        raise UsageError(f"{path}: cannot be read: {reason}") from None


def one_line(error: Exception) -> str:
    """Return the message of an exception as one line of at most 300 characters."""
    return textwrap.shorten(str(error), 300, placeholder=" ...")


def open_npz(path: Path, select: Select, stack: contextlib.ExitStack) -> Mapping[str, Rows]:
    """Return arrays of an .npz file, which the stack closes."""
    if not path.is_file():  # opening a named pipe would block
        raise UsageError("not a file" if path.exists() else "no such file")
    file = stack.enter_context(path.open("rb"))
    if not zipfile.is_zipfile(file):
        raise UsageError(f"not an .npz file, as numpy.savez writes them: {REMEDY}")
    archive = stack.enter_context(zipfile.ZipFile(file))
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in members:
            raise UsageError(f"it holds two arrays `{name}`")
        members[name] = member
    if not {"input", "times"} & members.keys() and path.suffix != ".npz":
        raise UsageError(f"it holds no array `input`: {REMEDY}")
    arrays = {}
    for name in select(members):
        if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # bzip2 and LZMA can expand a few bytes to gigabytes in a single read.
            raise UsageError(
                f"`{name}` is compressed by a method other than deflate: save it by "
                "numpy.savez_compressed"
            )
        stream = cast(io.BufferedIOBase, stack.enter_context(archive.open(members[name])))
        arrays[name] = NpyRows(stream, name, members[name].file_size)
    return arrays


def open_folder(folder: Path, select: Select, stack: contextlib.ExitStack) -> Mapping[str, Rows]:
    """Return arrays of a folder of .npy files, which the stack closes."""
    files = {file.stem: file for file in folder.glob("*.npy") if file.is_file()}
    arrays = {}
    for name in select(files):
        file = stack.enter_context(files[name].open("rb"))
        arrays[name] = NpyRows(file, name, files[name].stat().st_size)
    return arrays


class NpyRows:
    """An array in an .npy file or in a member of an .npz file, read sequentially.

    A memory map is not used. It would need address space for the whole file, a file truncated
    during the run would kill the process, and the checksum of an archive would not be checked.
    """

    def __init__(self, stream: io.BufferedIOBase, name: str, size: int) -> None:
        self._stream, self._subject = stream, f"`{name}`"
        self.shape, self._fortran_order, self.dtype = _read_header(stream, self._subject, size)
        self.chunk = (1, *self.shape[1:])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`."""
        shape = (stop - start, *self.shape[1:])
        reordered = self._fortran_order and len(shape) > 1
        if reordered and shape != self.shape:
            raise UsageError(
                f"{self._subject} is in Fortran order, which spreads each sample over the whole "
                "file: save numpy.ascontiguousarray of it"
            )
        sample_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        values = np.empty((stop - start) * sample_bytes, np.uint8)
        left = values.data
        while len(left):
            count = self._stream.readinto(left[:READ_BYTES])
            if not count:
                raise UsageError(f"{self._subject} ends before its last sample")
            left = left[count:]
        if self.dtype == np.bool_ and values.size and (found := values.max()) > 1:
            raise UsageError(f"{self._subject} is damaged: a bool is 0 or 1, and it holds {found}")
        samples = values.view(self.dtype).reshape(shape, order="F" if reordered else "C")
        return samples.astype(self.dtype.newbyteorder("="), copy=False)  # as some libraries need


def _read_header(stream: Any, subject: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, the Fortran-order flag and the dtype in the header of an .npy stream.

    Raise a `UsageError` unless the header implies a stream of `size` bytes.
    """
    if np.lib.format.read_magic(stream) != (1, 0):  # later versions serve structured dtypes
        raise UsageError(f"{subject} is not an array of real numbers as numpy.savez writes it")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    check_dtype(subject, dtype)
    if any(type(length) is not int or length < 0 for length in shape):
        raise UsageError(f"{subject} is damaged: its header gives the shape {shape}")
    needed, present = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if needed != present:
        raise UsageError(
            f"{subject} is damaged: {dtype} of shape {shape} takes {needed} bytes, and the file "
            f"has {present}"
        )
    return shape, fortran_order, dtype


def one_hot(label: np.ndarray, classes: int) -> np.ndarray:
    """Return class indices as multi-hot labels, with a class axis after those of the label."""
    if label.min() < 0 or label.max() >= classes:
        raise ValueError(
            f"labels must be classes, from 0 to {classes - 1}; got values from {label.min()} to "
            f"{label.max()}"
        )
    return np.asarray(label[..., None] == np.arange(classes))


def check_dtype(subject: str, dtype: np.dtype) -> None:
    """Raise a `UsageError` unless a dtype is real or bool and has at most 64 bits."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{subject} is not an array of real numbers of up to 64 bits, but {dtype}")


def check_memory(subject: str, entries: int) -> None:
    """Raise a `UsageError` if evaluating a loss of `entries` entries exceeds the memory."""
    check_bytes(f"{subject}: to evaluate a loss", COPIES * 8 * entries)


def check_bytes(task: str, needed: int) -> None:
    """Raise a `UsageError` if a task that takes so many bytes exceeds the memory."""
    total = _memory()
    if needed > total:
        raise UsageError(
            f"{task} takes {needed / 2**30:.1f} GiB, and this machine has {total / 2**30:.1f} GiB"
        )


def _memory() -> float:
    """Return the physical memory in bytes, or infinity if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return math.inf  # Windows, which does not overcommit: allocation fails first
