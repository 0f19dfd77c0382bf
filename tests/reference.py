"""What the losses must compute, in float64, as slowly and obviously as it can be said.

Written from the formulas; knows nothing of the library: of a loss only its name and its options
are read. Inside, spikes are `[batch, class, time]`, and so is everything that is made of them;
where time or class has gone, its axis has length 1. Results come in the layout of the input.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

EPSILON = 1e-6  # beside the sum of the rates
NONE_OF_IT = {  # what a loss does that has no such option
    "time_axis": -1,
    "moving_window": None,
    "readout": "rate",
    "num_classes": None,
    "ignore_index": None,
    "label_smoothing": 0.0,
    "temperature": 1.0,
}


@dataclasses.dataclass(frozen=True)
class Terms:
    """The terms of a loss, weighted; which of them count, and with what weight in a mean."""

    terms: np.ndarray
    counted: np.ndarray
    weight: np.ndarray


def value(
    loss: Any, spikes: Any, target: Any = None, where: Any = None, lengths: Any = None,
    weight: Any = None,
) -> Any:  # fmt: skip
    """The value of a loss of the library, with its reduction."""
    if type(loss).__name__ == "SparsityEnforcer":
        return terms(loss, spikes, target, where, lengths)
    if loss.reduction == "none":
        return terms(loss, spikes, target, where, lengths, weight)
    found = evaluate(loss, spikes, target, where, lengths, weight)
    return math.fsum(found.terms[found.counted]) / divisor(loss.reduction, found)


def divisor(reduction: str, found: Terms) -> float:
    """What the sum of the terms is divided by."""
    if reduction == "sum" or not found.counted.any():
        return 1
    if reduction == "mean":
        return math.fsum(found.weight[found.counted]) or 1
    assert reduction == "batchmean"
    return sum(sample.any() for sample in found.counted)


def terms(
    loss: Any, spikes: Any, target: Any = None, where: Any = None, lengths: Any = None,
    weight: Any = None,
) -> Any:  # fmt: skip
    """The terms of a loss of the library, in the shape that ``reduction="none"`` gives them."""
    spikes = np.asarray(spikes, dtype=np.float64)
    if type(loss).__name__ == "SparsityEnforcer":
        return sparsity_enforcer(options(loss), spikes, where, lengths)
    found = evaluate(loss, spikes, target, where, lengths, weight).terms
    return natural(loss, spikes.shape, found)


def natural(loss: Any, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """What there is one of for each term, in the layout of the terms."""
    name, o = type(loss).__name__, options(loss)
    if name == "SpikeTime":  # that of the input, with space as it was
        time_last = np.moveaxis(np.empty(shape), o.time_axis, -1).shape
        return np.moveaxis(x.reshape(time_last), -1, o.time_axis)
    if not o.moving_window:
        x = x[..., 0]
    if name == "SpikeMax":
        x = x[:, 0]
    return np.moveaxis(x, -1, place_of_time(shape, o.time_axis)) if o.moving_window else x


def evaluate(
    loss: Any, spikes: Any, target: Any, where: Any = None, lengths: Any = None, weight: Any = None
) -> Terms:
    o, spikes = options(loss), np.asarray(spikes, dtype=np.float64)
    kept = kept_entries(spikes.shape, o.time_axis, where, lengths)
    x = np.where(kept, by_class(spikes, o.time_axis), 0.0)
    if type(loss).__name__ == "SpikeTime":
        desired = by_class(np.asarray(target, dtype=np.float64), o.time_axis)
        return spike_time(o, np.where(kept, x - desired, 0.0), kept)
    neurons = x.shape[1]
    x, kept, groups = classes_of_neurons(x, kept, o.num_classes or neurons)
    reading = Reading(x, kept, o, groups)
    weight = np.ones(x.shape[1]) if weight is None else np.asarray(weight, dtype=np.float64)
    target = target_by_class(np.asarray(target), spikes.shape, o.time_axis)
    return FORMULAS[type(loss).__name__](o, reading, target, weight)


# Where everything is -----------------------------------------------------------------------------


def by_class(x: np.ndarray, time_axis: int) -> np.ndarray:
    """Time goes last, the first other axis is the batch, and the rest become one."""
    x = np.moveaxis(x, time_axis, -1)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def place_of_time(shape: tuple[int, ...], time_axis: int) -> int:
    """Where time is beside the batch, and the class if there is one: as near as in the input."""
    axis = time_axis % len(shape)
    before_the_batch, before_space = axis == 0, axis == 1 and len(shape) > 2
    return 0 if before_the_batch else 1 if before_space else -1


def kept_entries(shape: tuple[int, ...], time_axis: int, where: Any, lengths: Any) -> np.ndarray:
    kept = np.ones(by_class(np.empty(shape), time_axis).shape, dtype=bool)
    if where is not None:
        where = np.asarray(where)
        if where.shape == shape:
            kept &= by_class(where, time_axis)
        elif where.ndim == 1:
            kept &= where[:, None, None]
        else:
            kept &= np.moveaxis(where, place_of_time(shape, time_axis), -1)[:, None, :]
    if lengths is not None:
        for b, c, t in np.ndindex(kept.shape):
            kept[b, c, t] &= t < lengths[b]
    return kept


def classes_of_neurons(
    x: np.ndarray, kept: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring neurons make a class: their mean, of those that are kept at the step.

    With it comes of how many neurons, at the step with the most.
    """
    batch, neurons, steps = x.shape
    size = neurons // classes
    assert size * classes == neurons
    train, train_kept = np.zeros((batch, classes, steps)), np.zeros((batch, classes, steps), bool)
    groups = np.ones((batch, classes))
    for b, c, t in np.ndindex(train.shape):
        members = [n for n in range(c * size, (c + 1) * size) if kept[b, n, t]]
        if members:
            train[b, c, t] = sum(x[b, n, t] for n in members) / len(members)
            train_kept[b, c, t] = True
            groups[b, c] = max(groups[b, c], len(members))
    return train, train_kept, groups


