"""Readouts: the quantities that a loss reads from spikes, of neurons and of classes.

A readout returns ``(reading, pullback)``. The pullback takes the derivative of the loss with
respect to the reading to the derivative with respect to the spikes. It stands beside the operation.
That of a linear readout is its adjoint; the maximum and the mean magnitude are not linear.
Libraries with automatic differentiation do not run it, unless they evaluate in chunks.

Spikes have axes ``[batch, class, time]`` and are 0 where they are masked. The mask has the same
axes, the class axis perhaps of length 1, or is None if all entries count.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from spikeloss_xp._arrays import Adapter, asarray_like, asarray_of_dtype, or_one
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Pullback


class Reading(NamedTuple):
    """The readings of a batch, and their units.

    Attributes
    ----------
    u : array
        ``[batch, class]``, or ``[batch, class, time]`` with a reading at every step.
    per_spike : float or array
        The contribution of one spike to `u`.
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
    """

    u: Array
    per_spike: Any = 1.0
    max_reading: Any = 1.0
    counts: Array | None = None
    mask: Array | None = None
    class_mask: Array | None = None


ReadingAndPullback: TypeAlias = tuple[Reading, Pullback]


def count(
    adapter: Adapter,
    spikes: Array,
    moving_window: int | None,
    mask: Array | None = None,
    *,
    time_first: bool = False,
) -> ReadingAndPullback:
    """Read ``n = sum_t s[t]``, or with a window ``n[t] = sum(s[t - k] for k < W)``.

    If the spikes are a view of an array with time first, the window moves along that axis.
    """
    if moving_window is not None:
        return _moving_count(adapter, spikes, moving_window, mask, 0 if time_first else -1)

    steps = spikes.shape[-1]

    def pullback(cotangent: Array) -> Array:
        return adapter.repeat_last(cotangent, steps)  # each step adds 1

    counts = adapter.sum(spikes, -1)
    if mask is None:
        return Reading(counts, max_reading=steps, counts=counts), pullback
    duration = adapter.xp.sum(adapter.xp.astype(mask, spikes.dtype), axis=-1)
    return Reading(counts, max_reading=duration, counts=counts, mask=duration > 0), pullback


def _moving_count(
    adapter: Adapter, spikes: Array, window: int, mask: Array | None, axis: int
) -> ReadingAndPullback:
    def summed(x: Array, *, reverse: bool) -> Array:
        moved = adapter.moveaxis(x, -1, axis)
        return adapter.moveaxis(
            adapter.sum_along_axis(moved, window, axis, reverse=reverse), axis, -1
        )

    counts = summed(spikes, reverse=False)
    reading = Reading(counts, max_reading=window, counts=counts, mask=mask)
    # A spike at t counts in the windows at t, ..., t + W - 1. The adjoint sums their cotangents,
    # of fewer windows at the boundary: there is none after the last step.
    return reading, lambda cotangent: summed(cotangent, reverse=True)


def rate(
    adapter: Adapter,
    spikes: Array,
    moving_window: int | None,
    mask: Array | None = None,
    *,
    time_first: bool = False,
) -> ReadingAndPullback:
    """Read ``r = mean_t s[t]``, or with a window ``r[t] = sum(s[t - k] for k < W) / W``."""
    counted, to_spikes = count(adapter, spikes, moving_window, mask, time_first=time_first)
    duration = counted.max_reading
    if mask is not None and moving_window is None:
        duration = or_one(adapter, duration)
    reading = Reading(counted.u / duration, 1 / duration, 1.0, counted.u, counted.mask)
    return reading, lambda cotangent: to_spikes(cotangent / duration)


def highest(adapter: Adapter, spikes: Array, mask: Array | None = None) -> ReadingAndPullback:
    """Read ``max_t s[t]``; the steps that reach the maximum share its gradient."""
    xp = adapter.xp
    unmasked, read = spikes, None
    if mask is not None:
        unmasked, read = xp.where(mask, spikes, -math.inf), xp.any(mask, axis=-1)
    peak = xp.max(unmasked, axis=-1, keepdims=True)
    u = peak[..., 0]

    def pullback(cotangent: Array) -> Array:
        reached = xp.astype(unmasked == peak, unmasked.dtype)
        one = adapter.constant(unmasked, 1.0)  # a NaN is not equal to any peak
        sharing = xp.maximum(xp.sum(reached, axis=-1, keepdims=True), one)
        return cotangent[..., None] * reached / sharing

    if read is not None:
        u = xp.where(read, u, 0.0)
    return Reading(u, mask=read), pullback


def last(adapter: Adapter, spikes: Array, mask: Array | None = None) -> ReadingAndPullback:
    """Read the last unmasked step."""
    xp = adapter.xp
    step = adapter.arange(spikes.shape[-1], spikes)
    if mask is None:
        chosen, read = step == spikes.shape[-1] - 1, None
        u = spikes[..., -1]
    else:
        step = xp.where(mask, step, -1)
        chosen = mask & (step == xp.max(step, axis=-1, keepdims=True))
        read = xp.any(mask, axis=-1)
        u = xp.sum(xp.where(chosen, spikes, 0.0), axis=-1)

    def pullback(cotangent: Array) -> Array:
        return xp.where(chosen, cotangent[..., None], adapter.constant(spikes, 0.0))

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
        kernel = asarray_of_dtype(adapter, spikes, kernel)
    elif not isinstance(kernel, Exponential):
        kernel = asarray_like(adapter, spikes, kernel, "kernel")
        kernel = adapter.xp.astype(kernel, spikes.dtype, copy=False)
    reading = Reading(adapter.filter_along_axis(spikes, kernel, axis), mask=mask)
    # A spike at t appears in e[t + k] with weight h[k], so the adjoint filters against time, and
    # sums fewer cotangents at the boundary: there is no e after the last step.
    return reading, lambda cotangent: adapter.filter_along_axis(
        cotangent, kernel, axis, reverse=True
    )


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

    sign = xp.astype(x > 0, x.dtype) - xp.astype(x < 0, x.dtype)
    if rising is not False:
        rises = (x == 0) if rising is True else (x == 0) & spread(rising)
        sign = sign + xp.astype(rises, x.dtype)
    entries: Any = math.prod([x.shape[axis] for axis in summed])
    if mask is not None:
        repeated = entries // math.prod([mask.shape[axis] for axis in summed])
        entries = total(xp.astype(mask, x.dtype)) * repeated
    return total(x * sign), entries, lambda cotangent: spread(cotangent) * sign


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


class Group(NamedTuple):
    """The neighbouring neurons of each class as one train.

    Attributes
    ----------
    total : array
        ``[batch, class, time]``: the sum over the neurons of a class that are not masked.
    divisor : int or array
        The number of neurons in the sum, at least 1; an array ``[batch, class, time]`` if neurons
        are masked one by one.
    mask : array or None
        The steps at which any neuron of the class is unmasked.
    pullback : callable
        From `total` to the neurons.
    """

    total: Array
    divisor: Any
    mask: Array | None
    pullback: Pullback


def group_neurons(adapter: Adapter, spikes: Array, mask: Array | None, classes: int) -> Group:
    """Add up the neighbouring neurons of each class."""
    xp = adapter.xp
    batch, neurons, steps = spikes.shape
    shape = batch, classes, neurons // classes, steps
    total = xp.sum(xp.reshape(spikes, shape), axis=2)

    def to_neurons(cotangent: Array) -> Array:  # each neuron has an equal share in the sum
        share = xp.repeat(cotangent[:, :, None, :], shape[2], axis=2)
        return xp.reshape(share, (batch, neurons, steps))

    if mask is None or mask.shape[CLASS] == 1:
        return Group(total, shape[2], mask, to_neurons)
    members = xp.reshape(mask, shape)
    unmasked = xp.sum(xp.astype(members, spikes.dtype), axis=2)
    return Group(total, or_one(adapter, unmasked), xp.any(members, axis=2), to_neurons)


def read_groups(
    adapter: Adapter,
    spikes: Array,
    mask: Array | None,
    classes: int | None,
    read: Callable[[Adapter, Array, Array | None], ReadingAndPullback],
    *,
    proportional: bool,
    summed: bool = False,
) -> ReadingAndPullback:
    """Read the mean of the neurons of each class; without `classes`, each neuron is a class.

    `read` is a readout of trains. If its readings are `proportional` to the trains, it reads the
    sum of the neurons, and the reading is divided by their number: means of three spikes are
    rounded, and would decide ties. Where neurons are masked one by one, their number differs
    between steps, and the mean of each step is read. With `summed` it is times the number of
    neurons of a class, the sum where none is masked.
    """
    if classes is None:
        return read(adapter, spikes, mask)
    group = group_neurons(adapter, spikes, mask, classes)
    divisor, counts = group.divisor, None
    if proportional and isinstance(divisor, int):
        reading, to_total = read(adapter, group.total, group.mask)
        if summed:
            return reading, lambda cotangent: group.pullback(to_total(cotangent))
        reading = reading._replace(u=reading.u / divisor, per_spike=reading.per_spike / divisor)
        return reading, lambda cotangent: group.pullback(to_total(cotangent / divisor))

    scale = spikes.shape[CLASS] // classes if summed else 1
    reading, to_mean = read(adapter, group.total * scale / divisor, group.mask)
    number: Any = divisor
    if not isinstance(divisor, int):  # the largest number of neurons averaged at any step
        number = adapter.xp.max(divisor, axis=-1, keepdims=reading.u.ndim == 3)
    if reading.counts is not None:
        counts = reading.counts * number
    reading = reading._replace(per_spike=reading.per_spike / number, counts=counts)
    return reading, lambda cotangent: group.pullback(to_mean(cotangent) * scale / divisor)


def softmax_sum(adapter: Adapter, spikes: Array, mask: Array | None = None) -> ReadingAndPullback:
    """Read ``sum_t p[t]``, where ``p[t]`` is the softmax over the classes unmasked at step t."""
    xp = adapter.xp
    logit, read = spikes, None
    if mask is not None:
        logit, read = xp.where(mask, spikes, -math.inf), xp.any(mask, axis=-1)
    highest = xp.max(logit, axis=CLASS, keepdims=True)  # against overflow; it cancels
    if mask is not None:
        highest = xp.where(xp.any(mask, axis=CLASS, keepdims=True), highest, 0.0)
    weight = xp.exp(logit - highest)
    total = adapter.sum(weight, CLASS, keepdims=True)
    p = weight / (total if mask is None else or_one(adapter, total))

    def pullback(cotangent: Array) -> Array:
        cotangent = cotangent[..., None]
        return p * (cotangent - adapter.sum(p * cotangent, CLASS, keepdims=True))

    return Reading(adapter.sum(p, -1), mask=read), pullback


ACROSS_CLASSES = {"softmax_sum": softmax_sum}  # a class is read beside the others; not linear
