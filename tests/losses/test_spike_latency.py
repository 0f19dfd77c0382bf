"""The latency of the first spike: its value, and its derivative, the effect of a single spike."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import one_jax, run
from spikeloss_xp import readouts


@one_jax
@pytest.mark.parametrize("steps", [1, 16, 17, 1013])  # one group, several, a last one not full
def test_derivative_is_the_effect_of_a_toggle(backend, steps):
    """Exactly, for binary trains, some of whose entries are masked."""
    random = np.random.default_rng(steps)
    spikes = (random.random((2, 3, steps)) < min(3 / steps, 0.5)).astype(float)
    spikes[0, :2] = [[0.0], [1.0]]  # silent and saturated
    mask = random.random(spikes.shape) < 0.7
    spikes = np.where(mask, spikes, 0)

    def evaluate(spikes, mask, ones):
        reading, pullback = readouts.read_classes(backend.adapter, spikes, mask, 2, "latency")
        return reading.u[..., 0], pullback(ones)

    compiled = backend.compiled(evaluate)
    arrays = backend.asarray(spikes), backend.asarray(mask), backend.asarray(np.ones((2, 3, 1)))
    value, slope = map(backend.numpy, compiled(*arrays))
    expected = brute_force(spikes, mask)
    np.testing.assert_array_equal(value, expected)
    slope = np.where(mask, slope, 0)  # the loss does so once for all readouts
    for step in {*range(min(steps, 20)), steps // 2, steps - 1}:
        toggled = spikes.copy()
        toggled[..., step] = 1 - toggled[..., step]
        effect = (brute_force(toggled, mask) - expected) * (toggled - spikes)[..., step]
        np.testing.assert_array_equal(slope[..., step], effect)


def brute_force(spikes, mask):
    """Return the number of steps before the first spike, or the longest duration of the sample."""
    latencies = np.zeros(spikes.shape[:2])
    for b, c in np.ndindex(latencies.shape):
        counted = spikes[b, c][mask[b, c]]
        longest = mask[b].sum(axis=-1).max()
        latencies[b, c] = next((t for t, spike in enumerate(counted) if spike), longest)
    return latencies


def test_several_spikes_in_a_step_are_one(backend):
    """With no slope above 1, and at 1 that of the spikes below."""
    spikes = np.asarray([[[0, 1.0, 0, 1.0]], [[0, 3.0, 0, 1.0]]])
    value, gradient = run(
        backend,
        sx.value_and_grad(sx.SpikeLatency(0.5, time_axis=-1, reduction="sum")),
        spikes,
        [0, 0],
    )
    assert value == 2 * 0.25
    np.testing.assert_array_equal(gradient[:, 0], [[-1, -2, 0, 0], [-1, 0, 0, 0]])


def test_nan_spike_shows_after_the_first_spike(backend):
    spikes = np.asarray([[[1.0, 0, 1, np.nan], [0, 0, 1, 0], [0, 0, 0, 0]]] * 2)
    spikes[1, 0] = [0, 2, 0, 0]  # two spikes are one, also beside the NaN

    def latency(x):
        return readouts.read_classes(backend.adapter, x, None, 2, "latency")[0].u[..., 0]

    got = run(backend, latency, spikes)
    np.testing.assert_array_equal(got, [[np.nan, 2, 4], [1, 2, 4]])
