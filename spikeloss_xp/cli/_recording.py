"""Spikes and their targets, from a file of the user's or from the one that is shipped."""

import math
import zipfile
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

SHIPPED = "grasshopper auditory receptor"


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
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is not an .npz file, as numpy.savez writes them")
    found: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            held = list(file.files)
            for name in {"input", "target", "label"} & set(held):
                found[name] = file[name]
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None

    if "input" not in found or len(found) == 1:
        raise UsageError(
            f"{path} must hold an array `input`, and `target` or `label`; it holds "
            f"{', '.join(held) or 'nothing'}"
        )
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
            raise UsageError(f"{path}: `{name}` is not an array of real numbers")
        if not np.isfinite(array).all():
            raise UsageError(f"{path}: `{name}` holds NaN or infinity")
    return found


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
