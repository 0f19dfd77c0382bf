"""Invalid options and arguments, with the error that each of them must raise."""

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


def _call(loss: Any, target: Any = None, **arguments: Any) -> Callable[[MakeArray], object]:
    """Return a function that calls a loss with valid spikes and the given arguments."""
    targets = () if target is None else (target,)
    return lambda asarray: loss(asarray(SPIKES), *targets, **arguments)


LATENCY = sx.SpikeLatency()
RATE, MAX, MOID, TIME = sx.SpikeRate(0.5, 0), sx.SpikeMax(), sx.SpikeMoid(), sx.SpikeTime()

OPTION_MISTAKES = (
    Mistake(
        "an unknown reduction",
        ValueError,
        lambda _: sx.SpikeMax(reduction="average"),
        ("reduction", "sum", "mean", "batchmean", "none", "'average'"),
    ),
    Mistake(
        "an unknown readout",
        ValueError,
        lambda _: sx.SpikeRate(1, 0, readout="first"),
        ("readout", "rate", "count", "max", "last", "'first'"),
    ),
    Mistake(
        "an `ignore_index` of more than 32 bits",
        ValueError,
        lambda _: sx.SpikeMax(ignore_index=2**31),
        ("ignore_index", "32 bits", "2147483648"),
    ),
    Mistake(
        "a window with a readout that has none",
        ValueError,
        lambda _: sx.SpikeRate(1, 0, 3, readout="max"),
        ("readout", "'max'", "moving_window", "3"),
    ),
    *(
        Mistake(
            '`readout="max"`, `"last"` or `"softmax_sum"` with `mode="probability"`',
            ValueError,
            lambda _, readout=readout: sx.SpikeMax(readout=readout),
            ("readout", f"'{readout}'", "mode", "softmax"),
        )
        for readout in ("last", "softmax_sum")
    ),
    *(
        Mistake(
            '`readout="softmax_sum"` in a loss with a term for each class',
            ValueError,
            lambda _, make=make: make(readout="softmax_sum"),
            ("readout", "'softmax_sum'", "SpikeMax(mode='softmax')", name),
        )
        for name, make in (
            ("SpikeRate", lambda **o: sx.SpikeRate(1, 0, **o)),
            ("SpikeMoid", sx.SpikeMoid),
        )
    ),
    *(
        Mistake(
            "`kernel` together with `time_constant` or `filter_order`",
            ValueError,
            lambda _, name=name: sx.SpikeTime(kernel=[1, 0.5], **{name: 3}),
            ("kernel", name, "3"),
        )
        for name in ("time_constant", "filter_order")
    ),
    Mistake(
        "a `length` that differs from the number of taps",
        ValueError,
        lambda _: sx.SpikeTime(length=3, kernel=[1, 0.5]),
        ("length", "kernel", "2", "3"),
    ),
    *(
        Mistake(
            "a kernel that is neither a function nor a sequence of taps",
            ValueError,
            lambda _, bad=bad, shape=shape: sx.SpikeTime(kernel=bad),
            ("kernel", "function of the lag", "[length]", shape),
        )
        for bad, shape in ((2.0, "()"), ([], "(0,)"), ([[1, 0.5]], "(1, 2)"))
    ),
    *(
        Mistake(
            "a tap that is not finite",
            ValueError,
            lambda _, bad=bad: sx.SpikeTime(kernel=bad),
            ("kernel", "[1]" if isinstance(bad, list) else "(0)", "finite", "nan"),
        )
        for bad in ([1, NAN], lambda lag: NAN)
    ),
    *(
        Mistake(
            "a `pos_weight` below 0, infinite or NaN",
            ValueError,
            lambda _, bad=bad, given=given: sx.SpikeMoid(pos_weight=given),
            ("pos_weight", str(bad)),
        )
        for bad in (-0.5, float("inf"), NAN)
        for given in (bad, [1, bad])
    ),
    Mistake(
        '`pos_weight` with `numerics="lava"`',
        ValueError,
        lambda _: sx.SpikeMoid(pos_weight=2, numerics="lava"),
        ("pos_weight", "2", "numerics", "lava"),
    ),
    Mistake(
        '`readout="latency"` with `mode="probability"`',
        ValueError,
        lambda _: sx.SpikeMax(readout="latency"),
        ("readout", "'latency'", "mode", "softmax"),
    ),
    *(
        Mistake(
            '`readout="latency"` in `SpikeRate` or `SpikeMoid`',
            ValueError,
            lambda _, make=make: make(readout="latency"),
            ("readout", "'latency'", "SpikeLatency"),
        )
        for make in (lambda **o: sx.SpikeRate(1, 0, **o), sx.SpikeMoid)
    ),
    *(
        Mistake(
            "a time or a tolerance below 0",
            ValueError,
            lambda _, name=name: sx.SpikeLatency(**{name: -1}),
            (name, "at least 0", "-1"),
        )
        for name in ("true_time", "false_time", "tolerance")
    ),
    Mistake(
        '`temperature` with `mode="probability"`',
        ValueError,
        lambda _: sx.SpikeMax(temperature=0.5),
        ("temperature", "0.5", "mode", "softmax"),
    ),
    *(
        Mistake(
            "a temperature that is not above 0",
            ValueError,
            lambda _, bad=bad: sx.SpikeMax(mode="softmax", temperature=bad),
            ("temperature", str(bad)),
        )
        for bad in (0, -1, NAN)
    ),
    *(
        Mistake(
            "label smoothing below 0, or 1 and above",
            ValueError,
            lambda _, bad=bad: sx.SpikeMax(label_smoothing=bad),
            ("label_smoothing", str(bad)),
        )
        for bad in (-0.1, 1, 1.5, NAN)
    ),
    Mistake(
        '`label_smoothing` with `numerics="lava"`',
        ValueError,
        lambda _: sx.SpikeMax(label_smoothing=0.1, numerics="lava"),
        ("label_smoothing", "0.1", "numerics", "lava"),
    ),
    *(
        Mistake(
            "a number of classes below 1",
            ValueError,
            lambda _, make=make: make(num_classes=0),
            ("num_classes", "at least 1", "0"),
        )
        for make in (lambda **o: sx.SpikeRate(1, 0, **o), sx.SpikeMax, sx.SpikeMoid)
    ),
    Mistake(
        "a number of classes that is not an integer",
        TypeError,
        lambda _: sx.SpikeMax(num_classes=2.5),
        ("num_classes", "integer", "2.5"),
    ),
    Mistake(
        "an ignored index that is not an integer",
        TypeError,
        lambda _: sx.SpikeMax(ignore_index=1.5),
        ("ignore_index", "integer", "1.5"),
    ),
    *(
        Mistake(
            "a target rate outside 0 to 1, if rates or counts of several steps are read",
            ValueError,
            lambda _, rates=rates, readout=readout: sx.SpikeRate(rates, 0, readout=readout),
            ("true_rate", "1.5"),
        )
        for rates in (1.5, (0.5, 1.5))
        for readout in ("rate", "count")
    ),
    Mistake(
        "a target potential that is not finite",
        ValueError,
        lambda _: sx.SpikeRate(1, NAN, readout="max"),
        ("false_rate", "nan"),
    ),
    Mistake(
        "a `min_rate` below 0",
        ValueError,
        lambda _: sx.SparsityEnforcer(min_rate=-0.5),
        ("min_rate", "-0.5"),
    ),
    Mistake(
        "a `min_rate` above `max_rate`",
        ValueError,
        lambda _: sx.SparsityEnforcer(0.25, min_rate=0.5),
        ("min_rate", "max_rate", "0.5", "0.25"),
    ),
    Mistake(
        "an unknown `per`",
        ValueError,
        lambda _: sx.SparsityEnforcer(per="layer"),
        ("per", "array", "neuron", "'layer'"),
    ),
)

