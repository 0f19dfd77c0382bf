"""Readouts: the quantities that a loss reads from spikes, for each neuron and each class.

A readout takes trains and returns ``(reading, pullback)``. The pullback takes the derivative of the
loss with respect to the reading to the derivative with respect to the spikes, and stands next to
the operation. For a linear readout it is the adjoint; only the maximum is not linear. Libraries
with automatic differentiation do not run the pullback, unless the loss is one node of their graph.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from spikeloss_xp._arrays import Adapter, or_one
from spikeloss_xp._checks import lowest_below
from spikeloss_xp._input.pixels import Pixels
from spikeloss_xp._input.prepared import Prepared
from spikeloss_xp._typing import Array, Namespace, PerClass, Pullback, ValueAndPullback
from spikeloss_xp.backends.base import Axis


class Trains(NamedTuple):
    """Spike trains with the axes batch, class and time, in the order of the input.

    Attributes
    ----------
    values : array
        The spikes, 0 where they are masked.
    mask : array or None
        True for unmasked entries, with the same axes, of which class may have length 1. None if
        nothing is masked.
    time, classes : Axis
        The axes along which to compute: ``time.sum(values)`` is the number of spikes.
    """

    values: Array
    mask: Array | None
    time: Axis
    classes: Axis

    @classmethod
    def of(cls, prepared: Prepared, values: Array, mask: Array | None) -> "Trains":
        """Return the trains of a prepared input, or of a chunk of it."""
        adapter = prepared.adapter
        layout = prepared.layout if prepared.pixels is None else prepared.pixels.source
        return cls(values, mask, adapter.axes[layout.time], adapter.axes[layout.class_axis])

    @property
    def adapter(self) -> Adapter:
        """The adapter of the library of the spikes."""
        return self.time.adapter

    @property
    def xp(self) -> Namespace:
        """The array API namespace of the spikes."""
        return self.time.adapter.xp

    def reading(self, u: Array, **units: Any) -> "Reading":
        """Return readings of these trains, masked where all of their steps are masked.

        Readings keep the axes of the trains. Time has length 1, or there is a reading at each step.
        """
        mask, time = self.mask, self.time
        if mask is not None and time.length(u) == 1:
            mask = time.any(mask)
        return Reading(u, self.classes, mask=mask, **units)


class Reading(NamedTuple):
    """The readings of a batch, and their units.

    Attributes
    ----------
    u : array
        The readings, with the axes batch, class and time in the order of the input. Time has
        length 1 unless there is a reading at each step.
    classes : Axis
        The axis of the classes: ``classes.sum(u)`` is the sum of the readings of a sample.
    per_unit : float or array
        The number of spikes that adds 1 to `u`, by which `counts` is divided.
    saturated : float or array
        The reading of a neuron that fires at every step.
    counts : array or None
        The sums of spikes that `u` is computed from, for comparisons that must not depend on
        rounding. None if `u` is neither a count nor a rate.
    duration : float or array
        The number of steps that a count or rate is read from, added up over the neurons of a class.
    mask : array or None
        True for the readings of which any entry is unmasked; its class axis may have length 1.
        None if nothing is masked.
    class_mask : array or None
        In a loss whose classes compete for one term, True for the classes that take part, with the
        axes of `u`. None if all classes take part.
    """

    u: Array
    classes: Axis
    per_unit: Any = 1.0
    saturated: Any = 1.0
    counts: Array | None = None
    duration: Any = 1.0
    mask: Array | None = None
    class_mask: Array | None = None

    @property
    def adapter(self) -> Adapter:
        """The adapter of the library of the readings."""
        return self.classes.adapter

    @property
    def xp(self) -> Namespace:
        """The array API namespace of the readings."""
        return self.classes.adapter.xp

    def per_class(self, values: PerClass) -> Any:
        """Return a number as it is, and one for each class as an array that broadcasts to `u`."""
        if not isinstance(values, tuple):
            return values
        numbers = self.classes.adapter.constants(values, self.u)
        return self.xp.reshape(numbers, (1, -1, 1) if self.classes.index == 1 else (1, 1, -1))

    def shielded(self, mask: Array) -> "Reading":
        """Return readings whose terms and derivatives are finite in every criterion where masked.

        A reading of 1 is in the range of each criterion. Masked counts become infinite, so that no
        spike seems to be missing.
        """
        adapter = self.classes.adapter
        counts = None if self.counts is None else adapter.shielded(self.counts, mask, math.inf)
        return self._replace(u=adapter.shielded(self.u, mask, 1.0), counts=counts)


ReadResult: TypeAlias = tuple[Reading, Pullback]  # the result of a readout
Readout: TypeAlias = Callable[[Trains], ReadResult]


def count(trains: Trains, window: int | None = None) -> ReadResult:
    """Read ``n = sum_t s[t]``, or with a window ``n[t] = sum(s[t - k] for k < W)``."""
    spikes, mask, time, classes = trains
    adapter = time.adapter
    if window is not None:
        counts = adapter.moving_sum(spikes, window, time.index)
        reading = Reading(counts, classes, 1.0, window, counts, window, mask)
        # A spike at t is counted in the windows at t, ..., t + W - 1, so the adjoint sums their
        # cotangents. At the boundary it sums fewer: there is no window after the last step.
        return reading, partial(adapter.moving_sum, window=window, axis=time.index, reverse=True)

    steps, unmasked = spikes.shape[time.index], None
    counts, duration = time.sum(spikes), steps
    if mask is not None:
        duration = time.sum(adapter.xp.astype(mask, spikes.dtype))
        unmasked = duration > 0
    reading = Reading(counts, classes, 1.0, duration, counts, duration, unmasked)
    return reading, lambda cotangent: time.spread(cotangent, steps)  # each step adds 1


def rate(trains: Trains, window: int | None = None) -> ReadResult:
    """Read ``r = mean_t s[t]``, or with a window ``r[t] = sum(s[t - k] for k < W) / W``."""
    counted, to_spikes = count(trains, window)
    duration = counted.saturated
    if window == 1:
        return counted, to_spikes
    if trains.mask is not None and window is None:
        duration = or_one(trains.adapter, duration)
    reading = counted._replace(u=counted.u / duration, per_unit=duration, saturated=1.0)
    return reading, lambda cotangent: to_spikes(cotangent / duration)


def highest(trains: Trains) -> ReadResult:
    """Read ``max_t s[t]``; the steps that reach the maximum share its gradient."""
    spikes, mask, time, _ = trains
    xp = trains.xp
    unmasked = spikes if mask is None else xp.where(mask, spikes, -math.inf)
    peak = time.max(unmasked)

    def pullback(cotangent: Array) -> Array:
        reached = xp.astype(unmasked == peak, unmasked.dtype)
        one = time.adapter.scalar(unmasked, 1.0)  # NaN does not equal any peak
        return cotangent * reached / xp.maximum(time.sum(reached), one)

    reading = trains.reading(peak)
    if mask is not None:
        reading = reading._replace(u=xp.where(reading.mask, peak, 0.0))
    return reading, pullback


def last(trains: Trains) -> ReadResult:
    """Read the last unmasked step."""
    spikes, mask, time, _ = trains
    xp, steps, step = trains.xp, time.length(spikes), time.positions(spikes)
    if mask is None:
        chosen = step == steps - 1
        u = spikes[(*(slice(None) for _ in range(time.index)), slice(steps - 1, steps), ...)]
    else:
        step = xp.where(mask, step, -1)
        chosen = mask & (step == time.max(step))
        u = xp.sum(xp.where(chosen, spikes, 0.0), axis=time.index, keepdims=True)

    def pullback(cotangent: Array) -> Array:
        return xp.where(chosen, cotangent, time.adapter.scalar(spikes, 0.0))

    return trains.reading(u), pullback


# Classes -------------------------------------------------------------------------------------


def read_classes(
    trains: Trains,
    readout: str,
    window: int | None = None,
    classes: int | None = None,
    summed: tuple[str, ...] = (),
) -> ReadResult:
    """Read each class by a readout: a neuron or, with `classes`, a group of neighbouring neurons.

    A group is read as the sum of its neurons if the readout is in `summed`, and else as their mean.
    """
    if classes is None and readout in WINDOWED:
        each: ReadResult = WINDOWED[readout](trains, window)
        return each
    if readout == "latency":
        spikes, to_input = probabilities(trains.adapter, trains.values)
        reading, to_spikes = read_groups(trains._replace(values=spikes), classes, latency)
        return reading, lambda cotangent: to_input(to_spikes(cotangent))
    read = partial(WINDOWED[readout], window=window) if readout in WINDOWED else WHOLE[readout]
    options = {"proportional": readout != "softmax_sum", "summed": readout in summed}
    reading, pullback = read_groups(trains, classes, read, **options)
    if classes is not None:
        size = trains.classes.length(trains.values) // classes
        reading = reading._replace(duration=reading.duration * size)
    return reading, pullback


def own_reading(loss: Any, trains: Trains) -> ReadResult:
    """Return the result of ``loss.read``, whose pullback need not broadcast."""
    reading, to_values = loss.read(trains)
    given, each = tuple(reading.u.shape), tuple(trains.values.shape)
    time, xp = trains.time.index, trains.xp
    once = (*each[:time], 1, *each[time + 1 :])
    if given not in (once, each):
        raise ValueError(
            f"read of {type(loss).__name__} must return readings of shape {once}, or {each} with a "
            f"reading at each step; got {given}"
        )

    def pullback(cotangent: Array) -> Array:
        return xp.broadcast_to(to_values(xp.broadcast_to(cotangent, given)), each)

    return reading, pullback


def read_groups(
    trains: Trains,
    classes: int | None,
    read: Readout,
    *,
    proportional: bool = False,
    summed: bool = False,
) -> ReadResult:
    """Read the mean of the neurons of each class; without `classes`, each neuron is a class.

    If the readings of `read` are `proportional` to the trains, the sum of the neurons is read and
    divided by their number. Sum first and divide once: dividing the spikes first rounds, and
    rounding would break ties. If single neurons are masked, the number of unmasked neurons differs
    between steps, and the mean of each step is read instead. With `summed`, the reading is the mean
    times the number of neurons in a class, which is their sum if none is masked.
    """
    if classes is None:
        return read(trains)
    spikes, mask, time, axis = trains
    xp, of_class = trains.xp, axis.index
    size = axis.length(spikes) // classes
    shape = (*spikes.shape[:of_class], classes, size, *spikes.shape[of_class + 1 :])
    total = xp.sum(xp.reshape(spikes, shape), axis=of_class + 1)

    def to_neurons(cotangent: Array) -> Array:  # each neuron has an equal share in the sum
        return xp.repeat(cotangent, size, axis=of_class)

    divisor: Any = size
    if mask is not None and axis.length(mask) > 1:
        members = xp.reshape(mask, shape)
        divisor = or_one(
            trains.adapter, xp.sum(xp.astype(members, spikes.dtype), axis=of_class + 1)
        )
        mask = xp.any(members, axis=of_class + 1)
    elif proportional:
        reading, to_total = read(trains._replace(values=total))
        if summed:
            return reading, lambda cotangent: to_neurons(to_total(cotangent))
        reading = _mean_of_neurons(reading, size)
        return reading, lambda cotangent: to_neurons(to_total(cotangent / size))

    scale, number = size if summed else 1, divisor
    reading, to_mean = read(trains._replace(values=total * scale / divisor, mask=mask))
    if not isinstance(divisor, int) and time.length(reading.u) == 1:  # the largest of any step
        number = time.max(divisor)
    counts = None if reading.counts is None else reading.counts * number
    reading = reading._replace(per_unit=reading.per_unit * number, counts=counts)
    return reading, lambda cotangent: to_neurons(to_mean(cotangent) * scale / divisor)


def _mean_of_neurons(reading: Reading, size: int) -> Reading:
    """Return the reading of a sum of neurons as the reading of their mean.

    Counts are divided only once: a second rounding would move rates across a threshold.
    """
    divisor = reading.per_unit * size
    u = reading.u / size if reading.counts is None else reading.counts / divisor
    return reading._replace(u=u, per_unit=divisor)


def softmax_sum(trains: Trains) -> ReadResult:
    """Read ``sum_t p[t]``, where ``p[t]`` is the softmax over the classes unmasked at step t."""
    spikes, mask, time, classes = trains
    xp = trains.xp
    logit = spikes if mask is None else xp.where(mask, spikes, -math.inf)
    highest = classes.max(logit)  # subtracted against overflow; it cancels
    if mask is not None:
        highest = xp.where(classes.any(mask), highest, 0.0)
    weight = xp.exp(logit - highest)
    total = classes.sum(weight)
    p = weight / (total if mask is None else or_one(time.adapter, total))

    def pullback(cotangent: Array) -> Array:
        return p * (cotangent - classes.sum(p * cotangent))

    return trains.reading(time.sum(p)), pullback


# Pixels --------------------------------------------------------------------------------------


def trains_of_pixels(pixels: Pixels, trains: Trains) -> Trains:
    """Return trains as a batch in which each pixel is a sample, with time last."""
    adapter = trains.adapter
    values, mask = (pixels.samples(adapter, x) for x in (trains.values, trains.mask))
    return Trains(values, mask, adapter.axes[2], adapter.axes[1])


def reading_of_pixels(pixels: Pixels, reading: Reading) -> Reading:
    """Return the readings of neurons as a batch in which each pixel is a sample."""
    adapter = reading.adapter

    def arranged(x: Any) -> Any:  # without a mask, a unit is the same number for all
        is_number = reading.mask is None or isinstance(x, int | float)
        return x if is_number else pixels.samples(adapter, x)

    u, counts, mask = (
        pixels.samples(adapter, x) for x in (reading.u, reading.counts, reading.mask)
    )
    per_unit, saturated = arranged(reading.per_unit), arranged(reading.saturated)
    classes, duration = adapter.axes[1], arranged(reading.duration)
    return Reading(u, classes, per_unit, saturated, counts, duration, mask)


# First spikes --------------------------------------------------------------------------------

# For spikes from 0 to 1, ``S[t] = (1 - s[0]) ... (1 - s[t])`` is the survival: 1 before the first
# spike of a binary train and 0 from it on. The latency is its sum over the unmasked steps. It is
# linear in each single spike, so its derivative is the effect of adding or removing that spike.


def latency(trains: Trains) -> ReadResult:
    """Read the latency of the first spike, in unmasked steps, of spikes from 0 to 1.

    The latency of a silent neuron is the longest duration in its sample, which is `saturated`, so
    that a neuron with fewer unmasked steps does not seem early.
    """
    spikes, mask, time, classes = trains
    adapter, xp = trains.adapter, trains.xp
    factors = 1 - spikes
    if mask is None:
        total, _, to_factors = adapter.survival_sum(factors, None, time.index)
        reading = trains.reading(total, saturated=time.length(spikes))
        return reading, lambda cotangent: to_factors(-cotangent, xp.zeros_like(cotangent))

    weight = xp.astype(mask, spikes.dtype)
    duration = time.sum(weight)
    longest = classes.max(duration)
    lacking = longest - duration
    total, silence, to_factors = adapter.survival_sum(factors, weight, time.index)
    reading = trains.reading(total + lacking * silence, saturated=longest)
    return reading, lambda cotangent: to_factors(-cotangent, -cotangent * lacking)


def probabilities(adapter: Adapter, spikes: Array) -> ValueAndPullback:
    """Return spikes between 0 and 1: several spikes in one step count as one.

    Negative spikes raise if their values are concrete, and become NaN otherwise. The spikes are
    selected, because libraries differ in the derivative of a minimum at 1. Here the derivative is
    the same as below 1.
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
                f"integer. Got {fractions[0]:g}: bin_spikes converts spike times to spikes"
            )
    limited = xp.where(spikes > 1, 1 + 0 * spikes, spikes)  # infinity becomes NaN
    if known is None:
        limited = xp.where(spikes < 0, math.nan, limited)
    inside = ~((spikes > 1) | (spikes < 0))
    return limited, lambda cotangent: xp.where(inside, cotangent, 0.0)


# The readouts that may have a window, and those over all of time. The criterion takes the square
# root of a count.
WINDOWED: dict[str, Any] = {"rate": rate, "count": count, "sqrt_count": count}
OVER_ALL_TIME: dict[str, Any] = {"max": highest, "last": last}
WHOLE: dict[str, Any] = {**OVER_ALL_TIME, "softmax_sum": softmax_sum}
