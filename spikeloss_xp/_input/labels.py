"""Check targets and class weights, and convert them to the layout of the readings."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    concrete_or_none,
    find_adapter,
    floating,
    host,
    rank,
)
from spikeloss_xp._checks import check_overflow, check_range, check_shape
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import Prepared, both, fill_masked
from spikeloss_xp._typing import Array, Namespace

INDICES, MULTI_HOT = "class indices", "multi-hot labels"
PROBABILITIES = "class probabilities"
NUMBERS = {  # the range of each kind of number: lowest value, highest value, description
    MULTI_HOT: (0, 1, "between 0 and 1"),
    PROBABILITIES: (0, math.inf, "finite and at least 0"),
    "target times": (0, math.inf, "finite and at least 0"),
    "target readings": (-math.inf, math.inf, "finite"),
    "spike times": (-math.inf, math.inf, "finite"),
}
TRAINS, COUNTS, WHOLE_COUNTS = "spike trains", "spike counts", "whole spike counts"
BINARY = "binary spikes"
RULES = {  # the numbers that target trains of each kind may hold, and a hint about other numbers
    COUNTS: ("finite and at least 0", ""),
    WHOLE_COUNTS: ("whole numbers and at least 0", "constant=False accepts fractions"),
    BINARY: ("0 or 1", "PoissonNLL accepts counts"),
}


class Labels(NamedTuple):
    """The target of each sample or step, with the axes of the readings.

    The time axis may have length 1.

    Attributes
    ----------
    indices : array or None
        The class indices, with a class axis of length 1. None if the target gives a number for
        each class.
    numbers : array or None
        A number for each class, in the dtype of the spikes. None for class indices, unless the
        criterion of the loss needs a number for each class.
    valid : array or None
        False where a class index is neither a valid class nor the ignored index. None if all
        indices are known to be valid. It is also None for numbers, because invalid numbers are
        replaced by NaN.
    ignored : array or None
        True where the label is ignored. None if no label is ignored.
    class_weight : array or None
        The class weights, or None if the classes are not weighted.
    """

    indices: Any = None
    numbers: Any = None
    valid: Array | None = None
    ignored: Array | None = None
    class_weight: Array | None = None

    def one_hot(self, reading: Any) -> Array:
        """Return the class indices as a one-hot bool array with the axes of a reading."""
        return self.indices == reading.classes.positions(reading.u)

    def as_numbers(self, reading: Any) -> "Labels":
        """Return labels with `numbers`; class indices are converted to one-hot numbers."""
        if self.numbers is not None:
            return self
        return self._replace(numbers=reading.xp.astype(self.one_hot(reading), reading.u.dtype))

    def are_plain(self, compete: bool) -> bool:
        """Return whether all labels are valid, none is ignored and all terms have weight 1."""
        weighted = self.class_weight is not None or (compete and self.numbers is not None)
        return not weighted and self.valid is None and self.ignored is None

    def masks(
        self, reading: Any, mask: Array | None, compete: bool, reduction: str
    ) -> tuple[Any, Array | None]:
        """Return a copy of the reading with its `class_mask` set, and the mask of the terms."""
        classes, class_mask = reading.classes, None
        by_class = compete and mask is not None and classes.length(mask) > 1
        # A row of zeros has weight 0, but "batchmean" would still count its sample.
        zeros_count = reduction == "batchmean" and self.indices is None
        if mask is None and self.ignored is None and not zeros_count:
            return reading, None
        if by_class or (compete and zeros_count):
            # A term is unmasked if at least one neuron of the labelled class is unmasked. A
            # class with a NaN probability is treated as labelled, so that the term becomes NaN.
            numbers = self.indices is None
            own = ~(self.numbers <= 0) if numbers else self.one_hot(reading)
            if self.valid is not None:
                own = own | ~self.valid
            if by_class:
                class_mask, own = mask, own & mask
            own = classes.any(own)
            mask = own if by_class else both(mask, own)
        if self.ignored is not None:
            mask = both(mask, ~self.ignored)
        if class_mask is not None and mask is not None:
            class_mask = class_mask | ~mask  # masked terms must be finite as well
        return reading._replace(class_mask=class_mask), mask

    def filled(self, reading: Any, mask: Array) -> "Labels":
        """Return the labels with each masked number set to 0."""
        if self.numbers is None:
            return self
        mask = both(mask, reading.class_mask)
        return self._replace(numbers=reading.xp.where(mask, self.numbers, 0.0))

    def weights(self, reading: Any, compete: bool) -> tuple[Array | None, Array | None]:
        """Return a factor for each term, and the term's weight in the divisor of a mean.

        None stands for a factor or weight of 1.
        """
        classes, xp = reading.classes, reading.xp
        weight, numbers = self.class_weight, self.numbers
        if numbers is None and weight is not None:  # use the class weight of the label
            weight = classes.sum(xp.where(self.one_hot(reading), weight, 0.0))
        factor = weight
        if compete and numbers is not None:  # the criterion applies the class weights
            share = numbers if weight is None else numbers * weight
            factor, weight = None, classes.sum(share)
        if self.valid is not None:  # the factor is NaN for an invalid label
            adapter = classes.adapter
            one = adapter.scalar(reading.u, 1.0)
            known = xp.where(self.valid, one, adapter.operand(reading.u, math.nan))
            factor = known if factor is None else known * factor
            if weight is not None:
                weight = xp.where(self.valid, weight, 0.0)
        return factor, weight


class TargetTrains(Labels):
    """Target trains or target signals: `numbers` contains a number for each neuron at each step.

    The numbers are already 0 where the input is masked, so a loss can subtract them from the input
    directly.
    """

    __slots__ = ()

    def filled(self, reading: Any, mask: Array) -> "Labels":
        """Return the trains unchanged, because their masked entries are already 0."""
        return self


def holds_numbers(kinds: tuple[str, ...], target: Any) -> bool:
    """Return whether a loss that also accepts class indices got a number for each class."""
    if len(kinds) == 1 or rank(target) < 2:
        return False
    adapter = find_adapter(target)
    if adapter is None:
        return host(target, "target").dtype.kind == "f"
    return bool(adapter.xp.isdtype(target.dtype, "real floating"))


def target_trains(prepared: Prepared, target: Any, kind: str = TRAINS) -> TargetTrains:
    """Return target trains with the axes and dtype of the values. Masked entries are set to 0.

    Their numbers are checked if `kind` is a key of `RULES`.
    """
    adapter, values = prepared.adapter, prepared.values
    trains = asarray_like(adapter, values, target, "target")
    expected = {"the shape of input": prepared.layout.shape}
    check_shape(trains, "target", kind, expected, functools.partial(_order, expected))
    integral = not adapter.xp.isdtype(trains.dtype, "real floating")
    trains = floating(adapter, trains, "target")
    check_overflow(adapter.xp, values.dtype, concrete_or_none(target), "target")
    trains = adapter.xp.astype(trains, values.dtype, copy=False)
    trains = prepared.layout.collapsed(adapter, trains)
    if prepared.mask is not None:
        trains = fill_masked(adapter, trains, prepared.mask)
    if kind in RULES:
        _check_trains(prepared, trains, target, kind, integral)
    return TargetTrains(None, trains)


def _check_trains(
    prepared: Prepared, trains: Array, target: Any, kind: str, integral: bool
) -> None:
    """Raise an error if an unmasked number breaks the rule for its kind.

    Only numbers that can be read cheaply are checked.
    """
    adapter, unmasked = prepared.adapter, prepared.mask is None
    if prepared.after_context is not None:
        trains, unmasked = fill_masked(adapter, trains, prepared.after_context), False
    stop = math.nextafter(1, 2) if kind == BINARY else math.inf
    if (integral or kind == COUNTS) and adapter.are_within(trains, 0, stop):
        return
    known = adapter.concrete_or_none(trains)
    if known is None and unmasked:
        known = concrete_or_none(target)
    if known is None:
        return
    valid = follow_rule(np, known, kind) & (known < math.inf)
    if valid.all():
        return
    wrong, (rule, hint) = known[~valid][0], RULES[kind]
    if wrong != wrong:
        hint = "to leave out missing entries, pass where=~isnan(counts)"
    raise ValueError(f"target must hold {kind}, {rule}; got {wrong}{f' ({hint})' if hint else ''}")


def follow_rule(xp: Namespace, trains: Array, kind: str) -> Array:
    """Return True for each number that target trains of this kind may hold, and for infinity."""
    if kind == BINARY:
        return (trains == 0) | (trains == 1)
    return trains >= 0 if kind == COUNTS else (trains >= 0) & (trains == xp.floor(trains))


def class_target(
    prepared: Prepared,
    target: Any,
    kinds: tuple[str, ...],
    per_step: bool,
    ignore_index: int | None,
) -> Labels:
    """Check a target that must be of one of the `kinds`, and return its labels.

    `kinds` contains `INDICES`, one key of `NUMBERS`, or both in this order. If both are accepted,
    floats with a class axis are treated as numbers.
    """
    adapter, xp = prepared.adapter, prepared.adapter.xp
    label = asarray_like(adapter, prepared.values, target, "target")
    plain = label.dtype in (xp.int64, xp.int32) and tuple(label.shape) == (prepared.layout.batch,)
    numbers = not (plain and kinds[0] == INDICES) and _check_kind(prepared, label, kinds, per_step)
    unmasked = prepared.mask is None and prepared.after_context is None
    stop = math.nextafter(NUMBERS[kinds[-1]][1], math.inf) if numbers else prepared.num_classes
    fits = unmasked and (not numbers or label.dtype == prepared.values.dtype)
    if fits and adapter.are_within(label, 0, stop):
        if numbers:
            return Labels(None, prepared.layout.expanded(adapter, label, with_class=True))
        return _class_indices(prepared, label, ignore_index, all_classes=True, checked=True)
    known = adapter.concrete_or_none(target) if label is target else concrete_or_none(target)
    if known is not None and not unmasked:
        known = _unmasked(prepared, known, with_class=numbers)
    if numbers:
        return _class_numbers(prepared, label, target, known, kinds[-1])
    all_classes = check_range(known, prepared.num_classes - 1, "target", ignore_index)
    if not all_classes:
        label = _narrowed(adapter, label, target)
    checked = known is not None and unmasked
    return _class_indices(prepared, label, ignore_index, all_classes=all_classes, checked=checked)


def _check_kind(prepared: Prepared, label: Array, kinds: tuple[str, ...], per_step: bool) -> bool:
    """Return whether a target holds numbers, or raise an error if its dtype or shape is wrong."""
    adapter, layout, classes = prepared.adapter, prepared.layout, prepared.num_classes
    floats = label.ndim > 1 and adapter.xp.isdtype(label.dtype, "real floating")
    numbers = kinds[0] != INDICES or (len(kinds) > 1 and floats)
    kind = kinds[-1] if numbers else INDICES
    once: tuple[int, ...] = (layout.batch, classes) if numbers else (layout.batch,)
    _check_dtype(adapter, layout, label, classes, kind, kinds)
    expected = {"[batch, class]" if numbers else "[batch]": once}
    if per_step:
        expected["one at each step"] = layout.with_time(*once)
    taken = (kind,) if numbers else kinds
    hint = functools.partial(_hint, layout, classes, expected, taken, per_step)
    check_shape(label, "target", kind, expected, hint)
    return numbers


def _check_dtype(
    adapter: Adapter, layout: Layout, label: Array, classes: int, kind: str, kinds: tuple[str, ...]
) -> None:
    """Raise a `TypeError` if the dtype of a target does not match the expected kind of target."""
    xp, shape = adapter.xp, tuple(label.shape)
    integral = label.dtype in (xp.int64, xp.int32) or xp.isdtype(label.dtype, "integral")
    if integral and kind == INDICES and label.ndim == 1:
        return
    got = f"got {label.dtype} of shape {shape}"
    for_each = shape in ((layout.batch, classes), layout.with_time(layout.batch, classes))
    if kind == INDICES:
        wrong = for_each and len(kinds) > 1 and shape != layout.with_time(layout.batch)
        if not integral or wrong:
            rule = "one class index for each sample" if wrong else "integers (class indices)"
            remedy = f" ({_as_floats(kinds)})" if for_each else ""
            raise TypeError(f"target must hold {rule}; {got}{remedy}")
    elif kind != MULTI_HOT:
        if not xp.isdtype(label.dtype, "real floating"):
            raise TypeError(f"target must hold {kind} with a real floating-point dtype; {got}")
    elif not xp.isdtype(label.dtype, ("bool", "real floating")):
        remedy = "if it is multi-hot, target != 0 converts it to bool"
        if not for_each:
            axes = "[:, None]" * (label.ndim - 1)
            compared = f"target[:, None] == arange({classes}){axes}"
            if classes == 1:  # the index is 0 or 1
                compared = "target[:, None] != 0"
            remedy = f"if these are class indices, {compared} is multi-hot"
        raise TypeError(
            f"target must hold {kind} with a bool or real floating-point dtype; {got} ({remedy})"
        )


def _as_floats(kinds: tuple[str, ...]) -> str:
    """Return a hint on how to pass a target that has a class axis."""
    if len(kinds) > 1:
        return f"{kinds[1]} must be floats"
    return "only CrossEntropy, when called, takes class probabilities, which must be floats"


def _class_indices(
    prepared: Prepared, label: Array, ignore_index: int | None, *, all_classes: bool, checked: bool
) -> Labels:
    """Return the labels for class indices.

    If `all_classes` is True, all indices are known to be valid classes, so none is ignored unless
    `ignore_index` is itself a class. Indices that may be ignored or have not been `checked` are
    reduced modulo the number of classes, so that every term is finite. If the indices have not been
    checked, `valid` is False where an index is neither a valid class nor the ignored index.
    """
    adapter, xp, classes = prepared.adapter, prepared.adapter.xp, prepared.num_classes
    may_ignore = ignore_index is not None and (not all_classes or 0 <= ignore_index < classes)
    label = prepared.layout.expanded(adapter, label, with_class=False)
    if label.dtype not in (xp.int64, xp.int32):  # `ignore_index` may not fit in a narrow dtype
        label = xp.astype(label, adapter.arange(1, label).dtype)
    ignored, valid = label == ignore_index if may_ignore else None, None
    if not checked or ignored is not None:
        given, label = label, label % classes
        valid = None if checked else label == given
        if valid is not None and ignored is not None:
            valid = valid | ignored
    return Labels(label, None, valid, ignored)


def _narrowed(adapter: Adapter, label: Array, target: Any) -> Array:
    """Return `label` with an invalid index wherever the value of `target` has wrapped around.

    In a library without 64-bit integers, the label 2**32 would otherwise become class 0.
    """
    if find_adapter(target) is find_adapter(label):
        return label
    wide, limits = np.asarray(target), adapter.xp.iinfo(label.dtype)
    if np.iinfo(wide.dtype).max <= limits.max:
        return label
    fits = (wide >= limits.min) & (wide <= limits.max)
    narrow = np.where(fits, wide, limits.max)  # no input has this many classes
    return adapter.from_host_like(narrow, label)


def _class_numbers(
    prepared: Prepared, label: Array, target: Any, known: np.ndarray | None, kind: str
) -> Labels:
    """Return the labels for a target with a number for each class; `label` is the converted target.

    If the values are `known`, a number outside the range for its kind raises a `ValueError`.
    Otherwise, such a number becomes NaN.
    """
    adapter, xp, (lowest, highest, rule) = prepared.adapter, prepared.adapter.xp, NUMBERS[kind]
    if known is not None and known.dtype.kind != "b":
        low, high = (known.min(), known.max()) if known.size else (0, 0)
        # NaN and infinity are outside every range.
        if not (lowest <= low and high <= highest and -math.inf < low and high < math.inf):
            raise ValueError(f"target must hold {kind}, {rule}; got values from {low} to {high}")
        given = concrete_or_none(target)
        check_overflow(xp, prepared.values.dtype, given, "target")
    unchecked = known is None and not xp.isdtype(label.dtype, "bool")

    label = xp.astype(label, prepared.values.dtype, copy=False)
    if unchecked:
        fits = xp.isfinite(label) & (label >= lowest) & (label <= highest)
        label = xp.where(fits, label, math.nan)
    return Labels(None, prepared.layout.expanded(adapter, label, with_class=True))


def _unmasked(prepared: Prepared, values: np.ndarray, *, with_class: bool) -> Any:
    """Return the target values that contribute to a term, or None if the mask is not concrete.

    Only these values are checked, because masked values may be arbitrary.
    """
    mask: Any = concrete_or_none(both(prepared.mask, prepared.after_context))
    if mask is None:
        return None
    layout, classes = prepared.layout, prepared.num_classes
    axis = layout.class_axis
    if mask.shape[axis] not in (1, classes):  # each class is a group of neurons
        members = (*mask.shape[:axis], classes, -1, *mask.shape[axis + 1 :])
        mask = mask.reshape(members).any(axis=axis + 1)
    values = layout.expanded(adapter_of(values), values, with_class=with_class)
    absent = tuple(i for i, length in enumerate(values.shape) if length == 1)
    return values[np.broadcast_to(mask.any(axis=absent, keepdims=True), values.shape)]


def class_weights(prepared: Prepared, weight: Any, name: str = "weight") -> Array:
    """Return class weights with the axes of the readings and the dtype of the input values.

    Error messages use `name` for the argument.
    """
    adapter, values, xp = prepared.adapter, prepared.values, prepared.adapter.xp
    classes = prepared.num_classes
    weights = asarray_like(adapter, values, weight, name)
    if xp.isdtype(weights.dtype, "bool"):
        raise TypeError(f"{name} must hold numbers, one for each class; got bool")
    weights = floating(adapter, weights, name)
    if tuple(weights.shape) != (classes,):
        hint = prepared.layout.hint_at_time(weights.shape)
        if tuple(weights.shape) == (prepared.layout.batch,) and name == "weight":
            hint = " (to weight samples, multiply the terms that reduction='none' returns)"
        raise ValueError(
            f"{name} must have shape {(classes,)}, one for each class; got {tuple(weights.shape)}"
            f"{hint}"
        )
    known = concrete_or_none(weight)
    if known is not None and not bool(((known >= 0) & (known < math.inf)).all()):
        raise ValueError(f"{name} must be finite and at least 0; got {known.tolist()}")
    check_overflow(xp, values.dtype, known, name)
    return prepared.layout.per_class(adapter, xp.astype(weights, values.dtype, copy=False))


def _hint(
    layout: Layout,
    classes: int,
    expected: dict[str, tuple[int, ...]],
    kinds: tuple[str, ...],
    per_step: bool,
    shape: tuple[int, ...],
) -> str:
    """Return a hint about the likely mistake in a target of this shape, or an empty string."""
    once, indices = next(iter(expected.values())), kinds[0] == INDICES
    for whole in expected.values() if layout.batch == 1 else ():
        axis = 1 if layout.time == 0 and len(whole) > len(once) else 0
        if shape == (*whole[:axis], *whole[axis + 1 :]):
            return f" (it lacks the batch axis: pass target[{':, ' * axis}None])"
    if not shape and not indices:
        return f" (to use one number for all classes, pass an array like numpy.full({once}, x))"
    if not per_step and shape == layout.with_time(*once):
        return " (labels for each step need a moving_window)"
    if not indices and shape in ((layout.batch,), layout.with_time(layout.batch)):
        return " (it lacks the class axis)"
    hints = []
    if len(layout.space()) > 1 and kinds[0] in (MULTI_HOT, "target readings"):
        hints.append(f"flatten the space axes of the target: {once}")
    elif len(layout.space()) > 1 and len(shape) > 1:
        hints.append(
            "labels for pixels would have shape [batch, *pixels], "
            f"{(layout.batch, *layout.space()[1:])}"
        )
    for_each = indices and shape == (layout.batch, classes)
    if for_each:
        hints.append(_as_floats(kinds))
    time = layout.time_axis_for(shape, with_class=not indices)
    if time is not None and (per_step or not for_each):
        hints.append(f"it would fit if time were axis {time} of input: see time_axis")
    return f" ({'; '.join(hints)})" if hints else _order(expected, shape)


def _order(expected: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> str:
    permuted = len(shape) > 1 and sorted(shape) in map(sorted, expected.values())
    return " (its axes are in a different order)" if permuted else ""
