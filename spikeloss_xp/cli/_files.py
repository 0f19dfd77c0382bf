"""Read arrays from .npz files and folders of .npy files, in batches of samples."""

import contextlib
import math
import os
import textwrap
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

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
    except Exception as error:  # zipfile and NumPy document no complete list of them
        subject = path if isinstance(error, UsageError) else f"{path}: cannot be read"
        raise UsageError(f"{subject}: {one_line(error) or type(error).__name__}") from None


@contextlib.contextmanager
def unchanged(path: Path) -> Iterator[None]:
    """Raise a `UsageError` at the end if a file, or a file in a folder, is not as at the start.

    What was read may be a mixture of two versions then.
    """
    before = _version(path)
    yield
    if _version(path) != before:
        raise UsageError(f"{path.name} has changed while it was read: run the command again")


def _version(path: Path) -> int:
    """Return a number that changes when a file, or a file in a folder, is written or replaced."""
    files = path.rglob("*") if path.is_dir() else [path]
    found = ((str(file), file.stat()) for file in files if file.exists())
    return sum(hash((name, s.st_mtime_ns, s.st_size)) for name, s in found)


def one_line(error: Exception) -> str:
    """Return the message of an exception as one line of at most 300 characters."""
    return textwrap.shorten(str(error), 300, placeholder=" ...")


def open_npz(path: Path, select: Select, stack: contextlib.ExitStack) -> Mapping[str, Rows]:
    """Return arrays of an .npz file, which the stack closes."""
    if not path.is_file():  # opening a named pipe would block
        raise UsageError("not a file" if path.exists() else "no such file")
    stack.enter_context(unchanged(path))
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
            remedy = "save it by numpy.savez_compressed"
            raise UsageError(f"`{name}` is compressed by a method other than deflate: {remedy}")
        stream = stack.enter_context(archive.open(members[name]))
        arrays[name] = NpyRows(stream, name, members[name].file_size)
    return arrays


def open_folder(folder: Path, select: Select, stack: contextlib.ExitStack) -> Mapping[str, Rows]:
    """Return arrays of a folder of .npy files, which the stack closes."""
    files = {file.stem: file for file in folder.glob("*.npy") if file.is_file()}
    arrays = {}
    for name in select(files):
        stack.enter_context(unchanged(files[name]))
        file = stack.enter_context(files[name].open("rb"))
        arrays[name] = NpyRows(file, name, files[name].stat().st_size)
    return arrays


class NpyRows:
    """An array in an .npy file or in a member of an .npz file, read sequentially.

    A memory map is not used. It would need address space for the whole file, a file truncated
    during the run would kill the process, and the checksum of an archive would not be checked.
    """

    def __init__(self, stream: Any, name: str, size: int) -> None:
        """Read the header, and check that it implies a stream of `size` bytes."""
        self._stream, self._subject = stream, f"`{name}`"
        if np.lib.format.read_magic(stream) != (1, 0):  # later versions serve structured dtypes
            raise UsageError(f"`{name}` is not an array of real numbers as numpy.savez writes it")
        shape, fortran_order, self.dtype = np.lib.format.read_array_header_1_0(stream)
        check_dtype(f"`{name}`", self.dtype)
        if any(type(length) is not int or length < 0 for length in shape):
            raise UsageError(f"`{name}` is damaged: its header gives the shape {shape}")
        needed, present = math.prod(shape) * self.dtype.itemsize, size - stream.tell()
        if needed != present:
            claim = f"{self.dtype} of shape {shape} takes {needed} bytes"
            raise UsageError(f"`{name}` is damaged: {claim}, and the file has {present}")
        self.shape, self.chunk = shape, (1, *shape[1:])
        self._fortran_order = fortran_order and len(shape) > 1

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`."""
        shape = (stop - start, *self.shape[1:])
        if self._fortran_order and shape != self.shape:
            raise UsageError(
                f"{self._subject} is in Fortran order, which spreads each sample over the whole "
                "file: save numpy.ascontiguousarray of it"
            )
        values = np.empty(math.prod(shape) * self.dtype.itemsize, np.uint8)
        left = values.data
        while len(left):
            count = self._stream.readinto(left[:READ_BYTES])
            if not count:
                raise UsageError(f"{self._subject} ends before its last sample")
            left = left[count:]
        if self.dtype == np.bool_ and values.size and (found := values.max()) > 1:
            raise UsageError(f"{self._subject} is damaged: a bool is 0 or 1, and it holds {found}")
        samples = values.view(self.dtype).reshape(shape, order="F" if self._fortran_order else "C")
        return samples.astype(self.dtype.newbyteorder("="), copy=False)  # as some libraries need


def one_hot(label: np.ndarray, classes: int) -> np.ndarray:
    """Return class indices as multi-hot labels, with a class axis after those of the label."""
    lowest, highest = label.min(), label.max()
    if lowest < 0 or highest >= classes:
        found = f"got values from {lowest} to {highest}"
        raise ValueError(f"labels must be classes, from 0 to {classes - 1}; {found}")
    return np.asarray(label[..., None] == np.arange(classes))


def check_input(shape: tuple[int, ...], axes: int) -> None:
    """Raise a `UsageError` unless `input` has so many axes, and elements."""
    if len(shape) < axes or 0 in shape:
        required = "the axes [batch, class or *space, time], and elements"
        raise UsageError(f"`input` must have {required}; got shape {shape}")


def check_dtype(subject: str, dtype: Any) -> None:
    """Raise a `UsageError` unless a dtype is real or bool and has at most 64 bits."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{subject} is not an array of real numbers of up to 64 bits, but {dtype}")


def check_memory(subject: str, entries: int) -> None:
    """Raise a `UsageError` if evaluating a loss of `entries` entries exceeds the memory."""
    check_bytes(f"{subject}: to evaluate a loss", COPIES * 8 * entries)


def check_bytes(task: str, needed: int) -> None:
    """Raise a `UsageError` if a task that takes so many bytes exceeds the memory."""
    total = _memory()
    if needed > total:
        sizes = f"{needed / 2**30:.1f} GiB, and this machine has {total / 2**30:.1f} GiB"
        raise UsageError(f"{task} takes {sizes}")


def _memory() -> float:
    """Return the physical memory in bytes, or infinity if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return math.inf  # Windows, which does not overcommit: allocation fails first
