"""Readouts: the quantities that a loss reads from spikes, of neurons and of classes.

A readout returns ``(reading, pullback)``. The pullback takes the derivative of the loss with
respect to the reading to the derivative with respect to the spikes. It stands beside the operation.
That of a linear readout is its adjoint; the maximum and the mean magnitude are not linear.
Libraries with automatic differentiation do not run it, unless they evaluate in chunks.

Spikes have the axes batch, class and time, in the order of the input, with time at `axis`. They are
0 where they are masked. The mask has the same axes, the class axis perhaps of length 1, or is None
if all entries count. Readings keep these axes; without a reading at each step time has length 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from spikeloss_xp._arrays import Adapter, asarray_like, or_one, sign
from spikeloss_xp._input.layout import class_axis
from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Pullback


class Reading(NamedTuple):
    """The readings of a batch, and their units.

    Attributes
    ----------
    u : array
        The readings: batch, class and time in the order of the input, time of length 1 unless there
        is a reading at each step.
    divisor : float or array
        The number of spikes that adds 1 to `u`, by which `counts` is divided.
    max_reading : float or array
        The reading of a neuron that fires at every step.
    counts : array or None
        The sums of spikes that `u` is computed from, with its axes, for comparisons that rounding
        must not decide. None if `u` is no count and no rate.
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
    divisor: Any = 1.0
    max_reading: Any = 1.0
    counts: Array | None = None
    mask: Array | None = None
    class_mask: Array | None = None
    time_axis: int = 2
    class_axis: int = 1


ReadingAndPullback: TypeAlias = tuple[Reading, Pullback]


def count(
    adapter: Adapter,
    spikes: Array,
    moving_window: int | None,
    mask: Array | None = None,
    *,
    axis: int,
) -> ReadingAndPullback:
    """Read ``n = sum_t s[t]``, or with a window ``n[t] = sum(s[t - k] for k < W)``."""
    if moving_window is not None:
        return _moving_count(adapter, spikes, moving_window, mask, axis)

    steps = spikes.shape[axis]

    def pullback(cotangent: Array) -> Array:
        return adapter.spread(cotangent, steps, axis)  # each step adds 1

    counts = adapter.sum(spikes, axis, keepdims=True)
    if mask is None:
        return Reading(counts, 1.0, steps, counts), pullback
    duration = adapter.xp.sum(adapter.xp.astype(mask, spikes.dtype), axis=axis, keepdims=True)
    return Reading(counts, 1.0, duration, counts, duration > 0), pullback


def _moving_count(
    adapter: Adapter, spikes: Array, window: int, mask: Array | None, axis: int
) -> ReadingAndPullback:
    counts = adapter.moving_sum(spikes, window, axis)
    reading = Reading(counts, 1.0, window, counts, mask)
    # A spike at t counts in the windows at t, ..., t + W - 1. The adjoint sums their cotangents,
    # of fewer windows at the boundary: there is none after the last step.
    return reading, lambda cotangent: adapter.moving_sum(cotangent, window, axis, reverse=True)


def rate(
    adapter: Adapter,
    spikes: Array,
    moving_window: int | None,
    mask: Array | None = None,
    *,
    axis: int,
) -> ReadingAndPullback:
    """Read ``r = mean_t s[t]``, or with a window ``r[t] = sum(s[t - k] for k < W) / W``."""
    counted, to_spikes = count(adapter, spikes, moving_window, mask, axis=axis)
    duration = counted.max_reading
    if mask is not None and moving_window is None:
        duration = or_one(adapter, duration)
    elif moving_window == 1:
        return counted, to_spikes
    reading = Reading(counted.u / duration, duration, 1.0, counted.u, counted.mask)
    return reading, lambda cotangent: to_spikes(cotangent / duration)


def highest(
    adapter: Adapter, spikes: Array, mask: Array | None = None, *, axis: int
) -> ReadingAndPullback:
    """Read ``max_t s[t]``; the steps that reach the maximum share its gradient."""
    xp = adapter.xp
    unmasked, read = spikes, None
    if mask is not None:
        unmasked = xp.where(mask, spikes, -math.inf)
        read = xp.any(mask, axis=axis, keepdims=True)
    peak = xp.max(unmasked, axis=axis, keepdims=True)

    def pullback(cotangent: Array) -> Array:
        reached = xp.astype(unmasked == peak, unmasked.dtype)
        one = adapter.constant(unmasked, 1.0)  # a NaN is not equal to any peak
        sharing = xp.maximum(xp.sum(reached, axis=axis, keepdims=True), one)
        return cotangent * reached / sharing

    return Reading(peak if read is None else xp.where(read, peak, 0.0), mask=read), pullback


def last(
    adapter: Adapter, spikes: Array, mask: Array | None = None, *, axis: int
) -> ReadingAndPullback:
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
        return xp.where(chosen, cotangent, adapter.constant(spikes, 0.0))

    return Reading(u, mask=read), pullback


# Over all of time, or at each step. The criterion takes the root of a count.
WINDOWED = {"rate": rate, "count": count, "sqrt_count": count}
OVER_ALL_TIME = {"max": highest, "last": last}


