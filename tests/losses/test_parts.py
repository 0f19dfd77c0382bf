"""In parts, a loss is what it is as a whole."""

import dataclasses

import numpy as np
import pytest
from calls import example, moved, with_everything
from contract import BATCH, FORMS, LAYOUTS, REDUCTIONS

import spikeloss_xp as sx
from spikeloss_xp.backends import _numpy
from spikeloss_xp.losses import _parts

EVERY_STEP = [name for name in FORMS if "window" in name or "SpikeTime" in name]


@pytest.fixture
def seen(monkeypatch):
    """Let NumPy have half of a sample at a time; yield the numbers of parts of each evaluation."""
    numbers, total = [], _parts.total

    def counted(xp, how, x, axis, parts, *rest, **options):
        numbers.append(len(parts))
        return total(xp, how, x, axis, parts, *rest, **options)

    monkeypatch.setattr(_numpy, "at_a_time", lambda x: x.size // (2 * BATCH))
    monkeypatch.setattr(_parts, "total", counted)
    return numbers


@pytest.mark.parametrize("time_axis", LAYOUTS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("options", [example, with_everything])
@pytest.mark.parametrize("form", EVERY_STEP)
def test_parts_are_the_whole(seen, monkeypatch, form, options, reduction, time_axis):
    call = moved(options(FORMS[form]), time_axis)
    loss = dataclasses.replace(call.loss, reduction=reduction)
    given = {} if reduction != "none" else {"cotangent": np.asarray(loss(call.spikes, call.target))}
    value = loss(call.spikes, call.target, **call.options)
    got = sx.value_and_grad(loss)(call.spikes, call.target, **call.options, **given)
    parts = seen.copy()
    monkeypatch.undo()
    wanted = sx.value_and_grad(loss)(call.spikes, call.target, **call.options, **given)
    # Sums are added up in another order.
    np.testing.assert_allclose(value, wanted[0], rtol=1e-13)
    np.testing.assert_allclose(got[0], wanted[0], rtol=1e-13)
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-13, atol=0)
    if reduction == "none":
        assert parts == []
    else:
        assert parts == [BATCH, BATCH]


@pytest.mark.parametrize(
    ("reduction", "parts"), [("sum", 10), ("mean", 10), ("batchmean", 2)]
)  # samples are counted whole
def test_neurons_are_as_good_as_samples(seen, monkeypatch, reduction, parts):
    spikes, desired = np.random.default_rng(0).uniform(size=(2, 2, 50, 3))
    where = spikes < 0.9
    evaluate = sx.value_and_grad(sx.SpikeTime(reduction=reduction))
    value, gradient = evaluate(spikes, desired, where=where)
    assert seen == [parts]
    monkeypatch.undo()
    whole, its_gradient = evaluate(spikes, desired, where=where)
    np.testing.assert_allclose(value, whole, rtol=1e-13)
    np.testing.assert_allclose(gradient, its_gradient, rtol=1e-13)


def test_what_is_large_is_evaluated_in_parts():
    spikes = np.zeros((8, 128, 1000), np.float32)
    assert len(_parts.along(np, spikes, (0,))[1]) == 4
    small = spikes[:, :32]
    assert _parts.along(np, small, (0,)) == (0, _parts.WHOLE)


def test_nothing_that_the_caller_holds_is_changed(seen):
    spikes, desired = np.random.default_rng(0).uniform(size=(2, 5, 4, 6))
    before = spikes.copy(), desired.copy()
    sx.value_and_grad(sx.SpikeTime())(spikes, desired)
    np.testing.assert_array_equal((spikes, desired), before)
    assert seen == [BATCH]
