"""Invalid options and arguments, with the error that each of them must raise."""

import itertools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy import inf, nan

import spikeloss_xp as sx
from _support.cases import line_of_module

SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(3, 4, 5))
TIME_FIRST = np.moveaxis(SPIKES, -1, 0)
MULTI_HOT = np.asarray([[True, False, True, False], [False, False, False, False], [True] * 4])
MULTI_HOT_TRAINS = np.broadcast_to(MULTI_HOT[..., None], SPIKES.shape)
LABEL = [1, 0, 3]


@dataclass(frozen=True)
class Arrays:
    """What the calls that need arrays are given."""

    spikes: Any
    """`SPIKES` as an array of the library under test."""
    asarray: Callable[..., Any]
    """A function that converts the other arrays."""


END = "$"
"""A word that ends with this must be at the end of the message."""


@dataclass(frozen=True)
class Mistake:
    """A call and the error that it must raise."""

    call: Callable[..., object]
    error: Exception
    """An error of the same type. Each of its arguments is a part of the message, such as the name
    of the wrong argument, the value that arrived, or what was expected.
    """
    line: int = field(default_factory=line_of_module)

    @property
    def words(self) -> list[str]:
        return [str(word) for word in self.error.args]

    def __str__(self) -> str:
        return f"mistakes.py:{self.line} {type(self.error).__name__}: {'; '.join(self.words)}"


def each(
    *values: Iterable[Any], call: Callable[..., object], error: Exception | Callable[..., Exception]
) -> list[Mistake]:
    """Return one mistake for each value, or for each combination of values from several lists.

    `call` takes the values, after the arrays if it needs any. `error` is a function of the values
    only if the message depends on them.
    """
    return [
        Mistake(
            lambda *arrays, chosen=chosen: call(*arrays, *chosen),
            error(*chosen) if callable(error) else error,
        )
        for chosen in itertools.product(*values)
    ]


def wrong_values(
    loss: Callable[..., object], error: type[Exception], *words: str, **options: Iterable[Any]
) -> list[Mistake]:
    """Return one mistake for each value of each option.

    The message must contain the name of the option, `words` and the value.
    """
    return [
        Mistake(partial(loss, **{option: value}), error(option, *words, f"got {value!r}"))
        for option, values in options.items()
        for value in values
    ]


def rate(true_rate: Any = 1, false_rate: Any = 0, **options: Any) -> sx.SpikeRate:
    return sx.SpikeRate(true_rate, false_rate, **options)


entropy = partial(sx.CrossEntropy, time_axis=-1)
latency = partial(sx.SpikeLatency, time_axis=-1)
squared = partial(sx.SquaredError, time_axis=-1)
moid = partial(sx.SpikeMoid, theta=0)
poisson, bernoulli = partial(sx.PoissonNLL, time_axis=-1), partial(sx.BernoulliNLL, time_axis=-1)


class Learned(float):
    """A number with a gradient, like a scalar tensor of PyTorch."""

    requires_grad, dtype = True, float


def matrix(values: Any) -> np.matrix:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(values)


REDUCTIONS = "sum, mean, batchmean, none"
READOUTS = "rate, count, max, last"
ENTROPY_READOUTS = ["softmax_sum", "latency", "sqrt_count"]
TOO_LARGE = [2**31, 2**63, 2**70]

