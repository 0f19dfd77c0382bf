"""Classes that check and convert targets, with a class for each kind of target.

The attribute `targets` of a loss lists the kinds of targets that the loss accepts.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import (
    adapter_of,
    asarray_like,
    both,
    concrete_or_none,
    find_adapter,
    floating,
    host,
    rank,
)
from spikeloss_xp._checks import check_overflow, check_range, check_shape
from spikeloss_xp._input.labels import Filled, Labels
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._typing import Array, Namespace

__all__ = ["CLASS_INDICES", "MULTI_HOT", "PROBABILITIES", "ClassTarget", "Numbers", "Target"]


class Given(NamedTuple):
    """A target as it was passed to a loss, with the input and the options that affect its meaning.

    `kinds` lists the kinds of targets that the loss accepts. `per_step` is True if the target may
    have a time axis. Labels with the class index `ignore_index` are ignored.
    """

    prepared: Trains
    target: Any
    kinds: "tuple[Target, ...]"
    per_step: bool | None = None
    ignore_index: int | None = None

    def all_count(self) -> bool:
        """Return True if no entry is masked and no time step belongs to an earlier segment."""
        return self.prepared.mask is None and self.prepared.after_context is None


class Target(ABC):
    """Base class for the kinds of targets that losses accept, such as class indices.

    Attributes
    ----------
    name : str
        The name of this kind of target in error messages.
    names_classes : bool
        Whether the target can be compared with predicted classes.
    rank : int
        The number of axes that a target of this kind has if it has no time axis.
    """

    name: str
    names_classes = False
    rank = 2

    @abstractmethod
    def read(self, given: Given) -> Labels:
        """Check the dtype, shape and values of a target, and return the target as labels."""


def kind_of(kinds: tuple[Target, ...], target: Any) -> Target:
    """Return the kind of a target, given the kinds that the loss accepts.

    If the loss accepts two kinds, the second kind is for floating-point targets with at least two
    axes. The first kind is for all other targets.
    """
    if len(kinds) == 1 or rank(target) < 2:
        return kinds[0]
    adapter = find_adapter(target)
    if adapter is None:
        floats = host(target, "target").dtype.kind == "f"
    else:
        floats = adapter.xp.isdtype(target.dtype, "real floating")
    return kinds[1] if floats else kinds[0]


class ClassTarget(Target):
    """Targets that hold a class index for each sample, or a number for each class."""

    axes: str = "[batch, class]"

    def shape(self, prepared: Trains) -> tuple[int, ...]:
        """Return the shape that a target must have if it has no time axis."""
        return (prepared.layout.batch, prepared.num_classes)

    @abstractmethod
    def check_dtype(self, given: Given, label: Array) -> None:
        """Raise a `TypeError` if the target, converted to an array, has the wrong dtype."""

    def check(self, given: Given, label: Array) -> None:
        """Raise an error if the target, converted to an array, has the wrong dtype or shape."""
        self.check_dtype(given, label)
        expected = {self.axes: self.shape(given.prepared)}
        if given.per_step:
            expected["one at each step"] = given.prepared.layout.with_time(*expected[self.axes])
        check_shape(label, "target", self.name, expected, partial(self._hint, given, expected))

    def _hint(
        self, given: Given, expected: dict[str, tuple[int, ...]], shape: tuple[int, ...]
    ) -> str:
        """Return a hint about a likely mistake in the shape of a target, or ""."""
        layout, once = given.prepared.layout, expected[self.axes]
        for whole in expected.values() if layout.batch == 1 else ():
            axis = 1 if layout.time == 0 and len(whole) > len(once) else 0
            if shape == (*whole[:axis], *whole[axis + 1 :]):
                one = f"target[{':, ' * axis}None]" if shape else "[target]"
                return f" (it lacks the batch axis: pass {one})"
        if not given.per_step and shape == layout.with_time(*once):
            return " (labels for each step need a moving_window)"
        hints = self.hints(given, shape)
        return f" ({'; '.join(hints)})" if hints else hint_at_order(expected, shape)

    def hints(self, given: Given, shape: tuple[int, ...]) -> list[str]:
        """Return hints about the likely mistakes in a target of the wrong shape."""
        axis = given.prepared.layout.time_axis_for(shape, with_class=self.rank == 2)
        if axis is None:
            return []
        return [f"the shape would be valid if axis {axis} of input were time: see time_axis"]


class ClassIndices(ClassTarget):
    """Targets that hold a class index for each sample or for each time step."""

    name, axes = "class indices", "[batch]"
    names_classes = True
    rank = 1

    def shape(self, prepared: Trains) -> tuple[int, ...]:
        """Return the shape that class indices must have if they have no time axis."""
        return (prepared.layout.batch,)

    def read(self, given: Given) -> Labels:
        """Check class indices, and return them as labels.

        Ignored and invalid indices are reduced modulo the number of classes. A term can then be
        computed for every label.
        """
        prepared, ignored = given.prepared, given.ignore_index
        adapter, xp, classes = prepared.adapter, prepared.adapter.xp, prepared.num_classes
        label = asarray_like(adapter, prepared.values, given.target, "target")
        usual = label.dtype in (xp.int64, xp.int32)
        if not usual or tuple(label.shape) != (prepared.layout.batch,):
            self.check(given, label)
        checked = all_classes = adapter.are_within(label, 0, classes)
        if not checked:
            label, checked, all_classes = _compared(given, label)
        if not usual:  # `ignore_index` may overflow in this dtype
            label = xp.astype(label, adapter.arange(1, label).dtype)

        label = prepared.layout.expanded(adapter, label, with_class=False)
        label = adapter.sharded_like(label, prepared.values)
        may_be_ignored = ignored is not None and (not all_classes or 0 <= ignored < classes)
        mask = label != ignored if may_be_ignored else None
        if checked:
            return Labels(label if mask is None else label % classes, mask=mask)
        index = label % classes
        return Labels(index, mask=mask, invalid=label != index)

    def check_dtype(self, given: Given, label: Array) -> None:
        """Raise a `TypeError` unless the target, converted to an array, holds integers."""
        layout, shape = given.prepared.layout, tuple(label.shape)
        integral = given.prepared.adapter.xp.isdtype(label.dtype, "integral")
        once = (layout.batch, given.prepared.num_classes)
        for_each = shape in (once, layout.with_time(*once))
        several = for_each and len(given.kinds) > 1 and shape != layout.with_time(layout.batch)
        if integral and (label.ndim == 1 or not several):
            return
        rule = "one class index for each sample" if several else "integers (class indices)"
        remedy = f" ({_floats_for(given.kinds)})" if for_each else ""
        if len(given.kinds) > 1 and shape == once[1:] and layout.batch == 1:
            remedy = " (if these are the class probabilities of one sample, pass target[None])"
        raise TypeError(f"target must hold {rule}; got {label.dtype} of shape {shape}{remedy}")

    def hints(self, given: Given, shape: tuple[int, ...]) -> list[str]:
        """Return hints about a wrong time axis, an extra class axis or labels for each pixel."""
        layout, hints = given.prepared.layout, []
        space = layout.space()
        if len(space) > 1 and shape == (layout.batch, *space[1:]):
            samples = layout.batch * math.prod(space[1:])
            hints.append(
                f"if each pixel has a label, move the pixels into the batch: {samples} samples "
                f"with {space[0]} classes, and {samples} labels"
            )
        for_each = shape == (layout.batch, given.prepared.num_classes)
        if for_each:
            hints.append(_floats_for(given.kinds))
        if for_each and not given.per_step:
            return hints
        return hints + super().hints(given, shape)


@dataclass(frozen=True)
class Numbers(ClassTarget):
    """Targets that hold a number between `lowest` and `highest` for each class."""

    name: str = "target readings"
    rule: str = "finite"
    lowest: float = -math.inf
    highest: float = math.inf
    names_classes: bool = False

    def read(self, given: Given) -> Labels:
        """Check numbers, and return them as labels.

        A number outside the range raises a `ValueError`. If reading the numbers would require a
        transfer from a device, a number outside the range becomes NaN instead.
        """
        prepared = given.prepared
        adapter, xp, values = prepared.adapter, prepared.adapter.xp, prepared.values
        label = asarray_like(adapter, values, given.target, "target")
        self.check(given, label)
        stop = math.nextafter(self.highest, math.inf)
        # This quick check accepts no negative numbers, because it could not reject minus infinity.
        fits = label.dtype == values.dtype and adapter.are_within(label, max(self.lowest, 0), stop)
        if not fits:
            known = _values_that_count(given, with_class=True)
            if known is not None:
                self._check_values(known)
                check_overflow(xp, values.dtype, concrete_or_none(given.target), "target")
            unchecked = known is None and not xp.isdtype(label.dtype, "bool")
            label = xp.astype(label, values.dtype, copy=False)
            if unchecked:
                most = float(xp.finfo(label.dtype).max)
                fits = (label >= max(self.lowest, -most)) & (label <= min(self.highest, most))
                label = xp.where(fits, label, adapter.operand(label, math.nan))
        label = prepared.layout.expanded(adapter, label, with_class=True)
        return Labels(numbers=adapter.sharded_like(label, prepared.values))

    def _check_values(self, known: np.ndarray) -> None:
        """Raise an error if a number is outside the range, or is NaN or infinite."""
        if known.dtype.kind == "b" or not known.size:
            return
        low, high = known.min(), known.max()
        inside = self.lowest <= low and high <= self.highest
        if not (inside and -math.inf < low and high < math.inf):
            hint = f"got values from {low} to {high}"
            if low != low:
                hint = "got nan (to leave out padded steps, pass lengths; to leave out missing "
                hint += "entries, pass where, which is False for them)"
            raise ValueError(f"target must hold {self.name}, {self.rule}; {hint}")

    def check_dtype(self, given: Given, label: Array) -> None:
        """Raise a `TypeError` unless the target, converted to an array, holds floats."""
        if not given.prepared.adapter.xp.isdtype(label.dtype, "real floating"):
            raise TypeError(
                f"target must hold {self.name} with a real floating-point dtype; got {label.dtype} "
                f"of shape {tuple(label.shape)}"
            )

    def hints(self, given: Given, shape: tuple[int, ...]) -> list[str]:
        """Return hints about a missing class axis, several spatial axes or a wrong time axis."""
        layout, once = given.prepared.layout, self.shape(given.prepared)
        if not shape:
            return [f"to use one number for all classes, pass an array like numpy.full({once}, x)"]
        if shape in ((layout.batch,), layout.with_time(layout.batch)):
            return ["it lacks the class axis"]
        flatten = f"flatten the spatial axes of the target to get shape {once}"
        return [flatten] * (len(layout.space()) > 1) + super().hints(given, shape)


class MultiHot(Numbers):
    """Targets that hold a bool, or a float between 0 and 1, for each class."""

    def check_dtype(self, given: Given, label: Array) -> None:
        """Raise a `TypeError` unless the target, converted to an array, holds bools or floats."""
        if given.prepared.adapter.xp.isdtype(label.dtype, ("bool", "real floating")):
            return
        once, shape = self.shape(given.prepared), tuple(label.shape)
        remedy = "if it is multi-hot, target != 0 converts it to bool"
        if shape not in (once, given.prepared.layout.with_time(*once)):
            compared = f"target[:, None] == arange({once[1]}){'[:, None]' * (label.ndim - 1)}"
            if once[1] == 1:  # with a single class, labels are 0 (absent) or 1 (present)
                compared = "target[:, None] != 0"
            remedy = f"if these are class indices, {compared} is multi-hot"
        raise TypeError(
            f"target must hold {self.name} with a bool or real floating-point dtype; got "
            f"{label.dtype} of shape {shape} ({remedy})"
        )


# Target trains --------------------------------------------------------------------------------


class AnyTrains(Target):
    """Target trains or target signals, which may hold any numbers."""

    name = "spike trains"
    rank = 3

    def read(self, given: Given) -> Labels:
        """Check target trains, and return them in the dtype of the input."""
        prepared, target = given.prepared, given.target
        adapter, xp, dtype = prepared.adapter, prepared.adapter.xp, prepared.values.dtype
        trains = asarray_like(adapter, prepared.values, target, "target")
        expected = {"the shape of input": prepared.layout.shape}
        check_shape(trains, "target", self.name, expected, partial(hint_at_order, expected))
        integral = not xp.isdtype(trains.dtype, "real floating")
        # `dtype` may have fewer bits than the dtype of the target.
        if trains is not target or trains.dtype != dtype:
            trains = floating(adapter, trains, "target")
            check_overflow(xp, dtype, concrete_or_none(target), "target")
            trains = xp.astype(trains, dtype, copy=False)
        trains = prepared.layout.collapsed(adapter, trains)
        if prepared.mask is not None:
            trains = adapter.masked(trains, prepared.factor(prepared.mask))
        self.check_values(given, trains, integral=integral)
        return Filled(numbers=trains)

    def check_values(self, given: Given, trains: Array, *, integral: bool) -> None:
        """Raise an error if a number is not allowed. `AnyTrains` allows all numbers.

        `trains` is the target, converted to the dtype of the input. `integral` is True if the
        target was not a floating-point array before this conversion.
        """


class CountTrains(AnyTrains):
    """Target trains that hold spike counts, which may be fractions."""

    name = "spike counts"
    rule: str = "finite and at least 0"
    remedy: str = ""
    highest: float = math.inf

    def holds(self, xp: Namespace, trains: Array) -> Array:
        """Return an array that is True for allowed numbers and for infinity."""
        return trains >= 0

    def range_suffices(self, *, integral: bool) -> bool:
        """Return whether it is enough to check that the numbers are between 0 and `highest`."""
        return True

    def check_values(self, given: Given, trains: Array, *, integral: bool) -> None:
        """Raise an error if an unmasked number is outside the range of this target.

        If the numbers cannot be read without a transfer from a device, no error is raised.
        """
        adapter, after_context = given.prepared.adapter, given.prepared.after_context
        if after_context is not None:
            trains = adapter.masked(trains, after_context)
        stop = math.nextafter(self.highest, math.inf)
        if self.range_suffices(integral=integral) and adapter.are_within(trains, 0, stop):
            return
        known: Any = adapter.concrete_or_none(trains)
        if known is None and given.all_count():
            known = concrete_or_none(given.target)
        if known is None:
            return
        allowed = self.holds(np, known) & (known < math.inf)
        if allowed.all():
            return
        wrong, remedy = known[~allowed][0], self.remedy
        if wrong != wrong:
            remedy = "to leave out missing entries, pass where=~isnan(counts), and join masks by &"
        hint = f" ({remedy})" if remedy else ""
        raise ValueError(f"target must hold {self.name}, {self.rule}; got {wrong}{hint}")


class WholeCountTrains(CountTrains):
    """Target trains in which each entry is a whole number of at least 0."""

    name, rule = "whole spike counts", "which are whole numbers of at least 0"
    remedy = "constant=False accepts fractions"

    def holds(self, xp: Namespace, trains: Array) -> Array:
        """Return an array that is True for whole numbers of at least 0 and for infinity."""
        return (trains >= 0) & (trains == xp.floor(trains))

    def range_suffices(self, *, integral: bool) -> bool:
        """Return whether it is enough to check the range, which is the case for integers."""
        return integral


class BinaryTrains(WholeCountTrains):
    """Target trains in which each entry is 0 or 1."""

    name, rule, remedy = "binary spikes", "0 or 1", "PoissonNLL accepts counts"
    highest = 1

    def holds(self, xp: Namespace, trains: Array) -> Array:
        """Return an array that is True for the numbers 0 and 1."""
        return (trains == 0) | (trains == 1)


# Helpers --------------------------------------------------------------------------------------


def _floats_for(kinds: tuple[Target, ...]) -> str:
    """Return a hint that a target with a class axis must hold floats."""
    if len(kinds) > 1:
        return f"{kinds[1].name} must be floats"
    return "class probabilities must be floats, and only a call to CrossEntropy accepts them"


def _values_that_count(given: Given, *, with_class: bool) -> np.ndarray | None:
    """Return the unmasked values of a target, without the time steps of an earlier segment."""
    prepared, found = given.prepared, find_adapter(given.target)
    if found is not None and found.xp is prepared.adapter.xp:
        known = prepared.adapter.concrete_or_none(given.target)
    else:
        known = concrete_or_none(given.target)
    if known is None or given.all_count():
        return known
    mask: Any = concrete_or_none(both(prepared.mask, prepared.after_context))
    if mask is None:
        return None
    layout, classes = prepared.layout, prepared.num_classes
    axis = layout.class_axis
    if mask.shape[axis] not in (1, classes):  # each class is represented by a group of neurons
        members = (*mask.shape[:axis], classes, -1, *mask.shape[axis + 1 :])
        mask = mask.reshape(members).any(axis=axis + 1)
    known = layout.expanded(adapter_of(known), known, with_class=with_class)
    absent = tuple(i for i, length in enumerate(known.shape) if length == 1)
    counted = np.broadcast_to(mask.any(axis=absent, keepdims=True), known.shape)
    chosen: np.ndarray = known[counted]
    return chosen


def _compared(given: Given, label: Array) -> tuple[Array, bool, bool]:
    """Return class indices, and two flags about their validity.

    The first flag is True if all indices are known to be valid or ignored. The second flag is True
    if every index that contributes a term is known to be valid.
    """
    known = _values_that_count(given, with_class=False)
    highest = given.prepared.num_classes - 1
    all_classes = check_range(known, highest, "target", given.ignore_index)
    if not all_classes:
        label = _narrowed(given.prepared, label, given.target)
    return label, known is not None and given.all_count(), all_classes


def _narrowed(prepared: Trains, label: Array, target: Any) -> Array:
    """Return `label`, with each index that overflowed replaced by an invalid index.

    `label` is `target` after its conversion to an array of the library. For example, the index
    2**32 becomes 0 in a library without 64-bit integers.
    """
    if find_adapter(target) is find_adapter(label):
        return label
    wide, limits = np.asarray(target), prepared.adapter.xp.iinfo(label.dtype)
    if np.iinfo(wide.dtype).max <= limits.max:
        return label
    fits = (wide >= limits.min) & (wide <= limits.max)
    # Indices that do not fit are replaced by the largest integer of the dtype. It is never a valid
    # index, because no input has that many classes.
    narrow = np.where(fits, wide, limits.max)
    return prepared.adapter.from_host_like(narrow, label)


def hint_at_order(expected: dict[str, tuple[int, ...]], shape: tuple[int, ...]) -> str:
    """Return a hint if a shape has the expected axes in the wrong order, else ""."""
    permuted = len(shape) > 1 and sorted(shape) in map(sorted, expected.values())
    return " (its axes are in a different order)" if permuted else ""


CLASS_INDICES = ClassIndices()
PROBABILITIES = Numbers("class probabilities", "finite and at least 0", 0, names_classes=True)
MULTI_HOT = MultiHot("multi-hot labels", "between 0 and 1", 0, 1, names_classes=True)
