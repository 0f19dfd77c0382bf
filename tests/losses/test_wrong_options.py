"""A loss with a wrong option cannot be created, and the error says what to write instead."""

import itertools
from functools import partial

import numpy as np
import pytest
from numpy import inf, nan

import spikeloss_xp as sx
from _support.cases import raises
from spikeloss_xp.slayer import published


class Learned(float):
    """A number with a gradient, like a scalar tensor of PyTorch."""

    requires_grad, dtype = True, float


LAST = {"time_axis": -1}
rate, moid = partial(sx.SpikeRate, 1, 0, **LAST), partial(sx.SpikeMoid, alpha=1, theta=0, **LAST)
entropy, latency = partial(sx.CrossEntropy, **LAST), partial(sx.SpikeLatency, **LAST)
squared, huber = (partial(loss, **LAST) for loss in (sx.SquaredError, sx.HuberError))
poisson, bernoulli = (partial(loss, **LAST) for loss in (sx.PoissonNLL, sx.BernoulliNLL))
maximum, trains = partial(sx.SpikeMax, **LAST), partial(sx.SpikeTime, **LAST)
sparsity = partial(sx.SparsityEnforcer, **LAST)
FEW = (maximum, trains, rate, moid, squared, latency)
READ_CLASSES = (maximum, rate, moid)
ENTROPY_READOUTS = ["softmax_sum", "latency", "sqrt_count"]
TOO_LARGE, IN_32_BITS = [2**31, 2**63, 2**70], "must be at most 2147483647"
NO_RATES = [0.5, (0.5,), (0.02, 0.5), (0.5, 0.5), (0.5, 0.2, 0.1), (), "ab", {0.5, 0.2}, False]


@pytest.mark.parametrize(
    ("option", "values", "message", "losses"),
    [
        ("reduction", ["average", None], "must be one of sum, mean, batchmean, none", FEW),
        ("readout", ["first"], "must be one of rate, count, max, last", [rate]),
        ("mode", ["any"], "must be one of probability, softmax", [maximum]),
        ("per", ["layer"], "must be one of all, neuron", [sparsity]),
        ("link", ["log", None], "must be one of logit, hazard", [bernoulli]),
        ("link", ["logit", True, None], "must be one of log, identity", [poisson]),
        # Integers
        ("num_classes", [0], "must be at least 1", READ_CLASSES),
        ("moving_window", [0, -3], "must be at least 1", READ_CLASSES),
        ("moving_window", TOO_LARGE, IN_32_BITS, [maximum]),
        ("filter_order", [0], "must be at least 1", [trains]),
        ("length", [0], "must be at least 1", [trains]),
        ("length", TOO_LARGE, IN_32_BITS, [trains]),
        ("ignore_index", [2**31, -(2**31) - 1], "must fit in 32 bits", [maximum]),
        # Numbers
        ("time_constant", [0, -1, nan, inf], "must be", [trains]),
        ("pseudo_count", [0, -1], "must be above 0", [maximum]),
        ("alpha", [0, -1], "must be above 0", [moid]),
        ("theta", [nan], "must be finite", [moid]),
        ("pos_weight", [-0.5, inf, nan], "must be", [moid]),
        *(
            (option, [-1, -0.5], "must be at least 0", [latency])
            for option in ("true_time", "false_time", "tolerance")
        ),
        ("temperature", [0, -1, nan], "must be", [entropy]),
        ("label_smoothing", [-0.1, 1, 1.5, nan], "must be", [entropy]),
        ("rates", NO_RATES, "must be a pair of rates", [entropy]),
        ("rate_weight", [-1, inf], "must be", [entropy]),
        ("delta", [0], "must be above 0", [huber]),
        *(
            (option, [-1], "must be at least 0", [sparsity])
            for option in ("max_rate", "min_rate", "rate_weight")
        ),
        ("power", [3], "must be 1 or 2", [sparsity]),
    ],
)
def test_wrong_value_of_an_option_raises(option, values, message, losses):
    for loss, value in itertools.product(losses, values):
        with raises(ValueError, f"{option} {message}.*got {value!r}"):
            loss(**{option: value})


