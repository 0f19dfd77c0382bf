"""Tests of the interface that all losses share."""

import dataclasses
import functools
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import example
from _support.cases import reduced
from _support.contract import FORMS, ONE_OF_EACH

RATE = functools.partial(sx.SpikeRate, **{"true_rate": 1, "false_rate": 0})
NAN, INF = float("nan"), float("inf")
SPIKES = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5))


def arguments(form):
    call = example(FORMS[form])
    return call.loss, call.spikes, [] if call.target is None else [call.target]


@pytest.mark.parametrize("form", ONE_OF_EACH)
def test_forward_equals_call(backend, form):
    loss, spikes, target = arguments(form)
    spikes = backend.asarray(spikes)
    run = backend.compiled(lambda *arrays: (loss(*arrays), loss.forward(*arrays)))
    called, forward = run(spikes, *map(backend.asarray, target))
    assert backend.numpy(called) == backend.numpy(forward)
    assert backend.device_of(called) == backend.device_of(spikes)
    assert called.dtype == spikes.dtype


@pytest.mark.parametrize("form", ONE_OF_EACH)
def test_complex_or_list_input_raises(backend, form):
    loss, spikes, target = arguments(form)
    complex_spikes = backend.xp.astype(backend.asarray(spikes), backend.xp.complex64)
    with pytest.raises(TypeError, match=r"input must be bool, integer or real .*complex64"):
        loss(complex_spikes, *target)
    with pytest.raises(TypeError, match=r"input must be an array .*got builtins.list"):
        loss(spikes.tolist(), *target)


@pytest.mark.parametrize(
    ("loss", "shape", "axes"),
    [
        (sx.SpikeTime(), (5,), r"2 axes, \[batch, \*space, time\]"),
        (sx.SpikeRate(1, 0), (2, 5), r"3 axes, \[batch, class or \*space, time\]"),
        (sx.SpikeMax(), (5,), r"3 axes, \[batch, class or \*space, time\]"),
        (sx.SpikeMoid(theta=0), (2, 5), r"3 axes, \[batch, class or \*space, time\]"),
    ],
)
def test_input_with_too_few_axes_raises(backend, loss, shape, axes):
    with pytest.raises(
        ValueError, match=f"input must have at least {axes}.*{re.escape(str(shape))}"
    ):
        loss(backend.asarray(np.zeros(shape)), np.zeros(shape))


def test_empty_input_and_time_axis_out_of_range_raise(backend):
    for shape in ((2, 3, 0), (0, 3, 5), (2, 0, 5)):
        with pytest.raises(ValueError, match=f"no elements.*{re.escape(str(shape))}"):
            sx.SpikeRate(1, 0)(backend.asarray(np.zeros(shape)), [0] * shape[0])
    for axis in (3, -4):
        with pytest.raises(ValueError, match=rf"time_axis={axis} .*\(2, 3, 5\)"):
            sx.SpikeRate(1, 0, time_axis=axis)(backend.asarray(SPIKES), [0, 0])


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        *(
            (kind, {"reduction": bad}, ValueError, f"reduction.*sum, mean, batchmean, none.*{bad}")
            for kind in (sx.SpikeTime, RATE, sx.SpikeMax, sx.SpikeMoid)
            for bad in ("max", None)
        ),
        (sx.SpikeMax, {"mode": "any"}, ValueError, "mode.*probability, softmax.*'any'"),
        (sx.SpikeMax, {"numerics": "new"}, ValueError, "numerics.*stable, lava.*'new'"),
        (sx.SpikeMoid, {"numerics": "new"}, ValueError, "numerics.*stable, lava.*'new'"),
        (sx.SpikeTime, {"filter_order": 0}, ValueError, "filter_order.*at least 1.*0"),
        (sx.SpikeTime, {"filter_order": 1.5}, TypeError, "filter_order.*integer.*1.5"),
        (sx.SpikeTime, {"length": 0}, ValueError, "length.*at least 1.*0"),
        *(
            (sx.SpikeTime, {"time_constant": bad}, ValueError, f"time_constant.*{bad}")
            for bad in (0, -1, NAN, INF)
        ),
        *(
            (sx.SpikeTime, {"time_constant": bad}, TypeError, f"must be a number; got {bad!r}")
            for bad in ("5ms", None)
        ),
        (sx.SpikeTime, {"time_axis": "last"}, TypeError, "time_axis.*integer.*'last'"),
        *(
            (kind, {"moving_window": bad}, ValueError, f"moving_window.*at least 1.*{bad}")
            for kind in (sx.SpikeMax, sx.SpikeMoid, RATE)
            for bad in (0, -3)
        ),
        *(
            (sx.SpikeMax, {"moving_window": bad}, TypeError, f"moving_window.*integer.*{bad}")
            for bad in (True, 2.0)
        ),
        *(
            (kind, {name: bad}, ValueError, f"{name}.*above 0.*{bad}")
            for kind, name in ((sx.SpikeMax, "pseudo_count"), (sx.SpikeMoid, "alpha"))
            for bad in (0, -1)
        ),
        (sx.SpikeMoid, {"theta": NAN}, ValueError, "theta.*finite.*nan"),
        *(
            (RATE, {name: bad}, ValueError, f"{name}.*{bad}")
            for name in ("true_rate", "false_rate")
            for bad in (-0.5, 1.5, NAN)
        ),
        (sx.SparsityEnforcer, {"max_rate": -1}, ValueError, "max_rate.*at least 0.*-1"),
        (sx.SparsityEnforcer, {"lam": -1}, ValueError, "lam.*at least 0.*-1"),
        (sx.SparsityEnforcer, {"lam": NAN}, ValueError, "lam.*finite.*nan"),
    ],
)
def test_hyperparameters_are_checked_on_construction(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**options)


def test_hyperparameters_at_their_bounds_are_accepted():
    sx.SpikeTime(1e-3, 1, 1)
    sx.SpikeRate(0, 1, 1)
    sx.SpikeMoid(theta=-2)
    sx.SparsityEnforcer(0, 0)


@pytest.mark.parametrize("loss", [form.loss() for form in FORMS.values()], ids=repr)
def test_losses_compare_hash_and_print_by_value(loss):
    same = dataclasses.replace(loss)
    assert same is not loss
    assert same == loss
    assert hash(same) == hash(loss)
    assert {loss: 1}[same] == 1
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
