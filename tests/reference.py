"""What the losses must compute, in float64, as slowly and obviously as it can be said.

Written from the formulas; knows nothing of the library. Spikes are `[batch, class, time]`, and the
terms come in the shape that ``reduction="none"`` gives them.
"""

import dataclasses
import math
from typing import Any

import numpy as np


def kernel(time_constant: float, length: int, order: int) -> list[float]:
    """The exponential, convolved with itself until there are `order` of it, cut at `length`."""
    exponential = [math.exp(-k / time_constant) for k in range(length)]
    taps = exponential
    for _ in range(order - 1):
        taps = [sum(taps[j] * exponential[k - j] for j in range(k + 1)) for k in range(length)]
    return taps


def causal_filter(x: np.ndarray, taps: Any) -> np.ndarray:
    y = np.zeros(x.shape)
    for t in range(x.shape[-1]):
        for k in range(len(taps)):
            if t - k >= 0:
                y[..., t] += taps[k] * x[..., t - k]
    return y


def moving_average(x: np.ndarray, window: int) -> np.ndarray:
    y = np.zeros(x.shape)
    for t in range(x.shape[-1]):
        for k in range(window):
            if t - k >= 0:
                y[..., t] += x[..., t - k] / window
    return y


def spike_time(s, desired, time_constant, length, filter_order):
    return causal_filter(s - desired, kernel(time_constant, length, filter_order)) ** 2


def spike_rate(s, label, true_rate, false_rate, moving_window):
    rate, label = rates(s, moving_window), labels(s, label, moving_window)
    terms = np.empty(rate.shape)
    for b, c, t in np.ndindex(rate.shape):
        wanted = true_rate if label[b, t] == c else false_rate
        terms[b, c, t] = (rate[b, c, t] - wanted) ** 2
    return terms if moving_window else terms[:, :, 0]


def spike_max(s, label, moving_window, mode, pseudo_count, numerics):
    rate, label = rates(s, moving_window), labels(s, label, moving_window)
    fewest = pseudo_count / (moving_window or s.shape[-1])
    terms = np.empty(label.shape)
    for b, t in np.ndindex(terms.shape):
        r = [float(x) for x in rate[b, :, t]]
        own, total = r[label[b, t]], sum(r) + 1e-6
        if mode == "softmax":
            terms[b, t] = -math.log(math.exp(own) / sum(math.exp(x) for x in r))
        elif numerics == "stable" and own < fewest:
            lack = fewest - own
            terms[b, t] = -math.log(fewest) + lack / fewest + math.log(total + len(r) * lack)
        else:
            terms[b, t] = -math.log(own / total) if own > 0 else math.inf
    return terms if moving_window else terms[:, 0]


def spike_moid(s, label, moving_window, alpha, theta, numerics):
    rate = rates(s, moving_window)
    label = label.astype(float)
    if label.ndim == 2:
        label = np.repeat(label[:, :, None], rate.shape[-1], axis=-1)
    terms = np.empty(rate.shape)
    for where in np.ndindex(rate.shape):
        z, y = (rate[where] - theta) / alpha, label[where]
        p = 1 / (1 + math.exp(-z))
        terms[where] = -y * held_log(p) - (1 - y) * held_log(1 - p)
        if numerics == "stable":
            terms[where] = math.log1p(math.exp(-abs(z))) + max(z, 0) - y * z
    return terms if moving_window else terms[:, :, 0]


def sparsity_enforcer(x, _, max_rate, lam):
    excess = sum(abs(x).flat) / x.size - max_rate
    return lam * max(excess, 0) ** 2


def rates(s: np.ndarray, window: int | None) -> np.ndarray:
    """Rates with a time axis, of length 1 where the rate is over all of time."""
    return moving_average(s, window) if window else s.sum(axis=-1, keepdims=True) / s.shape[-1]


def labels(s: np.ndarray, label: np.ndarray, window: int | None) -> np.ndarray:
    """Labels with a time axis like that of `rates`."""
    steps = s.shape[-1] if window else 1
    return label if label.ndim == 2 else np.repeat(label[:, None], steps, axis=1)


def held_log(p: float) -> float:
    return max(math.log(p), -100.0) if p > 0 else -100.0


FORMULAS = {
    "SpikeTime": spike_time,
    "SpikeRate": spike_rate,
    "SpikeMax": spike_max,
    "SpikeMoid": spike_moid,
    "SparsityEnforcer": sparsity_enforcer,
}


def terms(loss: Any, spikes: Any, target: Any = None) -> Any:
    """The terms of a loss of the library, of which nothing but the name and options are used."""
    options = {f.name: getattr(loss, f.name) for f in dataclasses.fields(loss) if f.init}
    options.pop("reduction", None)
    options.pop("time_axis", None)
    target = None if target is None else np.asarray(target)
    return FORMULAS[type(loss).__name__](np.asarray(spikes, dtype=np.float64), target, **options)
