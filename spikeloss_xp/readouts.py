"""Readouts: the quantities that a loss reads from spikes, of neurons and of classes.

A readout returns ``(reading, pullback)``. The pullback takes the derivative of the loss with
respect to the reading to the derivative with respect to the spikes. It stands beside the operation.
That of a linear readout is its adjoint; the maximum is not linear. Libraries with automatic
differentiation do not run it, unless the loss is one node of their graph.

Spikes have the axes batch, class and time, in the order of the input, with time at `axis`. They are
0 where they are masked. The mask has the same axes, the class axis perhaps of length 1, or is None
if all entries count. Readings keep these axes; without a reading at each step time has length 1.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from spikeloss_xp._arrays import Adapter, lowest_below, or_one
from spikeloss_xp._input.prepared import class_axis
from spikeloss_xp._typing import Array, Pullback, ValueAndPullback


class Reading(NamedTuple):
    """The readings of a batch, and their units.

    Attributes
    ----------
    u : array
        The readings: batch, class and time in the order of the input, time of length 1 unless there
        is a reading at each step.
    per_unit : float or array
        The number of spikes that adds 1 to `u`, by which `counts` is divided.
    saturated : float or array
        The reading of a neuron that fires at every step.
    counts : array or None
        The sums of spikes that `u` is computed from, with its axes, for comparisons that rounding
        must not decide. None if `u` is no count and no rate.
    duration : float or array
        The number of steps that a count or rate is read from, added up over the neurons of a class.
    mask : array or None
        Which entries of `u` were read from any unmasked entry; its class axis may have length 1.
        None if all were.
    class_mask : array or None
        In a loss whose classes compete for one term, which classes take part, with the axes of
        `u`. None if all do.
    time_axis, class_axis : int
        The axes of time and of the classes.
    """

    u: Array
    per_unit: Any = 1.0
    saturated: Any = 1.0
    counts: Array | None = None
    duration: Any = 1.0
    mask: Array | None = None
    class_mask: Array | None = None
    time_axis: int = 2
    class_axis: int = 1

    def shielded(self, adapter: Adapter, mask: Array) -> "Reading":
        """Return readings whose terms and derivatives are finite in every criterion where masked.

        A reading of 1 is in the range of each of them, and a count of infinity lacks no spike.
        """
        counts = None if self.counts is None else adapter.shielded(self.counts, mask, math.inf)
        return self._replace(u=adapter.shielded(self.u, mask, 1.0), counts=counts)


Read: TypeAlias = tuple[Reading, Pullback]  # the result of a readout


def count(
    adapter: Adapter, spikes: Array, mask: Array | None, axis: int, window: int | None = None
) -> Read:
    """Read ``n = sum_t s[t]``, or with a window ``n[t] = sum(s[t - k] for k < W)``."""
    if window is not None:
        counts = adapter.moving_sum(spikes, window, axis)
        reading = Reading(counts, 1.0, window, counts, window, mask)
        # A spike at t counts in the windows at t, ..., t + W - 1. The adjoint sums their
        # cotangents, of fewer windows at the boundary: there is none after the last step.
        return reading, lambda cotangent: adapter.moving_sum(cotangent, window, axis, reverse=True)

    steps, xp = spikes.shape[axis], adapter.xp
    counts, duration, read = adapter.sum(spikes, axis, keepdims=True), steps, None
    if mask is not None:
        duration = xp.sum(xp.astype(mask, spikes.dtype), axis=axis, keepdims=True)
        read = duration > 0
    units = 1.0, duration, counts, duration
    reading = Reading(counts, *units, read, None, axis, 1 if axis == 2 else 2)
    return reading, lambda cotangent: adapter.spread(cotangent, steps, axis)  # each step adds 1


def rate(
    adapter: Adapter, spikes: Array, mask: Array | None, axis: int, window: int | None = None
) -> Read:
    """Read ``r = mean_t s[t]``, or with a window ``r[t] = sum(s[t - k] for k < W) / W``."""
    counted, to_spikes = count(adapter, spikes, mask, axis, window)
    duration = counted.saturated
    if mask is not None and window is None:
        duration = or_one(adapter, duration)
    elif window == 1:
        return counted, to_spikes
    reading = Reading(counted.u / duration, duration, 1.0, *counted[3:])
    return reading, lambda cotangent: to_spikes(cotangent / duration)


def highest(adapter: Adapter, spikes: Array, mask: Array | None, axis: int) -> Read:
    """Read ``max_t s[t]``; the steps that reach the maximum share its gradient."""
    xp = adapter.xp
    unmasked, read = spikes, None
    if mask is not None:
        unmasked = xp.where(mask, spikes, -math.inf)
        read = xp.any(mask, axis=axis, keepdims=True)
    peak = xp.max(unmasked, axis=axis, keepdims=True)

    def pullback(cotangent: Array) -> Array:
        reached = xp.astype(unmasked == peak, unmasked.dtype)
        one = adapter.scalar(unmasked, 1.0)  # a NaN is not equal to any peak
        sharing = xp.maximum(xp.sum(reached, axis=axis, keepdims=True), one)
        return cotangent * reached / sharing

    return Reading(peak if read is None else xp.where(read, peak, 0.0), mask=read), pullback


def last(adapter: Adapter, spikes: Array, mask: Array | None, axis: int) -> Read:
    """Read the last unmasked step."""
    xp, steps = adapter.xp, spikes.shape[axis]
    step = adapter.along(axis, spikes)
    if mask is None:
        chosen, read = step == steps - 1, None
        u = spikes[(*(slice(None) for _ in range(axis)), slice(steps - 1, steps), ...)]
    else:
        step = xp.where(mask, step, -1)
        chosen = mask & (step == xp.max(step, axis=axis, keepdims=True))
        read = xp.any(mask, axis=axis, keepdims=True)
        u = xp.sum(xp.where(chosen, spikes, 0.0), axis=axis, keepdims=True)

    def pullback(cotangent: Array) -> Array:
        return xp.where(chosen, cotangent, adapter.scalar(spikes, 0.0))

    return Reading(u, mask=read), pullback


# Classes -------------------------------------------------------------------------------------


def read_classes(
    adapter: Adapter,
    spikes: Array,
    mask: Array | None,
    axis: int,
    readout: str,
    window: int | None = None,
    classes: int | None = None,
    summed: tuple[str, ...] = (),
) -> Read:
    """Read each class by a readout: a neuron or, with `classes`, a group of neighbouring neurons.

    A group is the sum of its neurons if the readout is one of those in `summed`, else their mean.
    """
    if classes is None and readout in WINDOWED:
        each: Read = WINDOWED[readout](adapter, spikes, mask, axis, window)
        return each
    if readout == "latency":
        spikes, to_input = probabilities(adapter, spikes)
        reading, to_spikes = read_groups(adapter, spikes, mask, axis, classes, latency)
        return reading, lambda cotangent: to_input(to_spikes(cotangent))
    read = partial(WINDOWED[readout], window=window) if readout in WINDOWED else WHOLE[readout]
    options = {"proportional": readout != "softmax_sum", "summed": readout in summed}
    reading, pullback = read_groups(adapter, spikes, mask, axis, classes, read, **options)
    if classes is not None:
        duration = reading.duration * (spikes.shape[class_axis(axis)] // classes)
        reading = reading._replace(duration=duration)
    return reading, pullback


def read_groups(
    adapter: Adapter,
    spikes: Array,
    mask: Array | None,
    axis: int,
    classes: int | None,
    read: Callable[[Adapter, Array, Array | None, int], Read],
    *,
    proportional: bool = False,
    summed: bool = False,
) -> Read:
    """Read the mean of the neurons of each class; without `classes`, each neuron is a class.

    If the readings of `read` are `proportional` to the trains, it reads the sum of the neurons, and
    the reading is divided by their number: means of three spikes are rounded, and would decide
    ties. Where neurons are masked one by one, their number differs between steps, and the mean of
    each step is read. With `summed` it is times the number of neurons of a class, the sum where
    none is masked.
    """
    if classes is None:
        return read(adapter, spikes, mask, axis)
    xp, of_class = adapter.xp, class_axis(axis)
    size = spikes.shape[of_class] // classes
    shape = (*spikes.shape[:of_class], classes, size, *spikes.shape[of_class + 1 :])
    total = xp.sum(xp.reshape(spikes, shape), axis=of_class + 1)

    def to_neurons(cotangent: Array) -> Array:  # each neuron has an equal share in the sum
        return xp.repeat(cotangent, size, axis=of_class)

    divisor: Any = size
    if mask is not None and mask.shape[of_class] > 1:
        members = xp.reshape(mask, shape)
        divisor = or_one(adapter, xp.sum(xp.astype(members, spikes.dtype), axis=of_class + 1))
        mask = xp.any(members, axis=of_class + 1)
    elif proportional:
        reading, to_total = read(adapter, total, mask, axis)
        if summed:
            return reading, lambda cotangent: to_neurons(to_total(cotangent))
        reading = _mean_of_neurons(reading, size)
        return reading, lambda cotangent: to_neurons(to_total(cotangent / size))

    scale, number = size if summed else 1, divisor
    reading, to_mean = read(adapter, total * scale / divisor, mask, axis)
    if not isinstance(divisor, int) and reading.u.shape[axis] == 1:  # the largest of any step
        number = xp.max(divisor, axis=axis, keepdims=True)
    counts = None if reading.counts is None else reading.counts * number
    reading = reading._replace(per_unit=reading.per_unit * number, counts=counts)
    return reading, lambda cotangent: to_neurons(to_mean(cotangent) * scale / divisor)


def _mean_of_neurons(reading: Reading, size: int) -> Reading:
    """Return the reading of a sum of neurons as that of their mean.

    Counts are divided once: a second rounding would move rates across a threshold.
    """
    divisor = reading.per_unit * size
    u = reading.u / size if reading.counts is None else reading.counts / divisor
    return reading._replace(u=u, per_unit=divisor)


def softmax_sum(adapter: Adapter, spikes: Array, mask: Array | None, axis: int) -> Read:
    """Read ``sum_t p[t]``, where ``p[t]`` is the softmax over the classes unmasked at step t."""
    xp, of_class = adapter.xp, class_axis(axis)
    logit, read = spikes, None
    if mask is not None:
        logit = xp.where(mask, spikes, -math.inf)
        read = xp.any(mask, axis=axis, keepdims=True)
    highest = xp.max(logit, axis=of_class, keepdims=True)  # against overflow; it cancels
    if mask is not None:
        highest = xp.where(xp.any(mask, axis=of_class, keepdims=True), highest, 0.0)
    weight = xp.exp(logit - highest)
    total = adapter.sum(weight, of_class, keepdims=True)
    p = weight / (total if mask is None else or_one(adapter, total))

    def pullback(cotangent: Array) -> Array:
        return p * (cotangent - adapter.sum(p * cotangent, of_class, keepdims=True))

    return Reading(adapter.sum(p, axis, keepdims=True), mask=read), pullback


# First spikes --------------------------------------------------------------------------------

# For spikes from 0 to 1, ``S[t] = (1 - s[0]) ... (1 - s[t])`` is the survival: 1 before the first
# spike of a binary train and 0 from it on. The latency is its sum over the steps that count. It is
# linear in each single spike, so its derivative is the effect of adding or removing that spike.


def latency(adapter: Adapter, spikes: Array, mask: Array | None, axis: int) -> Read:
    """Read the latency of the first spike, in steps that count, of spikes from 0 to 1.

    A silent neuron has the longest duration of its sample, which is `saturated`, so that a neuron
    with fewer unmasked steps is not early.
    """
    xp = adapter.xp
    factors = 1 - spikes
    if mask is None:
        total, _, to_factors = adapter.survival_sum(factors, None, axis)
        reading = Reading(total, saturated=spikes.shape[axis])
        return reading, lambda cotangent: to_factors(-cotangent, xp.zeros_like(cotangent))

    weight = xp.astype(mask, spikes.dtype)
    duration = xp.sum(weight, axis=axis, keepdims=True)
    longest = xp.max(duration, axis=class_axis(axis), keepdims=True)
    lacking = longest - duration
    total, silence, to_factors = adapter.survival_sum(factors, weight, axis)
    reading = Reading(total + lacking * silence, saturated=longest, mask=duration > 0)
    return reading, lambda cotangent: to_factors(-cotangent, -cotangent * lacking)


def probabilities(adapter: Adapter, spikes: Array) -> ValueAndPullback:
    """Return spikes between 0 and 1: several in one step count as one.

    Negative ones raise if their values are concrete; else they become NaN. By selection, because
    libraries differ in the derivative of a minimum at 1; here it is that of the spikes below.
    """
    xp, known = adapter.xp, adapter.concrete_or_none(spikes)
    lowest = lowest_below(known, 0)
    if lowest is not None:
        raise ValueError(
            "input must have no spike below 0 with a latency: a spike is read as the "
            f"probability to fire. Got {lowest:g}"
        )
    if known is not None and known.size:
        if known.max() <= 1:  # not if any is NaN
            return spikes, lambda cotangent: cotangent
        several = known[(known > 1.0001) & (known < math.inf)]  # a probability may be rounded
        fractions = several[several % 1 != 0]
        if fractions.size:
            raise ValueError(
                "input must hold spikes with a latency, and a number of spikes in a step is an "
                f"integer. Got {fractions[0]:g}: spike times become spikes with bin_spikes"
            )
    limited = xp.where(spikes > 1, 1 + 0 * spikes, spikes)  # infinity becomes NaN
    if known is None:
        limited = xp.where(spikes < 0, math.nan, limited)
    inside = ~((spikes > 1) | (spikes < 0))
    return limited, lambda cotangent: xp.where(inside, cotangent, 0.0)


# At each step or over all of time; the criterion takes the root of a count. And over all of time.
WINDOWED: dict[str, Any] = {"rate": rate, "count": count, "sqrt_count": count}
OVER_ALL_TIME: dict[str, Any] = {"max": highest, "last": last}
WHOLE: dict[str, Any] = {**OVER_ALL_TIME, "softmax_sum": softmax_sum}