def target_by_class(target: np.ndarray, shape: tuple[int, ...], time_axis: int) -> np.ndarray:
    """Labels `[batch, 1 or time]`; multi-hot labels `[batch, class, 1 or time]`."""
    of_classes = target.dtype.kind not in "iu"
    if target.ndim == 2 + of_classes:
        return np.moveaxis(target, place_of_time(shape, time_axis), -1)
    return target[..., None]


# What is read from the spikes --------------------------------------------------------------------


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


def rates(s: np.ndarray, window: int | None) -> np.ndarray:
    """Rates with a time axis, of length 1 where the rate is over all of time."""
    return moving_average(s, window) if window else s.sum(axis=-1, keepdims=True) / s.shape[-1]


class Reading:
    """What is read from the train of each class: at each step with a window, else once.

    `counted` tells which readings there are at all, `duration` what a rate is multiplied by to
    compare with the reading, and `one_spike` what one spike of one neuron adds to it.
    """

    def __init__(self, x: np.ndarray, kept: np.ndarray, o: SimpleNamespace, groups: Any) -> None:
        window, counting = o.moving_window, o.readout == "count"
        shape = x.shape if window else (*x.shape[:2], 1)
        self.u, self.duration = np.zeros(shape), np.ones(shape)
        self.one_spike, self.counted = np.ones(shape), np.zeros(shape, dtype=bool)
        for b, c, t in np.ndindex(shape):
            group = groups[b, c]
            steps = [k for k in range(x.shape[-1]) if kept[b, c, k]]
            if window:
                steps = [k for k in range(t - window + 1, t + 1) if k >= 0]
            self.counted[b, c, t] = kept[b, c, t] if window else len(steps) > 0
            if not self.counted[b, c, t]:
                continue
            read = [x[b, c, k] for k in steps]
            divisor = window or len(steps)
            if counting:
                self.u[b, c, t], self.duration[b, c, t] = sum(read), divisor
                self.one_spike[b, c, t] = 1 / group
            elif o.readout == "rate":
                self.u[b, c, t], self.one_spike[b, c, t] = sum(read) / divisor, 1 / divisor / group
            else:
                self.u[b, c, t] = {"max": max(read), "last": read[-1]}[o.readout]


# How far that is from what was wanted ------------------------------------------------------------


def spike_time(o: SimpleNamespace, difference: np.ndarray, kept: np.ndarray) -> Terms:
    trace = causal_filter(difference, kernel(o.time_constant, o.length, o.filter_order))
    return Terms(np.where(kept, trace**2, 0.0), kept, np.ones(kept.shape))