OPTION_MISTAKES = [
    # Options that must be one of several words
    *wrong_values(sx.SpikeMax, ValueError, REDUCTIONS, reduction=["average", None]),
    *wrong_values(sx.SpikeTime, ValueError, REDUCTIONS, reduction=["average", None]),
    *wrong_values(rate, ValueError, REDUCTIONS, reduction=["average", None]),
    *wrong_values(sx.SpikeMoid, ValueError, REDUCTIONS, reduction=["average", None]),
    *wrong_values(squared, ValueError, REDUCTIONS, reduction=["average", None]),
    *wrong_values(latency, ValueError, REDUCTIONS, reduction=["average", None]),
    *wrong_values(rate, ValueError, READOUTS, readout=["first"]),
    *wrong_values(rate, ValueError, "CrossEntropy", readout=ENTROPY_READOUTS),
    *wrong_values(sx.SpikeMoid, ValueError, "CrossEntropy", readout=ENTROPY_READOUTS),
    *wrong_values(sx.SpikeMax, ValueError, "probability, softmax", mode=["any"]),
    *wrong_values(sx.SpikeMax, ValueError, "stable, lava", numerics=["new"]),
    *wrong_values(sx.SpikeMoid, ValueError, "stable, lava", numerics=["new"]),
    *wrong_values(sx.SparsityEnforcer, ValueError, "array, neuron", per=["layer"]),
    # Integers
    *wrong_values(sx.SpikeMax, ValueError, "32 bits", ignore_index=[2**31, -(2**31) - 1]),
    *wrong_values(rate, ValueError, "at least 1", num_classes=[0], moving_window=[0, -3]),
    *wrong_values(sx.SpikeMax, ValueError, "at least 1", num_classes=[0], moving_window=[0, -3]),
    *wrong_values(sx.SpikeMoid, ValueError, "at least 1", num_classes=[0], moving_window=[0, -3]),
    *wrong_values(sx.SpikeTime, ValueError, "at least 1", filter_order=[0], length=[0]),
    *wrong_values(sx.SpikeTime, ValueError, "at most 2147483647", length=TOO_LARGE),
    *wrong_values(sx.SpikeMax, ValueError, "at most 2147483647", moving_window=TOO_LARGE),
    *wrong_values(sx.SpikeMax, TypeError, "integer", num_classes=[1.5, "last"]),
    *wrong_values(sx.SpikeMax, TypeError, "integer", ignore_index=[1.5, "last"]),
    *wrong_values(sx.SpikeMax, TypeError, "integer", time_axis=[1.5, "last"]),
    *wrong_values(sx.SpikeMax, TypeError, "integer", moving_window=[True, 2.0]),
    *wrong_values(sx.SpikeTime, TypeError, "integer", filter_order=[1.5]),
    # Numbers
    *wrong_values(sx.SpikeTime, ValueError, time_constant=[0, -1, nan, inf]),
    *wrong_values(sx.SpikeTime, TypeError, "must be a number", time_constant=["5ms", None]),
    *wrong_values(sx.SpikeMax, ValueError, "above 0", pseudo_count=[0, -1]),
    *wrong_values(sx.SpikeMoid, ValueError, "above 0", alpha=[0, -1]),
    *wrong_values(sx.SpikeMoid, ValueError, "finite", theta=[nan]),
    *wrong_values(sx.SpikeMoid, ValueError, pos_weight=[-0.5, inf, nan]),
    *each(
        [-0.5, inf, nan],
        call=lambda value: sx.SpikeMoid(pos_weight=[1, value]),
        error=lambda value: ValueError("pos_weight", "[1]", value),
    ),
    Mistake(
        lambda: moid(pos_weight=2, numerics="lava"),
        ValueError("pos_weight", "2", "numerics", "lava"),
    ),
    *wrong_values(latency, ValueError, "at least 0", true_time=[-1, -0.5], false_time=[-1, -0.5]),
    *wrong_values(latency, ValueError, "at least 0", tolerance=[-1, -0.5]),
    *wrong_values(entropy, ValueError, temperature=[0, -1, nan]),
    Mistake(
        lambda: entropy(temperature=Learned(2.0)),
        TypeError("temperature must be a number", "loss(input / temp"),
    ),
    Mistake(
        lambda: entropy(temperature=np.ones(2)),
        TypeError("temperature must be a number", "got array([1., 1.])" + END),
    ),
    *wrong_values(entropy, ValueError, label_smoothing=[-0.1, 1, 1.5, nan]),
    Mistake(
        lambda: sx.HuberError(delta=0, time_axis=0), ValueError("delta must be above 0; got 0")
    ),
    # Rates
    *wrong_values(
        entropy,
        ValueError,
        "rates must be two rates",
        rates=[0.5, (0.5,), (0.02, 0.5), (0.5, 0.5), (0.5, 0.2, 0.1), (), "ab", {0.5, 0.2}, False],
    ),
    *each(
        [-0.1, nan],
        call=lambda value: entropy(rates=(0.5, value)),
        error=lambda value: ValueError("rates[1]", value),
    ),
    *each(
        ["max", "last", "latency", "softmax_sum"],
        call=lambda readout: entropy(rates=(0.5, 0), readout=readout),
        error=lambda readout: ValueError("rates", "count, sqrt_count", repr(readout)),
    ),
    *wrong_values(entropy, ValueError, rate_weight=[-1, inf]),
    *wrong_values(partial(rate, readout="rate"), ValueError, true_rate=[-0.5, 1.5, nan]),
    *wrong_values(partial(rate, readout="rate"), ValueError, false_rate=[-0.5, 1.5, nan]),
    *wrong_values(partial(rate, readout="count"), ValueError, true_rate=[-0.5, 1.5, nan]),
    *wrong_values(partial(rate, readout="count"), ValueError, false_rate=[-0.5, 1.5, nan]),
    *wrong_values(partial(rate, readout="max"), ValueError, false_rate=[nan]),
    *each(
        ["rate", "count"],
        call=lambda readout: rate(true_rate=(0.5, 1.5), readout=readout),
        error=ValueError("true_rate", "[1]", "1.5"),
    ),
    Mistake(
        lambda: rate(true_rate=[Learned(2.0), 0.5]),
        TypeError("true_rate[0] must be a number", "the gradient"),
    ),
    # Penalties
    Mistake(
        lambda: sx.SparsityEnforcer(max_rate=0.25, min_rate=0.5),
        ValueError("min_rate", "max_rate", "0.5", "0.25"),
    ),
    *each(
        ["max_rate", "min_rate", "lam"],
        call=lambda option: sx.SparsityEnforcer(**{option: -1}),
        error=lambda option: ValueError(f"{option} must be at least 0", "got -1"),
    ),
    Mistake(
        lambda: sx.SparsityEnforcer(scale=(-1,)), ValueError("scale[0] must be at least 0; got -1")
    ),
    Mistake(lambda: sx.SparsityEnforcer(power=3), ValueError("power must be 1 or 2; got 3")),
    Mistake(lambda: sx.SparsityEnforcer(scale=3), TypeError("scale must be a sequence", "got 3.0")),
    Mistake(
        lambda: sx.SparsityEnforcer(per="neuron", scale=(1, 2)),
        ValueError("per='array' or 'sample'", "per='neuron'"),
    ),
    # Kernels
    *each(
        ["time_constant", "filter_order"],
        call=lambda option: sx.SpikeTime(kernel=[1, 0.5], **{option: 3}),
        error=lambda option: ValueError("kernel", option, "3"),
    ),
    Mistake(
        lambda: sx.SpikeTime(kernel=[1, 0.5], length=3), ValueError("length", "kernel", "2", "3")
    ),
    *each(
        [(), (0,), (1, 2)],
        call=lambda shape: sx.SpikeTime(kernel=np.ones(shape).tolist()),
        error=lambda shape: ValueError("kernel", "function of the lag", "[length]", shape),
    ),
    Mistake(lambda: sx.SpikeTime(kernel=[1, nan]), ValueError("kernel", "[1]", "finite", "nan")),
    Mistake(
        lambda: sx.SpikeTime(kernel=lambda lag: nan, length=3),
        ValueError("kernel", "(0)", "finite", "nan"),
    ),
    Mistake(
        lambda: sx.SpikeTime(kernel=lambda lag: 0.5**lag),
        ValueError("length must be given if kernel is a function", "got None"),
    ),
    # Options that are missing, unknown or incompatible
    Mistake(sx.CrossEntropy, TypeError("time_axis")),
    Mistake(sx.SpikeLatency, TypeError("time_axis")),
    Mistake(sx.Rate, TypeError("time_axis")),
    *each(
        ["max", "latency"],
        call=lambda readout: entropy(moving_window=3, readout=readout),
        error=lambda readout: ValueError("readout", repr(readout), "moving_window", "3"),
    ),
    Mistake(
        lambda: sx.CrossEntropy(weight=2),
        TypeError(
            "CrossEntropy has no option weight", "to the call, loss(input, target, weight=...)"
        ),
    ),
    Mistake(lambda: sx.SpikeMax(mask=2), TypeError("SpikeMax has no option mask", "where=...")),
    Mistake(
        lambda: sx.SpikeTime(tau=2),
        TypeError("SpikeTime has no option tau", "time_constant=..., in time steps"),
    ),
    Mistake(
        lambda: sx.SpikeRate(window=2),
        TypeError("SpikeRate has no option window", "moving_window=..., in time steps"),
    ),
    Mistake(
        lambda: sx.SparsityEnforcer(dim=2),
        TypeError("SparsityEnforcer has no option dim", "time_axis=..."),
    ),
    # Likelihoods
    Mistake(sx.PoissonNLL, TypeError("time_axis")),
    Mistake(lambda: poisson(weight=2), TypeError("PoissonNLL has no option weight", "weight=...)")),
    *wrong_values(poisson, TypeError, "True or False", log_rates=[None, 1], constant=["full"]),
    *wrong_values(bernoulli, ValueError, "logit, hazard", link=["log", None]),
    # Options of the wrong type
    *each(
        [sx.SpikeTime, sx.SpikeMax, sx.SpikeMoid, sx.SparsityEnforcer, rate],
        [(2, 3), (2, 3, 5)],
        call=lambda loss, shape: loss(np.zeros(shape)),
        error=lambda loss, shape: TypeError(f"got an array of shape {shape}: create"),
    ),
]

