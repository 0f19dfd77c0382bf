"""Invalid options and arguments, with the error that each of them must raise."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import spikeloss_xp as sx

MakeArray = Callable[..., Any]  # converts a NumPy array or a sequence to an array under test


@dataclass(frozen=True)
class Mistake:
    """A mistake and the error that it raises."""

    description: str
    error: type[Exception]
    make: Callable[[MakeArray], object]
    """Makes the mistake. Its argument converts arrays; mistakes in options ignore it."""
    message_parts: tuple[str, ...]
    """Substrings of the message: the argument, the value that arrived, and the expected one."""


SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(3, 4, 5))
LABEL = [1, 0, 3]
MULTI_HOT = np.asarray([[True, False, True, False], [False, False, False, False], [True] * 4])
DESIRED = np.ones(SPIKES.shape, dtype=bool)
NAN = float("nan")


_entropy = functools.partial(sx.CrossEntropy, time_axis=-1)
_latency = functools.partial(sx.SpikeLatency, time_axis=-1)
ENTROPY = _entropy()
LATENCY = sx.SpikeLatency(time_axis=-1, reduction="sum")
RATE, MAX, MOID, TIME = sx.SpikeRate(0.5, 0), sx.SpikeMax(), sx.SpikeMoid(theta=0), sx.SpikeTime()


def _rate(true_rate: Any = 1, false_rate: Any = 0, **options: Any) -> sx.SpikeRate:
    return sx.SpikeRate(true_rate, false_rate, **options)


def _made(
    what: str,
    make: Callable[..., Any],
    *parts: str,
    error: type[Exception] = ValueError,
    **wrong: Any,
) -> Mistake:
    """Return a mistake in the options of a constructor."""
    return Mistake(what, error, lambda _: make(**wrong), parts)


def _called(
    what: str, loss: Any, target: Any, *parts: str, error: type[Exception] = ValueError,
    spikes: Any = SPIKES, **options: Any,
) -> Mistake:  # fmt: skip
    """Return a mistake in the arrays of a call."""
    return Mistake(what, error, lambda asarray: loss(asarray(spikes), target, **options), parts)


def _value(what: str, loss: Any, *parts: str, spikes: Any = SPIKES, **arrays: Any) -> Mistake:
    """Return a mistake in the values of an array of a call."""

    def call(asarray: MakeArray) -> object:
        given = {name: asarray(values) for name, values in arrays.items()}
        return loss(asarray(spikes), **{"target": LABEL, **given})

    return Mistake(what, ValueError, call, parts)


OPTION_MISTAKES = (
    _made(
        "an unknown reduction", sx.SpikeMax, "reduction", "sum", "mean", "batchmean", "none",
        "'average'", reduction="average",
    ),
    _made(
        "an unknown readout", _rate, "readout", "rate", "count", "max", "last", "'first'",
        readout="first",
    ),
    _made(
        "an `ignore_index` of more than 32 bits", sx.SpikeMax, "ignore_index", "32 bits",
        "2147483648", ignore_index=2**31,
    ),
    _made(
        "a window with a readout that has none", _rate, "readout", "'max'", "moving_window", "3",
        moving_window=3, readout="max",
    ),
    *(
        _made(
            "a readout of `CrossEntropy` in `SpikeRate` or `SpikeMoid`", make, "readout",
            f"'{readout}'", "CrossEntropy", readout=readout,
        )
        for readout in ("softmax_sum", "latency", "sqrt_count")
        for make in (_rate, sx.SpikeMoid)
    ),
    *(
        _made(
            "`kernel` together with `time_constant` or `filter_order`", sx.SpikeTime, "kernel",
            name, "3", kernel=[1, 0.5], **{name: 3},
        )
        for name in ("time_constant", "filter_order")
    ),
    _made(
        "a `length` that differs from the number of taps", sx.SpikeTime, "length", "kernel", "2",
        "3", length=3, kernel=[1, 0.5],
    ),
    *(
        _made(
            "a kernel that is neither a function nor a sequence of taps", sx.SpikeTime, "kernel",
            "function of the lag", "[length]", shape, kernel=bad,
        )
        for bad, shape in ((2.0, "()"), ([], "(0,)"), ([[1, 0.5]], "(1, 2)"))
    ),
    *(
        _made(
            "a tap that is not finite", sx.SpikeTime, "kernel", place, "finite", "nan", kernel=bad,
            length=length,
        )
        for bad, place, length in (([1, NAN], "[1]", None), (lambda lag: NAN, "(0)", 3))
    ),
    *(
        _made(
            "a `pos_weight` below 0, infinite or NaN", sx.SpikeMoid, "pos_weight", str(bad),
            pos_weight=given,
        )
        for bad in (-0.5, float("inf"), NAN)
        for given in (bad, [1, bad])
    ),
    _made(
        '`pos_weight` with `numerics="lava"`', sx.SpikeMoid, "pos_weight", "2", "numerics", "lava",
        pos_weight=2, theta=0, numerics="lava",
    ),
    *(
        _made(
            "a time or a tolerance below 0", _latency, name, "at least 0", "-1",
            **{name: -1},
        )
        for name in ("true_time", "false_time", "tolerance")
    ),
    *(
        _made(
            "a temperature that is not above 0", _entropy, "temperature", str(bad),
            temperature=bad,
        )
        for bad in (0, -1, NAN)
    ),
    *(
        _made(
            "label smoothing below 0, or 1 and above", _entropy, "label_smoothing", str(bad),
            label_smoothing=bad,
        )
        for bad in (-0.1, 1, 1.5, NAN)
    ),
    *(
        _made(
            "no `time_axis`, where it has no default", make, "time_axis", error=TypeError
        )
        for make in (sx.CrossEntropy, sx.SpikeLatency, sx.Rate, sx.Latency)
    ),
    _made(
        "a kernel that is a function, without a `length`", sx.SpikeTime, "kernel", "length",
        kernel=lambda lag: 0.5**lag,
    ),
    *(
        _made(
            "a number of classes below 1", make, "num_classes", "at least 1", "0", num_classes=0
        )
        for make in (_rate, sx.SpikeMax, sx.SpikeMoid)
    ),
    _made(
        "a number of classes that is not an integer", sx.SpikeMax, "num_classes", "integer", "2.5",
        error=TypeError, num_classes=2.5,
    ),
    _made(
        "an ignored index that is not an integer", sx.SpikeMax, "ignore_index", "integer", "1.5",
        error=TypeError, ignore_index=1.5,
    ),
    *(
        _made(
            "a target rate outside 0 to 1, if rates or counts of several steps are read", _rate,
            "true_rate", "1.5", true_rate=rates, readout=readout,
        )
        for rates in (1.5, (0.5, 1.5))
        for readout in ("rate", "count")
    ),
    _made(
        "a target potential that is not finite", _rate, "false_rate", "nan", false_rate=NAN,
        readout="max",
    ),
    _made("a `min_rate` below 0", sx.SparsityEnforcer, "min_rate", "-0.5", min_rate=-0.5),
    _made(
        "a `min_rate` above `max_rate`", sx.SparsityEnforcer, "min_rate", "max_rate", "0.5",
        "0.25", max_rate=0.25, min_rate=0.5,
    ),
    _made(
        "an unknown `per`", sx.SparsityEnforcer, "per", "array", "neuron", "'layer'", per="layer"
    ),
)  # fmt: skip

TIME_FIRST = np.moveaxis(SPIKES, -1, 0)
ARRAY_MISTAKES = (
    _called(
        "one label for each class or step instead of each sample", MAX, [0, 1, 2, 3], "target",
        "(3,)", "(4,)",
    ),
    _called(
        "input with time first, without `time_axis=0`", MAX, LABEL, "target", "(5,)", "(3,)",
        "time_axis", spikes=TIME_FIRST,
    ),
    _called(
        "the same with a label for each step, which could also be one-hot", sx.SpikeMax(2),
        np.zeros((5, 3), int), "target", "(5, 3)", "(5,)", "CrossEntropy", "time_axis",
        spikes=TIME_FIRST,
    ),
    _called(
        "one label for each step, without a window", MAX, np.zeros((3, 5), int), "target",
        "(3, 5)", "(3,)", "moving_window",
    ),
    _called(
        "class indices instead of multi-hot labels", MOID, LABEL, "target", "multi-hot", "int",
        "class indices", error=TypeError,
    ),
    _called(
        "multi-hot labels instead of class indices", MAX, MULTI_HOT, "target", "integers", "bool",
        "CrossEntropy", error=TypeError,
    ),
    *(
        _called(
            "class probabilities that are not floats with a class axis", ENTROPY, target, "target",
            dtype, *parts, error=error,
        )
        for target, error, dtype, *parts in (
            (MULTI_HOT, TypeError, "bool", "class probabilities are floats"),
            (MULTI_HOT.astype(int), TypeError, "int", "class probabilities are floats"),
            ([0.0, 1.0, 2.0], TypeError, "float", "integers"),
        )
    ),
    _called(
        "class indices for `SquaredError`", sx.SquaredError(time_axis=-1), LABEL, "target",
        "target readings", "int", error=TypeError,
    ),
    _called(
        "class probabilities of another shape", ENTROPY, np.ones((4, 3)), "target", "(4, 3)",
        "(3, 4)", "another order",
    ),
    _called(
        "class probabilities for each step, without a window", ENTROPY, np.ones((3, 4, 5)),
        "target", "(3, 4, 5)", "(3, 4)", "moving_window",
    ),
    _called(
        "`num_classes` that does not divide the number of neurons", sx.SpikeMax(num_classes=3),
        [0, 1, 2], "num_classes", "3", "4",
    ),
    _called(
        "target rates for another number of classes", sx.SpikeRate((0.5, 0.5, 0.5), 0), LABEL,
        "true_rate", "3", "4",
    ),
    _called(
        "`pos_weight` for another number of classes",
        sx.SpikeMoid(pos_weight=(2, 3), theta=0), MULTI_HOT,
        "pos_weight", "2", "4",
    ),
    _called(
        "target times of another shape", LATENCY, np.ones((3, 5)), "target", "(3, 4)", "(3, 5)"
    ),
    *(
        _called(
            "a mask of another shape", MAX, LABEL, "where", str(shape), "(3,)", "(3, 5)",
            "(3, 4, 5)", where=np.ones(shape, dtype=bool),
        )
        for shape in ((5, 3), (4,), (), (1,), (1, 5), (3, 4), (3, 1, 5), (5, 4, 3))
    ),
    _called(
        "a mask that is not bool", MAX, LABEL, "where", "bool", "int", error=TypeError,
        where=[1, 1, 0],
    ),
    _called("lengths of another shape", MAX, LABEL, "lengths", "(2,)", "(3,)", lengths=[5, 5]),
    _called("one length for all samples", MAX, LABEL, "lengths", "()", "(3,)", lengths=5),
    _called(
        "lengths that are not integers", MAX, LABEL, "lengths", "integers", "float",
        error=TypeError, lengths=[5.0, 4.0, 3.0],
    ),
    _called(
        "one weight for each sample instead of each class", MAX, LABEL, "weight", "(3,)", "(4,)",
        weight=[1.0, 2.0, 3.0],
    ),
    _called("a single weight", MOID, MULTI_HOT, "weight", "()", "(4,)", weight=2.0),
    _called(
        "weights that are not numbers", RATE, LABEL, "weight", "bool", error=TypeError,
        weight=[True, False, True, True],
    ),
    _called(
        "class weights for `SpikeTime`", TIME, DESIRED, "weight", "SpikeTime", error=TypeError,
        weight=[1.0, 1.0, 1.0, 1.0],
    ),
)  # fmt: skip

VALUE_MISTAKES = (
    _value(
        "a label that is neither a class nor `ignore_index`", MAX, "target", "3", "4",
        target=[0, 4, 1],
    ),
    _value(
        "a multi-hot label outside 0 to 1, or NaN", MOID, "target", "0", "1",
        target=np.where(MULTI_HOT, NAN, 0),
    ),
    *(
        _value(
            "a class probability below 0, infinite or NaN", ENTROPY, "target",
            "finite and at least 0", str(bad), target=np.full((3, 4), bad),
        )
        for bad in (-0.5, float("inf"), NAN)
    ),
    _value(
        'a number of spikes below 0 with `readout="sqrt_count"`, also beside NaN',
        _entropy(readout="sqrt_count"), "input", "below 0", "'softmax_sum'", "-1",
        spikes=np.where(np.arange(4)[:, None] > 2, NAN, -0.2) * np.ones((3, 4, 5)),
    ),
    _value(
        "a target of `SquaredError` that is not finite", sx.SquaredError(time_axis=-1), "target",
        "target readings, finite", "nan", target=np.full((3, 4), NAN),
    ),
    _value(
        "a target time below 0, infinite or NaN", LATENCY, "target", "at least 0", "-5.5",
        target=np.full((3, 4), -5.5),
    ),
    _value(
        "a spike below 0, if latencies are read", LATENCY, "input", "below 0", "-0.99",
        spikes=-SPIKES,
    ),
    _value(
        'a sum of spikes below 0 in `SpikeMax` with `mode="probability"`', MAX, "input", "below 0",
        "mode='probability'", spikes=-SPIKES,
    ),
    *(
        _value(
            "a length below 0 or above the number of steps", MAX, "lengths", "0", "5", str(bad),
            lengths=[1, bad, 5],
        )
        for bad in (-1, 6)
    ),
    *(
        _value(
            "a weight below 0, infinite or NaN", MAX, "weight", str(bad), weight=[1, bad, 1, 1.0]
        )
        for bad in (-0.5, float("inf"), NAN)
    ),
)  # fmt: skip
