"""Read spikes and targets from an .npz file, or from the recording shipped with the library."""

import contextlib
import math
import os
import textwrap
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np

SHIPPED = "grasshopper auditory receptor"
OTHER_FORMATS = (".csv", ".h5", ".hdf5", ".mat", ".nwb", ".parquet", ".pkl", ".pt", ".pth", ".txt")
COPIES = 5  # copies of `input` in float64 that the least demanding loss holds at once


class UsageError(Exception):
    """An error in the arguments or files; the message is printed for the user."""


@dataclass(frozen=True)
class Recording:
    """Spikes and the targets that a file provides for them.

    Attributes
    ----------
    name : str
        The path of the file, or a description of the shipped recording.
    input : numpy.ndarray
        Spikes, ``[batch, *space, time]``.
    trains : numpy.ndarray or None
        Desired spike trains, of the shape of `input`.
    classes : numpy.ndarray or None
        Class indices, ``[batch]`` or ``[batch, time]``.
    multi_hot : numpy.ndarray or None
        Multi-hot labels, ``[batch, class]`` or ``[batch, class, time]``.
    """

    name: str
    input: np.ndarray
    trains: np.ndarray | None = None
    classes: np.ndarray | None = None
    multi_hot: np.ndarray | None = None


def load(path: str | None) -> Recording:
    """Return the validated recording in an .npz file, or the shipped one if `path` is None."""
    if path is None:
        shipped = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
        with resources.as_file(shipped) as file:
            return make_recording(SHIPPED, read_arrays(file))
    return make_recording(path, read_arrays(Path(path)))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return `input`, and `target` and `label` where present, from an .npz file."""
    with file_errors(path), open_archive(path) as (archive, members):
        names: list[str] = [name for name in ("input", "target", "label") if name in members]
        if "input" not in names or len(names) == 1:
            raise UsageError(
                "it must hold an array `input`, and `target` or `label`; it holds "
                f"{', '.join(map(repr, members)) or 'nothing'}"
            )
        return {name: _read_array(archive, members[name], f"`{name}`") for name in names}


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


@contextlib.contextmanager
def open_archive(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an .npz file, and yield the archive and its members by array name."""
    if not path.is_file():  # opening a named pipe would block
        raise UsageError("not a file" if path.exists() else "no such file")
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise UsageError(f"not an .npz file, as numpy.savez writes them{_conversion(path)}")
        with zipfile.ZipFile(file) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in members:
                    raise UsageError(f"it holds two arrays `{name}`")
                members[name] = member
            if not {"input", "times"} & members.keys() and path.suffix != ".npz":
                raise UsageError(f"it holds no array `input`{_conversion(path)}")
            yield archive, members


def _conversion(path: Path) -> str:
    """Return how to convert a file of another format, or an empty string."""
    if path.suffix == ".npy":
        return (
            ": put it into a folder as input.npy, with label.npy or target.npy beside it, and "
            "evaluate the folder"
        )
    if path.suffix in OTHER_FORMATS:
        return (
            f": load the {path.suffix} file by its own library, and save `input` and `label` or "
            "`target` by numpy.savez, as .npy files of a folder, or as Zarr arrays"
        )
    return ""


def open_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, subject: str
) -> zipfile.ZipExtFile:
    """Open a member of an .npz file for reading. `subject` names it in error messages."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # bzip2 and LZMA can expand a few bytes to gigabytes in a single read.
        raise UsageError(
            f"{subject} is compressed by a method other than deflate: save it by "
            "numpy.savez_compressed"
        )
    return cast(zipfile.ZipExtFile, archive.open(member))


def read_header(stream: Any, subject: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
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


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, subject: str) -> np.ndarray:
    """Return a finite array from an archive, once its header shows that it fits in memory."""
    with open_member(archive, member, subject) as stream:
        shape, _, dtype = read_header(stream, subject, member.file_size)
    check_memory(f"{subject} of shape {shape} is too large", math.prod(shape))
    with open_member(archive, member, subject) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if not np.isfinite(array).all():
        raise UsageError(f"{subject} holds NaN or infinity")
    check_bools(subject, array)
    return array.astype(dtype.newbyteorder("="), copy=False)  # some libraries take no other order


def check_dtype(subject: str, dtype: np.dtype) -> None:
    """Raise a `UsageError` unless a dtype is real or bool and has at most 64 bits."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{subject} is not an array of real numbers of up to 64 bits, but {dtype}")


def check_bools(subject: str, array: np.ndarray) -> None:
    """Raise a `UsageError` if a byte of a bool array is neither 0 nor 1."""
    if array.dtype == np.bool_ and array.size and (found := array.view(np.uint8).max()) > 1:
        raise UsageError(f"{subject} is damaged: a bool is 0 or 1, and it holds {found}")


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


def make_recording(name: str, arrays: dict[str, np.ndarray]) -> Recording:
    """Return a recording, with the targets recognized by their shape and dtype."""
    spikes = arrays["input"]
    if spikes.ndim < 3 or 0 in spikes.shape:
        raise UsageError(
            f"{name}: `input` must have the axes [batch, class or *space, time], and elements; "
            f"got shape {spikes.shape}"
        )
    batch, steps = spikes.shape[0], spikes.shape[-1]
    classes = math.prod(spikes.shape[1:-1])
    targets: dict[str, np.ndarray] = {}
    for key in ("target", "label"):
        if key not in arrays:
            continue
        array = arrays[key]
        is_integer = array.dtype.kind in "iu"
        if key == "target" and array.shape == spikes.shape:
            targets["trains"] = array
        elif is_integer and array.shape in ((batch,), (batch, steps)):
            _check_range(f"{name}: `{key}` must hold classes", array, classes - 1)
            targets["classes"] = array
        elif not is_integer and array.shape in ((batch, classes), (batch, classes, steps)):
            _check_range(f"{name}: `{key}` must hold multi-hot labels", array, 1)
            targets["multi_hot"] = array
        else:
            raise UsageError(
                f"{name}: `{key}` is {array.dtype} of shape {array.shape}, which fits no loss for "
                f"an `input` of shape {spikes.shape}. Expected: spike trains {spikes.shape} (as "
                f"`target`); integer class indices {(batch,)} or {(batch, steps)}; bool or "
                f"floating multi-hot labels {(batch, classes)} or {(batch, classes, steps)}"
            )
    if "classes" in targets and "multi_hot" not in targets:
        one_hot = targets["classes"][..., None] == np.arange(classes)
        targets["multi_hot"] = np.moveaxis(one_hot, -1, 1)
    return Recording(name, spikes, **targets)


def _check_range(requirement: str, array: np.ndarray, highest: int) -> None:
    if array.min() < 0 or array.max() > highest:
        raise UsageError(
            f"{requirement} between 0 and {highest}; got values from {array.min()} to {array.max()}"
        )