def trace(
    adapter: Adapter, spikes: Array, kernel: Any, axis: int, mask: Array | None = None
) -> ReadingAndPullback:
    """Read ``e[t] = sum(h[k] * s[t - k] for k)``, along any axis."""
    if isinstance(kernel, tuple) and not isinstance(kernel, Exponential):
        steps = spikes.shape[axis]  # later taps meet no spike
        kernel = kernel if len(kernel) <= steps else kernel[:steps]
        kernel = adapter.host_constant(kernel, spikes)
    elif not isinstance(kernel, Exponential):
        kernel = asarray_like(adapter, spikes, kernel, "kernel")
        kernel = adapter.xp.astype(kernel, spikes.dtype, copy=False)
    reading = Reading(adapter.causal_filter(spikes, kernel, axis), mask=mask)
    # A spike at t appears in e[t + k] with weight h[k], so the adjoint filters against time, and
    # sums fewer cotangents at the boundary: there is no e after the last step.
    return reading, lambda cotangent: adapter.causal_filter(cotangent, kernel, axis, reverse=True)


def sum_magnitude(
    adapter: Adapter,
    x: Array,
    mask: Array | None = None,
    *,
    axes: tuple[int, ...] | None = None,
    rising: Any = False,
) -> tuple[Array, Any, Pullback]:
    """Return the sum of ``|x|``, the number of entries that count, and the pullback of the sum.

    Over some axes or, without them, all. The number is an int without a mask. As ``x * sign(x)``,
    because libraries differ in the derivative of ``abs`` at 0. Here it is 0 and, where `rising`, 1:
    the derivative in the direction of another event.
    """
    xp, summed = adapter.xp, axes or tuple(range(x.ndim))

    def total(y: Array) -> Array:
        if axes is None:
            return adapter.sum_all(y)
        for axis in reversed(axes):
            y = xp.sum(y, axis=axis)
        return y

    def spread(y: Array) -> Array:
        for axis in axes or ():
            y = xp.expand_dims(y, axis=axis)
        return y

    signs = sign(adapter, x)
    if rising is not False:
        rises = (x == 0) if rising is True else (x == 0) & spread(rising)
        signs = signs + xp.astype(rises, x.dtype)
    lacking = [i for i in summed if mask is None or mask.shape[i] != x.shape[i]]
    entries: Any = math.prod([x.shape[axis] for axis in lacking])
    if mask is not None:
        entries = total(xp.astype(mask, x.dtype)) * entries
    return total(x * signs), entries, lambda cotangent: spread(cotangent) * signs


def mean_magnitude(
    adapter: Adapter,
    x: Array,
    mask: Array | None = None,
    *,
    axes: tuple[int, ...] | None,
    rising: Any = False,
    others: Sequence[Array] | None = None,
) -> ReadingAndPullback:
    """Read the mean of ``|x|``, as `sum_magnitude` adds it up.

    With `others`, the sum and the number of entries elsewhere, the mean is over those too.
    """
    events, entries, to_x = sum_magnitude(adapter, x, mask, axes=axes, rising=rising)
    if others is not None:
        events, entries = events + others[0], others[1] + entries
    known = mask is None and others is None  # else the entries may be none
    number = entries if known else or_one(adapter, entries)
    # Each entry has an equal share in the mean.
    reading = Reading(events / number, mask=None if known else entries > 0)
    return reading, lambda cotangent: to_x(cotangent / number)


# Classes -------------------------------------------------------------------------------------


def read_groups(
    adapter: Adapter,
    spikes: Array,
    mask: Array | None,
    classes: int | None,
    read: Callable[[Adapter, Array, Array | None], ReadingAndPullback],
    *,
    axis: int,
    proportional: bool,
    summed: bool = False,
) -> ReadingAndPullback:
    """Read the mean of the neurons of each class; without `classes`, each neuron is a class.

    `read` is a readout of trains with time at `axis`. If its readings are `proportional` to the
    trains, it reads the sum of the neurons, and the reading is divided by their number: means of
    three spikes are rounded, and would decide ties. Where neurons are masked one by one, their
    number differs between steps, and the mean of each step is read. With `summed` it is times the
    number of neurons of a class, the sum where none is masked.
    """
    if classes is None:
        return read(adapter, spikes, mask)
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
        reading, to_total = read(adapter, total, mask)
        if summed:
            return reading, lambda cotangent: to_neurons(to_total(cotangent))
        reading = _mean_of_neurons(reading, size)
        return reading, lambda cotangent: to_neurons(to_total(cotangent / size))

    scale, number = size if summed else 1, divisor
    reading, to_mean = read(adapter, total * scale / divisor, mask)
    if not isinstance(divisor, int) and reading.u.shape[axis] == 1:  # the largest of any step
        number = xp.max(divisor, axis=axis, keepdims=True)
    counts = None if reading.counts is None else reading.counts * number
    reading = reading._replace(divisor=reading.divisor * number, counts=counts)
    return reading, lambda cotangent: to_neurons(to_mean(cotangent) * scale / divisor)


def _mean_of_neurons(reading: Reading, size: int) -> Reading:
    """Return the reading of a sum of neurons as that of their mean.

    Counts are divided once: a second rounding would move rates across a threshold.
    """
    divisor = reading.divisor * size
    u = reading.u / size if reading.counts is None else reading.counts / divisor
    return reading._replace(u=u, divisor=divisor)


def softmax_sum(
    adapter: Adapter, spikes: Array, mask: Array | None = None, *, axis: int
) -> ReadingAndPullback:
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


ACROSS_CLASSES = {"softmax_sum": softmax_sum}  # a class is read beside the others; not linear
