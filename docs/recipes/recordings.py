"""Recipes for models of recordings, as shown in docs/recipes.md."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.stats import kstest

import spikeloss_xp as sx

distance = sx.SpikeTime(time_constant=5, time_axis=0, reduction="sum")


def psth_distance(generated, recorded):
    """Return the distance between the PSTHs of trials [time, trial, neuron]."""
    return distance(generated.mean(1, keepdim=True), recorded.mean(1, keepdim=True))


def trial_matching(generated, recorded):
    """Pair trials [time, trial, neuron], and return their mean squared distance."""
    by_trial = [x.permute(1, 2, 0) for x in (generated, recorded)]
    squares = sx.distances.van_rossum(*by_trial, time_constant=5) ** 2
    return squares[linear_sum_assignment(squares.detach())].mean()


def rescaled_intervals(rates, spikes, rng):
    """Return intervals that are uniform between 0 and 1 if the model is correct."""
    at, total = np.flatnonzero(spikes), np.cumsum(rates)
    before = total[at[1:] - 1] - total[at[:-1]]  # over the steps between two spikes
    chance = -np.expm1(-rates[at[1:]])  # of a spike in its step
    within = -np.log1p(-chance * rng.random(len(before)))  # that step
    return -np.expm1(-before - within)


def time_rescaling_test(rates, spikes, rng):
    """Return a p-value, which is small if the predicted rates [time] are wrong."""
    return kstest(rescaled_intervals(rates, spikes, rng), "uniform").pvalue
