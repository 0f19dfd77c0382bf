"""Target trains: targets with a number for each neuron at each step."""

import math
from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp._arrays import asarray_like, concrete_or_none, floating
from spikeloss_xp._checks import check_overflow, check_shape
from spikeloss_xp._input.labels import Labels, TargetTrains
from spikeloss_xp._input.targets import Given, Target, hint_at_order
from spikeloss_xp._typing import Array, Namespace


class AnyTrains(Target):
    """Target trains or target signals, in which any number is allowed."""

    name = "spike trains"
    rank = 3

    def read(self, given: Given) -> Labels:
        """Return target trains in the dtype of the values. Masked entries are set to 0."""
        prepared, target = given.prepared, given.target
        adapter, xp, dtype = prepared.adapter, prepared.adapter.xp, prepared.values.dtype
        trains = asarray_like(adapter, prepared.values, target, "target")
        expected = {"the shape of input": prepared.layout.shape}
        check_shape(trains, "target", self.name, expected, partial(hint_at_order, expected))
        integral = not xp.isdtype(trains.dtype, "real floating")
        trains = floating(adapter, trains, "target")
        check_overflow(xp, dtype, concrete_or_none(target), "target")
        trains = xp.astype(trains, dtype, copy=False)
        trains = prepared.layout.collapsed(adapter, trains)
        if prepared.mask is not None:
            trains = adapter.masked(trains, prepared.factor(prepared.mask))
        self.check_values(given, trains, integral=integral)
        return TargetTrains(None, trains)

    def check_values(self, given: Given, trains: Array, *, integral: bool) -> None:
        """Raise an error if a number is not allowed. This class allows all numbers.

        `trains` is the converted target. `integral` is True if the target held integers.
        """


class CountTrains(AnyTrains):
    """Target trains that hold spike counts. The counts may be fractions."""

    name, rule, remedy = "spike counts", "finite and at least 0", ""
    highest = math.inf

    def holds(self, xp: Namespace, trains: Array) -> Array:
        """Return True for each number that is allowed, and for infinity."""
        return trains >= 0

    def range_suffices(self, *, integral: bool) -> bool:
        """Return whether all finite numbers from 0 to `highest` are allowed."""
        return True

    def check_values(self, given: Given, trains: Array, *, integral: bool) -> None:
        """Raise an error if an unmasked number is not allowed and can be read cheaply."""
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
            remedy = "to leave out missing entries, pass where=~isnan(counts)"
        hint = f" ({remedy})" if remedy else ""
        raise ValueError(f"target must hold {self.name}, {self.rule}; got {wrong}{hint}")


class WholeCountTrains(CountTrains):
    """Target trains that hold whole spike counts."""

    name, rule = "whole spike counts", "which are whole numbers of at least 0"
    remedy = "constant=False accepts fractions"

    def holds(self, xp: Namespace, trains: Array) -> Array:
        """Return True for each whole number that is at least 0, and for infinity."""
        return (trains >= 0) & (trains == xp.floor(trains))

    def range_suffices(self, *, integral: bool) -> bool:
        """Return whether the numbers are whole, so that only their range must be checked."""
        return integral


class BinaryTrains(WholeCountTrains):
    """Target trains that hold 0 and 1."""

    name, rule, remedy = "binary spikes", "0 or 1", "PoissonNLL accepts counts"
    highest = 1

    def holds(self, xp: Namespace, trains: Array) -> Array:
        """Return True for 0 and 1."""
        return (trains == 0) | (trains == 1)
