"""Labels, which are targets that have been converted to the layout of the readings."""

import math
from typing import Any, NamedTuple

from spikeloss_xp._arrays import asarray_like, concrete_or_none, floating
from spikeloss_xp._checks import check_overflow
from spikeloss_xp._input.prepared import Prepared, both
from spikeloss_xp._typing import Array


class Labels(NamedTuple):
    """The class index of each sample or step, with the axes of the readings.

    The time axis may have length 1. Two subclasses hold numbers instead of class indices:
    `ClassNumbers` holds a number for each class, and `TargetTrains` holds a number for each neuron.

    Attributes
    ----------
    indices : array or None
        The class indices, with a class axis of length 1. None if the target gives a number for
        each class.
    numbers : array or None
        A number for each class, in the dtype of the spikes. None for class indices, unless the
        criterion of the loss needs a number for each class.
    valid : array or None
        False where a class index is neither a valid class nor the ignored index, and for samples
        with an invalid length. None if all indices and lengths are known to be valid. Invalid
        numbers are not marked here, because they are replaced by NaN.
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

    def compared(self, reading: Any) -> "Labels":
        """Return the labels in the form in which the criterion compares them with a reading."""
        return self

    def of_class(self, reading: Any) -> Array:
        """Return a mask of the labelled class, or of all classes if the label is invalid."""
        own = self.one_hot(reading)
        return own if self.valid is None else own | ~self.valid

    def are_plain(self, compete: bool) -> bool:
        """Return whether all labels are valid, none is ignored and all terms have weight 1."""
        return self.class_weight is None and self.valid is None and self.ignored is None

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
            # A term is unmasked if at least one neuron of the labelled class is unmasked.
            own = self.of_class(reading)
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
        return self

    def weights(self, reading: Any, compete: bool) -> tuple[Array | None, Array | None]:
        """Return a factor and a weight for each term.

        Each term is multiplied by its factor. To compute a mean, the sum of the terms is divided by
        the sum of the weights. None stands for a factor or a weight of 1.
        """
        weight = self.class_weight
        if weight is not None:  # use the class weight of the label
            weight = reading.classes.sum(reading.xp.where(self.one_hot(reading), weight, 0.0))
        return self._with_invalid(reading, weight, weight)

    def _with_invalid(
        self, reading: Any, factor: Array | None, weight: Array | None
    ) -> tuple[Array | None, Array | None]:
        """Set the factor to NaN and the weight to 0 where the class index is invalid."""
        if self.valid is None:
            return factor, weight
        adapter, xp = reading.adapter, reading.xp
        known = adapter.scalar(reading.u, 1.0) if factor is None else factor
        factor = xp.where(self.valid, known, adapter.operand(reading.u, math.nan))
        return factor, None if weight is None else xp.where(self.valid, weight, 0.0)


class ClassNumbers(Labels):
    """Labels with a number for each class, such as a probability or a target rate."""

    __slots__ = ()

    def of_class(self, reading: Any) -> Array:
        """Return a mask that is True for classes whose number is above 0 or NaN.

        A NaN is not masked, so that the term becomes NaN.
        """
        return ~(self.numbers <= 0)

    def are_plain(self, compete: bool) -> bool:
        """Return whether the labels require no mask and no weights for the terms.

        If the classes compete, the numbers of all classes determine the weight of a term, so the
        result is False.
        """
        return not compete and super().are_plain(compete)

    def filled(self, reading: Any, mask: Array) -> Labels:
        """Return the labels with each masked number set to 0."""
        mask = both(mask, reading.class_mask)
        return self._replace(numbers=reading.adapter.masked(self.numbers, mask))

    def weights(self, reading: Any, compete: bool) -> tuple[Array | None, Array | None]:
        """Return a factor and a weight for each term; see `Labels.weights`."""
        weight = self.class_weight
        if not compete:
            return self._with_invalid(reading, weight, weight)
        # The criterion applies the class weights.
        share = self.numbers if weight is None else self.numbers * weight
        return self._with_invalid(reading, None, reading.classes.sum(share))


class OneHotIndices(Labels):
    """Class indices that the criterion compares as one-hot numbers."""

    __slots__ = ()

    def compared(self, reading: Any) -> Labels:
        """Return the indices as one-hot numbers, which are NaN if the index is invalid."""
        numbers = reading.xp.astype(self.one_hot(reading), reading.u.dtype)
        if self.valid is not None:
            numbers = reading.xp.where(self.valid, numbers, math.nan)
        return ClassNumbers(*self._replace(numbers=numbers))


class TargetTrains(ClassNumbers):
    """Target trains or target signals: `numbers` contains a number for each neuron at each step.

    The numbers are already 0 where the input is masked, so a loss can subtract them from the input
    directly.
    """

    __slots__ = ()

    def filled(self, reading: Any, mask: Array) -> Labels:
        """Return the trains unchanged, because their masked entries are already 0."""
        return self


def class_weights(prepared: Prepared, weight: Any, each: str, name: str = "weight") -> Array:
    """Return class weights with the axes of the readings and the dtype of the input values.

    `name` and `each` are used in error messages. `name` is the name of the argument. `each` says
    what each weight belongs to: "class" or "neuron".
    """
    adapter, values, xp = prepared.adapter, prepared.values, prepared.adapter.xp
    classes = prepared.num_classes
    weights = asarray_like(adapter, values, weight, name)
    if xp.isdtype(weights.dtype, "bool"):
        raise TypeError(f"{name} must hold numbers, one for each {each}; got bool")
    weights = floating(adapter, weights, name)
    if tuple(weights.shape) != (classes,):
        hint = prepared.layout.hint_at_time(weights.shape)
        if tuple(weights.shape) == (prepared.layout.batch,) and name == "weight":
            hint = " (to weight samples, multiply the terms that reduction='none' returns)"
        raise ValueError(
            f"{name} must have shape {(classes,)}, one for each {each}; got {tuple(weights.shape)}"
            f"{hint}"
        )
    known = concrete_or_none(weight)
    if known is not None and not bool(((known >= 0) & (known < math.inf)).all()):
        raise ValueError(f"{name} must be finite and at least 0; got {known.tolist()}")
    check_overflow(xp, values.dtype, known, name)
    return prepared.layout.per_class(adapter, xp.astype(weights, values.dtype, copy=False))
