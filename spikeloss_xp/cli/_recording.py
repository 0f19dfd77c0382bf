"""Spikes and their targets, from a file of the user's or from the one that is shipped."""

import math
import os
import textwrap
import warnings
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

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
    try:
        if not path.is_file():  # a pipe would be waited for
            raise UsageError("not a file" if path.exists() else "no such file")
        with path.open("rb") as file, warnings.catch_warnings(action="ignore"):
            if not zipfile.is_zipfile(file):
                raise UsageError("not an .npz file, as numpy.savez writes them")
            with zipfile.ZipFile(file) as archive:
                return _arrays(archive)
    except UsageError as error:
        raise UsageError(f"{path}: {_shortened(error)}") from None
    except Exception as error:  # neither zipfile nor NumPy says what they raise on a damaged file
        reason = _shortened(error) or type(error).__name__
        raise UsageError(f"{path}: cannot be read: {reason}") from None


def _shortened(error: Exception) -> str:
    return textwrap.shorten(str(error), 300, placeholder=" ...")


def _arrays(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    held = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    wanted: list[str] = [name for name in ("input", "target", "label") if name in held]
    if "input" not in wanted or len(wanted) == 1:
        raise UsageError(
            "it must hold an array `input`, and `target` or `label`; it holds "
            f"{', '.join(map(repr, held)) or 'nothing'}"
        )
    return {name: _array(archive, held[name], f"`{name}`") for name in wanted}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> np.ndarray:
    """Read an array, after making sure that it is there and can be held."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # A few bytes of the others can come out as gigabytes, in one piece.
        raise UsageError(f"{what} is not compressed as numpy.savez_compressed does it")
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):  # later ones are for named fields
            raise UsageError(f"{what} is not an array of real numbers as numpy.savez writes it")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        held = member.file_size - stream.tell()
    _check_header(what, shape, dtype, held)
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    if not np.isfinite(array).all():
        raise UsageError(f"{what} holds NaN or infinity")
    return array.astype(dtype.newbyteorder("="), copy=False)  # some libraries take no other


def _check_header(what: str, shape: tuple[int, ...], dtype: np.dtype, held: int) -> None:
    """Hold what a header says against what there is, before memory is taken for it."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UsageError(f"{what} is not an array of real numbers of up to 64 bits, but {dtype}")
    size = math.prod(shape)
    if size * dtype.itemsize != held:
        raise UsageError(
            f"{what} is damaged: {dtype} of shape {shape} takes {size * dtype.itemsize} bytes, and "
            f"there are {held}"
        )
    needed, there_is = COPIES * 8 * size, _memory()
    if needed > there_is:
        raise UsageError(
            f"{what} of shape {shape} is too large: to evaluate a loss takes "
            f"{needed / 2**30:.1f} GiB, and this machine has {there_is / 2**30:.1f} GiB"
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