ARRAY_MISTAKES = (
    Mistake(
        "one label for each class or step instead of each sample",
        ValueError,
        _call(MAX, [0, 1, 2, 3]),
        ("target", "(3,)", "(4,)"),
    ),
    Mistake(
        "input with time first, without `time_axis=0`",
        ValueError,
        lambda asarray: MAX(asarray(np.moveaxis(SPIKES, -1, 0)), LABEL),
        ("target", "(5,)", "(3,)", "time_axis"),
    ),
    Mistake(
        "the same with a label for each step, which could also be one-hot",
        ValueError,
        lambda asarray: sx.SpikeMax(2)(asarray(np.moveaxis(SPIKES, -1, 0)), np.zeros((5, 3), int)),
        ("target", "(5, 3)", "(5,)", "argmax", "time_axis"),
    ),
    Mistake(
        "one label for each step, without a window",
        ValueError,
        _call(MAX, np.zeros((3, 5), int)),
        ("target", "(3, 5)", "(3,)", "moving_window"),
    ),
    Mistake(
        "class indices instead of multi-hot labels",
        TypeError,
        _call(MOID, LABEL),
        ("target", "multi-hot", "int", "class indices"),
    ),
    Mistake(
        "multi-hot labels instead of class indices",
        TypeError,
        _call(MAX, MULTI_HOT),
        ("target", "integers", "bool"),
    ),
    Mistake(
        "`num_classes` that does not divide the number of neurons",
        ValueError,
        _call(sx.SpikeMax(num_classes=3), [0, 1, 2]),
        ("num_classes", "3", "4"),
    ),
    Mistake(
        "target rates for another number of classes",
        ValueError,
        _call(sx.SpikeRate((0.5, 0.5, 0.5), 0), LABEL),
        ("true_rate", "3", "4"),
    ),
    Mistake(
        "`pos_weight` for another number of classes",
        ValueError,
        _call(sx.SpikeMoid(pos_weight=(2, 3)), MULTI_HOT),
        ("pos_weight", "2", "4"),
    ),
    Mistake(
        "target times of another shape",
        ValueError,
        _call(LATENCY, np.ones((3, 5))),
        ("target", "(3, 4)", "(3, 5)"),
    ),
    *(
        Mistake(
            "a mask of another shape",
            ValueError,
            _call(MAX, LABEL, where=np.ones(shape, dtype=bool)),
            ("where", str(shape), "(3,)", "(3, 5)", "(3, 4, 5)"),
        )
        for shape in ((5, 3), (4,), (), (1,), (1, 5), (3, 4), (3, 1, 5), (5, 4, 3))
    ),
    Mistake(
        "a mask that is not bool",
        TypeError,
        _call(MAX, LABEL, where=[1, 1, 0]),
        ("where", "bool", "int"),
    ),
    Mistake(
        "lengths of another shape",
        ValueError,
        _call(MAX, LABEL, lengths=[5, 5]),
        ("lengths", "(2,)", "(3,)"),
    ),
    Mistake(
        "one length for all samples",
        ValueError,
        _call(MAX, LABEL, lengths=5),
        ("lengths", "()", "(3,)"),
    ),
    Mistake(
        "lengths that are not integers",
        TypeError,
        _call(MAX, LABEL, lengths=[5.0, 4.0, 3.0]),
        ("lengths", "integers", "float"),
    ),
    Mistake(
        "one weight for each sample instead of each class",
        ValueError,
        _call(MAX, LABEL, weight=[1.0, 2.0, 3.0]),
        ("weight", "(3,)", "(4,)"),
    ),
    Mistake(
        "a single weight",
        ValueError,
        _call(MOID, MULTI_HOT, weight=2.0),
        ("weight", "()", "(4,)"),
    ),
    Mistake(
        "weights that are not numbers",
        TypeError,
        _call(RATE, LABEL, weight=[True, False, True, True]),
        ("weight", "bool"),
    ),
    Mistake(
        "class weights for `SpikeTime`",
        TypeError,
        _call(TIME, DESIRED, weight=[1.0, 1.0, 1.0, 1.0]),
        ("weight", "SpikeTime"),
    ),
)

