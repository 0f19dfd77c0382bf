"""What a loss reads from spikes: rates, counts, potentials and filtered traces.

A readout returns what it read and its pullback, which takes the derivative of the loss with
respect to the reading to the derivative with respect to the spikes. All of them are linear, apart
from the choice of the largest entry, so the pullback is the adjoint, and stands beside the
operation. Libraries with automatic differentiation have no use for it and do not run it.

Spikes are `[batch, class, time]`, and silent wherever the mask `kept` says that they do not count;
it has the same axes, the class axis perhaps of length 1, or is None where all of them count.
"""

import math
from typing import Any, NamedTuple

from spikeloss_xp import _arrays, _dispatch
from spikeloss_xp._kernels import Exponential
from spikeloss_xp._layout import CLASS
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.filters import along, summed_along


class Reading(NamedTuple):
    """What was read, and its units.

    Attributes
    ----------
    u : array
        What was read: `[batch, class]`, or `[batch, class, time]` if at every step.
    spike : float or array
        What one spike adds to it.
    most : float or array
        What there is to read from a neuron that fires at every step.
    kept : array or None
        Which entries of `u` were read from anything; its class axis may have length 1. None if
        all were.
    counted : array or None
        Which terms of it count, with the axes of `u`; None if all do.
    """

    u: Array
    spike: Any = 1.0
    most: Any = 1.0
    kept: Array | None = None
    counted: Array | None = None


def count(
    xp: Namespace,
    spikes: Array,
    moving_window: int | None,
    kept: Array | None = None,
    *,
    time_first: bool = False,
) -> tuple[Reading, Pullback]:
    """Read ``n = sum_t s[t]``, or with a window ``n[t] = sum(s[t - k] for k < W)``.

    Where time came first, and the spikes are a view of that, the window is moved over it there.
    """
    if moving_window is not None:
        return _moving_count(xp, spikes, moving_window, kept, 0 if time_first else -1)

    steps = spikes.shape[-1]

    def spread(cotangent: Array) -> Array:
        # Each step counts the same. An array of its own, which whoever gets may change.
        return xp.repeat(cotangent[..., None], steps, axis=-1)

    counts = xp.sum(spikes, axis=-1)
    if kept is None:
        return Reading(counts, most=steps), spread
    duration = xp.sum(xp.astype(kept, spikes.dtype), axis=-1)
    return Reading(counts, most=duration, kept=duration > 0), spread


def _moving_count(
    xp: Namespace, spikes: Array, window: int, kept: Array | None, axis: int
) -> tuple[Reading, Pullback]:
    def summed(x: Array, *, reverse: bool) -> Array:
        moved = summed_along(xp, _arrays.moved(xp, x, -1, axis), window, axis, reverse=reverse)
        return _arrays.moved(xp, moved, axis, -1)

    reading = Reading(summed(spikes, reverse=False), most=window, kept=kept)
    # A spike at t counts at t, ..., t + W - 1: the adjoint adds up what comes after.
    return reading, lambda cotangent: summed(cotangent, reverse=True)


def rate(
    xp: Namespace,
    spikes: Array,
    moving_window: int | None,
    kept: Array | None = None,
    *,
    time_first: bool = False,
) -> tuple[Reading, Pullback]:
    """Read ``r = mean_t s[t]``, or with a window ``r[t] = sum(s[t - k] for k < W) / W``."""
    counted, to_spikes = count(xp, spikes, moving_window, kept, time_first=time_first)
    duration = counted.most
    if counted.kept is not None and moving_window is None:
        duration = _arrays.or_one(xp, duration)
    reading = Reading(counted.u / duration, 1 / duration, 1.0, counted.kept)
    return reading, lambda cotangent: to_spikes(cotangent / duration)


def highest(xp: Namespace, spikes: Array, kept: Array | None = None) -> tuple[Reading, Pullback]:
    """Read ``max_t s[t]``, whose gradient the steps share at which that is reached."""
    seen, read = spikes, None
    if kept is not None:
        lowest = _arrays.constant(xp, spikes, -math.inf)
        seen, read = xp.where(kept, spikes, lowest), xp.any(kept, axis=-1)
    peak = xp.max(seen, axis=-1, keepdims=True)
    u = peak[..., 0]

    def pullback(cotangent: Array) -> Array:
        reached = xp.astype(seen == peak, seen.dtype)
        one = _arrays.constant(xp, seen, 1.0)  # none is reached where there is a NaN
        sharing = xp.maximum(xp.sum(reached, axis=-1, keepdims=True), one)
        return cotangent[..., None] * reached / sharing

    if read is not None:
        u = xp.where(read, u, _arrays.constant(xp, spikes, 0.0))
    return Reading(u, kept=read), pullback


