"""Compare with SpikingJelly 2.0.0, if it is installed."""

import pytest

from _support.side_by_side import assert_match, import_peer, labels, potentials, torch

jelly = import_peer("spikingjelly.activation_based.functional")

import spikeloss_xp as sx


@pytest.mark.parametrize("shape", [(20, 4, 3), (8, 1, 10), (1, 5, 5), (6, 2, 3, 4, 5)])
def test_temporal_efficient_training_matches(shape):
    """SpikingJelly takes space as the last axes, and this library each location as a sample."""
    label = labels(shape[2], (shape[1], *shape[3:]))
    ours = sx.SpikeMax(1, "softmax", "mean", time_axis=0)
    assert_match(
        lambda x: jelly.temporal_efficient_training_cross_entropy(x, label),
        lambda x: ours(x.movedim(2, -1).flatten(1, -2), label.flatten()),
        potentials(shape, torch.float64),
    )
