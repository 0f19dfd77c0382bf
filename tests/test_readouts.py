"""Readings and their adjoints: what autodiff computes elsewhere has to be right everywhere."""

import numpy as np
import pytest
import reference

import spikeloss_xp as sx
from spikeloss_xp import readouts

random = np.random.default_rng(6)
SPIKES, OTHER = random.normal(size=(2, 2, 3, 40))
KERNEL = tuple(random.normal(size=12).tolist())

READOUTS = {
    "rate": lambda xp, s: readouts.rate(xp, s, None),
    "moving-rate": lambda xp, s: readouts.rate(xp, s, 7),
    "moving-rate-of-all-time": lambda xp, s: readouts.rate(xp, s, 41),
    "count": lambda xp, s: readouts.count(xp, s, None),
    "moving-count": lambda xp, s: readouts.count(xp, s, 7),
    "max": lambda xp, s: readouts.highest(xp, s),
    "last": lambda xp, s: readouts.last(xp, s),
    "trace": lambda xp, s: readouts.trace(xp, s, KERNEL, -1),
    "trace-over-classes": lambda xp, s: readouts.trace(xp, s, KERNEL, 1),
}
READINGS = {
    "rate": reference.rates(SPIKES, None)[..., 0],
    "moving-rate": reference.moving_average(SPIKES, 7),
    "moving-rate-of-all-time": reference.moving_average(SPIKES, 41),
    "count": SPIKES.sum(axis=-1),
    "moving-count": 7 * reference.moving_average(SPIKES, 7),
    "max": SPIKES.max(axis=-1),
    "last": SPIKES[..., -1],
    "trace": reference.causal_filter(SPIKES, KERNEL),
    "trace-over-classes": reference.causal_filter(SPIKES.swapaxes(1, 2), KERNEL).swapaxes(1, 2),
}


@pytest.mark.parametrize("name", READOUTS)
def test_the_pullback_is_the_adjoint(backend, name):
    wanted = READINGS[name]
    cotangent = OTHER[..., 0] if wanted.ndim == 2 else OTHER

    def run(spikes, cotangent):
        reading, pullback = READOUTS[name](backend.xp, spikes)
        return reading.u, pullback(cotangent)

    compiled = backend.compiled(run)
    reading, pulled = map(
        backend.numpy, compiled(backend.asarray(SPIKES), backend.asarray(cotangent))
    )
    np.testing.assert_allclose(reading, wanted, rtol=0, atol=backend.rtol)
    assert pulled.shape == SPIKES.shape
    # <A x, y> = <x, A' y>: sums of 240 numbers around 1
    np.testing.assert_allclose(
        np.vdot(wanted, cotangent), np.vdot(SPIKES, pulled), rtol=0, atol=100 * backend.rtol
    )


@pytest.mark.parametrize("name", ["rate", "count", "max", "last"])
def test_a_masked_reading_is_that_of_the_steps_kept(backend, name):
    kept = np.random.default_rng(8).random(SPIKES.shape) < 0.6
    kept[0, 1] = False
    silent = np.where(kept, SPIKES, 0)

    def run(spikes, kept, cotangent):
        rest = (None,) if name in readouts.WINDOWED else ()
        read = {**readouts.WINDOWED, **readouts.WHOLE}[name]
        reading, pullback = read(backend.xp, spikes, *rest, kept)
        return reading.u, reading.kept, pullback(cotangent)

    arrays = map(backend.asarray, (silent, kept, OTHER[..., 0]))
    u, read, pulled = map(backend.numpy, backend.compiled(run)(*arrays))
    np.testing.assert_array_equal(read, kept.any(axis=-1))
    summary = {"rate": np.mean, "count": np.sum, "max": np.max, "last": lambda x: x[-1]}[name]
    for i in zip(*np.nonzero(read), strict=True):
        np.testing.assert_allclose(u[i], summary(SPIKES[i][kept[i]]), rtol=0, atol=backend.rtol)
    pulled = np.where(kept, pulled, 0)
    left, right = np.vdot(np.where(read, u, 0), OTHER[..., 0]), np.vdot(silent, pulled)
    np.testing.assert_allclose(left, right, rtol=0, atol=100 * backend.rtol)


def test_the_steps_that_tie_share_the_gradient(backend):
    spikes = backend.asarray(np.asarray([[[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]))
    loss = sx.SpikeMax(mode="softmax", readout="max")
    _, gradient = sx.value_and_grad(loss)(spikes, [1])
    p = 1 / (1 + np.exp(-1.0))
    wanted = np.asarray([[[0, p / 2, 0, p / 2], [-p / 4] * 4]])
    np.testing.assert_allclose(backend.numpy(gradient), wanted, rtol=0, atol=backend.rtol)


@pytest.mark.parametrize(
    ("rising", "slope"), [(False, [[0.5, -0.5], [0, 0.5]]), (True, [[0.5, -0.5], [0.5, 0.5]])]
)
def test_the_mean_magnitude_of_signed_events(backend, rising, slope):
    x = backend.asarray(np.asarray([[1.0, -3.0], [0.0, 2.0]]))
    mean, pullback = readouts.mean_magnitude(backend.xp, x, per_neuron=False, rising=rising)
    assert float(mean.u) == 1.5  # (1 + 3 + 0 + 2) / 4
    pulled = pullback(backend.asarray(np.asarray(2.0)))
    np.testing.assert_array_equal(backend.numpy(pulled), slope)
