"""A loss that is evaluated in chunks has the value and the gradient of the whole."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import PER_STEP, moved, with_everything
from _support.contract import FORMS, LAYOUTS
from spikeloss_xp import _tuning

CHUNKED = [*PER_STEP, *(form for form in FORMS if "atency" in form)]


def assert_equal(got, expected):
    """Assert that value and gradient are equal but for the order in which chunks are added up."""
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-13)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-12, atol=0)  # small ones cancel


@pytest.mark.parametrize(
    ("form", "reduction", "time_axis"),
    [(form, ("mean", "batchmean")[i % 2], tuple(LAYOUTS)[i % 3]) for i, form in enumerate(CHUNKED)],
)
def test_chunks_equal_the_whole(monkeypatch, form, reduction, time_axis):
    call = moved(with_everything(FORMS[form]), time_axis)
    loss = dataclasses.replace(call.loss, reduction=reduction)
    evaluate = sx.value_and_grad(loss)
    expected = evaluate(call.spikes, call.target, **call.options)
    monkeypatch.setattr(_tuning, "CHUNK", 12)  # half of a sample
    assert_equal(evaluate(call.spikes, call.target, **call.options), expected)
    value = loss(call.spikes, call.target, **call.options)
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)


@pytest.mark.parametrize(
    ("reduction", "number"), [("sum", 10), ("mean", 10), ("batchmean", 2), ("none", 1)]
)
def test_chunks_are_of_neurons_of_samples_or_all(monkeypatch, reduction, number):
    """Of samples for "batchmean", which counts them, and of all for the terms."""
    spikes, desired = np.random.default_rng(0).uniform(size=(2, 2, 50, 3))
    calls, compare = [], sx.SpikeTime.criterion

    def noted(*arguments):
        calls.append(arguments)
        return compare(*arguments)

    evaluate, arrays = sx.value_and_grad(sx.SpikeTime(reduction=reduction)), (spikes, desired)
    options = {"where": spikes < 0.9}
    if reduction == "none":
        options["cotangent"] = np.ones(spikes.shape)
    expected = evaluate(*arrays, **options)
    monkeypatch.setattr(_tuning, "CHUNK", 30)
    monkeypatch.setattr(sx.SpikeTime, "criterion", noted)
    assert_equal(evaluate(*arrays, **options), expected)
    assert len(calls) == number


def test_pullback_of_chunks_may_be_called_once(monkeypatch):
    monkeypatch.setattr(_tuning, "CHUNK", 12)
    spikes = np.random.default_rng(0).uniform(size=(5, 4, 6))
    loss = sx.SpikeTime(reduction="sum")
    value, pullback = loss.value_and_pullback(spikes, 0 * spikes)
    gradient = pullback(np.ones_like(value))
    first = gradient.copy()
    _, doubled = loss.value_and_pullback(spikes, 0 * spikes)
    np.testing.assert_array_equal(doubled(2 * np.ones_like(value)), 2 * first)
    with pytest.raises(RuntimeError, match="may be called only once"):
        pullback(np.ones_like(value))
    np.testing.assert_array_equal(gradient, first)
