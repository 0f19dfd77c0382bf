"""Spikes and their targets, from a file of the user's or from the one that is shipped."""

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
COPIES = 5  # of `input` in float64 are held at once even for the loss that needs the fewest


class UsageError(Exception):
    """What was asked for cannot be done; the message is for whoever asked."""


@dataclass(frozen=True)
class Recording:
    """Spikes, and what can be a target for them.

    Attributes
    ----------
    name : str
        Where they come from.
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
    """Read a recording from an .npz file, or the shipped one, and check it."""
    if path is None:
        shipped = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
        with resources.as_file(shipped) as file:
            return recording(SHIPPED, arrays(file))
    return recording(path, arrays(Path(path)))


def arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays `input`, `target` and `label` of an .npz file, those that are there."""
    with reading(path), archive_at(path) as (archive, held):
        wanted: list[str] = [name for name in ("input", "target", "label") if name in held]
        if "input" not in wanted or len(wanted) == 1:
            raise UsageError(
                "it must hold an array `input`, and `target` or `label`; it holds "
                f"{', '.join(map(repr, held)) or 'nothing'}"
            )
        return {name: _array(archive, held[name], f"`{name}`") for name in wanted}


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Answer all that can be wrong with a file in one line that begins with its path."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except UsageError as error:
        raise UsageError(f"{path}: {shortened(error)}") from None
    except Exception as error:  # neither zipfile nor NumPy says what they raise on a damaged file
        reason = shortened(error) or type(error).__name__
        raise UsageError(f"{path}: cannot be read: {reason}") from None


def shortened(error: Exception) -> str:
    """Return the message of an exception in one line, and not a long one."""
    return textwrap.shorten(str(error), 300, placeholder=" ...")


@contextlib.contextmanager
def archive_at(path: Path) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """Open an .npz file, and give what it holds by the names of the arrays."""
    if not path.is_file():  # a pipe would be waited for
        raise UsageError("not a file" if path.exists() else "no such file")
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise UsageError("not an .npz file, as numpy.savez writes them")
        with zipfile.ZipFile(file) as archive:
            yield archive, {m.filename.removesuffix(".npy"): m for m in archive.infolist()}


def member_stream(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str
) -> zipfile.ZipExtFile:
    """Open a member of an .npz file to read it from its beginning."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # A few bytes of the others can come out as gigabytes, in one piece.
        raise UsageError(f"{what} is not compressed as numpy.savez_compressed does it")
    return cast(zipfile.ZipExtFile, archive.open(member))


def read_header(stream: Any, what: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, order and dtype that an .npy stream of this size begins with, checked."""
    if np.lib.format.read_magic(stream) != (1, 0):  # later ones are for named fields
        raise UsageError(f"{what} is not an array of real numbers as numpy.savez writes it")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(stream)
    check_dtype(what, dtype)
    needed, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if needed != held:
        raise UsageError(
            f"{what} is damaged: {dtype} of shape {shape} takes {needed} bytes, and there are "
            f"{held}"
        )
    return shape, by_column, dtype


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> np.ndarray:
    """Read an array, after making sure that it is there and can be held."""
    with member_stream(archive, member, what) as stream:
        shape, _, dtype = read_header(stream, what, member.file_size)
    check_memory(f"{what} of shape {shape} is too large", math.prod(shape))
    with member_stream(archive, member, what) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if not np.isfinite(array).all():
        raise UsageError(f"{what} holds NaN or infinity")
    return array.astype(dtype.newbyteorder("="), copy=False)  # some libraries take no other


def check_dtype(what: str, dtype: np.dtype) -> None:
    """Make sure that an array holds numbers that the losses take."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{what} is not an array of real numbers of up to 64 bits, but {dtype}")


def check_memory(what: str, entries: int) -> None:
    """Make sure that a loss of so many entries can be evaluated here."""
    needed, there_is = COPIES * 8 * entries, _memory()
    if needed > there_is:
        raise UsageError(
            f"{what}: to evaluate a loss takes {needed / 2**30:.1f} GiB, and this machine has "
            f"{there_is / 2**30:.1f} GiB"
        )


def _memory() -> float:
    """Return how many bytes of memory the machine has, or infinity if it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return math.inf  # as on Windows, which promises no more memory than it has


def recording(name: str, found: dict[str, np.ndarray]) -> Recording:
    """Tell by shape and dtype which targets the arrays can be."""
    spikes = found["input"]
    if spikes.ndim < 3 or 0 in spikes.shape:
        raise UsageError(
            f"{name}: `input` must have the axes [batch, class or *space, time], and elements; "
            f"got shape {spikes.shape}"
        )
    batch, steps = spikes.shape[0], spikes.shape[-1]
    classes = math.prod(spikes.shape[1:-1])
    targets: dict[str, np.ndarray] = {}
    for key in ("target", "label"):
        if key not in found:
            continue
        array = found[key]
        indices = array.dtype.kind in "iu"
        if key == "target" and array.shape == spikes.shape:
            targets["trains"] = array
        elif indices and array.shape in ((batch,), (batch, steps)):
            _check_range(f"{name}: `{key}` must hold classes", array, classes - 1)
            targets["classes"] = array
        elif not indices and array.shape in ((batch, classes), (batch, classes, steps)):
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


def _check_range(what: str, array: np.ndarray, highest: int) -> None:
    if array.min() < 0 or array.max() > highest:
        raise UsageError(
            f"{what} between 0 and {highest}; got values from {array.min()} to {array.max()}"
        )
