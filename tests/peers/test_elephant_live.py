"""Compare with the distances of elephant 1.2, if it is installed."""

import numpy as np
import pytest

from _support.side_by_side import import_peer

peer = import_peer("elephant.spike_train_dissimilarity")
import neo
import quantities as pq

from spikeloss_xp import distances

# NumPy warns about a conversion that elephant asks for.
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

STEPS = 400
RTOL = 1e-10  # of the largest distance: both add up a few hundred terms, and take differences


def trains():
    """Return trains of many rates: two silent, two equal, and one with a spike at the end."""
    random = np.random.default_rng(0)
    x = random.random((24, STEPS)) < np.linspace(0, 0.2, 24)[:, None]
    x[1] = False
    x[5] = x[4]
    x[7, -1] = True
    return x


def spike_times(x):
    return [np.flatnonzero(train).astype(float) for train in x]


def neo_trains(times):
    return [neo.SpikeTrain(train * pq.ms, t_stop=STEPS * pq.ms) for train in times]


def assert_close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=RTOL, atol=RTOL * expected.max())


@pytest.mark.parametrize("times", [False, True])
def test_van_rossum_distance_matches(times):
    x = trains()
    expected = peer.van_rossum_distance(neo_trains(spike_times(x)), 10 * pq.ms)
    given = {"times": True} if times else {}
    got = distances.van_rossum(spike_times(x) if times else x, time_constant=10, **given)
    # The root of a rounding error is not small: elephant gives up to 1e-7 for equal trains.
    equal = np.eye(24, dtype=bool)
    equal[np.ix_([4, 5], [4, 5])] = equal[np.ix_([0, 1], [0, 1])] = True
    np.testing.assert_allclose(got[~equal], expected[~equal], rtol=RTOL)
    assert (got[equal] == 0).all()
    assert expected[equal].max() < 1e-5


def test_victor_purpura_distance_matches():
    times = [train + 0.3 * np.sin(train) for train in spike_times(trains())]
    expected = peer.victor_purpura_distance(neo_trains(times), 0.1 / pq.ms)
    assert_close(distances.victor_purpura(times, cost=0.1), expected)