def spike_rate(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
    found, counted, shares = nothing(r.u.shape)
    true, false = per_class(o.true_rate, r), per_class(o.false_rate, r)
    for b, c, t, label in labelled(r, target):
        if r.counted[b, c, t] and label != o.ignore_index:
            wanted = (true[c] if c == label else false[c]) * r.duration[b, c, t]
            counted[b, c, t], shares[b, c, t] = True, weight[label]
            found[b, c, t] = weight[label] * (r.u[b, c, t] - wanted) ** 2
    return Terms(found, counted, shares)


def spike_max(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
    batch, classes, steps = r.u.shape
    found, counted, shares = nothing((batch, 1, steps))
    for b, c, t, label in labelled(r, target):
        there = [k for k in range(classes) if r.counted[b, k, t]]
        if c != label or label not in there or label == o.ignore_index:
            continue
        nll = {k: negative_log_likelihood(o, r, there, b, k, t) for k in there}
        smooth = sum(weight[k] * nll[k] for k in there) / len(there)
        e = o.label_smoothing
        found[b, 0, t] = (1 - e) * weight[label] * nll[label] + (e * smooth if e else 0)
        counted[b, 0, t], shares[b, 0, t] = True, weight[label]
    return Terms(found, counted, shares)


def negative_log_likelihood(
    o: SimpleNamespace, r: Reading, there: list[int], b: int, label: int, t: int
) -> float:
    u = {c: float(r.u[b, c, t]) for c in there}
    others = [c for c in there if c != label]
    if o.mode == "softmax":  # -log(exp(u_y) / sum(exp(u)))
        return math.log1p(sum(math.exp((u[c] - u[label]) / o.temperature) for c in others))
    fewest = o.pseudo_count * r.one_spike[b, label, t]
    rest = sum(u[c] for c in others) + EPSILON
    if o.numerics == "stable" and u[label] < fewest:
        lack = fewest - u[label]
        total = u[label] + rest + len(there) * lack
        return -math.log(fewest) + lack / fewest + math.log(total)
    return math.log1p(rest / u[label]) if u[label] > 0 else math.inf  # -log(u_y / sum(u))


def spike_moid(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
    found, counted, shares = nothing(r.u.shape)
    for b, c, t in np.ndindex(r.u.shape):
        if not r.counted[b, c, t]:
            continue
        y, z = float(target[b, c, min(t, target.shape[-1] - 1)]), (r.u[b, c, t] - o.theta) / o.alpha
        p = 1 / (1 + math.exp(-z))
        term = -y * held_log(p) - (1 - y) * held_log(1 - p)
        if o.numerics == "stable":
            term = math.log1p(math.exp(-abs(z))) + max(z, 0) - y * z
        found[b, c, t], counted[b, c, t], shares[b, c, t] = weight[c] * term, True, weight[c]
    return Terms(found, counted, shares)


def sparsity_enforcer(o: SimpleNamespace, x: np.ndarray, where: Any, lengths: Any) -> float:
    if x.ndim < 2:  # no batch, no time: one array as it is
        groups = [x[np.ones(x.shape, bool) if where is None else np.asarray(where)].ravel()]
    else:
        kept = kept_entries(x.shape, o.time_axis, where, lengths)
        x = by_class(x, o.time_axis)
        groups = [x[:, n][kept[:, n]] for n in range(x.shape[1])]
        if getattr(o, "per", "array") == "array":
            groups = [np.concatenate(groups)]
    brackets = []
    for group in groups:
        if len(group):
            m = math.fsum(abs(group)) / len(group)
            excess, shortfall = max(m - o.max_rate, 0), max(getattr(o, "min_rate", 0.0) - m, 0)
            brackets.append(excess**2 + shortfall**2)
    return o.lam * sum(brackets) / len(brackets) if brackets else 0.0


FORMULAS: dict[str, Callable[..., Terms]] = {
    "SpikeRate": spike_rate,
    "SpikeMax": spike_max,
    "SpikeMoid": spike_moid,
}


def options(loss: Any) -> SimpleNamespace:
    fields = [f.name for f in dataclasses.fields(loss) if f.init]
    return SimpleNamespace(**NONE_OF_IT | {name: getattr(loss, name) for name in fields})


def nothing(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Terms that are not there."""
    return np.zeros(shape), np.zeros(shape, dtype=bool), np.zeros(shape)


def labelled(r: Reading, target: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Each reading, and the label that is meant for it."""
    for b, c, t in np.ndindex(r.u.shape):
        yield b, c, t, int(target[b, min(t, target.shape[-1] - 1)])


def per_class(rate: Any, r: Reading) -> list[float]:
    return [rate] * r.u.shape[1] if isinstance(rate, float | int) else list(rate)


def held_log(p: float) -> float:
    return max(math.log(p), -100.0) if p > 0 else -100.0


# The slope of any of it --------------------------------------------------------------------------


def differences(function: Callable[[Any], Any], x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """The gradient by central differences of fourth order, whose error is some ``step**4``."""
    slopes = []
    for i in range(x.size):
        nudge = np.zeros(x.size)
        nudge[i] = step
        nudge = nudge.reshape(x.shape)
        near = function(x + nudge) - function(x - nudge)
        far = function(x + 2 * nudge) - function(x - 2 * nudge)
        slopes.append((8 * near - far) / (12 * step))
    return np.asarray(slopes).reshape(*x.shape, *np.shape(slopes[0]))
