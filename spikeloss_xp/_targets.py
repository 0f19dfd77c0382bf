"""Targets and weights, checked and brought to where the spikes are.

`spikes` are `[batch, class, time]`, and so is what comes back, without the axes that it has no
need of.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp import _arrays, _dispatch
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._typing import Array, Namespace


class Labels(NamedTuple):
    """What is wanted of each class, in each sample or at each step.

    Attributes
    ----------
    hot : array
        One-hot, as bools, or multi-hot, in the dtype of the spikes; `[batch, class]` or
        `[batch, class, time]`.
    valid : array or None
        Which class indices are a class, or are ignored: bools of the shape of `hot` with one class.
        None if it is known that all are, and for multi-hot labels.
    ignored : array or None
        Which class indices are the one to leave out, like `valid`; None if it is known that none
        is.
    amount : array or None
        What each term is to be multiplied by, given the weights of the classes; it broadcasts
        against `hot`. None without weights.
    weight : array or None
        The weights themselves, with the axes of `hot`.
    """

    hot: Array
    valid: Array = None
    ignored: Array | None = None
    amount: Array | None = None
    weight: Array | None = None


def desired_trains(xp: Namespace, layout: Layout, spikes: Array, target: Any) -> Array:
    """Return the desired spike trains, which have the shape of the input."""
    target = _arrays.follow(xp, spikes, target, "target")
    expected = {"the shape of input": layout.shape}
    check_shape(target, "target", "spike trains", expected, functools.partial(_order, expected))
    return xp.astype(_arrays.floating(xp, target, "target")[0], spikes.dtype, copy=False)


def class_labels(
    xp: Namespace,
    layout: Layout,
    spikes: Array,
    kept: Array | None,
    target: Any,
    *,
    classes: int,
    per_step: bool,
    ignore_index: int,
) -> Labels:
    """Return class indices as one-hot bools, and which of them are classes or to be ignored.

    All have a class axis and, with `per_step`, a time axis; each of these may have length 1. An
    index that is no class raises where values can be read for free, and has no hot entry
    elsewhere.
    """
    label = _arrays.follow(xp, spikes, target, "target")
    _check_indices(xp, layout, label, classes)
    expected: dict[str, tuple[int, ...]] = {"[batch]": (layout.batch,)}
    if per_step:
        expected["one label per step"] = layout.with_time(layout.batch)
    hint = _mistakes(layout, expected, by_class=False, per_step=per_step)
    check_shape(label, "target", "class indices", expected, hint)
    values = _in_sight(layout, target, kept, classes, by_class=False)
    no_others = check_range(values, 0, classes - 1, "target", ignore_index)
    may_ignore = not no_others or 0 <= ignore_index < classes

    label = layout.time_last(xp, label)[:, None, :] if label.ndim == 2 else label[:, None]
    if per_step and label.ndim == 2:
        label = label[:, :, None]
    index = xp.arange(classes, device=_dispatch.adapter(xp).device(spikes))
    label = xp.astype(label, index.dtype, copy=False)
    ignored = label == ignore_index if may_ignore else None
    if ignored is not None:  # which takes the place of a class, for what is computed to be finite
        label = xp.where(ignored, xp.zeros_like(label), label)
    one_hot = label == xp.reshape(index, (1, -1, 1) if per_step else (1, -1))
    if values is not None and kept is None:
        return Labels(one_hot, None, ignored)
    valid = (label >= 0) & (label < classes)
    return Labels(one_hot, valid, ignored)


def _check_indices(xp: Namespace, layout: Layout, label: Array, classes: int) -> None:
    if not xp.isdtype(label.dtype, "integral"):
        shape = tuple(label.shape)
        one_hot = shape in ((layout.batch, classes), layout.with_time(layout.batch, classes))
        remedy = " (if it is one-hot, take the argmax over its class axis)" if one_hot else ""
        raise TypeError(
            f"target must hold integers, the index of a class; got {label.dtype} of shape "
            f"{shape}{remedy}"
        )


def multi_hot_labels(
    xp: Namespace,
    layout: Layout,
    spikes: Array,
    kept: Array | None,
    target: Any,
    *,
    classes: int,
    per_step: bool,
) -> Labels:
    """Return multi-hot labels, with a time axis (of length 1 if they have none) if `per_step`.

    A label outside 0 to 1 raises where values can be read for free, and is NaN elsewhere.
    """
    label = _arrays.follow(xp, spikes, target, "target")
    if not xp.isdtype(label.dtype, ("bool", "real floating")):
        remedy = "if it is multi-hot, target != 0 makes it bool"
        if tuple(label.shape) in ((layout.batch,), layout.with_time(layout.batch)):
            remedy = (
                "if these are class indices, "
                f"target[:, None] == arange({classes}){'[:, None]' * (label.ndim - 1)} is multi-hot"
            )
        raise TypeError(
            f"target must be multi-hot, in bool or real floating; got {label.dtype} of shape "
            f"{tuple(label.shape)} ({remedy})"
        )
    expected: dict[str, tuple[int, ...]] = {"[batch, class]": (layout.batch, classes)}
    if per_step:
        expected["labels at each step"] = layout.with_time(layout.batch, classes)
    hint = _mistakes(layout, expected, by_class=True, per_step=per_step)
    check_shape(label, "target", "multi-hot labels", expected, hint)
    values = _in_sight(layout, target, kept, classes, by_class=True)
    check_range(values, 0, 1, "target")
    unchecked = values is None and not xp.isdtype(label.dtype, "bool")

    label = xp.astype(label, spikes.dtype, copy=False)
    if unchecked:
        nan = _arrays.constant(xp, spikes, math.nan)
        label = xp.where((label >= 0) & (label <= 1), label, nan)
    if label.ndim == 3:
        return Labels(layout.time_last(xp, label))
    return Labels(label[:, :, None] if per_step else label)


def _in_sight(
    layout: Layout, target: Any, kept: Array | None, classes: int, *, by_class: bool
) -> np.ndarray | None:
    """Return the labels of what counts, where reading them is free: those of the rest may be any.

    `kept` is the mask, `[batch, neuron or 1, time]`; labels have a class axis if they are
    `by_class`, and a time axis or none.
    """
    values = _arrays.peek(target)
    if kept is None or values is None:
        return values
    counts: Any = _arrays.peek(kept)
    if counts is None:
        return None
    if counts.shape[CLASS] not in (1, classes):  # a class is a group of neurons
        counts = counts.reshape(layout.batch, classes, -1, layout.steps).any(axis=2)
    if values.ndim == 2 + by_class:
        values = layout.time_last(np, values)
        counts = counts if by_class else counts.any(axis=CLASS)
    else:
        counts = counts.any(axis=-1) if by_class else counts.any(axis=(1, 2))
    in_sight: np.ndarray = values[np.broadcast_to(counts, values.shape)]
    return in_sight


def class_weights(
    xp: Namespace, layout: Layout, spikes: Array, weight: Any, classes: int, ndim: int
) -> Array:
    """Return the weights of the classes, with as many axes as terms of classes have."""
    weights = _arrays.follow(xp, spikes, weight, "weight")
    if xp.isdtype(weights.dtype, "bool"):
        raise TypeError("weight must hold numbers, one for each class; got bool")
    weights, _ = _arrays.floating(xp, weights, "weight")
    if tuple(weights.shape) != (classes,):
        raise ValueError(
            f"weight must have shape {(classes,)}, one for each class; got {tuple(weights.shape)}"
            f"{layout.elsewhere(weights.shape)}"
        )
    values = _arrays.peek(weight)
    if values is not None and not bool(((values >= 0) & (values < math.inf)).all()):
        raise ValueError(f"weight must be finite and at least 0; got {values.tolist()}")
    axes = tuple(classes if axis == CLASS else 1 for axis in range(ndim))
    return xp.reshape(xp.astype(weights, spikes.dtype, copy=False), axes)


def check_shape(
    given: Array,
    argument: str,
    what: str,
    expected: dict[str, tuple[int, ...]],
    hint: Callable[[tuple[int, ...]], str] = lambda shape: "",
) -> None:
    """Check the shape of an argument, and say what it may come from if it is none expected."""
    shape = tuple(given.shape)
    if shape not in expected.values():
        shapes = " or ".join(f"{shape} ({meaning})" for meaning, shape in expected.items())
        raise ValueError(f"{argument} must hold {what} of shape {shapes}; got {shape}{hint(shape)}")


def _mistakes(
    layout: Layout, expected: dict[str, tuple[int, ...]], *, by_class: bool, per_step: bool
) -> Callable[[tuple[int, ...]], str]:
    """Return what tells a common mistake from the shape of a target."""

    def hint(shape: tuple[int, ...]) -> str:
        once = next(iter(expected.values()))
        if not per_step and shape == layout.with_time(*once):
            return " (labels for each step need a moving_window)"
        hints = []
        if not by_class and shape == (layout.batch, layout.neurons):
            hints.append("if it is one-hot, take the argmax over its class axis")
        time = layout.time_axis_for(shape, by_class=by_class)
        if time is not None:
            hints.append(f"it would fit if time were axis {time} of input: see time_axis")
        if hints:
            return f" ({'; '.join(hints)})"
        return _order(expected, shape)

    return hint


def _order(expected: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> str:
    turned = len(shape) > 1 and sorted(shape) in map(sorted, expected.values())
    return " (its axes are in another order)" if turned else ""


def check_range(
    values: np.ndarray | None,
    lowest: int,
    highest: int,
    argument: str,
    ignored: int | None = None,
) -> bool:
    """Check values, where they are at hand; NaN is outside every range.

    Return whether it is known that all are within the range.
    """
    if values is None:
        return False
    if not values.size or lowest <= values.min() <= values.max() <= highest:
        return True
    inside = (values >= lowest) & (values <= highest)
    if ignored is not None:
        inside |= values == ignored
    if not bool(inside.all()):
        others = values if ignored is None else values[values != ignored]
        left_out = f" (what is to be left out is {ignored})" if ignored is not None else ""
        raise ValueError(
            f"{argument} must be between {lowest} and {highest}; "
            f"got values from {others.min()} to {others.max()}"
            f"{left_out if others.min() < lowest else ''}"
        )
    return False