@pytest.mark.parametrize(
    ("loss", "option", "values", "message"),
    [
        (maximum, "num_classes", [1.5, "last"], "an integer"),
        (maximum, "ignore_index", [1.5, "last"], "an integer"),
        (maximum, "time_axis", [1.5, "last"], "an integer"),
        (maximum, "moving_window", [True, 2.0], "an integer"),
        (trains, "filter_order", [1.5], "an integer"),
        (trains, "time_constant", ["5ms", None], "a number"),
        (entropy, "temperature", [Learned(2.0), np.ones(2)], "a number"),
        (rate, "one_sided", [None, 1], "True or False"),
        (poisson, "constant", ["full"], "True or False"),
    ],
)
def test_wrong_type_of_an_option_raises(loss, option, values, message):
    for value in values:
        with raises(TypeError, f"{option} must be {message}.*got {value!r}"):
            loss(**{option: value})


@pytest.mark.parametrize("readout", ["rate", "count"])
@pytest.mark.parametrize("value", [-0.5, 1.5, nan])
def test_target_rate_outside_of_0_and_1_raises(readout, value):
    with raises(ValueError, f"true_rate must be.*got {value}"):
        sx.SpikeRate(value, 0, readout=readout, **LAST)
    with raises(ValueError, f"false_rate must be.*got {value}"):
        sx.SpikeRate(1, value, readout=readout, **LAST)
    with raises(ValueError, "true_rate[1] must be.*got 1.5"):
        sx.SpikeRate((0.5, 1.5), 0, readout=readout, **LAST)
    with raises(ValueError, "false_rate must be finite; got nan"):
        sx.SpikeRate(1, nan, readout="max", **LAST)


def test_wrong_number_of_several_raises():
    for value in (-0.5, inf, nan):
        with raises(ValueError, f"pos_weight[1] must be.*got {value}"):
            moid(pos_weight=[1, value])
    for value in (-0.1, nan):
        with raises(ValueError, f"rates[1] must be.*got {value}"):
            entropy(rates=(0.5, value))
    with raises(ValueError, "max_rate[1] must be at least 0; got -0.5"):
        sx.SparsityEnforcer((0.5, -0.5), per="neuron", time_axis=-1)


def test_array_as_an_option_raises():
    with raises(TypeError, "the gradient.*loss(input / temperature, target)"):
        entropy(temperature=Learned(2.0))
    with raises(TypeError, "temperature must be a number; got array([1., 1.])$"):
        entropy(temperature=np.ones(2))
    for option, wrong in (("temperature", TypeError), ("rates", ValueError)):
        with raises(wrong, f"{option} must be.*got an array of shape (50,)$"):
            entropy(**{option: np.ones(50)})
    with raises(TypeError, "true_rate[0] must be a number.*the gradient"):
        sx.SpikeRate([Learned(2.0), 0.5], 0, **LAST)
    losses = sx.SpikeTime, sx.SpikeMax, published.SpikeMoid, sx.SparsityEnforcer, sx.SpikeRate
    for loss, shape in itertools.product(losses, [(2, 3), (2, 3, 5)]):
        call = "(...)(input)" if loss is sx.SparsityEnforcer else "(...)(input, target)"
        with raises(
            TypeError, f"have at most one axis; got shape {shape}: .*{loss.__name__}{call}"
        ):
            loss(np.zeros(shape), *[0] * (loss is sx.SpikeRate), **LAST)


def test_option_without_its_name_raises_with_the_names():
    for loss, given, names, wrong in (
        (sx.times.SpikeLatency, (1.0, 3.0), "true_time, .*, silent_time", "1.0, 3.0"),
        (sx.SpikeMoid, (5, "sum"), "time_axis, .*, alpha, theta, pos_weight", "5, 'sum'"),
        (sx.SpikeRate, (0.2, 0.03, 20), "time_axis, .*, moving_window, .*, one_sided", "20"),
    ):
        message = f"pass these options of {loss.__name__} by name, .*: {names}; got {wrong} without"
        with raises(TypeError, message):
            loss(*given)


def test_rates_in_the_wrong_order_raise_except_in_lava_dl():
    for true, false in ((0.03, 0.2), (0.2, 0.2), ((0.5, 0.1), 0.2), (0.2, (0.1, 0.3))):
        with raises(ValueError, "true_rate must be above false_rate, which is 0.*; got 0.*: the"):
            sx.SpikeRate(true, false, **LAST)
        published.SpikeRate(true, false, **LAST)


