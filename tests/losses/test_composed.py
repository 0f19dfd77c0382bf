"""`Composed` of a readout and a criterion equals the library's own loss of the same two."""

import dataclasses
import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import one_jax, run
from _support.cases import close
from spikeloss_xp.losses import Composed

RANDOM = np.random.default_rng(17)
SPIKES = (RANDOM.random((4, 6, 30)) < 0.2).astype(float)
LABELS = np.asarray([5, 0, 2, 0])
PER_STEP = RANDOM.integers(0, 6, (4, 30))


def power(xp, spikes, mask):
    """Return the sum of squares, which is not linear, and its pullback."""
    return xp.sum(spikes * spikes, axis=-1), lambda g: 2 * g[..., None] * spikes


def rate(xp, spikes, mask):
    """Return the mean over the unmasked steps, and its pullback."""
    steps = xp.sum(xp.ones_like(spikes) if mask is None else xp.astype(mask, spikes.dtype), axis=-1)
    steps = xp.where(steps > 0, steps, 1.0)
    r = xp.sum(spikes, axis=-1) / steps
    return r, lambda g: xp.broadcast_to((g / steps)[..., None], spikes.shape)


def moving_rate(xp, spikes, mask):
    average = functools.partial(sx.moving_average, window=7)
    return average(spikes), lambda g: xp.flip(average(xp.flip(g, axis=-1)), axis=-1)


def squared(xp, u, label, true, false):
    """Return one term for each class, and their pullback."""
    error = u - xp.where(label, xp.full_like(u, true), xp.full_like(u, false))
    return error * error, lambda g: 2 * g * error


def softmax(xp, u, label):
    """Return one term over all classes, and its pullback."""
    p = xp.exp(u) / xp.sum(xp.exp(u), axis=1, keepdims=True)
    one_hot = xp.astype(xp.broadcast_to(label, u.shape), u.dtype)
    return -xp.log(xp.sum(one_hot * p, axis=1, keepdims=True)), lambda g: g * (p - one_hot)


SQUARED = functools.partial(squared, true=0.5, false=0.05)
RATE = Composed(rate, SQUARED), sx.SpikeRate(0.5, 0.05)
MOVING_RATE = Composed(moving_rate, SQUARED, per_step=True), sx.SpikeRate(0.5, 0.05, 7)
SOFTMAX = Composed(rate, softmax), sx.SpikeMax(mode="softmax")
MOVING_SOFTMAX = Composed(moving_rate, softmax, per_step=True), sx.SpikeMax(7, "softmax")
CASES = {  # both losses, their options, their labels, and other arrays of the call
    "none": (SOFTMAX, {"reduction": "none"}, LABELS, {"where": [True, False, True, True]}),
    "batchmean": (RATE, {"reduction": "batchmean"}, LABELS, {"lengths": [30, 12, 0, 7]}),
    "time first": (
        MOVING_SOFTMAX,
        {"time_axis": 0, "reduction": "mean"},
        PER_STEP.T,
        {"weight": [1, 2, 3, 4, 5, 6.5]},
    ),
    "ignored": (
        MOVING_RATE,
        {"reduction": "mean", "ignore_index": 2},
        LABELS,
        {"weight": [1, 0, 3, 4, 5, 6], "lengths": [0, 30, 30, 11]},
    ),
    "groups": (RATE, {"num_classes": 3}, LABELS // 2, {"lengths": [30, 3, 0, 7]}),
}


@one_jax
@pytest.mark.parametrize("name", CASES)
def test_composed_equals_the_library_loss(backend, name):
    losses, options, label, arrays = CASES[name]
    composed, loss = (dataclasses.replace(x, **options) for x in losses)
    spikes = np.moveaxis(SPIKES, -1, loss.time_axis)
    expected_terms = loss(spikes, label, **arrays)
    cotangent = np.random.default_rng(18).normal(size=expected_terms.shape)
    _, expected_gradient = sx.value_and_grad(loss)(spikes, label, cotangent=cotangent, **arrays)

    def evaluate(*inputs, cotangent, **arrays):
        terms = composed(*inputs, **arrays)
        # `terms` may have a class axis of length 1, which the library's own losses drop.
        cotangent = backend.xp.reshape(cotangent, tuple(terms.shape))
        return terms, sx.value_and_grad(composed)(*inputs, cotangent=cotangent, **arrays)

    terms, (value, gradient) = run(backend, evaluate, spikes, label, cotangent=cotangent, **arrays)
    close(terms.reshape(expected_terms.shape), expected_terms, backend.rtol)
    close(value.reshape(expected_terms.shape), expected_terms, backend.rtol)
    close(gradient, expected_gradient, backend.rtol)


def test_prediction_reads_unmasked_steps_only():
    composed, loss = RATE
    expected = loss.predict(SPIKES, lengths=[30, 12, 3, 7])
    assert (expected != loss.predict(SPIKES)).any()
    np.testing.assert_array_equal(composed.predict(SPIKES, lengths=[30, 12, 3, 7]), expected)


def test_wrong_mask_and_output_shapes_raise():
    loss = Composed(rate, softmax)
    masks = np.ones(SPIKES.shape, bool)
    with pytest.raises(ValueError, match="where must be the same for all neurons"):
        loss(SPIKES, LABELS, where=masks)
    loss(SPIKES, LABELS, where=masks[:, 0])  # one entry per step
    with pytest.raises(ValueError, match=r"read must return an array of shape \(4, 6, 30\); got"):
        dataclasses.replace(loss, per_step=True)(SPIKES, LABELS)
    flat = Composed(rate, lambda xp, u, label: (u[:, 0], lambda g: g))
    with pytest.raises(ValueError, match=r"terms of shape \(4, 6\) or \(4, 1\); got \(4,\)"):
        flat(SPIKES, LABELS)


def test_composed_losses_are_equal_if_their_functions_are():
    loss = SOFTMAX[0]
    assert Composed(rate, softmax) == loss != Composed(rate, SQUARED)
    assert hash(Composed(rate, softmax)) == hash(loss)
    assert "read=<function rate" in repr(loss)


def test_readout_of_a_group_reads_the_mean_of_its_neurons(backend):
    means = SPIKES.reshape(4, 3, 2, 30).mean(axis=2)
    evaluate = sx.value_and_grad(Composed(power, SQUARED, num_classes=3))
    value, gradient = run(backend, evaluate, SPIKES, LABELS // 2)
    expected, of_means = sx.value_and_grad(Composed(power, SQUARED))(means, LABELS // 2)
    close(value, expected, backend.rtol)
    close(gradient, np.repeat(of_means / 2, 2, axis=1), backend.rtol)
