"""A loss with a wrong option cannot be created, and the error says what to write instead."""

import itertools
from functools import partial

import numpy as np
import pytest
from numpy import inf, nan

import spikeloss_xp as sx
from _support.cases import raises


class Learned(float):
    """A number with a gradient, like a scalar tensor of PyTorch."""

    requires_grad, dtype = True, float


rate = partial(sx.SpikeRate, 1, 0)
entropy = partial(sx.CrossEntropy, time_axis=-1)
latency = partial(sx.SpikeLatency, time_axis=-1)
squared, huber = (partial(loss, time_axis=-1) for loss in (sx.SquaredError, sx.HuberError))
poisson, bernoulli = (partial(loss, time_axis=-1) for loss in (sx.PoissonNLL, sx.BernoulliNLL))
ENTROPY_READOUTS = ["softmax_sum", "latency", "sqrt_count"]
AT_LEAST_1 = "must be at least 1"
NOT_NEGATIVE = "must be at least 0"
IN_32_BITS = "must be at most 2147483647"
READOUTS = "must be one of rate, count, max, last"
TOO_LARGE = [2**31, 2**63, 2**70]
WINDOWS_AND_CLASSES = {"num_classes": [0], "moving_window": [0, -3]}
NO_RATES = [0.5, (0.5,), (0.02, 0.5), (0.5, 0.5), (0.5, 0.2, 0.1), (), "ab", {0.5, 0.2}, False]


@pytest.mark.parametrize(
    ("loss", "error", "message", "options"),
    [
        *(
            (
                loss,
                ValueError,
                "must be one of sum, mean, batchmean, none",
                {"reduction": ["average", None]},
            )
            for loss in (sx.SpikeMax, sx.SpikeTime, rate, sx.SpikeMoid, squared, latency)
        ),
        (rate, ValueError, READOUTS, {"readout": ["first", *ENTROPY_READOUTS]}),
        (sx.SpikeMoid, ValueError, READOUTS, {"readout": ENTROPY_READOUTS}),
        (sx.SpikeMax, ValueError, "must be one of probability, softmax", {"mode": ["any"]}),
        (sx.SpikeMax, ValueError, "must be one of stable, lava", {"numerics": ["new"]}),
        (sx.SpikeMoid, ValueError, "must be one of stable, lava", {"numerics": ["new"]}),
        (sx.SparsityEnforcer, ValueError, "must be one of array, neuron", {"per": ["layer"]}),
        (bernoulli, ValueError, "must be one of logit, hazard", {"link": ["log", None]}),
        (
            poisson,
            TypeError,
            "must be True or False",
            {"log_rates": [None, 1], "constant": ["full"]},
        ),
        # Integers
        *((x, ValueError, AT_LEAST_1, WINDOWS_AND_CLASSES) for x in (rate, sx.SpikeMax)),
        (sx.SpikeMoid, ValueError, AT_LEAST_1, WINDOWS_AND_CLASSES),
        (sx.SpikeTime, ValueError, AT_LEAST_1, {"filter_order": [0], "length": [0]}),
        (sx.SpikeTime, ValueError, IN_32_BITS, {"length": TOO_LARGE}),
        (sx.SpikeMax, ValueError, IN_32_BITS, {"moving_window": TOO_LARGE}),
        (sx.SpikeMax, ValueError, "must fit in 32 bits", {"ignore_index": [2**31, -(2**31) - 1]}),
        (sx.SpikeMax, TypeError, "must be an integer", {"num_classes": [1.5, "last"]}),
        (sx.SpikeMax, TypeError, "must be an integer", {"ignore_index": [1.5, "last"]}),
        (sx.SpikeMax, TypeError, "must be an integer", {"time_axis": [1.5, "last"]}),
        (sx.SpikeMax, TypeError, "must be an integer", {"moving_window": [True, 2.0]}),
        (sx.SpikeTime, TypeError, "must be an integer", {"filter_order": [1.5]}),
        # Numbers
        (sx.SpikeTime, ValueError, "must be", {"time_constant": [0, -1, nan, inf]}),
        (sx.SpikeTime, TypeError, "must be a number", {"time_constant": ["5ms", None]}),
        (sx.SpikeMax, ValueError, "must be above 0", {"pseudo_count": [0, -1]}),
        (sx.SpikeMoid, ValueError, "must be above 0", {"alpha": [0, -1]}),
        (sx.SpikeMoid, ValueError, "must be finite", {"theta": [nan]}),
        (sx.SpikeMoid, ValueError, "must be", {"pos_weight": [-0.5, inf, nan]}),
        (latency, ValueError, NOT_NEGATIVE, {"true_time": [-1, -0.5], "false_time": [-1, -0.5]}),
        (latency, ValueError, NOT_NEGATIVE, {"tolerance": [-1, -0.5]}),
        (entropy, ValueError, "must be", {"temperature": [0, -1, nan]}),
        (entropy, TypeError, "must be a number", {"temperature": [Learned(2.0), np.ones(2)]}),
        (entropy, ValueError, "must be", {"label_smoothing": [-0.1, 1, 1.5, nan]}),
        (entropy, ValueError, "must be two rates", {"rates": NO_RATES}),
        (entropy, ValueError, "must be", {"rate_weight": [-1, inf]}),
        (huber, ValueError, "must be above 0", {"delta": [0]}),
        *(
            (sx.SparsityEnforcer, ValueError, NOT_NEGATIVE, {option: [-1]})
            for option in ("max_rate", "min_rate", "lam")
        ),
        (sx.SparsityEnforcer, ValueError, "must be 1 or 2", {"power": [3]}),
        (sx.SparsityEnforcer, TypeError, "must be a sequence", {"scale": [3.0]}),
    ],
)
def test_wrong_value_of_an_option_raises(loss, error, message, options):
    for option, values in options.items():
        for value in values:
            with raises(error, f"{option} {message}.*got {value!r}"):
                loss(**{option: value})


