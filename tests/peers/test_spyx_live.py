"""Compare with the losses of Spyx 1.0.0, if it is installed."""

import pytest

from _support.side_by_side import assert_match, import_peer, labels, losses_of_spyx, torch, trains

jax = pytest.importorskip("jax")
import_peer("optax")
fn = losses_of_spyx()

import spikeloss_xp as sx

ones = jax.numpy.ones


def arrays(shape):
    """Return spikes ``[batch, time, class]``, among them graded ones, and labels."""
    spikes = torch.clamp(trains(shape), min=0.125)
    label = labels(shape[2], shape[:1])
    return jax.numpy.asarray(spikes.numpy()), jax.numpy.asarray(label.numpy())


@pytest.mark.parametrize("shape", [(16, 100, 2), (5, 1, 7)])
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_losses_with_smoothed_labels_match(shape, smoothing):
    spikes, label = arrays(shape)
    for time_axis in (0, 1):
        entropy = sx.CrossEntropy(label_smoothing=smoothing, time_axis=time_axis)
        theirs = fn.integral_crossentropy(smoothing, time_axis)
        moved = jax.numpy.moveaxis(spikes, 1, time_axis)
        assert_match(lambda x, f=theirs: f(x, label), lambda x, f=entropy: f(x, label), moved)
    # Spyx compares a target rate with a count, see below, so its rate is divided by the steps.
    _, steps, classes = shape
    true_rate, false_rate = 0.25 * (1 - smoothing), 0.25 * smoothing / classes
    rate = sx.SpikeRate(true_rate + false_rate, false_rate, reduction="mean", time_axis=1)
    theirs = fn.mse_spikerate(0.25 / steps, smoothing)
    assert_match(lambda x: theirs(x, label), lambda x: rate(x, label), spikes)


# Defects and differences of Spyx 1.0.0, and the results of this library instead.


def test_spyx_target_rate_is_compared_with_a_count():
    saturated, label = ones((1, 8, 1)), jax.numpy.asarray([0])
    assert fn.mse_spikerate(sparsity=1.0)(saturated, label) == (1 - 8) ** 2
    assert sx.SpikeRate(1, 0, reduction="mean", time_axis=1)(saturated, label) == 0


def test_spyx_sparsity_reg_has_a_gradient_at_silence():
    spikes = jax.numpy.asarray([[1.0, 0.0]])
    gradient = jax.grad(fn.sparsity_reg(0.25))(spikes)
    assert gradient.tolist() == [[0.125, 0.125]]  # the mean is of the input, not of its magnitude
    gradient = jax.grad(sx.SparsityEnforcer(0.25, lam=0.5))(spikes)
    assert gradient.tolist() == [[0.125, 0]]
