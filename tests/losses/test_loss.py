"""Tests of the interface that all losses share."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import example, with_everything
from _support.cases import reduced
from _support.contract import FORMS, ONE_OF_EACH

every_call = pytest.mark.parametrize("form", ["SpikeTime", "SpikeMax", "SparsityEnforcer-neuron"])
"""A loss of trains, one of labels, and one without a target: each has a call of its own."""


def test_row_of_zero_probabilities_is_no_sample():
    spikes, rows = (
        np.eye(3)[None].repeat(3, axis=0),
        np.asarray([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]]),
    )
    loss = sx.CrossEntropy(time_axis=-1, reduction="batchmean")
    assert loss(spikes, rows) == loss(spikes[::2], rows[::2])


@every_call
def test_forward_equals_call(backend, form):
    call = with_everything(FORMS[form])
    loss, spikes, (target, options) = (
        call.loss,
        backend.asarray(call.spikes),
        call.arguments(backend),
    )
    run = backend.compiled(lambda *x, **options: (loss(*x, **options), loss.forward(*x, **options)))
    called, forward = run(spikes, *target, **options)
    assert backend.numpy(called) == backend.numpy(forward)
    assert backend.device_of(called) == backend.device_of(spikes)
    assert called.dtype == spikes.dtype


@every_call
def test_complex_or_list_input_raises(backend, form):
    call = example(FORMS[form])
    target = [] if call.target is None else [call.target]
    complex_spikes = backend.xp.astype(backend.asarray(call.spikes), backend.xp.complex64)
    with pytest.raises(TypeError, match=r"input must be bool, integer or real .*complex64"):
        call.loss(complex_spikes, *target)
    with pytest.raises(TypeError, match=r"input must be an array .*got builtins.list"):
        call.loss(call.spikes.tolist(), *target)


def test_hyperparameters_at_their_bounds_are_accepted():
    sx.SpikeTime(1e-3, 1, 1)
    sx.SpikeRate(0, 1)
    sx.SpikeRate(1.5, -2, 1)  # potentials, in a window of one step
    sx.SpikeMoid(theta=-2)
    sx.SparsityEnforcer(0, 0)


@pytest.mark.parametrize("form", ONE_OF_EACH)
def test_losses_compare_hash_and_print_by_value(form):
    loss = FORMS[form].loss()
    same = dataclasses.replace(loss)
    assert same is not loss
    assert same == loss
    assert hash(same) == hash(loss)
    assert eval(repr(loss), vars(sx)) == loss
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.reduction = "mean"
    assert all(f"{f.name}=" in repr(loss) for f in dataclasses.fields(loss) if f.init)


def test_losses_with_different_hyperparameters_differ():
    window, longer = sx.SpikeMax(3), sx.SpikeMax(4)
    assert window != longer
    assert window != sx.SpikeMoid(3, theta=0)
    assert len({window, longer, reduced(window, "mean"), sx.SpikeMax(3, "softmax")}) == 4
    assert sx.SparsityEnforcer(lam=1) != sx.SparsityEnforcer(lam=2)


def test_hyperparameters_become_python_numbers():
    loss = sx.SpikeRate(np.float32(0.5), np.asarray(0.25), np.int64(3), time_axis=np.int8(0))
    assert loss == sx.SpikeRate(0.5, 0.25, 3, time_axis=0)
    assert sx.SpikeRate(np.asarray([1, 0.5]), [0.5, 0]) == sx.SpikeRate((1, 0.5), (0.5, 0.0))
    assert hash(sx.SpikeRate([1, 0.5], 0)) == hash(sx.SpikeRate((1.0, 0.5), 0.0))
    kinds = [type(x) for x in (loss.true_rate, loss.false_rate, loss.moving_window, loss.time_axis)]
    assert kinds == [float, float, int, int]


def test_defaults_equal_the_published_ones():
    assert sx.SpikeTime() == sx.SpikeTime(5, None, 1, "sum", time_axis=-1)
    assert sx.SpikeTime().number_of_taps == 100
    assert sx.SpikeRate(1, 0) == sx.SpikeRate(1, 0, None, "sum", time_axis=-1)
    assert sx.SpikeMax() == sx.SpikeMax(
        None, "probability", "sum", pseudo_count=0.5, numerics="stable", time_axis=-1
    )
    assert sx.SpikeMoid(theta=0) == sx.SpikeMoid(None, "sum", 1, 0, numerics="stable", time_axis=-1)
    assert sx.SparsityEnforcer() == sx.SparsityEnforcer(0.01, 1.0)
