"""The chunks in which a loss is evaluated, whose sums test_differential.py compares."""

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp import _tuning


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

    evaluate, arrays = (
        sx.value_and_grad(sx.SpikeTime(reduction=reduction, time_axis=-1)),
        (spikes, desired),
    )
    options = {"where": spikes < 0.9}
    if reduction == "none":
        options["cotangent"] = np.ones(spikes.shape)
    value, gradient = evaluate(*arrays, **options)
    monkeypatch.setattr(_tuning, "CHUNK", 30)
    monkeypatch.setattr(sx.SpikeTime, "criterion", noted)
    got_value, got_gradient = evaluate(*arrays, **options)
    np.testing.assert_allclose(got_value, value, rtol=1e-13)
    np.testing.assert_allclose(got_gradient, gradient, rtol=1e-12)
    assert len(calls) == number


def test_pullback_of_chunks_may_be_called_once(monkeypatch):
    monkeypatch.setattr(_tuning, "CHUNK", 12)
    spikes = np.random.default_rng(0).uniform(size=(5, 4, 6))
    loss = sx.SpikeTime(reduction="sum", time_axis=-1)
    value, pullback = loss.value_and_pullback(spikes, 0 * spikes)
    gradient = pullback(np.ones_like(value))
    first = gradient.copy()
    _, doubled = loss.value_and_pullback(spikes, 0 * spikes)
    np.testing.assert_array_equal(doubled(2 * np.ones_like(value)), 2 * first)
    with pytest.raises(RuntimeError, match="may be called only once"):
        pullback(np.ones_like(value))
    np.testing.assert_array_equal(gradient, first)
