"""Reference implementation of the losses: float64 loops that follow the formulas line by line.

It is independent of the library: it reads only the name and the options of a loss.
Internally, spikes and all intermediates are `[batch, class, time]`, and a reduced class or time
axis keeps length 1. Public functions return arrays in the layout of the input. Spike times are
`[batch, class, spike]`.
"""

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

EPSILON = 1e-6  # added to the sum of the rates in SpikeMax
DEFAULT_OPTIONS = {  # for losses that lack the option
    "time_axis": -1,
    "moving_window": None,
    "readout": "rate",
    "num_classes": None,
    "ignore_index": None,
    "label_smoothing": 0.0,
    "rates": None,
    "temperature": 1.0,
    "pos_weight": 1.0,
    "mode": "softmax",
    "false_time": None,
    "dispersion": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Terms:
    """Weighted terms of a loss, `[batch, class or 1, time or 1]`, with their mask and weights."""

    terms: np.ndarray
    term_mask: np.ndarray
    """False for terms that are excluded from sums and means."""
    term_weight: np.ndarray
    """The weight of each term in the divisor of a mean."""


def name_of(loss: Any) -> str:
    """Return the name of the class of a loss; of one on spike times it begins with "times."."""
    return repr(loss).partition("(")[0].removeprefix("published.")


def value(
    loss: Any, spikes: Any, target: Any = None, where: Any = None, lengths: Any = None,
    weight: Any = None,
) -> Any:  # fmt: skip
    """Return the value of a loss, with its reduction applied."""
    if name_of(loss) == "SparsityEnforcer":
        return sparsity_enforcer(options(loss), spikes, where, lengths)
    evaluated = evaluate(loss, spikes, target, where, lengths, weight)
    if loss.reduction == "none":
        return to_input_layout(loss, np.shape(spikes), evaluated.terms)
    weight = divisor(loss.reduction, evaluated) or math.inf  # nothing counts
    return math.fsum(evaluated.terms[evaluated.term_mask]) / weight


def divisor(reduction: str, evaluated: Terms) -> float:
    """Return the number by which a reduction divides the sum of the terms."""
    if reduction == "sum" or not evaluated.term_mask.any():
        return 1
    if reduction == "mean":
        return math.fsum(evaluated.term_weight[evaluated.term_mask])
    assert reduction == "batchmean"
    return sum(sample.any() for sample in evaluated.term_mask)


def to_input_layout(loss: Any, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """Convert an internal array with one entry per term to the layout of the input."""
    name, o = name_of(loss), options(loss)
    if name in OF_TRAINS:  # their terms have the shape of the input, with all spatial axes
        time_last = np.moveaxis(np.empty(shape), o.time_axis, -1).shape
        return np.moveaxis(x.reshape(time_last), -1, o.time_axis)
    if not o.moving_window:
        x = x[..., 0]
    if name in ("SpikeMax", "CrossEntropy", "times.CrossEntropy"):
        x = x[:, 0]
    return np.moveaxis(x, -1, target_time_axis(shape, o.time_axis)) if o.moving_window else x


def evaluate(
    loss: Any, spikes: Any, target: Any, where: Any = None, lengths: Any = None, weight: Any = None
) -> Terms:
    """Evaluate the terms of a loss in the internal layout, without reduction."""
    name, o, spikes = name_of(loss), options(loss), np.asarray(spikes, dtype=np.float64)

    def weights(number: int) -> np.ndarray:
        return np.ones(number) if weight is None else np.asarray(weight, dtype=np.float64)

    if name in DISTANCES:
        given = spikes, target, where, weights(spikes.shape[1])
        return paired_trains(DISTANCES[name], o, *given)
    if name == "SpikeTime":
        mask = full_mask(spikes.shape, o.time_axis, where, lengths)
        target = to_batch_class_time(np.asarray(target, dtype=np.float64), o.time_axis)
        spikes = to_batch_class_time(spikes, o.time_axis)
        train, signal = (target, 0.0) if o.filter_target else (0.0, target)
        difference = np.where(mask, spikes - train, 0.0)
        return spike_time(o, difference, signal, mask, weights(spikes.shape[1]))
    if name in OF_TRAINS:
        mask = full_mask(spikes.shape, o.time_axis, where, lengths)
        trains = (to_batch_class_time(np.asarray(x, float), o.time_axis) for x in (spikes, target))
        return likelihood(NLLS[name], o, *trains, mask, weights(mask.shape[1]))
    reading = read(loss, spikes, where, lengths)
    target = target_with_time_axis(np.asarray(target), spikes.shape, o.time_axis)
    return FORMULAS[name](o, reading, target, weights(reading.u.shape[1]))


def read(
    loss: Any, spikes: np.ndarray, where: Any = None, lengths: Any = None, **others: Any
) -> Any:
    """Return the readings of the classes of a loss, with other options if there are any."""
    o = options(loss)
    vars(o).update(others)
    mask = full_mask(spikes.shape, o.time_axis, where, lengths)
    if name_of(loss).startswith("times."):
        return first_spikes(o, spikes, mask)
    x = np.where(mask, to_batch_class_time(spikes, o.time_axis), 0.0)
    if o.readout == "latency":  # several spikes in a step are one; a difference at 1 is not
        x = np.where(x > 1.01, 1.0, x)
    neurons = x.shape[1] // (o.num_classes or x.shape[1])
    x, mask, groups = group_means(x, mask, o.num_classes or x.shape[1])
    if name_of(loss) == "CrossEntropy" and o.readout in ("count", "sqrt_count"):
        x = x * neurons  # the sum of a class, as if all of its neurons were unmasked
    return Reading(x, mask, o, groups, neurons)


# Layout ------------------------------------------------------------------------------------------


def to_batch_class_time(x: np.ndarray, time_axis: int) -> np.ndarray:
    """Move time last, keep the first other axis as the batch, and flatten the rest into one."""
    x = np.moveaxis(x, time_axis, -1)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def target_time_axis(shape: tuple[int, ...], time_axis: int) -> int:
    """Return the time axis of a target, mask or term array that has fewer axes than the input.

    Time precedes the batch or the class there if it does so in the input, and is last otherwise.
    """
    axis = time_axis % len(shape)
    time_first, time_second = axis == 0, axis == 1 and len(shape) > 2
    return 0 if time_first else 1 if time_second else -1


def full_mask(shape: tuple[int, ...], time_axis: int, where: Any, lengths: Any) -> np.ndarray:
    """Combine `where` and `lengths` into one mask, `[batch, class, time]`."""
    mask = np.ones(to_batch_class_time(np.empty(shape), time_axis).shape, dtype=bool)
    if where is not None:
        where = np.asarray(where)
        if where.shape == shape:
            mask &= to_batch_class_time(where, time_axis)
        elif where.ndim == 1 and len(where) == len(mask):
            mask &= where[:, None, None]
        elif where.ndim == 1:
            mask &= where
        else:
            mask &= np.moveaxis(where, target_time_axis(shape, time_axis), -1)[:, None, :]
    if lengths is not None:
        mask &= np.arange(mask.shape[-1]) < np.asarray(lengths)[:, None, None]
    return mask


def group_means(
    x: np.ndarray, mask: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average each group of adjacent neurons over its unmasked neurons, step by step.

    Return the averages, their mask, and the number of neurons averaged, at least 1.
    """
    batch, neurons, steps = x.shape
    size = neurons // classes
    assert size * classes == neurons
    total, members = np.zeros((2, batch, classes, steps))
    for c in range(classes):
        for n in range(c * size, (c + 1) * size):
            total[:, c] += np.where(mask[:, n], x[:, n], 0)
            members[:, c] += mask[:, n]
    at_least_one = np.maximum(members, 1)
    return total / at_least_one, members > 0, at_least_one


def target_with_time_axis(target: np.ndarray, shape: tuple[int, ...], time_axis: int) -> np.ndarray:
    """Return labels as `[batch, 1 or time]`, or multi-hot ones as `[batch, class, 1 or time]`."""
    is_multi_hot = target.dtype.kind not in "iu"
    if target.ndim == 2 + is_multi_hot:
        return np.moveaxis(target, target_time_axis(shape, time_axis), -1)
    return target[..., None]


# Readouts ----------------------------------------------------------------------------------------


def kernel(time_constant: float, length: int, order: int) -> np.ndarray:
    """Return the taps of `order` exponentials convolved with each other, truncated to `length`."""
    exponential = np.exp(-np.arange(length) / time_constant)
    taps = exponential
    for _ in range(order - 1):
        taps = np.convolve(taps, exponential)[:length]
    return taps


def causal_filter(x: np.ndarray, taps: Any) -> np.ndarray:
    y, steps = np.zeros(x.shape), x.shape[-1]
    for k in range(min(len(taps), steps)):
        y[..., k:] += taps[k] * x[..., : steps - k]
    return y


def latency(train: np.ndarray, longest: int) -> float:
    """Return the expected number of steps before the first spike; silence lasts the longest."""
    total, silent = 0.0, 1.0
    for spike in train:
        silent *= 1 - spike
        total += silent
    return total + silent * (longest - len(train))


class Reading:
    """The readings `u` of each class: one per step with a window, one per sample without.

    `term_mask` is True where a reading exists. Rates are multiplied by `duration` to compare them
    with the reading. `per_spike` is the amount that one spike of one neuron adds to it. `most` is
    the number of spikes of a class whose neurons fire at every step. `trains` are the trains of the
    classes, and `mask` says which of their steps count.
    """

    def __init__(
        self, x: np.ndarray, mask: np.ndarray, o: SimpleNamespace, groups: Any, neurons: int
    ) -> None:
        self.trains, self.mask, window = x, mask, o.moving_window
        shape = x.shape if window else (*x.shape[:2], 1)
        self.u, self.duration, self.per_spike = np.zeros(shape), np.ones(shape), np.ones(shape)
        if window:
            self.term_mask = mask
            totals = causal_filter(x, np.ones(min(window, x.shape[-1])))
            durations = np.full(shape, window)
        else:
            self.term_mask = mask.any(axis=-1, keepdims=True)
            totals = np.where(mask, x, 0).sum(axis=-1, keepdims=True)
            longest = mask.sum(axis=-1).max(axis=-1)
            durations = np.maximum(mask.sum(axis=-1, keepdims=True), 1)
            groups = groups.max(axis=-1, keepdims=True)
        self.most = durations * neurons
        for b, c, t in np.argwhere(self.term_mask):
            total, duration, group = totals[b, c, t], durations[b, c, t], groups[b, c, t]
            if o.readout in ("count", "sqrt_count"):
                self.u[b, c, t], self.duration[b, c, t] = total, duration
                self.per_spike[b, c, t] = 1 / group
            elif o.readout == "rate":
                self.u[b, c, t] = total / duration
                self.per_spike[b, c, t] = 1 / duration / group
            elif o.readout == "softmax_sum":
                self.u[b, c, t] = sum(
                    1
                    / sum(math.exp(x[b, k, i] - x[b, c, i]) for k in np.flatnonzero(mask[b, :, i]))
                    for i in np.flatnonzero(mask[b, c])
                )
            elif o.readout == "latency":
                self.u[b, c, t] = latency(x[b, c][mask[b, c]], longest[b])
                self.duration[b, c, t] = longest[b]
            else:
                values = x[b, c][mask[b, c]]
                self.u[b, c, t] = {"max": max(values), "last": values[-1]}[o.readout]


def first_spikes(o: SimpleNamespace, times: np.ndarray, mask: np.ndarray) -> SimpleNamespace:
    """Return the time of the first spike of each class, with the attributes of a `Reading`."""
    classes = o.num_classes or times.shape[1]
    u = np.full((len(times), classes, 1), float(o.silent_time))
    for b, n, k in np.argwhere(np.isfinite(times)):
        c = n * classes // times.shape[1]
        u[b, c, 0] = min(u[b, c, 0], times[b, n, k])
    silent, term_mask = np.full(u.shape, o.silent_time), mask[:, :classes, :1]
    return SimpleNamespace(u=u, duration=silent, term_mask=term_mask)


# Criteria ----------------------------------------------------------------------------------------


def spike_time(
    o: SimpleNamespace, difference: np.ndarray, signal: Any, mask: np.ndarray, weight: np.ndarray
) -> Terms:
    length = o.length or math.ceil(20 * o.time_constant)
    length = min(length, difference.shape[-1])  # later taps meet no spike
    taps = o.kernel or kernel(o.time_constant, length, o.filter_order)
    trace = causal_filter(difference, taps) - signal
    term_weight = np.broadcast_to(weight[:, None], mask.shape)
    return Terms(np.where(mask, term_weight * trace**2, 0.0), mask, term_weight)


def each_reading(
    o: SimpleNamespace,
    r: Any,
    target: np.ndarray,
    weight: np.ndarray,
    term: Callable[[Any, int, Any], float],
) -> Terms:
    """Return a term for each reading, from its index, its class and the label or target number."""
    term_values, term_mask, term_weight = empty_terms(r.u.shape)
    for b, c, t in np.argwhere(r.term_mask):
        given = target[b, ..., min(t, target.shape[-1] - 1)]
        if given.ndim or given != o.ignore_index:
            wanted, own = (float(given[c]), c) if given.ndim else (int(given), int(given))
            term_values[b, c, t] = weight[own] * term((b, c, t), c, wanted)
            term_mask[b, c, t], term_weight[b, c, t] = True, weight[own]
    return Terms(term_values, term_mask, term_weight)


def spike_rate(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
    true, false = per_class(o.true_rate, r), per_class(o.false_rate, r)

    def term(at: Any, c: int, label: int) -> float:
        far = r.u[at] - (true[c] if c == label else false[c]) * r.duration[at]
        if o.one_sided:
            far = min(far, 0) if c == label else max(far, 0)
        return far**2

    return each_reading(o, r, target, weight, term)


def cross_entropy(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
    batch, classes, steps = r.u.shape
    term_values, term_mask, term_weight = empty_terms((batch, 1, steps))
    for b, t in np.ndindex(batch, steps):
        present = [k for k in range(classes) if r.term_mask[b, k, t]]
        given = target[b, ..., min(t, target.shape[-1] - 1)]
        if given.ndim == 0 and given == o.ignore_index:
            continue
        q = given if given.ndim else np.arange(classes) == int(given)
        whole = math.fsum(q[k] for k in present)
        if whole == 0:  # the label is masked, or a row of zeros
            continue
        for k in present:
            share = (1 - o.label_smoothing) * q[k] + o.label_smoothing * whole / len(present)
            if share:
                nll = negative_log_likelihood(o, r, present, b, k, t)
                term_values[b, 0, t] += share * weight[k] * nll
        term_mask[b, 0, t] = True
        term_weight[b, 0, t] = math.fsum(q[k] * weight[k] for k in present)
        for k in present if o.rates else ():
            outside = outside_rates(o, r, (b, k, t), q[k] / whole)
            term_values[b, 0, t] += term_weight[b, 0, t] * o.rate_weight * outside
    return Terms(term_values, term_mask, term_weight)


def outside_rates(o: SimpleNamespace, r: Reading, at: Any, share: float) -> float:
    """Return the squared distance of a class from its bounds, by its share in the label."""
    n = r.u[at] * r.most[at] if o.readout == "rate" else r.u[at]
    root, lowest, highest = (math.sqrt(x + 0.375) for x in (n, *(x * r.most[at] for x in o.rates)))
    return share * max(lowest - root, 0) ** 2 + (1 - share) * max(root - highest, 0) ** 2


def negative_log_likelihood(
    o: SimpleNamespace, r: Reading, classes_present: list[int], b: int, label: int, t: int
) -> float:
    u = {c: float(r.u[b, c, t]) for c in classes_present}
    others = [c for c in classes_present if c != label]
    if o.mode == "softmax":  # -log(exp(u_y) / sum(exp(u)))
        if o.readout == "sqrt_count":
            u = {c: math.sqrt(n + 0.375) for c, n in u.items()}
        sign = -1 if o.readout == "latency" else 1
        excess = [sign * (u[c] - u[label]) / o.temperature for c in others]
        top = max(excess, default=0.0)
        if top <= 0:
            return math.log1p(sum(math.exp(z) for z in excess))
        return top + math.log(math.exp(-top) + sum(math.exp(z - top) for z in excess))
    min_reading = o.pseudo_count * r.per_spike[b, label, t]
    other_sum = sum(u[c] for c in others) + EPSILON
    if not o.published and u[label] < min_reading:
        missing = min_reading - u[label]
        total = u[label] + other_sum + len(classes_present) * missing
        return -math.log(min_reading) + missing / min_reading + math.log(total)
    return math.log1p(other_sum / u[label]) if u[label] > 0 else math.inf  # -log(u_y / sum(u))


def spike_latency(o: SimpleNamespace, r: Any, target: np.ndarray, weight: np.ndarray) -> Terms:
    def term(at: Any, c: int, wanted: Any) -> float:
        if target.dtype.kind != "f":
            false_time = r.duration[at] if o.false_time is None else o.false_time
            wanted = o.true_time if c == wanted else false_time
        return max(abs(r.u[at] - wanted) - o.tolerance, 0) ** 2

    return each_reading(o, r, target, weight, term)


def spike_moid(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
    pos_weight = per_class(o.pos_weight, r)

    def term(at: Any, c: int, y: float) -> float:
        z = (r.u[at] - o.theta) / o.alpha
        if not o.published:
            softplus = math.log1p(math.exp(-abs(z)))
            return pos_weight[c] * y * (softplus + max(-z, 0)) + (1 - y) * (softplus + max(z, 0))
        p = 1 / (1 + math.exp(-z)) if z > -700 else 0.0  # where the exponential overflows
        return -y * clamped_log(p) - (1 - y) * clamped_log(1 - p)

    return each_reading(o, r, target, weight, term)


def regression(criterion: Callable[[float, SimpleNamespace], float]) -> Callable[..., Terms]:
    """Return the formula of a loss whose terms depend on the distance from a target number."""

    def formula(o: SimpleNamespace, r: Reading, target: np.ndarray, weight: np.ndarray) -> Terms:
        return each_reading(
            o, r, target, weight, lambda at, c, wanted: criterion(abs(r.u[at] - wanted), o)
        )

    return formula


def huber(distance: float, o: SimpleNamespace) -> float:
    far = distance > o.delta
    return o.delta * (distance - o.delta / 2) if far else distance**2 / 2


def sparsity_enforcer(o: SimpleNamespace, x: Any, where: Any, lengths: Any) -> float:
    brackets = []
    for m, lowest, highest in mean_magnitudes(o, np.asarray(x, dtype=np.float64), where, lengths):
        distance = max(m - highest, lowest - m if lowest else 0, 0)
        brackets.append(distance**o.power)
    divisor = 1 if o.reduction == "sum" else len(brackets) or 1
    return o.rate_weight * sum(brackets) / divisor


def mean_magnitudes(
    o: SimpleNamespace, x: np.ndarray, where: Any, lengths: Any
) -> list[tuple[float, float, float]]:
    """Return the mean of ``|x|`` and its limits for each group in which any entry counts."""
    if x.ndim < 2:  # neither batch nor time axis: a single group
        groups = [(0, x[np.ones(x.shape, bool) if where is None else np.asarray(where)].ravel())]
    else:
        mask = full_mask(x.shape, o.time_axis, where, lengths)
        x = to_batch_class_time(x, o.time_axis)
        samples = range(len(x)) if o.per.startswith("sample") else [slice(None)]
        neurons = range(x.shape[1]) if o.per.endswith("neuron") else [slice(None)]
        groups = [(n, x[b, n][mask[b, n]]) for b in samples for n in neurons]
    means = []
    for n, group in groups:
        if not len(group):
            continue
        lowest, highest = (
            limit[n] if isinstance(limit, tuple) else limit for limit in (o.min_rate, o.max_rate)
        )
        # At 0 the slope of ``|x|`` is 1, as in the default; differences take small steps.
        mean = math.fsum(np.where(group > -1 / 16, group, -group)) / len(group)
        if o.published and mean > highest:  # there it is 0
            mean = math.fsum(np.where(abs(group) < 1 / 16, 0, abs(group))) / len(group)
        means.append((mean, lowest, highest))
    return means


def van_rossum(o: SimpleNamespace, x: list[float], y: list[float]) -> float:
    def product(a: list[float], b: list[float]) -> float:
        return math.fsum(math.exp(-abs(t - u) / o.time_constant) for t in a for u in b)

    return product(x, x) - 2 * product(x, y) + product(y, y)


def victor_purpura(o: SimpleNamespace, x: list[float], y: list[float]) -> float:
    edits = np.add.outer(np.arange(len(x) + 1.0), np.arange(len(y) + 1.0))
    for i, j in np.ndindex(len(x), len(y)):
        matched = edits[i, j] + o.cost * abs(x[i] - y[j])
        edits[i + 1, j + 1] = min(edits[i, j + 1] + 1, edits[i + 1, j] + 1, matched)
    return float(edits[-1, -1])


def paired_trains(
    distance: Callable[..., float], o: Any, times: Any, target: Any, where: Any, weight: np.ndarray
) -> Terms:
    term_values, term_mask, term_weight = empty_terms((*times.shape[:2], 1))
    for b, c in np.ndindex(times.shape[:2]):
        if where is None or where[b]:
            pair = (sorted(t[np.isfinite(t)]) for t in (times[b, c], target[b, c]))
            term_values[b, c], term_mask[b, c] = weight[c] * distance(o, *pair), True
            term_weight[b, c] = weight[c]
    return Terms(term_values, term_mask, term_weight)


def poisson_nll(o: SimpleNamespace, u: float, n: float) -> float:
    rate = math.exp(u) if o.link == "log" else u
    log_rate = u if o.link == "log" or n == 0 else math.log(u)
    return rate - (n * log_rate if n else 0) + (math.lgamma(n + 1) if o.constant else 0)


def negative_binomial_nll(o: SimpleNamespace, u: float, n: float) -> float:
    a = max(o.own_dispersion, 1e-20)
    rate = math.exp(u) if o.link == "log" else u
    log_rate = u if o.link == "log" or n == 0 else math.log(u)
    value = math.log1p(a * rate) / a + n * (math.log1p(a * rate) - log_rate if n else 0)
    factors = (math.log((1 + a * j) / (j + 1)) for j in range(int(n)))
    return value - (sum(factors) if o.constant else 0)


def bernoulli_nll(o: SimpleNamespace, u: float, spike: float) -> float:
    if o.link == "hazard":
        return -math.log(-math.expm1(-math.exp(u))) if spike else math.exp(u)
    return math.log1p(math.exp(-u if spike else u))


def likelihood(
    term: Callable[..., float], o: Any, u: Any, target: Any, mask: Any, weight: Any
) -> Terms:
    term_values, _, _ = empty_terms(mask.shape)
    dispersion = np.broadcast_to(o.dispersion, len(weight))
    for at in np.argwhere(mask):
        o.own_dispersion = float(dispersion[at[1]])
        term_values[*at] = weight[at[1]] * term(o, u[*at], target[*at])
    return Terms(term_values, mask, np.broadcast_to(weight[:, None], mask.shape))


NLLS = {
    "PoissonNLL": poisson_nll,
    "NegativeBinomialNLL": negative_binomial_nll,
    "BernoulliNLL": bernoulli_nll,
}
OF_TRAINS = ("SpikeTime", *NLLS)
FORMULAS: dict[str, Callable[..., Terms]] = {
    "SpikeRate": spike_rate,
    "SpikeLatency": spike_latency,
    "SpikeMax": cross_entropy,
    "CrossEntropy": cross_entropy,
    "SquaredError": regression(lambda distance, o: distance**2),
    "AbsoluteError": regression(lambda distance, o: distance),
    "HuberError": regression(huber),
    "SpikeMoid": spike_moid,
    "times.CrossEntropy": cross_entropy,
    "times.SpikeLatency": spike_latency,
}
DISTANCES = {"times.SpikeTime": van_rossum, "times.VictorPurpura": victor_purpura}


def options(loss: Any) -> SimpleNamespace:
    """Return the options of a loss, with defaults for those that it lacks."""
    fields = [f.name for f in dataclasses.fields(loss) if f.init]
    reads_latency = name_of(loss) == "SpikeLatency" or hasattr(loss, "silent_time")
    own = {"readout": "latency"} if reads_latency else {}
    given = {name: getattr(loss, name) for name in fields}
    given["published"] = repr(loss).startswith("published.")  # with the numbers of lava-dl
    return SimpleNamespace(**DEFAULT_OPTIONS | own | given)


def empty_terms(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return terms, a term mask and term weights that are all zero."""
    return np.zeros(shape), np.zeros(shape, dtype=bool), np.zeros(shape)


def per_class(rate: Any, r: Reading) -> list[float]:
    """Return one rate per class."""
    return [rate] * r.u.shape[1] if isinstance(rate, float | int) else list(rate)


def clamped_log(p: float) -> float:
    """Return log(p), but at least -100, as lava-dl computes it."""
    return max(math.log(p), -100.0) if p > 0 else -100.0


# Predictions -------------------------------------------------------------------------------------


def scores(
    loss: Any, spikes: np.ndarray, where: Any, lengths: Any, per_step: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the classes, of which the largest wins, and which of them count."""
    o = options(loss)
    r = read(loss, spikes, where, lengths, moving_window=o.moving_window if per_step else None)
    if name_of(loss) == "SpikeMoid":
        return (r.u - o.theta) / o.alpha, r.term_mask
    if type(loss).__name__ == "CrossEntropy":
        u = np.sqrt(r.u + 0.375) if o.readout == "sqrt_count" else r.u
        return (-u if o.readout == "latency" else u) / o.temperature, r.term_mask
    if name_of(loss) == "SpikeRate":
        true, false = (
            np.asarray(per_class(rate, r))[:, None] * r.duration
            for rate in (o.true_rate, o.false_rate)
        )
        if o.one_sided:
            return np.maximum(r.u - false, 0) ** 2 - np.maximum(true - r.u, 0) ** 2, r.term_mask
        return (r.u - false) ** 2 - (r.u - true) ** 2, r.term_mask
    late = o.false_time is not None and o.false_time < o.true_time
    return -r.u if o.readout == "latency" and not late else r.u, r.term_mask


def predictions(score: np.ndarray, mask: np.ndarray, *, independent: bool) -> np.ndarray:
    """Return the class of the largest score, `[batch, 1, time or 1]`, or the bools of classes."""
    if independent:
        return mask & (score > 1e-9)
    score = np.where(mask, score, -math.inf)
    return np.argmax(score > score.max(axis=1, keepdims=True) - 1e-9, axis=1)[:, None]


def confusion(
    predicted: np.ndarray, mask: np.ndarray, label: np.ndarray, ignored: int | None
) -> np.ndarray:
    """Return how often each class was predicted for each label; `label` is as `predicted` is."""
    classes, independent = mask.shape[1], label.dtype == bool
    counts = np.zeros((classes, 2, 2) if independent else (classes, classes))
    for b, c, t in np.argwhere(mask):
        if independent:
            counts[c, int(label[b, c, t]), int(predicted[b, c, t])] += 1
        elif label[b, 0, t] == c != ignored:
            counts[c, predicted[b, 0, t]] += 1
    return counts


# Gradients ---------------------------------------------------------------------------------------


def differences(function: Callable[[Any], Any], x: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Return the gradient by fourth-order central differences, with an error of O(``step**4``)."""
    derivatives = []
    for i in range(x.size):
        offset = np.zeros(x.size)
        offset[i] = step
        offset = offset.reshape(x.shape)
        near = function(x + offset) - function(x - offset)
        far = function(x + 2 * offset) - function(x - 2 * offset)
        derivatives.append((8 * near - far) / (12 * step))
    return np.asarray(derivatives).reshape(*x.shape, *np.shape(derivatives[0]))
