"""Readings and their adjoints: what autodiff computes elsewhere has to be right everywhere."""

import numpy as np
import pytest
import reference

from spikeloss_xp import readouts

random = np.random.default_rng(6)
SPIKES, OTHER = random.normal(size=(2, 2, 3, 40))
KERNEL = tuple(random.normal(size=12).tolist())

READOUTS = {
    "rate": lambda xp, s: readouts.rate(xp, s, None),
    "moving-rate": lambda xp, s: readouts.rate(xp, s, 7),
    "moving-rate-of-all-time": lambda xp, s: readouts.rate(xp, s, 41),
    "trace": lambda xp, s: readouts.trace(xp, s, KERNEL, -1),
    "trace-over-classes": lambda xp, s: readouts.trace(xp, s, KERNEL, 1),
}
READINGS = {
    "rate": reference.rates(SPIKES, None)[..., 0],
    "moving-rate": reference.moving_average(SPIKES, 7),
    "moving-rate-of-all-time": reference.moving_average(SPIKES, 41),
    "trace": reference.causal_filter(SPIKES, KERNEL),
    "trace-over-classes": reference.causal_filter(SPIKES.swapaxes(1, 2), KERNEL).swapaxes(1, 2),
}


@pytest.mark.parametrize("name", READOUTS)
def test_the_pullback_is_the_adjoint(backend, name):
    wanted = READINGS[name]
    cotangent = OTHER[..., 0] if wanted.ndim == 2 else OTHER

    def run(spikes, cotangent):
        reading, pullback = READOUTS[name](backend.xp, spikes)
        return reading, pullback(cotangent)

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


def test_the_mean_magnitude_of_signed_events(backend):
    x = backend.asarray(np.asarray([[1.0, -3.0], [0.0, 2.0]]))
    mean, pullback = readouts.mean_magnitude(backend.xp, x)
    assert float(mean) == 1.5  # (1 + 3 + 0 + 2) / 4
    slope = pullback(backend.asarray(np.asarray(2.0)))
    np.testing.assert_array_equal(backend.numpy(slope), [[0.5, -0.5], [0, 0.5]])
