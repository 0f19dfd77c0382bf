"""The latency of the first spike: its value, and its derivative, the effect of a single spike."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import one_jax, run
from spikeloss_xp import readouts


@one_jax
@pytest.mark.parametrize(  # one group of steps, several, and a last one that is not full
    ("steps", "masked"),
    [(1, "entries"), (16, None), (17, None), (17, "entries"), (37, "steps"), (1013, "entries")],
)
def test_derivative_is_the_effect_of_a_toggle(backend, steps, masked):
    """For binary trains exactly, in the closed form and by automatic differentiation."""
    random = np.random.default_rng(steps)
    spikes = (random.random((2, 3, steps)) < min(3 / steps, 0.5)).astype(float)
    spikes[0, :2] = [[0.0], [1.0]]  # silent and saturated
    shape = {None: None, "steps": (2, 1, steps), "entries": spikes.shape}[masked]
    mask = None if shape is None else random.random(shape) < 0.7
    spikes = spikes if mask is None else np.where(mask, spikes, 0)
    masks = () if mask is None else (backend.asarray(mask),)
    ones = backend.asarray(np.ones((2, 3)))

    def evaluate(spikes, *mask):
        reading, pullback = readouts.read_classes(
            backend.adapter, spikes, *(mask or (None,)), 2, "latency"
        )
        return reading.u[..., 0], pullback(ones[..., None])

    value, slope = map(backend.numpy, backend.compiled(evaluate)(backend.asarray(spikes), *masks))
    expected = brute_force(spikes, mask)
    np.testing.assert_array_equal(value, expected)
    counted = np.broadcast_to(True if mask is None else mask, spikes.shape)
    slope = np.where(counted, slope, 0)  # the loss does so once for all readouts
    for step in {*range(min(steps, 20)), steps // 2, steps - 1}:
        toggled = spikes.copy()
        toggled[..., step] = 1 - toggled[..., step]
        effect = (brute_force(toggled, mask) - expected) * (toggled - spikes)[..., step]
        np.testing.assert_array_equal(slope[..., step], effect)
    if backend.differentiates:

        def native(spikes, *mask):
            return backend.adapter.value_and_grad(lambda x: evaluate(x, *mask)[0], spikes, ones)[1]

        native = backend.compiled(native)(backend.asarray(spikes), *masks)
        np.testing.assert_array_equal(np.where(counted, backend.numpy(native), 0), slope)


def brute_force(spikes, mask=None):
    """Return the number of steps before the first spike, or the longest duration of the sample."""
    mask = np.broadcast_to(True if mask is None else mask, spikes.shape)
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