@pytest.mark.parametrize("readout", ["rate", "count"])
@pytest.mark.parametrize("value", [-0.5, 1.5, nan])
def test_target_rate_outside_of_0_and_1_raises(readout, value):
    with raises(ValueError, f"true_rate must be.*got {value}"):
        sx.SpikeRate(value, 0, readout=readout)
    with raises(ValueError, f"false_rate must be.*got {value}"):
        sx.SpikeRate(1, value, readout=readout)
    with raises(ValueError, "true_rate[1] must be.*got 1.5"):
        sx.SpikeRate((0.5, 1.5), 0, readout=readout)
    with raises(ValueError, "false_rate must be finite; got nan"):
        sx.SpikeRate(1, nan, readout="max")


def test_wrong_number_of_several_raises():
    for value in (-0.5, inf, nan):
        with raises(ValueError, f"pos_weight[1] must be.*got {value}"):
            sx.SpikeMoid(pos_weight=[1, value])
    for value in (-0.1, nan):
        with raises(ValueError, f"rates[1] must be.*got {value}"):
            entropy(rates=(0.5, value))
    with raises(ValueError, "scale[0] must be at least 0; got -1"):
        sx.SparsityEnforcer(scale=(-1,))


def test_array_as_an_option_raises():
    with raises(TypeError, "the gradient.*loss(input / temperature, target)"):
        entropy(temperature=Learned(2.0))
    with raises(TypeError, "temperature must be a number; got array([1., 1.])$"):
        entropy(temperature=np.ones(2))
    with raises(TypeError, "true_rate[0] must be a number.*the gradient"):
        sx.SpikeRate([Learned(2.0), 0.5], 0)
    losses = sx.SpikeTime, sx.SpikeMax, sx.SpikeMoid, sx.SparsityEnforcer, sx.SpikeRate
    for loss, shape in itertools.product(losses, [(2, 3), (2, 3, 5)]):
        with raises(TypeError, f"got an array of shape {shape}: create"):
            loss(np.zeros(shape), *[0] * (loss is sx.SpikeRate))


def test_options_that_do_not_fit_together_raise():
    for readout in ENTROPY_READOUTS:
        for loss in (rate, sx.SpikeMoid):
            with raises(ValueError, f"readout must be.*got {readout!r}: use CrossEntropy, which"):
                loss(readout=readout)
    for readout in ("max", "last", "latency", "softmax_sum"):
        with raises(ValueError, f"rates.*count, sqrt_count; got readout={readout!r}"):
            entropy(rates=(0.5, 0), readout=readout)
    for readout in ("max", "latency"):
        with raises(ValueError, f"readout={readout!r}.*got moving_window=3"):
            entropy(moving_window=3, readout=readout)
    with raises(ValueError, "pos_weight needs.*got pos_weight=2.0 with numerics='lava'"):
        sx.SpikeMoid(theta=0, pos_weight=2, numerics="lava")
    with raises(ValueError, "min_rate must be at most max_rate, 0.25; got 0.5"):
        sx.SparsityEnforcer(max_rate=0.25, min_rate=0.5)
    with raises(ValueError, "scale.*per='array' or 'sample'; got per='neuron'"):
        sx.SparsityEnforcer(per="neuron", scale=(1, 2))


@pytest.mark.parametrize(
    ("loss", "option", "remedy"),
    [
        (sx.CrossEntropy, "weight", "to the call, loss(input, target, weight=...)"),
        (sx.PoissonNLL, "weight", "to the call, loss(input, target, weight=...)"),
        (sx.SpikeMax, "mask", "to the call, loss(input, target, where=...)"),
        (sx.SpikeTime, "tau", "time_constant=..., in time steps"),
        (sx.SpikeRate, "window", "moving_window=..., in time steps"),
        (sx.SparsityEnforcer, "dim", "time_axis=..."),
    ],
)
def test_option_of_another_library_raises_with_our_name(loss, option, remedy):
    with raises(TypeError, f"{loss.__name__} has no option {option}: .*{remedy}"):
        loss(**{option: 2})


@pytest.mark.parametrize("loss", [sx.CrossEntropy, sx.SpikeLatency, sx.PoissonNLL, sx.Rate])
def test_time_axis_left_out_raises(loss):
    with raises(TypeError, "time_axis"):
        loss()