def test_options_that_do_not_fit_together_raise():
    for readout in ENTROPY_READOUTS:
        for loss in (rate, moid):
            with raises(ValueError, f"readout must be.*got {readout!r}: use CrossEntropy, which"):
                loss(readout=readout)
    for readout in ("max", "last", "latency", "softmax_sum"):
        with raises(ValueError, f"rates.*count, sqrt_count, rate; got readout={readout!r}"):
            entropy(rates=(0.5, 0), readout=readout)
    for readout in ("max", "latency"):
        with raises(ValueError, f"readout={readout!r}.*got moving_window=3"):
            entropy(moving_window=3, readout=readout)
    with raises(ValueError, "pos_weight must be 1.*use spikeloss_xp.SpikeMoid; got 2"):
        published.SpikeMoid(theta=0, pos_weight=2, **LAST)
    for loss in (sx.SpikeMax, moid, sx.SparsityEnforcer):
        with raises(TypeError, "has no option numerics.*spikeloss_xp.slayer.published"):
            loss(numerics="lava")
    with raises(ValueError, "min_rate must be at most max_rate, 0.25; got 0.5"):
        sx.SparsityEnforcer(max_rate=0.25, min_rate=0.5, time_axis=-1)
    for limits in ((0.25, (0.125, 0.5)), ((0.5, 0.25), 0.375), ((0.5, 0.25), (0.25, 0.5))):
        max_rate, min_rate = limits
        with raises(ValueError, "min_rate must be at most max_rate, 0.25 for neuron 1; got 0."):
            sx.SparsityEnforcer(max_rate=max_rate, min_rate=min_rate, per="neuron", time_axis=-1)
    sparsity(max_rate=0.1, min_rate=np.float32(0.1))  # above 0.1 only by rounding
    for per in ("all", "sample"):
        with raises(ValueError, f"number for each neuron only with.*got per={per!r}"):
            sx.SparsityEnforcer(max_rate=(0.5, 0.25), per=per, time_axis=-1)
        with raises(ValueError, f"number for each neuron only with.*got per={per!r}"):
            sx.SparsityEnforcer(0.5, min_rate=[0.25], per=per, time_axis=-1)


@pytest.mark.parametrize(
    ("loss", "option", "remedy"),
    [
        (sx.CrossEntropy, "weight", "to the call, loss(input, target, weight=...)"),
        (sx.PoissonNLL, "weight", "to the call, loss(input, target, weight=...)"),
        (sx.PoissonNLL, "log_rates", 'use link="log" for logarithms of rates, and link="iden'),
        (sx.SpikeMax, "mask", "to the call, loss(input, target, where=...)"),
        (sx.SpikeTime, "tau", "time_constant=..., in time steps"),
        (sx.SpikeRate, "window", "moving_window=..., in time steps"),
        (sx.SparsityEnforcer, "dim", "time_axis=..."),
        (sx.times.CrossEntropy, "rates", "an option of CrossEntropy, which needs binned spikes"),
    ],
)
def test_option_of_another_library_raises_with_our_name(loss, option, remedy):
    with raises(TypeError, f"{loss.__name__} has no option {option}: .*{remedy}"):
        loss(**{option: 2})


@pytest.mark.parametrize("room", [sx, published])
def test_time_axis_left_out_raises_with_the_line_to_write(room):
    for name in set(room.__all__) & set(sx.losses.__all__) - {"SparsityEnforcer"}:
        rates = (0.2, 0.03) * (name == "SpikeRate")
        with raises(TypeError, f"{name} needs the time axis .* write {name}(..., time_axis=0) for"):
            getattr(room, name)(*rates, reduction="sum")


def test_penalty_without_a_time_axis_raises_where_it_needs_one():
    assert sx.SparsityEnforcer(0.5)(np.ones((2, 3))) == 0.25
    with raises(TypeError, "needs the time axis of the arrays for per='neuron': write time_axis=0"):
        sx.SparsityEnforcer(0.5, per="neuron")
    with raises(TypeError, "needs the time axis of the arrays for where and lengths"):
        sx.SparsityEnforcer(0.5)(np.ones((2, 3)), lengths=[1, 3])
