"""The latency of the first spike where the random calls do not reach: spikes above 1, and NaN."""

import numpy as np

import spikeloss_xp as sx
from _support.calls import run
from spikeloss_xp import readouts
from spikeloss_xp._input.layout import Layout


def test_several_spikes_in_a_step_are_one(backend):
    """With no slope above 1, and at 1 that of the spikes below."""
    spikes = np.asarray([[[0, 1.0, 0, 1.0]], [[0, 2.0, 0, 1.0]]])
    loss = sx.SpikeLatency(0.5, time_axis=-1, reduction="sum")
    value, gradient = run(backend, sx.value_and_grad(loss), spikes, [0, 0])
    assert value == 2 * 0.25
    np.testing.assert_array_equal(gradient[:, 0], [[-1, -2, 0, 0], [-1, 0, 0, 0]])


def test_nan_spike_shows_after_the_first_spike(backend):
    spikes = np.asarray([[[1.0, 0, 1, np.nan], [0, 0, 1, 0], [0, 0, 0, 0]]] * 2)
    spikes[1, 0] = [0, 2, 0, 0]  # two spikes are one, also beside the NaN
    spikes = np.pad(spikes, [(0, 0), (0, 0), (0, 13)])  # groups of steps, the last one not full

    def latency(x):
        adapter = backend.adapter
        trains = readouts.Trains(adapter, x, None, Layout.of(x.shape, -1), x.dtype)
        return readouts.read_classes(trains, "latency")[0].u[..., 0]

    got = run(backend, latency, spikes)
    np.testing.assert_array_equal(got, [[np.nan, 2, 17], [1, 2, 17]])