ARRAY_MISTAKES = [
    # Names of other libraries in a call
    *each(
        [entropy(), sx.value_and_grad(entropy())],
        call=lambda x, loss: loss(x.spikes, LABEL, mask=[True, True, False]),
        error=TypeError("takes the options where, lengths, weight; got mask: use where=..., which"),
    ),
    Mistake(
        lambda x: entropy()(x.spikes, LABEL, reduction="sum"),
        TypeError("reduction is an option of the constructor, CrossEntropy(..., reduction=...)"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer()(x.spikes, padding_mask=[True, True, False]),
        TypeError("SparsityEnforcer takes the options where, lengths, others", "where=~..."),
    ),
    # Class indices
    Mistake(
        lambda x: sx.SpikeMax()(x.asarray(TIME_FIRST), LABEL),
        ValueError("target", "(5,)", "(3,)", "time_axis"),
    ),
    Mistake(
        lambda x: sx.SpikeMax(2)(x.asarray(TIME_FIRST), np.zeros((5, 3), int)),
        ValueError("target", "(5, 3)", "(5,)", "CrossEntropy", "time_axis"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, np.zeros((3, 5), int)),
        ValueError("target", "(3, 5)", "(3,)", "moving_window"),
    ),
    *each(
        [rate(), sx.SpikeMax()],
        [(4,), (1,), (), (3, 1), (1, 3), (3, 5), (3, 4)],
        call=lambda x, loss, shape: loss(x.spikes, x.asarray(np.zeros(shape, int))),
        error=lambda loss, shape: ValueError("target", "(3,) ([batch])", f"got {shape}"),
    ),
    *each(
        [rate(moving_window=3), sx.SpikeMax(moving_window=3)],
        [(5,), (5, 3), (3, 1), (1, 5), (15,), (3, 4, 5)],
        call=lambda x, loss, shape: loss(x.spikes, x.asarray(np.zeros(shape, int))),
        error=lambda loss, shape: ValueError(
            "(3,) ([batch]) or (3, 5) (one at each step)", f"got {shape}"
        ),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, MULTI_HOT),
        TypeError("target", "integers", "bool", "CrossEntropy"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, MULTI_HOT.astype(int)),
        ValueError(
            "(only CrossEntropy, when called, takes class probabilities, which must be floats)"
            + END
        ),
    ),
    *each(
        [rate(), sx.SpikeMax(), entropy()],
        call=lambda x, loss: loss(x.spikes, [0.0, 1.0, 2.0]),
        error=TypeError("integers (class indices)", "got", "float"),
    ),
    Mistake(
        lambda x: latency().confusion(x.spikes, np.ones((3, 4))),
        TypeError("target", "integers", "float"),
    ),
    # Class probabilities
    *each(
        [bool, int],
        call=lambda x, dtype: entropy()(x.spikes, MULTI_HOT.astype(dtype)),
        error=lambda dtype: TypeError(
            "one class index for each sample", dtype.__name__, "class probabilities must be floats"
        ),
    ),
    Mistake(
        lambda x: entropy()(x.spikes, np.ones((3, 4, 5))),
        ValueError("target", "(3, 4, 5)", "(3, 4)", "moving_window"),
    ),
    Mistake(
        lambda x: entropy()(x.spikes, np.ones((4, 3))),
        ValueError("target", "(3, 4)", "(4, 3) (its axes are in a different order)"),
    ),
    # Multi-hot labels
    Mistake(
        lambda x: moid()(x.spikes, LABEL), TypeError("target", "multi-hot", "int", "class indices")
    ),
    Mistake(
        lambda x: moid()(x.spikes, MULTI_HOT.astype(int)),
        TypeError("multi-hot", "if it is multi-hot, target != 0", "int"),
    ),
    Mistake(
        lambda x: moid()(x.spikes[:, :1, :], x.asarray(np.zeros(3, int))),
        TypeError("target[:, None] != 0 is multi-hot"),
    ),
    Mistake(
        lambda x: moid()(x.spikes, [[1.0, 0.0], [1.0]]),
        ValueError("target is not a rectangular sequence"),
    ),
    *each(
        [(4, 3), (3,), (12,), (1, 4), (3, 1), (3, 4, 5)],
        call=lambda x, shape: moid()(x.spikes, x.asarray(np.zeros(shape))),
        error=lambda shape: ValueError("(3, 4) ([batch, class])", f"got {shape}"),
    ),
    *each(
        [(4, 3), (3, 5), (3, 5, 4), (4, 3, 5), (3, 4, 1)],
        call=lambda x, shape: moid(3)(x.spikes, x.asarray(np.zeros(shape))),
        error=lambda shape: ValueError("(3, 4) ([batch, class]) or (3, 4, 5)", f"got {shape}"),
    ),
    Mistake(
        lambda x: moid(3, time_axis=1)(x.spikes, x.asarray(np.zeros((3, 5, 4)))),
        ValueError("(3, 5)", "(3, 4, 5)", "got"),
    ),
    # Target readings, times and trains
    Mistake(lambda x: squared()(x.spikes, LABEL), TypeError("target", "target readings", "int")),
    Mistake(
        lambda x: latency()(x.spikes, np.ones((3, 5))),
        ValueError("target", "target times of shape (3, 4)", "(3, 5)"),
    ),
    Mistake(
        lambda x: latency()(x.spikes, np.ones((4, 3))),
        ValueError("target", "(3, 4)", "(4, 3) (its axes are in a different order)"),
    ),
    Mistake(lambda x: latency()(x.spikes, np.ones(3)), TypeError("target must hold integers")),
    Mistake(
        lambda x: latency()(x.spikes, np.ones((3, 4), int)),
        TypeError("got", "int", "(target times must be floats)"),
    ),
    *each(
        [inf, nan],
        call=lambda x, value: latency()(x.spikes, np.full((3, 4), value)),
        error=ValueError("target must hold target times, finite"),
    ),
    *each(
        [(4, 3, 5), (3, 5, 4), (5, 4, 3), (60,), (1, 4, 5), (4, 5)],
        call=lambda x, shape: sx.SpikeTime()(x.spikes, x.asarray(np.zeros(shape))),
        error=lambda shape: ValueError("target must", "(3, 4, 5)", f"got {shape}"),
    ),
    Mistake(
        lambda x: sx.SpikeTime()(x.spikes, np.zeros((3, 4, 5), complex)),
        TypeError("target must", "complex"),
    ),
    Mistake(
        lambda x: sx.SpikeTime()(x.asarray(SPIKES, "float32"), np.full((3, 4, 5), -1e300)),
        ValueError("target contains a number of magnitude 1e+300"),
    ),
    *each(
        [poisson(), bernoulli()],
        call=lambda x, loss: loss(x.spikes, x.asarray(np.zeros((3, 5, 4)))),
        error=ValueError("target must hold", "(3, 4, 5)", "(3, 5, 4) (its axes are in a"),
    ),
    *each(
        [np.ones(3), np.ones((3, 4)), 0.5],
        call=lambda x, null: poisson().bits_per_spike(x.spikes, MULTI_HOT_TRAINS, null=null),
        error=lambda null: ValueError("null must have shape (4,)", f"got {np.shape(null)}{END}"),
    ),
    Mistake(
        lambda x: poisson().deviance_explained(x.spikes, MULTI_HOT_TRAINS, per="sample"),
        ValueError("per must be one of all, neuron; got 'sample'"),
    ),
    Mistake(lambda x: poisson().gain_and_spikes(x.spikes, MULTI_HOT_TRAINS), TypeError("null")),
    Mistake(
        lambda x: poisson().gain_and_spikes(x.spikes, MULTI_HOT_TRAINS, null=None),
        TypeError("null must hold the mean count of each neuron", "got None"),
    ),
    # Targets that are not arrays of numbers
    *each(
        [np.ma.masked_array, matrix],
        call=lambda x, array: sx.SpikeMax()(x.spikes, array(LABEL)),
        error=TypeError("target must be an array", ": pass"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, ["a", "b", "c"]),
        TypeError("target must hold numbers", "got list"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, None),
        TypeError("target must hold numbers", "got NoneType"),
    ),
    # Masks
    *each(
        [(5, 3), (4,), (), (1,), (3, 4), (3, 2, 5), (5, 4, 3)],
        call=lambda x, shape: sx.SpikeMax()(x.spikes, LABEL, where=np.ones(shape, bool)),
        error=lambda shape: ValueError("where", shape, "(3,)", "(3, 5)", "(3, 4, 5)"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, LABEL, where=[1, 1, 0]), TypeError("where", "bool", "int")
    ),
    *each(
        [(2,), ()],
        call=lambda x, shape: sx.SpikeMax()(x.spikes, LABEL, lengths=np.full(shape, 5)),
        error=lambda shape: ValueError("lengths", shape, "(3,)"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, LABEL, lengths=[5.0, 4.0, 3.0]),
        TypeError("lengths", "integers", "float"),
    ),
    *each(
        ["where", "lengths", "weight"],
        [np.ma.masked_array, matrix],
        call=lambda x, name, array: sx.SpikeMax()(x.spikes, LABEL, **{name: array([5, 3, 1])}),
        error=lambda name, array: TypeError(f"{name} must be an array", ": pass"),
    ),
    # Weights
    Mistake(
        lambda x: rate()(x.spikes, LABEL, weight=[True, False, True, True]),
        TypeError("weight", "bool"),
    ),
    Mistake(
        lambda x: sx.SpikeTime()(x.spikes, np.ones((3, 4, 5), bool), weight=np.ones(3)),
        ValueError("weight must have shape (4,)", "got (3,)"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.asarray(SPIKES, "float32"), LABEL, weight=np.full(4, 1e300)),
        ValueError("weight contains a number of magnitude 1e+300"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, LABEL, weight=np.ones(3)),
        ValueError("weight", "got (3,) (to weight samples", "'none'"),
    ),
    *each(
        [(2,), ()],
        call=lambda x, shape: sx.SpikeMax()(x.spikes, LABEL, weight=np.ones(shape)),
        error=lambda shape: ValueError("weight", "(4,)", f"got {shape}{END}"),
    ),
    Mistake(
        lambda x: sx.SpikeMax()(x.spikes, LABEL, weight=np.ones(5)),
        ValueError("as long as the time axis of input, axis 2: see time_axis"),
    ),
    # Options that do not fit the number of classes
    Mistake(
        lambda x: sx.SpikeMax(num_classes=3)(x.spikes, [0, 1, 2]),
        ValueError("num_classes", "3", "4"),
    ),
    Mistake(lambda x: rate((0.5, 0.5, 0.5))(x.spikes, LABEL), ValueError("true_rate", "3", "4")),
    Mistake(
        lambda x: moid(pos_weight=(2, 3))(x.spikes, MULTI_HOT), ValueError("pos_weight", "2", "4")
    ),
    # Cotangents
    Mistake(
        lambda x: sx.value_and_grad(rate(reduction="none"))(x.spikes, LABEL),
        ValueError("(3, 4)", "got none"),
    ),
    Mistake(
        lambda x: sx.value_and_grad(rate(reduction="none"))(
            x.spikes, LABEL, cotangent=x.asarray(np.ones((4, 3)))
        ),
        ValueError("(3, 4)", "(4, 3)"),
    ),
    Mistake(
        lambda x: sx.value_and_grad(rate())(x.spikes, LABEL, cotangent=x.asarray(np.ones((3, 4)))),
        ValueError("()", "(3, 4)"),
    ),
    # Inputs
    Mistake(
        lambda x: entropy()((x.spikes, x.spikes), LABEL),
        TypeError("builtins.tuple: if a network", "output[0]"),
    ),
    Mistake(
        lambda x: sx.SpikeTime()(x.asarray(np.zeros(5)), np.zeros(5)),
        ValueError("input must have at least 2 axes, [batch, *space, time]", "(5,)"),
    ),
    *each(
        [rate(), sx.SpikeMax(), moid()],
        call=lambda x, loss: loss(x.asarray(np.zeros((2, 5))), np.zeros((2, 5))),
        error=ValueError(
            "input must have at least 3 axes, [batch, class or *space, time]",
            "(2, 5)",
            "if the batch axis is missing",
            "loss(input[None], target[None])",
        ),
    ),
    *each(  # [time, neuron], as a GLM has it
        [(poisson, "[:, None]", 0), (bernoulli, "[:, None]", -3), (poisson, "[None]", 1)],
        call=lambda x, case: case[0](time_axis=case[2])(
            x.asarray(np.zeros((2, 5))), np.ones((2, 5))
        ),
        error=lambda case: ValueError(
            "(2, 5) (if the batch axis is missing", f"loss(input{case[1]}, target{case[1]})"
        ),
    ),
    *each(
        [(2, 3, 0), (0, 3, 5), (2, 0, 5)],
        call=lambda x, shape: rate()(x.asarray(np.zeros(shape)), [0]),
        error=lambda shape: ValueError("no elements", shape),
    ),
    *each(
        [3, -4],
        call=lambda x, axis: rate(time_axis=axis)(x.spikes, LABEL),
        error=lambda axis: ValueError(f"time_axis={axis}", "(3, 4, 5)"),
    ),
    # Penalties
    Mistake(
        lambda x: sx.SparsityEnforcer()(x.asarray(np.zeros((2, 0)))),
        ValueError("no elements: got shape (2, 0)"),
    ),
    Mistake(lambda x: sx.SparsityEnforcer()([]), ValueError("at least one array", "got none")),
    Mistake(
        lambda x: sx.SparsityEnforcer()({"conv": [], "fc": [x.spikes]}),
        ValueError("input['conv'] must hold at least one array"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer()([x.spikes, x.spikes], others=(1.0, 2.0)),
        ValueError("others needs a single array", "call the loss once for"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer()(x.spikes, others=(1.0, 2.0, 3.0)),
        ValueError("others must be a pair of events and entries", "got 3"),
    ),
    *each(
        [3, "ab"],
        call=lambda x, others: sx.SparsityEnforcer()(x.spikes, others=others),
        error=TypeError("others must be a pair of events and entries", "got"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer()(x.spikes, others=([1.0, 2.0], 3.0)),
        ValueError("others must hold events of shape () (a scalar)", "got (2,)"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer(per="neuron")(x.spikes, others=(np.ones(4), [3.0])),
        ValueError("entries of shape (4,) ([neuron])", "got"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer(per="sample")(x.spikes, others=(1.0, 2.0)),
        ValueError("others needs", "got per='sample'"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer().sum_and_weight(x.spikes),
        ValueError("sum_and_weight needs per='sample'", "got per='array'"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer().sum_weight_and_pullback(x.spikes),
        ValueError("sum_weight_and_pullback needs per='sample'", "got per='array'"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer(scale=(1, 2))([x.spikes]),
        ValueError("one factor for each array, 1", "got"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer(scale=(1, 2), per="sample")([x.spikes, x.spikes[:2, ...]]),
        ValueError("arrays with a scale must have the same number of samples", "got 3 and 2"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer(scale=(1,)).value_and_pullback(x.spikes),
        TypeError("has no closed form", "scale=(1.0,)"),
    ),
    Mistake(
        lambda x: sx.SparsityEnforcer(scale=(1,)).events_and_entries(x.spikes),
        ValueError("without a scale"),
    ),
    # Methods
    Mistake(
        lambda x: sx.SpikeMax(reduction="none").sum_and_weight(x.spikes, LABEL),
        ValueError("reduction='none' has no sum"),
    ),
    *each(
        [
            sx.SpikeMax.value,
            sx.SpikeMax.value_and_pullback,
            sx.SpikeMax.sum_and_weight,
            sx.SpikeMax.__call__,
        ],
        call=lambda x, method: method(sx.SpikeMax(1), x.spikes, LABEL, lenghts=2),
        error=TypeError("lenghts"),
    ),
    *each(
        [sx.SpikeMax.value, sx.SpikeMax.value_and_pullback, sx.SpikeMax.__call__],
        call=lambda x, method: method(sx.SpikeMax(1), x.spikes, LABEL, context=2),
        error=TypeError("context"),
    ),
]

# Most of these are wrong values, which are noticed only where the library can read them.
VALUE_MISTAKES = [
    *each(
        [nan, 1.5, -0.25],
        call=lambda x, value: moid()(x.spikes, x.asarray(np.where(MULTI_HOT, value, 0))),
        error=lambda value: ValueError(
            "target", "must hold multi-hot labels, between 0 and 1", value
        ),
    ),
    *each(
        [-0.5, inf, nan],
        call=lambda x, value: entropy()(x.spikes, x.asarray(np.full((3, 4), value))),
        error=lambda value: ValueError("target", "finite and at least 0", value),
    ),
    Mistake(
        lambda x: entropy(readout="sqrt_count")(
            x.asarray(np.where(np.arange(20).reshape(4, 5) > 14, nan, -0.2) * np.ones((3, 1, 1))),
            x.asarray(LABEL),
        ),
        ValueError("input", "negative", "'softmax_sum'", "got -1"),
    ),
    Mistake(
        lambda x: squared()(x.spikes, 0.5),
        ValueError("target", "one number for all", "numpy.full((3, 4), x)"),
    ),
    Mistake(
        lambda x: squared()(x.spikes[:1, ...], x.asarray(np.zeros(4))),
        ValueError("lacks the batch axis: pass target[None]"),
    ),
    Mistake(
        lambda x: sx.SquaredError(time_axis=0, moving_window=1)(
            x.spikes[:, :1, :], x.asarray(np.zeros((3, 5)))
        ),
        ValueError("lacks the batch axis: pass target[:, None]"),
    ),
    Mistake(
        lambda x: squared()(x.spikes, x.asarray(np.full((3, 4), nan))),
        ValueError("target", "target readings, finite", "nan"),
    ),
    Mistake(
        lambda x: latency()(x.spikes, x.asarray(np.full((3, 4), -5.5))),
        ValueError("target", "at least 0", "-5.5"),
    ),
    Mistake(
        lambda x: latency()(
            -x.asarray(np.where(np.arange(60).reshape(3, 4, 5) == 7, 0.25, 0)), x.asarray(LABEL)
        ),
        ValueError("input", "negative", "got -0.25" + END),
    ),
    *each(
        [None, 2],
        call=lambda x, window: sx.SpikeMax(window)(
            x.asarray(np.full((3, 4, 5), -0.3)), x.asarray(LABEL)
        ),
        error=ValueError("input", "negative", "mode='probability'", "CrossEntropy"),
    ),
    # Likelihoods
    *each(
        [poisson(), poisson(constant=True), bernoulli()],
        [-0.5, inf],
        call=lambda x, loss, value: loss(x.spikes, x.asarray(np.where(SPIKES > 0.9, value, 1))),
        error=lambda loss, value: ValueError(f"target must hold {loss.targets[0].name}, ", value),
    ),
    *each(
        [poisson(), poisson(constant=True), bernoulli()],
        call=lambda x, loss: loss(x.spikes, x.asarray(np.where(SPIKES > 0.9, nan, 1))),
        error=ValueError("got nan (to leave out missing entries, pass where=~isnan(counts))"),
    ),
    Mistake(
        lambda x: poisson(constant=True)(x.spikes, x.asarray(np.full((3, 4, 5), 2.5))),
        ValueError("whole numbers and at least 0; got 2.5 (constant=False accepts fractions)"),
    ),
    *each(
        [int, float],
        call=lambda x, dtype: bernoulli()(x.spikes, x.asarray(np.full((3, 4, 5), 2, dtype))),
        error=ValueError("target must hold binary spikes, 0 or 1; got 2", "PoissonNLL"),
    ),
    *each(
        [-0.25, nan],
        call=lambda x, value: poisson().bits_per_spike(
            x.spikes, MULTI_HOT_TRAINS, null=x.asarray([1, value, 1, 1.0])
        ),
        error=lambda value: ValueError("null must be finite and at least 0", value),
    ),
    Mistake(
        lambda x: bernoulli().gain_and_spikes(
            x.spikes, MULTI_HOT_TRAINS, null=x.asarray([1, 0.5, 0, 1.5])
        ),
        ValueError("null must hold probabilities of a spike, at most 1; got [1.0, 0.5, 0.0, 1.5]"),
    ),
    *each(
        [-1, 6],
        call=lambda x, length: sx.SpikeMax()(x.spikes, LABEL, lengths=x.asarray([1, length, 5])),
        error=lambda length: ValueError("lengths", "0", "5", length),
    ),
    *each(
        [-0.5, inf, nan],
        call=lambda x, value: sx.SpikeMax()(x.spikes, LABEL, weight=x.asarray([1, value, 1, 1.0])),
        error=lambda value: ValueError("weight", value),
    ),
    *each(
        [rate(), sx.SpikeMax()],
        call=lambda x, loss: loss(x.spikes, x.asarray([4, 0, -1])),
        error=ValueError("target must be between 0 and 3", "got values from -1 to 4"),
    ),
    *each(
        [rate(), sx.SpikeMax()],
        call=lambda x, loss: loss(x.spikes, [4, 0, -1]),
        error=ValueError("target must be between 0 and 3", "got values from -1 to 4"),
    ),
    *each(
        [rate(), sx.SpikeMax()],
        call=lambda x, loss: loss(x.spikes, x.asarray([4, 0, -100])),  # -100 is left out
        error=ValueError("target must be between 0 and 3", "got values from 0 to 4"),
    ),
    *each(
        [-1, 120],
        call=lambda x, label: sx.SpikeMax(2)(x.spikes, x.asarray([label, 0, 0])),
        error=lambda label: ValueError("target must be between 0 and 3", label),
    ),
]
