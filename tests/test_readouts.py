"""What the random calls do not reach of the readouts: ties of maxima, and signed events."""

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.losses import sparsity_enforcer


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
    mean, pullback = sparsity_enforcer.mean_magnitude(backend.adapter, x, axes=None, rising=rising)
    assert float(mean.u) == 1.5  # (1 + 3 + 0 + 2) / 4
    pulled_back = pullback(backend.asarray(np.asarray(2.0)))
    np.testing.assert_array_equal(backend.numpy(pulled_back), slope)