VALUE_MISTAKES = (
    Mistake(
        "a label that is neither a class nor `ignore_index`",
        ValueError,
        lambda asarray: MAX(asarray(SPIKES), asarray([0, 4, 1])),
        ("target", "3", "4"),
    ),
    Mistake(
        "a multi-hot label outside 0 to 1, or NaN",
        ValueError,
        lambda asarray: MOID(asarray(SPIKES), asarray(np.where(MULTI_HOT, NAN, 0))),
        ("target", "0", "1"),
    ),
    Mistake(
        "a target time below 0, infinite or NaN",
        ValueError,
        lambda asarray: LATENCY(asarray(SPIKES), asarray(np.full((3, 4), -5.5))),
        ("target", "at least 0", "-5.5"),
    ),
    Mistake(
        "a spike below 0, if latencies are read",
        ValueError,
        lambda asarray: LATENCY(asarray(-SPIKES), LABEL),
        ("input", "below 0", "-0.99"),
    ),
    Mistake(
        'a sum of spikes below 0 in `SpikeMax` with `mode="probability"`',
        ValueError,
        lambda asarray: MAX(asarray(-SPIKES), LABEL),
        ("input", "below 0", "mode='probability'"),
    ),
    *(
        Mistake(
            "a length below 0 or above the number of steps",
            ValueError,
            lambda asarray, bad=bad: MAX(asarray(SPIKES), LABEL, lengths=asarray([1, bad, 5])),
            ("lengths", "0", "5", str(bad)),
        )
        for bad in (-1, 6)
    ),
    *(
        Mistake(
            "a weight below 0, infinite or NaN",
            ValueError,
            lambda asarray, bad=bad: MAX(asarray(SPIKES), LABEL, weight=asarray([1, bad, 1, 1.0])),
            ("weight", str(bad)),
        )
        for bad in (-0.5, float("inf"), NAN)
    ),
)
