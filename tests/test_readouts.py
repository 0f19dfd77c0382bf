"""Check the readouts and their pullbacks, which libraries without autodiff rely on."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from spikeloss_xp import readouts
from spikeloss_xp.readouts import softmax_sum

random = np.random.default_rng(6)
SPIKES, OTHER = random.normal(size=(2, 2, 3, 40))
KERNEL = tuple(random.normal(size=12).tolist())

READOUTS = {
    "rate": lambda library, s: readouts.rate(library, s, None, axis=2),
    "moving-rate": lambda library, s: readouts.rate(library, s, 7, axis=2),
    "moving-rate-of-all-time": lambda library, s: readouts.rate(library, s, 41, axis=2),
    "count": lambda library, s: readouts.count(library, s, None, axis=2),
    "moving-count": lambda library, s: readouts.count(library, s, 7, axis=2),
    "max": lambda library, s: readouts.highest(library, s, axis=2),
    "last": lambda library, s: readouts.last(library, s, axis=2),
    "trace": lambda library, s: readouts.trace(library, s, KERNEL, -1),
    "trace-over-classes": lambda library, s: readouts.trace(library, s, KERNEL, 1),
}
READINGS = {
    "rate": reference.rates(SPIKES, None),
    "moving-rate": reference.moving_average(SPIKES, 7),
    "moving-rate-of-all-time": reference.moving_average(SPIKES, 41),
    "count": SPIKES.sum(axis=-1, keepdims=True),
    "moving-count": 7 * reference.moving_average(SPIKES, 7),
    "max": SPIKES.max(axis=-1, keepdims=True),
    "last": SPIKES[..., -1:],
    "trace": reference.causal_filter(SPIKES, KERNEL),
    "trace-over-classes": reference.causal_filter(SPIKES.swapaxes(1, 2), KERNEL).swapaxes(1, 2),
}


@pytest.mark.parametrize("name", READOUTS)
def test_pullback_is_the_adjoint(backend, name):
    expected = READINGS[name]
    cotangent = OTHER[..., : expected.shape[-1]]

    def run(spikes, cotangent):
        reading, pullback = READOUTS[name](backend.adapter, spikes)
        return reading.u, pullback(cotangent)

    arrays = map(backend.asarray, (SPIKES, cotangent))
    reading, pulled_back = map(backend.numpy, backend.compiled(run)(*arrays))
    np.testing.assert_allclose(reading, expected, rtol=0, atol=backend.rtol)
    assert pulled_back.shape == SPIKES.shape
    # <A x, y> = <x, A' y>, where both sides are sums of 240 numbers around 1.
    np.testing.assert_allclose(
        np.vdot(expected, cotangent), np.vdot(SPIKES, pulled_back), rtol=0, atol=100 * backend.rtol
    )


@pytest.mark.parametrize("name", ["rate", "count", "max", "last"])
def test_masked_reading_uses_only_unmasked_steps(backend, name):
    mask = np.random.default_rng(8).random(SPIKES.shape) < 0.6
    mask[0, 1] = False
    masked_spikes = np.where(mask, SPIKES, 0)

    def run(spikes, mask, cotangent):
        rest = (None,) if name in readouts.WINDOWED else ()
        readout = {**readouts.WINDOWED, **readouts.OVER_ALL_TIME}[name]
        reading, pullback = readout(backend.adapter, spikes, *rest, mask, axis=2)
        return reading.u, reading.mask, pullback(cotangent)

    arrays = map(backend.asarray, (masked_spikes, mask, OTHER[..., :1]))
    u, read_mask, pulled_back = map(backend.numpy, backend.compiled(run)(*arrays))
    np.testing.assert_array_equal(read_mask, mask.any(axis=-1, keepdims=True))
    summary = {"rate": np.mean, "count": np.sum, "max": np.max, "last": lambda x: x[-1]}[name]
    for *i, _ in zip(*np.nonzero(read_mask), strict=True):
        i = tuple(i)
        np.testing.assert_allclose(u[i], summary(SPIKES[i][mask[i]]), rtol=0, atol=backend.rtol)
    pulled_back = np.where(mask, pulled_back, 0)
    left = np.vdot(np.where(read_mask, u, 0), OTHER[..., :1])
    right = np.vdot(masked_spikes, pulled_back)
    np.testing.assert_allclose(left, right, rtol=0, atol=100 * backend.rtol)


@pytest.mark.parametrize("masked", [False, True])
def test_softmax_sum_pullback_equals_the_numerical_derivative(backend, masked):
    mask = np.random.default_rng(9).random(SPIKES.shape) < 0.7
    mask[0, :, 3] = False  # a step without votes
    mask = mask if masked else None
    library, cotangent = backend.adapter, OTHER[..., :1]

    def read(spikes):
        shifted = np.exp(spikes) if mask is None else np.exp(spikes) * mask
        return (shifted / np.maximum(shifted.sum(1, keepdims=True), 1e-300)).sum(-1, keepdims=True)

    arrays = [SPIKES, cotangent] if mask is None else [np.where(mask, SPIKES, 0), cotangent, mask]

    def run(spikes, cotangent, mask=None):
        reading, pullback = softmax_sum(library, spikes, mask, axis=2)
        return reading.u, pullback(cotangent)

    got, gradient = map(backend.numpy, backend.compiled(run)(*map(backend.asarray, arrays)))
    np.testing.assert_allclose(got, read(SPIKES), rtol=10 * backend.rtol)  # sums of 40 votes
    expected = reference.differences(lambda x: np.sum(cotangent * read(x)), SPIKES)
    # The differences err by about 1e-10.
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=max(10 * backend.rtol, 1e-9))


def test_max_readout_ties_share_the_gradient(backend):
    spikes = backend.asarray(np.asarray([[[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]))
    loss = sx.CrossEntropy(readout="max", reduction="sum", time_axis=-1)
    _, gradient = backend.compiled(sx.value_and_grad(loss))(spikes, np.asarray([1]))
    p = 1 / (1 + np.exp(-1.0))
    expected = np.asarray([[[0, p / 2, 0, p / 2], [-p / 4] * 4]])
    np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=0, atol=backend.rtol)


@pytest.mark.parametrize(
    ("rising", "slope"), [(False, [[0.5, -0.5], [0, 0.5]]), (True, [[0.5, -0.5], [0.5, 0.5]])]
)
def test_mean_magnitude_of_signed_events_matches_hand_calculation(backend, rising, slope):
    x = backend.asarray(np.asarray([[1.0, -3.0], [0.0, 2.0]]))
    mean, pullback = readouts.mean_magnitude(backend.adapter, x, axes=None, rising=rising)
    assert float(mean.u) == 1.5  # (1 + 3 + 0 + 2) / 4
    pulled_back = pullback(backend.asarray(np.asarray(2.0)))
    np.testing.assert_array_equal(backend.numpy(pulled_back), slope)
