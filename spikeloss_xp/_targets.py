"""Targets, checked and brought to where the spikes are.

`spikes` are `[batch, class, time]`, and so is what comes back, without the axes that it has no
need of.
"""

import math
from typing import Any

import numpy as np

from spikeloss_xp import _arrays, _dispatch
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace


def desired_trains(xp: Namespace, layout: Layout, spikes: Array, target: Any) -> Array:
    """Return the desired spike trains, which have the shape of the input."""
    target = _arrays.follow(xp, spikes, target, "target")
    _check_shape(target, "spike trains", {"the shape of input": layout.shape})
    return xp.astype(_arrays.floating(xp, target, "target")[0], spikes.dtype, copy=False)


def class_labels(
    xp: Namespace, layout: Layout, spikes: Array, target: Any, *, per_step: bool
) -> tuple[Array, Array]:
    """Return class indices as one-hot bools, and which of the indices are classes.

    Both have a class axis and, with `per_step`, a time axis; each of these may have length 1. An
    index that is no class raises where values can be read for free, and has no hot entry
    elsewhere.
    """
    label = _arrays.follow(xp, spikes, target, "target")
    if not xp.isdtype(label.dtype, "integral"):
        raise TypeError(f"target must hold integers, the index of a class; got {label.dtype}")
    expected: dict[str, tuple[int, ...]] = {"[batch]": (layout.batch,)}
    if per_step:
        expected["one label per step"] = layout.with_time(layout.batch)
    hint = " (labels for each step need a moving_window)"
    stepwise = not per_step and tuple(label.shape) == layout.with_time(layout.batch)
    _check_shape(label, "class indices", expected, hint if stepwise else "")
    _check_range(_arrays.peek(target), 0, layout.classes - 1)

    label = layout.time_last(xp, label)[:, None, :] if label.ndim == 2 else label[:, None]
    if per_step and label.ndim == 2:
        label = label[:, :, None]
    classes = xp.arange(layout.classes, device=_dispatch.adapter(xp).device(spikes))
    label = xp.astype(label, classes.dtype, copy=False)
    one_hot = label == xp.reshape(classes, (1, -1, 1) if per_step else (1, -1))
    return one_hot, (label >= 0) & (label < layout.classes)


def multi_hot_labels(
    xp: Namespace, layout: Layout, spikes: Array, target: Any, *, per_step: bool
) -> Array:
    """Return multi-hot labels, with a time axis (of length 1 if they have none) if `per_step`.

    A label outside 0 to 1 raises where values can be read for free, and is NaN elsewhere.
    """
    label = _arrays.follow(xp, spikes, target, "target")
    if not xp.isdtype(label.dtype, ("bool", "real floating")):
        raise TypeError(
            f"target must be multi-hot, in bool or real floating; got {label.dtype} of shape "
            f"{tuple(label.shape)} (if it is multi-hot, compare it with 0 to make it bool)"
        )
    expected: dict[str, tuple[int, ...]] = {"[batch, class]": (layout.batch, layout.classes)}
    if per_step:
        expected["labels at each step"] = layout.with_time(layout.batch, layout.classes)
    _check_shape(label, "multi-hot labels", expected)
    values = _arrays.peek(target)
    _check_range(values, 0, 1)
    unchecked = values is None and not xp.isdtype(label.dtype, "bool")

    label = xp.astype(label, spikes.dtype, copy=False)
    if unchecked:
        nan = _arrays.constant(xp, spikes, math.nan)
        label = xp.where((label >= 0) & (label <= 1), label, nan)
    if label.ndim == 3:
        return layout.time_last(xp, label)
    return label[:, :, None] if per_step else label


def _check_shape(
    target: Array, what: str, expected: dict[str, tuple[int, ...]], hint: str = ""
) -> None:
    if tuple(target.shape) not in expected.values():
        shapes = " or ".join(f"{shape} ({meaning})" for meaning, shape in expected.items())
        raise ValueError(
            f"target must hold {what} of shape {shapes}; got {tuple(target.shape)}{hint}"
        )


def _check_range(values: np.ndarray | None, lowest: int, highest: int) -> None:
    if values is not None and bool(((values < lowest) | (values > highest)).any()):
        raise ValueError(
            f"target must be between {lowest} and {highest}; "
            f"got values from {values.min()} to {values.max()}"
        )
