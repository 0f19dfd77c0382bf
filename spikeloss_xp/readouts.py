"""Readouts: functions that compute a quantity, such as a spike count, for each neuron or class.

A readout takes spike trains and returns ``(reading, pullback)``, where ``reading.u`` is the
computed quantity. The pullback takes the derivative of the loss with respect to ``reading.u``, and
returns the derivative with respect to the spikes. If a readout is linear, its pullback is its
adjoint.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from spikeloss_xp._arrays import Adapter, at_least_one, or_one
from spikeloss_xp._checks import lowest_below
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._typing import Array, Pullback, ValueAndPullback

ReadResult: TypeAlias = tuple[Reading, Pullback]  # a reading and its pullback


def identity(cotangent: Array) -> Array:
    """Return `cotangent` unchanged.

    This function is the pullback of a readout that returns its input.
    """
    return cotangent


def count(trains: Trains, window: int | None = None) -> ReadResult:
    """Compute ``n = sum_t s[t]`` or, with a window, ``n[t] = sum(s[t - k] for k < W)``."""
    spikes, mask = trains.values, trains.mask
    time, classes = trains.time, trains.classes
    adapter, xp = trains.adapter, trains.xp
    if window == 1:
        return Reading(spikes, classes, adapter, xp, 1.0, 1, spikes, 1, mask), identity
    if window is not None:
        counts = adapter.moving_sum(spikes, window, time.index)
        reading = Reading(counts, classes, adapter, xp, 1.0, window, counts, window, mask)
        # The adjoint of a moving sum is a moving sum in reverse time.
        return reading, partial(adapter.moving_sum, window=window, axis=time.index, reverse=True)

    steps, unmasked = spikes.shape[time.index], None
    if mask is None:
        counts, duration = time.sum(spikes), steps
    else:
        factor = trains.factor(mask)
        counts = adapter.masked_sum(time.index, spikes, factor)
        duration = adapter.number(factor, spikes.dtype, time.index)
        # If all classes have the same mask, and each sample has at least one unmasked step, then no
        # reading is masked.
        if classes.length(duration) > 1 or not adapter.are_within(duration, 1, math.inf):
            unmasked = duration > 0
    reading = Reading(counts, classes, adapter, xp, 1.0, duration, counts, duration, unmasked)
    if mask is not None:
        # The result of the pullback has no time axis yet. It gets a time axis when the caller
        # multiplies it by the mask.
        return reading, lambda cotangent: cotangent
    return reading, lambda cotangent: time.spread(cotangent, steps)


def rate(trains: Trains, window: int | None = None) -> ReadResult:
    """Compute ``r = mean_t s[t]`` or, with a window, ``r[t] = sum(s[t - k] for k < W) / W``."""
    counted, to_spikes = count(trains, window)
    duration = counted.saturated
    if window == 1:
        return counted, to_spikes
    if counted.mask is not None and window is None:
        duration = at_least_one(trains.adapter, duration)
    reading = counted._replace(u=counted.u / duration, per_unit=duration, saturated=1.0)
    return reading, lambda cotangent: to_spikes(cotangent / duration)


def highest(trains: Trains) -> ReadResult:
    """Compute ``max_t s[t]``.

    If several time steps reach the maximum, these steps share the gradient equally.
    """
    spikes, mask, time = trains.values, trains.mask, trains.time
    xp = trains.xp
    unmasked = spikes if mask is None else xp.where(mask, spikes, -math.inf)
    peak = time.max(unmasked)

    def pullback(cotangent: Array) -> Array:
        reached = xp.astype(unmasked == peak, unmasked.dtype)
        # If the maximum is NaN, no step is equal to the maximum, so the divisor is limited to at
        # least 1.
        one = time.adapter.scalar(unmasked, 1.0)
        return cotangent * reached / xp.maximum(time.sum(reached), one)

    reading = trains.reading(peak)
    if mask is not None:
        reading = reading._replace(u=xp.where(reading.mask, peak, 0.0))
    return reading, pullback


def last(trains: Trains) -> ReadResult:
    """Return the value of each neuron at its last unmasked time step."""
    spikes, mask, time = trains.values, trains.mask, trains.time
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
    name: str,
    window: int | None = None,
    classes: int | None = None,
    *,
    summed: bool = False,
    masked_later: bool = False,
) -> ReadResult:
    """Apply the readout called `name` to each class.

    A class is a single neuron or, if `classes` is given, a group of neighbouring neurons. The
    readout is applied to the mean over the neurons of a class. If `summed` is True, however, spike
    counts are summed over the neurons of a class. If `masked_later` is True, the caller must set
    masked terms and their gradient to 0.
    """
    readout = READOUTS[name]
    if classes is None and readout.windowed:
        unfilled = window is None or (window == 1 and masked_later)
        each: ReadResult = readout.read(trains if unfilled else trains.filled(), window)
        return each
    trains = trains.filled()
    read = partial(readout.read, window=window) if readout.windowed else readout.read
    options = {"proportional": readout.proportional, "summed": summed and readout.extensive}
    if readout.convert is not None:
        spikes, to_input = readout.convert(trains.adapter, trains.values)
        reading, to_spikes = read_groups(trains.part(spikes, trains.mask), classes, read, **options)
        return reading, lambda cotangent: to_input(to_spikes(cotangent))
    reading, pullback = read_groups(trains, classes, read, **options)
    if classes is not None:
        size = trains.classes.length(trains.values) // classes
        reading = reading._replace(duration=reading.duration * size)
    return reading, pullback


def own_reading(loss: Any, trains: Trains) -> ReadResult:
    """Return the result of ``loss.read`` after checking its shape.

    The returned pullback broadcasts its argument to the shape of the reading, and its result to the
    shape of the trains.
    """
    reading, to_values = loss.read(trains)
    if to_values is identity:
        return reading, identity
    given, each = tuple(reading.u.shape), tuple(trains.values.shape)
    time, xp = trains.time.index, trains.xp
    once = (*each[:time], 1, *each[time + 1 :])
    if given not in (once, each):
        raise ValueError(
            f"read of {type(loss).__name__} must return readings of shape {once} or, with a "
            f"reading at each step, {each}; got {given}"
        )

    def pullback(cotangent: Array) -> Array:
        return xp.broadcast_to(to_values(xp.broadcast_to(cotangent, given)), each)

    return reading, pullback


def read_groups(
    trains: Trains,
    classes: int | None,
    read: Callable[[Trains], ReadResult],
    *,
    proportional: bool = False,
    summed: bool = False,
) -> ReadResult:
    """Apply the readout `read` to the mean over the neurons of each class.

    Pass ``proportional=True`` only if scaling the trains scales the result of `read` by the same
    factor. If `proportional` is True, `read` is applied to the sum over the neurons, and the result
    is divided by the number of neurons. Dividing the spikes before applying `read` would round each
    value, and the rounding could break ties.

    If `summed` is True, the mean is multiplied by the number of neurons of a class, which gives the
    sum over the neurons if no neuron is masked.
    """
    if classes is None:
        return read(trains)
    spikes, mask = trains.values, trains.mask
    time, axis = trains.time, trains.classes
    xp, of_class, size = trains.xp, axis.index, axis.length(spikes) // classes
    shape = (*spikes.shape[:of_class], classes, size, *spikes.shape[of_class + 1 :])
    total = xp.sum(xp.reshape(spikes, shape), axis=of_class + 1)

    def to_neurons(cotangent: Array) -> Array:
        return xp.repeat(cotangent, size, axis=of_class)

    divisor: Any = size
    if mask is not None and axis.length(mask) > 1:
        members = xp.reshape(mask, shape)
        number = trains.adapter.number(members, spikes.dtype, of_class + 1)
        divisor = at_least_one(trains.adapter, xp.squeeze(number, axis=of_class + 1))
        mask = xp.any(members, axis=of_class + 1)
    elif proportional:
        reading, to_total = read(trains.part(total, mask))
        if summed:
            return reading, lambda cotangent: to_neurons(to_total(cotangent))
        reading = _mean_of_neurons(reading, size)
        return reading, lambda cotangent: to_neurons(to_total(cotangent / size))

    scale, number = size if summed else 1, divisor
    of_groups = trains.part(total * scale / divisor, mask)
    reading, to_mean = read(of_groups)
    if not isinstance(divisor, int) and time.length(reading.u) == 1:
        number = time.max(divisor)
    counts = None if reading.counts is None else reading.counts * number
    reading = reading._replace(per_unit=reading.per_unit * number, counts=counts)
    return reading, lambda cotangent: to_neurons(to_mean(cotangent) * scale / divisor)


def _mean_of_neurons(reading: Reading, size: int) -> Reading:
    """Divide the result of a readout, a sum over neurons, by the number of neurons.

    A rate is computed from counts by a single division, because two divisions would round twice.
    """
    divisor = reading.per_unit * size
    u = reading.u / size if reading.counts is None else reading.counts / divisor
    return reading._replace(u=u, per_unit=divisor)


def softmax_sum(trains: Trains) -> ReadResult:
    """Compute ``sum_t p[t]``, where ``p[t]`` is the softmax over the unmasked classes at step t."""
    spikes, mask = trains.values, trains.mask
    time, classes = trains.time, trains.classes
    xp = trains.xp
    logit = spikes if mask is None else xp.where(mask, spikes, -math.inf)
    highest = classes.max(logit)
    if mask is not None:
        highest = xp.where(classes.any(mask), highest, 0.0)
    weight = xp.exp(logit - highest)
    total = classes.sum(weight)
    p = weight / (total if mask is None else or_one(time.adapter, total))

    def pullback(cotangent: Array) -> Array:
        return p * (cotangent - classes.sum(p * cotangent))

    return trains.reading(time.sum(p)), pullback


# First spikes --------------------------------------------------------------------------------

# For spike values between 0 and 1, ``S[t] = (1 - s[0]) ... (1 - s[t])`` is the survival function.
# For a binary train, the survival function is 1 before the first spike and 0 from the first spike
# on. The latency is the sum of the survival function over the unmasked steps.


def latency(trains: Trains) -> ReadResult:
    """Compute the number of unmasked time steps before the first spike of each neuron.

    Spikes must be between 0 and 1. The latency of a silent neuron is the largest number of unmasked
    steps of any neuron in the sample. A silent neuron with few unmasked steps therefore does not
    seem to fire early. ``reading.saturated`` is the latency of a silent neuron.
    """
    spikes, mask = trains.values, trains.mask
    time, classes = trains.time, trains.classes
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
    """Return the spikes, limited to 1 so that several spikes in one step count as one spike.

    Negative values raise an error if `spikes` is on the CPU. On a GPU and in traced functions,
    negative values become NaN. The values are limited with ``where``, because libraries define the
    derivative of ``min(s, 1)`` at 1 differently.
    """
    xp, known = adapter.xp, adapter.concrete_or_none(spikes)
    lowest = lowest_below(known, 0)
    if lowest is not None:
        raise ValueError(
            "input must not have negative values for first-spike latencies, because each value is "
            f"the probability of a spike; got {lowest:g}"
        )
    if known is not None and known.size:
        if known.max() <= 1:  # this comparison is False if any value is NaN
            return spikes, lambda cotangent: cotangent
        # Rounding errors may make probabilities slightly larger than 1.
        several = known[(known > 1.0001) & (known < math.inf)]
        fractions = several[several % 1 != 0]
        if fractions.size:
            raise ValueError(
                "input must hold spikes for first-spike latencies, and values above 1 must be "
                f"whole numbers of spikes; got {fractions[0]:g}: if these are spike times, use a "
                "loss of spikeloss_xp.times, or convert them with bin_spikes"
            )
    above, below = spikes > 1, spikes < 0
    limited = xp.where(above, 1 + 0 * spikes, spikes)  # for infinity, 0 * spikes is NaN
    if known is None:
        limited = xp.where(below, adapter.operand(spikes, math.nan), limited)
    outside = above | below
    zero = adapter.operand(spikes, 0.0)
    return limited, lambda cotangent: xp.where(outside, zero, cotangent)


class Readout(NamedTuple):
    """The description of a quantity that a loss can compute for each class, such as a spike count.

    Attributes
    ----------
    name : str
        The value of the option `readout`.
    read : callable
        The function that computes the quantity from trains. If `windowed` is True, the function
        takes the option `window`.
    windowed : bool
        Whether the readout supports a moving window.
    of_spikes : bool
        Whether the readout is meant only for spikes.
    proportional : bool
        Whether scaling the trains scales the quantity by the same factor.
    extensive : bool
        Whether `CrossEntropy` applies the readout to the sum over the neurons of a class.
    convert : callable or None
        A function that is applied to the spikes of each neuron before the readout is applied.
    """

    name: str
    read: Any
    windowed: bool = False
    of_spikes: bool = False
    proportional: bool = True
    extensive: bool = False
    convert: Any = None


# To add a readout, write a function like `highest`. The function receives trains whose masked
# entries are 0. These entries must not affect the result, even if all unmasked potentials are
# negative. `trains.mask` may be None, and its class axis may have length 1. Add the name of the
# readout to `READOUTS`, to `EntropyReadout`, to the docstring of `CrossEntropy`, to docs/losses.md,
# and to `ENTROPY_READOUTS` in tests/_support/contract.py. Add the formula to
# tests/_support/reference.py. Also add a readout that is not differentiable everywhere to `_spikes`
# and `_is_smooth` in tests/_support/random_calls.py. The tests in tests/contract fail if one of
# these steps is missing.
READOUTS = {
    each.name: each
    for each in (
        Readout("count", count, windowed=True, of_spikes=True, extensive=True),
        # `CrossEntropy` takes the square root of the count.
        Readout("sqrt_count", count, windowed=True, of_spikes=True, extensive=True),
        Readout("rate", rate, windowed=True, of_spikes=True),
        Readout("max", highest),
        Readout("last", last),
        Readout("latency", latency, of_spikes=True, proportional=False, convert=probabilities),
        Readout("softmax_sum", softmax_sum, proportional=False),
    )
}