def last(xp: Namespace, spikes: Array, kept: Array | None = None) -> tuple[Reading, Pullback]:
    """Read the last step that counts."""
    step = xp.arange(spikes.shape[-1], device=_dispatch.adapter(xp).device(spikes))
    if kept is None:
        chosen, read = step == spikes.shape[-1] - 1, None
        u = spikes[..., -1]
    else:
        step = xp.where(kept, step, -xp.ones_like(step))
        chosen = kept & (step == xp.max(step, axis=-1, keepdims=True))
        read = xp.any(kept, axis=-1)
        u = xp.sum(xp.where(chosen, spikes, _arrays.constant(xp, spikes, 0.0)), axis=-1)

    def pullback(cotangent: Array) -> Array:
        return xp.where(chosen, cotangent[..., None], _arrays.constant(xp, spikes, 0.0))

    return Reading(u, kept=read), pullback


def population(
    xp: Namespace, spikes: Array, kept: Array | None, classes: int, *, per_step: bool
) -> tuple[Array, Array | None, Any, Pullback]:
    """Average over the neurons of a class, which are neighbours: over those of them that count.

    With the mean, and its mask, comes how many neurons it is of, the most at any step: a number,
    or an array with the axes of a reading, of one step or `per_step`.
    """
    batch, neurons, steps = spikes.shape
    shape = batch, classes, neurons // classes, steps
    number: Any = shape[2]
    size: Any = number
    if kept is not None and kept.shape[CLASS] > 1:
        members = xp.reshape(kept, shape)
        kept = xp.any(members, axis=2)
        number = _arrays.or_one(xp, xp.sum(xp.astype(members, spikes.dtype), axis=2))
        size = xp.max(number, axis=-1, keepdims=per_step)
    mean = xp.sum(xp.reshape(spikes, shape), axis=2) / number

    def pullback(cotangent: Array) -> Array:  # each neuron has an equal share in the mean
        share = xp.repeat((cotangent / number)[:, :, None, :], shape[2], axis=2)
        return xp.reshape(share, (batch, neurons, steps))

    return mean, kept, size, pullback


WINDOWED = {"rate": rate, "count": count}  # over all of time, or at each step
WHOLE = {"max": highest, "last": last}


def trace(
    xp: Namespace, spikes: Array, kernel: Any, axis: int, kept: Array | None = None
) -> tuple[Reading, Pullback]:
    """Read ``e[t] = sum(h[k] * s[t - k] for k)``, along any axis."""
    if not isinstance(kernel, Exponential):
        kernel = _arrays.constant(xp, spikes, kernel)
    reading = Reading(along(xp, spikes, kernel, axis), kept=kept)
    # A spike at t appears in e[t + k] with weight h[k]: the adjoint filters against time.
    return reading, lambda cotangent: along(xp, cotangent, kernel, axis, reverse=True)


def mean_magnitude(
    xp: Namespace, x: Array, kept: Array | None = None, *, per_neuron: bool, rising: bool
) -> tuple[Reading, Pullback]:
    """Read the mean of ``|x|`` over all of an array, or of each neuron over batch and time.

    As ``x * sign(x)``, because at silence each library has a derivative of its own for ``abs``.
    Here it is 0, and with `rising` that of an event more, which is 1.
    """
    positive = x >= 0 if rising else x > 0
    sign = xp.astype(positive, x.dtype) - xp.astype(x < 0, x.dtype)

    def total(y: Array) -> Array:
        if per_neuron:
            return xp.sum(xp.sum(y, axis=-1), axis=0)
        return _dispatch.adapter(xp).total(xp, y)

    number: Any = math.prod(x.shape) // (x.shape[CLASS] if per_neuron else 1)
    read = None
    if kept is not None:
        entries = total(xp.astype(kept, x.dtype))
        if not per_neuron:
            entries = entries * (math.prod(x.shape) // math.prod(kept.shape))
        read = entries > 0
        number = _arrays.or_one(xp, entries)

    def pullback(cotangent: Array) -> Array:  # each entry has an equal share in the mean
        share = cotangent / number
        return (share[:, None] if per_neuron else share) * sign

    return Reading(total(x * sign) / number, kept=read), pullback
