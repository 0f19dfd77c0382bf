"""Calls of `diagnose` on batches that are as they should be, and on batches with one mistake.

The keys of `FAULTY` are the codes of the expected first findings. The name of an array ends with
``_FIRST`` if its axes are ``[time, batch, class]``, and with ``_BETWEEN`` if they are
``[batch, time, class]``; the other arrays have time last.
"""

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import spikeloss_xp as sx
from _support.cases import line_of_module
from spikeloss_xp import times
from spikeloss_xp.slayer import published

BATCH, CLASSES, STEPS = 24, 4, 20
random = np.random.default_rng(0)


def drawn(rate: Any, shape: tuple[int, ...] = (BATCH, CLASSES, STEPS)) -> Any:
    """Return random spikes."""
    return (random.random(shape) < rate).astype("float32")


def softmax(x: Any) -> Any:
    """Return probabilities."""
    shares = np.exp(x)
    return shares / shares.sum(axis=-1, keepdims=True)


LABEL = np.arange(BATCH) % CLASSES
NINE_OF_TEN_RIGHT = np.where(np.arange(20) < 18, LABEL[:20], (LABEL[:20] + 1) % CLASSES)
HOT = (LABEL[:, None] == np.arange(CLASSES))[..., None]
TRAINED = drawn(np.where(HOT, 0.5, 0.03))
TRAINED[np.arange(BATCH), LABEL, 4] = 1
NOISE = random.normal(size=(BATCH, CLASSES, STEPS)).cumsum(axis=-1) / 4
POTENTIALS = NOISE + np.where(HOT, 0.5, 0)
SEVERAL = np.where(drawn(0.7, (BATCH, CLASSES, 5)) > 0, random.uniform(0, 18, (24, 4, 5)), np.nan)
FIRST = np.fmin.reduce(SEVERAL, axis=-1)
HALF_MASKED = np.where(np.arange(BATCH)[:, None] < 12, 0, FIRST)
HALF_MASKED[12, 0] = 0
LABEL_OF_STEPS = np.repeat(LABEL[:, None], STEPS, axis=1)
PROBABILITIES = softmax(random.normal(size=(BATCH, CLASSES)) + 3 * HOT[..., 0])
MULTI_HOT = HOT[..., 0] | (random.random((BATCH, CLASSES)) < 0.2)
LENGTHS = random.integers(12, STEPS, size=BATCH)
FRESH = drawn(0.2)
EXACT = HOT * (np.arange(STEPS) % 2.0)
ONE_OF_EACH_GROUP = HOT[LABEL // 2 * 2] * (np.arange(STEPS) % 2.0)
LATE = np.where(np.arange(BATCH)[:, None] == 0, 0.25, FIRST + 1)  # in 23 of 24 samples
PADDED = np.where(np.arange(STEPS) < 10, TRAINED, 0)
REPEATED = np.repeat(drawn(0.3, (BATCH, 1, STEPS)), CLASSES, axis=1)
VOTES = drawn(0.3, (BATCH, CLASSES, STEPS, 10)).mean(axis=-1)
WIDE = drawn(0.1, (BATCH, 50, STEPS))
NEURON = np.arange(50)[:, None]
LOG_RATES = random.normal(np.log(0.2), 0.5, size=FRESH.shape)
COUNTS = random.poisson(np.exp(LOG_RATES)).astype(float)
MISSING = drawn(0.2) > 0
TINY_RATE = np.exp(LOG_RATES)
TINY_RATE[0, 0, 0] = 1e-310  # its loss is finite, and the gradient is not
WITH_NAN = np.where(drawn(0.05) > 0, np.nan, TRAINED)
FRESH_FIRST, FRESH_BETWEEN = np.moveaxis(FRESH, -1, 0), np.moveaxis(FRESH, -1, 1)
TRAINED_FIRST = np.moveaxis(TRAINED, -1, 0)
COUNT_FIRST = TRAINED_FIRST.sum(axis=0, keepdims=True)
POTENTIALS_FIRST = np.moveaxis(POTENTIALS, -1, 0)
for array in [x for x in globals().values() if isinstance(x, np.ndarray)]:
    array.flags.writeable = False  # `diagnose` must not change its arguments


@dataclass(frozen=True, eq=False)
class Case:
    """A call of `diagnose`: a loss, its input, its target, and the other arguments."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]
    line: int = field(default_factory=line_of_module)

    def __str__(self) -> str:
        return f"diagnoses.py:{self.line}"


def case(*arguments: Any, **options: Any) -> Case:
    return Case(arguments, options)


entropy = functools.partial(sx.CrossEntropy, time_axis=-1)
FIRST_TIMES = times.CrossEntropy(temperature=1.0, silent_time=20.0)


def gradients(*sizes: float | None) -> dict[str, Any]:
    """Return gradients of weights, each with one root mean square, and of their biases."""
    weight = random.choice([-1.0, 1.0], size=(7, 5)).astype("float32")
    found: dict[str, Any] = {}
    for i, size in enumerate(sizes):
        found[f"{i}.weight"] = None if size is None else size * weight
        found[f"{i}.bias"] = None if size is None else size * weight[0]
    return found


HEALTHY = [
    case(entropy(moving_window=1), POTENTIALS, LABEL),
    case(entropy(moving_window=5), FRESH, np.where(np.arange(20) < 10, -100, LABEL_OF_STEPS)),
    case(entropy(label_smoothing=0.1), TRAINED, LABEL, weight=[1, 2, 1, 1]),
    case(entropy(num_classes=2), TRAINED, LABEL // 2),
    case(entropy(), VOTES, LABEL),
    case(entropy(), WITH_NAN, LABEL, where=np.isfinite(WITH_NAN)),
    case(entropy(), TRAINED > 0, LABEL, hidden=WIDE > 0),
    case(
        sx.SpikeRate((0.5, 0.4, 0.5, 0.6), 0.05, moving_window=5, time_axis=0, reduction="sum"),
        TRAINED_FIRST,
        LABEL,
    ),
    case(sx.SpikeMax(mode="softmax", time_axis=-1, reduction="sum"), TRAINED, LABEL),
    case(
        sx.SpikeMoid(moving_window=5, alpha=1, theta=0.2, time_axis=1, reduction="sum"),
        FRESH_BETWEEN,
        MULTI_HOT,
    ),
    case(sx.SpikeTime(time_constant=5, time_axis=-1, reduction="sum"), FRESH[:, 0], TRAINED[:, 0]),
    case(sx.SquaredError(time_axis=-1, moving_window=1), POTENTIALS, 2 * POTENTIALS),
    case(sx.AbsoluteError(time_axis=-1), TRAINED, EXACT.mean(axis=-1)),
    case(sx.HuberError(time_axis=-1), FRESH, TRAINED.mean(axis=-1)),
    case(sx.SparsityEnforcer(time_axis=-1), [WIDE, TRAINED]),
    case(FIRST_TIMES, np.where(np.arange(5) == 0, 0, SEVERAL), LABEL),
    case(times.VictorPurpura(cost=0.1), SEVERAL, SEVERAL[::-1]),
    case(sx.PoissonNLL(time_axis=-1), LOG_RATES, COUNTS, where=~MISSING),
    case(sx.PoissonNLL(time_axis=-1, link="identity"), np.exp(LOG_RATES), COUNTS),
    case(sx.BernoulliNLL(time_axis=-1), 0 * LOG_RATES - 4, FRESH),
    case(sx.BernoulliNLL(time_axis=-1, link="hazard"), LOG_RATES, FRESH),
]

FAULTY = {
    "refused": [
        case(entropy(), FRESH, LABEL + 1),
        case(entropy(readout="sqrt_count"), POTENTIALS, LABEL),
        case(entropy(), FRESH, LABEL, lengths=LENGTHS + 20, hidden=WIDE),
        case(sx.SparsityEnforcer(0.05, time_axis=-1), [WIDE, FRESH], lengths=LENGTHS + 20),
        case(FIRST_TIMES, TRAINED, LABEL),
    ],
    "not-finite": [
        case(entropy(), WITH_NAN, LABEL),
        case(entropy(), FRESH, LABEL, gradients=gradients(np.nan, 1e-3)),
        case(entropy(), FRESH, LABEL, gradients=[np.ones((2, 2)), np.full(2, np.nan)]),
        case(entropy(), FRESH, LABEL, hidden=[WIDE, WITH_NAN]),
        case(sx.SparsityEnforcer(0.05, time_axis=-1), 1e200 * WIDE.astype("float64")),
        case(sx.PoissonNLL(time_axis=-1, link="identity"), TINY_RATE, np.ones_like(COUNTS)),
        case(
            published.SpikeMax(time_axis=-1, reduction="sum"),
            np.where(np.arange(4)[:, None] < 2, 0, FRESH),
            LABEL,
        ),
    ],
    "times-out-of-range": [
        case(times.SpikeLatency(silent_time=20.0), np.where(np.isnan(SEVERAL), -1, SEVERAL), LABEL),
        case(FIRST_TIMES, np.where(np.arange(5) < 2, 0, SEVERAL), LABEL),
        case(times.SpikeLatency(silent_time=20.0), np.where(np.arange(4) < 3, 0, FIRST), LABEL),
        case(FIRST_TIMES, 1000 * FIRST + 20, LABEL),
        case(times.CrossEntropy(temperature=1.0, silent_time=0.5), LATE, LABEL),
        case(FIRST_TIMES, np.full_like(FIRST, 20), LABEL),
        case(FIRST_TIMES, FIRST / 1000, LABEL),  # seconds, milliseconds
        case(times.SpikeLatency(true_time=0.005, silent_time=30.0), FIRST + 5, LABEL),
        case(times.SpikeLatency(false_time=9e3, silent_time=1e4), FIRST, LABEL),
    ],
    "not-spikes": [
        case(entropy(), POTENTIALS, LABEL),
        case(entropy(), np.round(POTENTIALS, 1), LABEL),
        case(entropy(), POTENTIALS[:2, :, 4:6], LABEL[:2]),
        case(sx.CrossEntropy(time_axis=0), softmax(POTENTIALS_FIRST), LABEL),
        case(sx.SpikeRate(0.5, 0.02, time_axis=-1, reduction="sum"), POTENTIALS, LABEL),
        case(sx.SpikeMax(time_axis=0, reduction="sum"), softmax(POTENTIALS_FIRST), LABEL),
    ],
    "impossible-rate": [
        case(entropy(rates=(0.5, 0.02)), 7 + FRESH[..., :1], LABEL),
        case(
            sx.SpikeRate((0.5, 0.4, 0.5, 0.6), 0.02, time_axis=0, reduction="sum"),
            COUNT_FIRST,
            LABEL,
        ),
    ],
    "rate-units": [
        case(sx.PoissonNLL(time_axis=-1, link="identity"), 200 * np.exp(LOG_RATES), COUNTS),
        case(sx.PoissonNLL(time_axis=-1, link="identity"), np.exp(LOG_RATES) / 50, COUNTS),
        case(sx.PoissonNLL(time_axis=-1), 20 * np.exp(LOG_RATES), COUNTS),
        case(sx.PoissonNLL(time_axis=-1), np.exp(LOG_RATES), COUNTS),
        case(sx.BernoulliNLL(time_axis=-1), np.minimum(np.exp(LOG_RATES), 1), FRESH),
        case(sx.BernoulliNLL(time_axis=-1, link="hazard"), LOG_RATES - 5, FRESH),
    ],
    "time-constant": [
        case(sx.SpikeTime(time_constant=0.005, time_axis=-1, reduction="sum"), FRESH, TRAINED)
    ],
    "temperature": [
        case(entropy(temperature=0.01), TRAINED, LABEL),
        case(entropy(temperature=1000), TRAINED, LABEL),
        case(entropy(readout="rate"), TRAINED, LABEL),
        case(entropy(readout="rate", temperature=20), TRAINED, LABEL),
        case(times.CrossEntropy(temperature=1.0, silent_time=0.02), FIRST / 1000, LABEL),
    ],
    "inverted-mask": [
        case(entropy(), PADDED > 0, LABEL, where=np.arange(20) >= 10),
        case(entropy(), PADDED, LABEL, where=np.arange(20) >= 10),
    ],
    "short-lengths": [
        case(entropy(), TRAINED, LABEL, lengths=LENGTHS // 10),
        case(entropy(), (np.arange(20) > 0) * FRESH, LABEL, lengths=LABEL // 4 + 1),
    ],
    "one-class": [
        case(entropy(), FRESH, 0 * LABEL),
        case(entropy(), FRESH, (np.arange(24) < 9)[:, None] * [0.7, 0.1, 0.1, 0.1]),
        case(entropy(), FRESH[:8], 0 * LABEL[:8] + 2),
    ],
    "silent-hidden": [
        case(entropy(), FRESH, LABEL, hidden={"first": WIDE, "next": 0 * WIDE}),
        case(sx.SparsityEnforcer(0.1, time_axis=-1), [WIDE, 0 * WIDE]),
        case(FIRST_TIMES, np.nan * FIRST, LABEL, hidden=[np.nan * FIRST]),
    ],
    "silent-output": [
        case(entropy(), 0 * FRESH, LABEL),
        case(FIRST_TIMES, np.full_like(FIRST, np.nan), LABEL),
        case(sx.SpikeTime(time_constant=5, time_axis=-1, reduction="sum"), 0 * FRESH, TRAINED),
    ],
    "busy-hidden": [
        case(entropy(), FRESH, LABEL, hidden=[WIDE, drawn(0.45, WIDE.shape)]),
    ],
    "no-gradient": [
        case(entropy(), FRESH, LABEL, gradients=gradients(None, 1e-3)),
        case(entropy(), FRESH, LABEL, gradients=gradients(0.0, 1e-3, 1e-3)),
        case(entropy(), FRESH, LABEL, gradients=[np.zeros((7, 1)), np.full((7, 5, 3), 1e-3)]),
        case(entropy(), FRESH, LABEL, gradients=[np.zeros((7, 5, 3)), np.full((7, 1), 1e-3)]),
    ],
    "vanishing-gradient": [
        case(entropy(), FRESH, LABEL, gradients=gradients(1e-3 / 30.5, 1e-3)),
        case(entropy(), FRESH, LABEL, gradients=gradients(1e-3 / 37, 3e-4, 1e-3)),
        case(entropy(), FRESH, LABEL, gradients=gradients(2.7e-5, 3e-4, 1e-3, 1e-5)),
        case(entropy(), FRESH, LABEL, gradients=gradients(1e-20, 1.4e-6)),
    ],
    "exploding-gradient": [
        case(entropy(), FRESH, LABEL, gradients=gradients(40.0, 350.0)),
        case(entropy(reduction="sum"), FRESH, LABEL, gradients=gradients(40.0 * 24, 350.0 * 24)),
    ],
    "missed-class": [
        case(entropy(), np.where(NEURON[:4] == 1, 0, TRAINED), LABEL),
        case(entropy(), TRAINED[np.where(LABEL == 1, 2, np.arange(BATCH))], LABEL),
    ],
    "zero-gradient": [
        case(entropy(), FRESH, 0 * LABEL - 100),
        case(sx.SpikeLatency(tolerance=20.0, time_axis=-1), TRAINED, (LABEL + 1) % 4),
        case(entropy(), FRESH[:20], np.maximum(0, np.arange(20) - 17), weight=[0, 1, 1, 1]),
        case(times.VictorPurpura(cost=1000.0), SEVERAL, SEVERAL + 100),
        case(
            published.SpikeMoid(alpha=0.001, theta=-0.5, time_axis=-1),
            FRESH,
            MULTI_HOT,
        ),
    ],
    "ambiguous-layout": [
        case(sx.CrossEntropy(time_axis=1), FRESH_FIRST[:, :20], LABEL[:20]),
        case(sx.SpikeRate(0.5, 0.02, time_axis=-1, reduction="sum"), TRAINED[..., :4], LABEL),
        case(None, FRESH_FIRST, LABEL, time_axis=1),
        case(None, [FRESH_FIRST, FRESH_FIRST], LABEL.tolist(), time_axis=1),
    ],
    "absent-class": [
        case(entropy(), FRESH, LABEL % 2 * 3),
        case(entropy(), FRESH[:16], LABEL[:16] % 2 * 3),
        case(entropy(), FRESH_BETWEEN, LABEL),
        case(entropy(), FRESH[:8], LABEL[:8] % 2),
    ],
    "silent-target": [
        case(sx.PoissonNLL(time_axis=-1), np.exp(LOG_RATES), 0 * COUNTS),
        case(sx.PoissonNLL(time_axis=-1), LOG_RATES, np.arange(CLASSES)[:, None] % 2 * COUNTS),
    ],
    "mostly-masked": [case(entropy(), TRAINED, LABEL, lengths=LENGTHS // 3)],
}

NO_FINDING = [
    case(entropy(), TRAINED, LABEL, lengths=0 * LENGTHS + 10),
    case(entropy(), 2 * EXACT, np.where(np.arange(24) < 12, LABEL, (LABEL + 1) % 4)),
    case(entropy(num_classes=2), ONE_OF_EACH_GROUP, LABEL // 2),
    case(published.SparsityEnforcer(2.0, time_axis=-1), [4 * WIDE, WIDE]),
    case(published.SparsityEnforcer(2.0, time_axis=-1), 2 * WIDE),
    case(sx.SparsityEnforcer(1.0, min_rate=1.0, time_axis=-1), WIDE),
    case(FIRST_TIMES, np.where(np.isnan(FIRST), 1e9, FIRST), LABEL),
    case(times.SpikeLatency(true_time=1.0, silent_time=1e3), 60 * FIRST, LABEL),
    case(times.SpikeTime(time_constant=5.0), SEVERAL, SEVERAL[::-1]),
    case(times.SpikeTime(time_constant=5.0), np.where(np.arange(4) < 2, 0, FIRST), SEVERAL),
    case(times.SpikeLatency(silent_time=20.0), HALF_MASKED, LABEL, where=np.arange(24) >= 12),
    case(times.CrossEntropy(silent_time=20.0, temperature=2.0), FIRST, LABEL, hidden=[SEVERAL]),
    case(
        sx.SpikeMoid(alpha=1, theta=0.2, time_axis=-1, reduction="sum"),
        TRAINED,
        0.25 + 0.5 * MULTI_HOT,
    ),
    case(entropy(), EXACT[:, :1], 0 * LABEL),
    case(entropy(), FRESH, LABEL, hidden=WIDE, gradients=gradients(1e-3, 1e-3)),
    case(entropy(), FRESH[:7], 0 * LABEL[:7] + 2),
    case(entropy(), FRESH[:15], LABEL[:15] % 2 * 3),
    case(entropy(), FRESH[:7], LABEL[:7] % 2),
    case(sx.SpikeMoid(alpha=1, theta=0.2, time_axis=-1, reduction="sum"), REPEATED, MULTI_HOT),
    case(
        sx.SpikeMoid(alpha=1, theta=0.2, time_axis=-1, reduction="sum"),
        TRAINED,
        MULTI_HOT * (np.arange(4) < 3),
    ),
    case(entropy(), EXACT * (np.arange(20) < 2), LABEL),  # the logits differ by 1
    case(entropy(), 100 * EXACT, LABEL),  # they differ by 1000
    case(sx.SpikeLatency(tolerance=20.0, time_axis=-1), EXACT[:20, :, :19], NINE_OF_TEN_RIGHT),
    case(entropy(), FRESH, LABEL, hidden=np.where(np.arange(STEPS) < 8, 1.0, 0 * WIDE)),
    case(entropy(), FRESH, LABEL, hidden=np.where(NEURON < 45, 0, WIDE)),  # silent only
    case(entropy(ignore_index=0), FRESH, LABEL),
    case(entropy(readout="rate"), 3 * POTENTIALS, LABEL),
    case(entropy(readout="rate", temperature=20), 60 * POTENTIALS, LABEL),
    case(times.CrossEntropy(temperature=1e-3, silent_time=0.02), FIRST * 1e-3, LABEL),
    case(FIRST_TIMES, FIRST, LABEL),
    case(entropy(), FRESH.sum(axis=-1, keepdims=True) + 1, LABEL),
    case(entropy(), TRAINED[np.where(LABEL == 1, 2, np.arange(BATCH))][:15], LABEL[:15]),
    case(None, FRESH_FIRST, LABEL, time_axis=0),
    case(None, FRESH_FIRST[:, :STEPS], LABEL[:STEPS], time_axis=1),
    case(None, FRESH_FIRST[:, :1], LABEL[:STEPS], time_axis=0),
    case(
        sx.SpikeMoid(alpha=1, theta=0.2, time_axis=-1, reduction="sum"),
        TRAINED,
        np.where(MULTI_HOT, 0.5, 0.0),
    ),
]
# One spike in 800 steps, so that half of the labels HALF are predicted.
QUIET = np.zeros((BATCH, CLASSES, 10 * STEPS))
QUIET[:, :, 0] = np.eye(CLASSES)[np.arange(BATCH) // 6]
HALF = (np.arange(BATCH) // 6 + np.arange(BATCH) % 2) % CLASSES
FAULTY["diverged"] = [case(entropy(), WITH_NAN, LABEL, earlier=1.4)]
FAULTY["quiet-output"] = [case(entropy(), QUIET, HALF, earlier=9.0)]
FAULTY["not-moved"] = [case(entropy(), FRESH, LABEL, earlier=0.0)]
NOT_FINITE = np.where(np.arange(COUNTS.size).reshape(COUNTS.shape) < 1, np.nan, 0.0)
FAULTY["not-finite"].append(case(sx.PoissonNLL(time_axis=-1), NOT_FINITE, COUNTS))
FAULTY["silent-output"].append(case(entropy(), 0 * FRESH, LABEL, where=np.arange(20) >= 10))

MINUS_INFINITY = np.where(np.arange(STEPS) < 3, -np.inf, POTENTIALS)
SOFT = 0.4 * PROBABILITIES + 0.6 * (np.arange(CLASSES) == 1)
VALID = np.arange(STEPS) < LENGTHS[:, None]
ALL_VALID = VALID.all(axis=0)[None, None]
ONLY_VALID = np.where(VALID[:, None], WIDE, np.nan)
OTHER_FINDING = [  # codes that must not be among the findings
    ("one-class", case(entropy(), FRESH, SOFT)),
    ("missed-class", case(entropy(), np.where(NEURON[:4] == 1, 0, TRAINED), LABEL // 2 * 2)),
    ("missed-class", case(entropy(), 0 * FRESH, LABEL)),
    ("not-finite", case(entropy(), FRESH, LABEL, hidden=ONLY_VALID, where=VALID[:, None])),
    ("not-finite", case(entropy(), FRESH, LABEL, hidden=ONLY_VALID[:, None], where=ALL_VALID)),
    ("not-finite", case(entropy(), FRESH, LABEL, hidden=WIDE, where=LENGTHS[:, None, None] > 12)),
    ("rate-units", case(sx.BernoulliNLL(time_axis=-1), np.exp(LOG_RATES) + 0.1, FRESH)),
    (
        "vanishing-gradient",
        case(entropy(), FRESH, LABEL, gradients=[np.full((7, 1, 1), 1e-9), np.full((7, 5), 1e-3)]),
    ),
    (
        "impossible-rate",
        case(sx.SpikeRate(1.0, 0.0, time_axis=0, reduction="sum"), 9 * POTENTIALS_FIRST[:1], LABEL),
    ),
    (
        "impossible-rate",
        case(sx.SpikeRate(0.5, 0.02, time_axis=0, reduction="sum"), FRESH_FIRST[:1], LABEL),
    ),
    (
        "impossible-rate",
        case(sx.SpikeRate(0.5, 0.02, time_axis=0, reduction="sum"), 2 * FRESH_FIRST[:2], LABEL),
    ),
    ("inverted-mask", case(entropy(), 0 * FRESH, LABEL, where=np.arange(20) >= 10)),
    ("not-spikes", case(entropy(), POTENTIALS[..., :1], LABEL)),
    ("not-finite", case(entropy(readout="max"), MINUS_INFINITY, LABEL)),
    ("rate-units", case(sx.PoissonNLL(time_axis=-1), NOT_FINITE, COUNTS)),
]


# Reports ------------------------------------------------------------------------------------------


@functools.cache
def report_of(case):
    """Return the report of a case."""
    return sx.diagnose(*case.arguments, **case.options)


def codes(report):
    """Return the codes of the findings."""
    return [finding.code for finding in report.findings]


def problems(report):
    """Return the codes of the problems."""
    return {finding.code for finding in report.findings if finding.severity == "problem"}


def on(backend, x):
    """Return the arrays of an argument, which may be nested, on a backend."""
    if x is None:
        return None
    if isinstance(x, dict):
        return {key: on(backend, each) for key, each in x.items()}
    if isinstance(x, list) and not isinstance(x[0], int):
        return [on(backend, each) for each in x]
    return backend.asarray(x)
