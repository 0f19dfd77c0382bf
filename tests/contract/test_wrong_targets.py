"""A target of the wrong shape, kind or value raises an error that says what the loss expects."""

from functools import partial

import numpy as np
import pytest
from numpy import inf, nan

import spikeloss_xp as sx
from _support.cases import LABEL, MULTI_HOT, SPIKES, raises

rate, moid = (
    partial(sx.SpikeRate, 1, 0, time_axis=-1),
    partial(sx.SpikeMoid, time_axis=-1, alpha=1, theta=0),
)
entropy = partial(sx.CrossEntropy, time_axis=-1)
latency, squared = (partial(loss, time_axis=-1) for loss in (sx.SpikeLatency, sx.SquaredError))
poisson, bernoulli = (partial(loss, time_axis=-1) for loss in (sx.PoissonNLL, sx.BernoulliNLL))
FOR_ENTROPY = "(class probabilities must be floats, and only a call to CrossEntropy accepts them"
REORDERED = "(its axes are in a different order)"
HOT = "(3, 4) ([batch, class])"
AT_STEPS = "(3,) ([batch]) or (3, 5) (one at each step)"


@pytest.mark.parametrize(
    ("loss", "dtype", "expected", "shapes"),
    [
        *(
            (loss, int, "(3,) ([batch])", [(4,), (1,), (), (3, 1), (1, 3), (3, 5), (3, 4)])
            for loss in (rate(), sx.SpikeMax(time_axis=-1))
        ),
        *(
            (loss, int, AT_STEPS, [(5,), (5, 3), (3, 1), (1, 5), (15,), (3, 4, 5)])
            for loss in (
                rate(moving_window=3),
                sx.SpikeMax(moving_window=3, time_axis=-1),
            )
        ),
        (moid(), float, f"{HOT};", [(4, 3), (3,), (12,), (1, 4), (3, 1), (3, 4, 5)]),
        (
            moid(moving_window=3),
            float,
            f"{HOT} or (3, 4, 5)",
            [(4, 3), (3, 5), (3, 5, 4), (4, 3, 5), (3, 4, 1)],
        ),
        (moid(moving_window=3, time_axis=1), float, "(3, 5).*or (3, 4, 5)", [(3, 5, 4)]),
        (
            sx.SpikeTime(time_axis=-1),
            float,
            "(3, 4, 5)",
            [(4, 3, 5), (3, 5, 4), (5, 4, 3), (60,)],
        ),
        (sx.SpikeTime(time_axis=-1), float, "(3, 4, 5)", [(1, 4, 5), (4, 5)]),
        (latency(), float, "target times of shape (3, 4)", [(3, 5)]),
    ],
)
def test_target_of_the_wrong_shape_raises(backend, loss, dtype, expected, shapes):
    for shape in shapes:
        with raises(ValueError, f"target must hold.*{expected}.*got {shape}"):
            loss(backend.asarray(SPIKES), backend.asarray(np.zeros(shape, dtype)))


def test_target_of_the_wrong_shape_raises_with_a_remedy(backend):
    x, time_first = backend.asarray(SPIKES), backend.asarray(np.moveaxis(SPIKES, -1, 0))
    with raises(ValueError, "target.*(5,).*got (3,).*time_axis"):
        sx.SpikeMax(time_axis=-1)(time_first, LABEL)
    with raises(ValueError, f"target.*(5,).*got (5, 3) {FOR_ENTROPY}.*time_axis"):
        sx.SpikeMax(moving_window=2, time_axis=-1)(time_first, np.zeros((5, 3), int))
    with raises(ValueError, "target.*(3,).*got (3, 5).*moving_window"):
        sx.SpikeMax(time_axis=-1)(x, np.zeros((3, 5), int))
    with raises(ValueError, f"{FOR_ENTROPY})$"):
        sx.SpikeMax(time_axis=-1)(x, MULTI_HOT.astype(int))
    with raises(ValueError, "target.*(3, 4).*got (3, 4, 5).*moving_window"):
        entropy()(x, np.ones((3, 4, 5)))
    for loss in (entropy(), latency()):
        with raises(ValueError, f"target.*(3, 4).*got (4, 3) {REORDERED}"):
            loss(x, np.ones((4, 3)))
    for loss in (poisson(), bernoulli()):
        with raises(ValueError, f"target must hold.*(3, 4, 5).*got (3, 5, 4) {REORDERED}"):
            loss(x, backend.asarray(np.zeros((3, 5, 4))))
    with raises(ValueError, "target is not a rectangular sequence"):
        moid()(x, [[1.0, 0.0], [1.0]])


