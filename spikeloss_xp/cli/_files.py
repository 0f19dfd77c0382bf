"""Read the arrays of .npz files, which may be damaged or malicious."""

import contextlib
import math
import os
import textwrap
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spikeloss_xp.cli._terminal import UsageError

COPIES = 5  # copies of `input` in float64 that the least demanding loss holds at once


@contextlib.contextmanager
def file_errors(path: Path | str) -> Iterator[Path]:
    """Yield the path. Turn every exception into a `UsageError` of one line that begins with it."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield Path(path)
    except Exception as error:  # zipfile and NumPy document no complete list of them
        subject = path if isinstance(error, UsageError) else f"{path}: cannot be read"
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise UsageError(f"{subject}: {reason or type(error).__name__}") from None


def read_npz(path: Path, select: Callable[[Collection[str]], list[str]]) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file that `select` chooses from the names of all."""
    if not path.is_file():  # opening a named pipe would block
        raise UsageError("not a file" if path.exists() else "no such file")
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise UsageError("not an .npz file: save its arrays by numpy.savez")
        with zipfile.ZipFile(file) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in members:
                    raise UsageError(f"it holds two arrays `{name}`")
                members[name] = member
            return {name: _read(archive, members[name], f"`{name}`") for name in select(members)}


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, subject: str) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # bzip2 and LZMA can expand a few bytes to gigabytes in a single read.
        remedy = "save it by numpy.savez_compressed"
        raise UsageError(f"{subject} is compressed by a method other than deflate: {remedy}")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size, subject)
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype == np.bool_ and array.size and (found := array.view(np.uint8).max()) > 1:
        raise UsageError(f"{subject} is damaged: a bool is 0 or 1, and it holds {found}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)  # as some libraries need


def _check_header(stream: Any, size: int, subject: str) -> None:
    """Raise a `UsageError` unless the header fits a file of this size, and the array the memory."""
    if np.lib.format.read_magic(stream) != (1, 0):  # later versions serve structured dtypes
        raise UsageError(f"{subject} is not an array of real numbers as numpy.savez writes it")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{subject} is not an array of real numbers of up to 64 bits, but {dtype}")
    if any(type(length) is not int or length < 0 for length in shape):
        raise UsageError(f"{subject} is damaged: its header gives the shape {shape}")
    entries, present = math.prod(shape), size - stream.tell()
    if (needed := entries * dtype.itemsize) != present:
        claim = f"{dtype} of shape {shape} takes {needed} bytes"
        raise UsageError(f"{subject} is damaged: {claim}, and the file has {present}")
    if (needed := COPIES * 8 * entries) > (total := _memory()):
        sizes = f"{needed / 2**30:.1f} GiB, and this machine has {total / 2**30:.1f} GiB"
        task = f"{subject} of shape {shape} is too large: to evaluate a loss"
        raise UsageError(f"{task} takes {sizes}")


def _memory() -> float:
    """Return the physical memory in bytes, or infinity if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return math.inf  # Windows, which does not overcommit: allocation fails first
