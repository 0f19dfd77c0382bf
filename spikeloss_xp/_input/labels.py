"""Labels: targets that have been checked and converted to the axes batch, class and time.

A class weight of 0 is not a mask. With a class weight of 0, a NaN term stays NaN, and the loss
still has a derivative with respect to the class weight.
"""

import math
from typing import Any, NamedTuple

from spikeloss_xp._arrays import asarray_like, both, concrete_or_none, floating
from spikeloss_xp._checks import check_overflow
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._typing import Array


class Labels(NamedTuple):
    """A checked target, with the axes batch, class and time in the same order as in the input.

    The time axis has length 1 if the target has no time axis. Either `indices` or `numbers` is
    None.

    Attributes
    ----------
    indices : array or None
        The class indices, with a class axis of length 1.
    numbers : array or None
        A number for each class or neuron, in the dtype of the spikes. Invalid numbers are NaN.
    mask : array or None
        True for labels that contribute a loss term.
    invalid : array or None
        True for invalid class indices, and for all labels of a sample with an invalid length. The
        loss terms of these labels are NaN. `invalid` may also be True for labels that `mask`
        excludes.
    class_weight : array or None
        The weight of each class or neuron.
    """

    indices: Any = None
    numbers: Any = None
    mask: Array | None = None
    invalid: Array | None = None
    class_weight: Array | None = None

    def one_hot(self, reading: Any) -> Array:
        """Return the class indices as a one-hot bool array that broadcasts to the readings."""
        return self.indices == reading.classes.positions(reading.u)

    def as_numbers(self, prepared: Trains) -> "Labels":
        """Return the labels with class indices converted to one-hot numbers.

        The one-hot numbers of an invalid index are NaN.
        """
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
        """Return an array that is True for each class that belongs to the label.

        An invalid class index selects all classes.
        """
        if self.numbers is not None:
            return self.numbers != 0
        own = self.one_hot(reading)
        return own if self.invalid is None else own | self.invalid

    def filled(self, reading: Any, mask: Array) -> "Labels":
        """Return labels in which masked numbers are 0 and masked labels are marked as valid."""
        numbers, adapter = self.numbers, reading.adapter
        if numbers is None and adapter.in_place(mask):
            return self
        # A masked label is marked as valid. Otherwise, its term would stay NaN, because masks are
        # factors of 0, and the product of NaN and 0 is NaN.
        invalid = None if self.invalid is None else self.invalid & mask
        if numbers is not None:
            numbers = adapter.masked(numbers, both(mask, reading.class_mask))
        return self._replace(numbers=numbers, invalid=invalid)

    def shares(self, reading: Any) -> Array:
        """Return the sum of the class probabilities, weighted by the class weights.

        The result is 0 for a label with a NaN probability, so that the sum over all labels is not
        NaN.
        """
        weighted = self.numbers
        if self.class_weight is not None:
            weighted = weighted * self.class_weight
        total = reading.classes.sum(weighted)
        if reading.adapter.on_host:  # the probabilities have already been checked
            return total
        # With `>` instead of `>=`, a total of 0 would have no derivative with respect to class
        # weights.
        return reading.xp.where(total >= 0, total, reading.adapter.operand(total, 0.0))

    def weights(self, reading: Any, compete: bool) -> tuple[Array | None, Array | None]:
        """Return a factor and a weight for each term.

        Each term is multiplied by its factor. With ``reduction="mean"``, the sum of the terms is
        divided by the sum of the weights. None stands for factors or weights that are all 1.
        """
        xp, u, adapter = reading.xp, reading.u, reading.adapter
        factor = self.class_weight
        if self.indices is not None and factor is not None:  # use the weight of the labelled class
            factor = reading.classes.at(factor, self.indices)
        weight = factor
        if compete and self.numbers is not None:
            # The criterion has already multiplied the class probabilities by the class weights.
            factor, weight = None, self.shares(reading)
        if self.invalid is None:
            return factor, weight
        known = adapter.scalar(u, 1.0) if factor is None else factor
        factor = xp.where(self.invalid, adapter.operand(u, math.nan), known)
        if weight is not None:
            weight = xp.where(self.invalid, adapter.operand(u, 0.0), weight)
        return factor, weight


class Filled(Labels):
    """Target trains in which masked steps are already 0."""

    __slots__ = ()

    def filled(self, reading: Any, mask: Array) -> Labels:
        """Return the labels unchanged."""
        return self


def class_weights(prepared: Trains, weight: Any, each: str, name: str = "weight") -> Array:
    """Check class weights, and return them as an array that broadcasts to the readings.

    `name` is the name of the argument in error messages, and `each` is "class" or "neuron".
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