def test_target_of_the_wrong_kind_raises(backend):
    x, hot = backend.asarray(SPIKES), MULTI_HOT.astype(int)
    with raises(TypeError, f"target must hold integers.*bool.*{FOR_ENTROPY}"):
        sx.SpikeMax(time_axis=-1)(x, MULTI_HOT)
    for loss in (rate(), sx.SpikeMax(time_axis=-1), entropy()):
        with raises(TypeError, "target must hold integers (class indices); got.*float"):
            loss(x, [0.0, 1.0, 2.0])
    for call, target in ((latency().confusion, np.ones((3, 4))), (latency(), np.ones(3))):
        with raises(TypeError, "target must hold integers.*float"):
            call(x, target)
    for dtype in (bool, int):
        kind = f"{dtype.__name__}.*(class probabilities must be floats)"
        with raises(TypeError, f"one class index for each sample; got.*{kind}"):
            entropy()(x, MULTI_HOT.astype(dtype))
    with raises(TypeError, "for each sample; got.*int.*(target times must be floats)"):
        latency()(x, np.ones((3, 4), int))
    with raises(TypeError, "target must hold multi-hot.*int.*if these are class indices"):
        moid()(x, LABEL)
    with raises(TypeError, "multi-hot.*int.*if it is multi-hot, target != 0"):
        moid()(x, hot)
    with raises(TypeError, "target[:, None] != 0 is multi-hot"):
        moid()(x[:, :1, :], backend.asarray(np.zeros(3, int)))
    with raises(TypeError, "target must hold target readings.*int"):
        squared()(x, LABEL)
    with raises(TypeError, "target must.*complex"):
        sx.SpikeTime(time_axis=-1)(x, np.zeros((3, 4, 5), complex))
    with raises(TypeError, "target must hold numbers; got list"):
        sx.SpikeMax(time_axis=-1)(x, ["a", "b", "c"])
    with raises(TypeError, "target must hold numbers; got NoneType"):
        sx.SpikeMax(time_axis=-1)(x, None)


def test_wrong_value_of_a_target_on_the_host_raises(backend):
    x = backend.asarray(SPIKES)
    for value in (inf, nan):
        with raises(ValueError, "target must hold target times, finite"):
            latency()(x, np.full((3, 4), value))
    with raises(ValueError, "target contains a number of magnitude 1e+300"):
        sx.SpikeTime(time_axis=-1)(backend.asarray(SPIKES, "float32"), np.full((3, 4, 5), -1e300))


# Values that are read ----------------------------------------------------------------------------


def test_wrong_value_of_class_indices_raises(backend, readable):
    x = backend.asarray(SPIKES)
    for loss in (rate(), sx.SpikeMax(time_axis=-1)):
        for label in (readable([4, 0, -1]), [4, 0, -1]):
            with raises(ValueError, "target must be between 0 and 3; got values from -1 to 4"):
                loss(x, label)
        with raises(ValueError, "target must be between 0 and 3; got values from 0 to 4"):
            loss(x, readable([4, 0, -100]))  # -100 is left out
    for label in (-1, 120):
        with raises(ValueError, f"target must be between 0 and 3; got.*{label}"):
            sx.SpikeMax(moving_window=2, time_axis=-1)(x, readable([label, 0, 0]))


def test_wrong_value_for_a_class_raises(backend, readable):
    x = backend.asarray(SPIKES)
    for value in (nan, 1.5, -0.25):
        with raises(ValueError, f"target must hold multi-hot labels, between 0 and 1.*{value}"):
            moid()(x, readable(np.where(MULTI_HOT, value, 0)))
    for value in (-0.5, inf, nan):
        message = "target must hold class probabilities, finite and at least 0"
        with raises(ValueError, f"{message}; got.*{value}"):
            entropy()(x, readable(np.full((3, 4), value)))
    with raises(ValueError, "target must hold target readings, finite; got.*nan"):
        squared()(x, readable(np.full((3, 4), nan)))
    with raises(ValueError, "target must hold target times, finite and at least 0; got.*-5.5"):
        latency()(x, readable(np.full((3, 4), -5.5)))


def test_target_readings_without_an_axis_raise_with_a_remedy(backend, readable):
    x = backend.asarray(SPIKES)
    with raises(ValueError, "target.*to use one number for all.*numpy.full((3, 4), x)"):
        squared()(x, 0.5)
    with raises(ValueError, "lacks the batch axis: pass target[None]"):
        squared()(x[:1, ...], readable(np.zeros(4)))
    with raises(ValueError, "lacks the batch axis: pass [target])"):
        entropy()(x[:1, ...], 1)
    entropy()(x[:1, ...], [1])
    with raises(ValueError, "lacks the batch axis: pass target[:, None]"):
        loss = sx.SquaredError(time_axis=0, moving_window=1)
        loss(x[:, :1, :], readable(np.zeros((3, 5))))


def test_advice_on_padding_and_on_one_sample_is_right(backend, readable):
    x, padded = backend.asarray(SPIKES), np.where(np.arange(5)[:, None] < 3, 0.5, nan)
    target = readable(np.broadcast_to(padded.T, SPIKES.shape).copy())
    each_step = sx.SquaredError(time_axis=-1, moving_window=1)
    with raises(ValueError, "got nan (to leave out padded steps, pass lengths;.*pass where, which"):
        each_step(x, target)
    for options in ({"lengths": [3, 3, 3]}, {"where": np.arange(5) < 3}):
        assert each_step(x, target, **options).shape == ()
    one, probabilities = x[:1, ...], readable(np.full(4, 0.25))
    with raises(TypeError, "class probabilities of one sample, pass target[None]"):
        entropy()(one, probabilities)
    assert entropy()(one, probabilities[None]).shape == ()
