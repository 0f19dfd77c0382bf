"""The readout of first-spike latency: when a neuron fires first.

For spikes from 0 to 1, ``S[t] = (1 - s[0]) ... (1 - s[t])`` is the survival: 1 before the first
spike of a binary train and 0 from it on. The latency is its sum over the steps that count. It is
linear in each single spike, so its derivative is the effect of adding or removing that spike.
"""

import functools
import math

from spikeloss_xp._arrays import Adapter, lowest_below
from spikeloss_xp._input.layout import class_axis
from spikeloss_xp._typing import Array, ValueAndPullback
from spikeloss_xp.readouts import Reading, ReadingAndPullback, read_groups


def latency(
    adapter: Adapter, spikes: Array, mask: Array | None, num_classes: int | None, axis: int
) -> ReadingAndPullback:
    """Read the latency of the first spike of each class, in steps that count; time is at `axis`.

    A class is a neuron or, with `num_classes`, the mean of neighbouring ones. A silent one has the
    longest duration of its sample, which is `max_reading`, so that a neuron with fewer unmasked
    steps is not early.
    """
    spikes, to_input = probabilities(adapter, spikes)
    read = functools.partial(latency_of_trains, axis=axis)
    reading, to_spikes = read_groups(
        adapter, spikes, mask, num_classes, read, axis=axis, proportional=False
    )
    return reading, lambda cotangent: to_input(to_spikes(cotangent))


def latency_of_trains(
    adapter: Adapter, spikes: Array, mask: Array | None, axis: int
) -> ReadingAndPullback:
    """Read the latency of spikes from 0 to 1, with time at `axis`."""
    xp = adapter.xp
    factors = 1 - spikes
    if mask is None:
        total, _, to_factors = adapter.survival_sum(factors, None, axis)
        reading = Reading(total, max_reading=spikes.shape[axis])
        return reading, lambda cotangent: to_factors(-cotangent, xp.zeros_like(cotangent))

    weight = xp.astype(mask, spikes.dtype)
    duration = xp.sum(weight, axis=axis, keepdims=True)
    longest = xp.max(duration, axis=class_axis(axis), keepdims=True)
    lacking = longest - duration
    total, silence, to_factors = adapter.survival_sum(factors, weight, axis)
    reading = Reading(total + lacking * silence, max_reading=longest, mask=duration > 0)
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
        several = known[(known > 1) & (known < math.inf)]
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
