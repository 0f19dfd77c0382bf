"""Labels, which are targets that have been converted to the layout of the readings.

A label says three things about its term: whether there is a term (`mask`), whether the term is NaN
(`invalid`), and how much the term counts (`class_weight`). A class weight of 0 is not a mask: NaN
times 0 stays NaN, and the class weight has a gradient.
"""

import math
from typing import Any, NamedTuple

from spikeloss_xp._arrays import asarray_like, both, concrete_or_none, floating
from spikeloss_xp._checks import check_overflow
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._typing import Array


class Labels(NamedTuple):
    """The target of a call, with the axes of the readings. The time axis may have length 1.

    A target has either a class index for each sample or step, or a number for each class or neuron.

    Attributes
    ----------
    indices : array or None
        The class indices, with a class axis of length 1. None if there are numbers.
    numbers : array or None
        A number for each class or neuron, in the dtype of the spikes. Invalid numbers are NaN. None
        if there are class indices.
    mask : array or None
        False for labels without a term: ignored labels, and labels in the context of a segment.
        None if every label has a term.
    invalid : array or None
        True for labels whose terms are NaN: invalid class indices, and all labels of a sample with
        an invalid length. It may also be True for labels without a term. None if all indices and
        lengths are known to be valid.
    class_weight : array or None
        The weight of each class or neuron, or None if they are not weighted.
    """

    indices: Any = None
    numbers: Any = None
    mask: Array | None = None
    invalid: Array | None = None
    class_weight: Array | None = None

    def one_hot(self, reading: Any) -> Array:
        """Return the class indices as a one-hot bool array with the axes of a reading."""
        return self.indices == reading.classes.positions(reading.u)

    def as_numbers(self, prepared: Trains) -> "Labels":
        """Return class indices as one-hot numbers, which are NaN if the index is invalid."""
        if self.numbers is not None:
            return self
        adapter, xp = prepared.adapter, prepared.adapter.xp
        position = adapter.arange(prepared.num_classes, self.indices)
        one_hot = self.indices == prepared.layout.per_class(adapter, position)
        numbers = xp.astype(one_hot, prepared.values.dtype)
        if self.invalid is not None:
            numbers = xp.where(self.invalid, math.nan, numbers)
        return self._replace(indices=None, numbers=numbers)

    def of_classes(self, reading: Any) -> Array:
        """Return a mask of the classes that belong to a label.

        They are the labelled class or, if the label is invalid, all classes. If there are numbers,
        they are the classes whose number is not 0.
        """
        if self.numbers is not None:
            return self.numbers != 0
        own = self.one_hot(reading)
        return own if self.invalid is None else own | self.invalid

    def filled(self, reading: Any, mask: Array) -> "Labels":
        """Return the labels with each masked number set to 0, and no masked label invalid."""
        numbers, adapter = self.numbers, reading.adapter
        if numbers is None and adapter.in_place(mask):
            return self
        # In a transform, the derivatives of class weights and of gradients multiply the NaN of an
        # invalid label by the 0 of a masked term, and the product is NaN.
        invalid = None if self.invalid is None else self.invalid & mask
        if numbers is not None:
            numbers = adapter.masked(numbers, both(mask, reading.class_mask))
        return self._replace(numbers=numbers, invalid=invalid)

    def shares(self, reading: Any) -> Array:
        """Return the sum of the class probabilities of each label, multiplied by the class weights.

        The sum is 0 if a probability is NaN, so that the sum over all samples is a number.
        """
        weighted = self.numbers
        if self.class_weight is not None:
            weighted = weighted * self.class_weight
        total = reading.classes.sum(weighted)
        if reading.adapter.on_host:  # the probabilities have been checked
            return total
        # A sum of 0 is selected too, so that class weights of 0 have a gradient.
        return reading.xp.where(total >= 0, total, reading.adapter.operand(total, 0.0))

    def weights(self, reading: Any, compete: bool) -> tuple[Array | None, Array | None]:
        """Return a factor and a weight for each term.

        Each term is multiplied by its factor. To compute a mean, the sum of the terms is divided by
        the sum of the weights. None stands for a factor or a weight of 1.
        """
        xp, u, adapter = reading.xp, reading.u, reading.adapter
        factor = self.class_weight
        if self.indices is not None and factor is not None:  # use the weight of the label
            factor = reading.classes.at(factor, self.indices)
        weight = factor
        if compete and self.numbers is not None:
            # The criterion multiplies the probabilities of the classes by their weights.
            factor, weight = None, self.shares(reading)
        if self.invalid is None:
            return factor, weight
        known = adapter.scalar(u, 1.0) if factor is None else factor
        factor = xp.where(self.invalid, adapter.operand(u, math.nan), known)
        if weight is not None:
            weight = xp.where(self.invalid, adapter.operand(u, 0.0), weight)
        return factor, weight


class Filled(Labels):
    """Labels whose numbers need no mask.

    Target trains and target signals are already 0 where the input is masked, so a loss can subtract
    them from the input directly.
    """

    __slots__ = ()

    def filled(self, reading: Any, mask: Array) -> Labels:
        """Return the labels unchanged."""
        return self


def class_weights(prepared: Trains, weight: Any, each: str, name: str = "weight") -> Array:
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
