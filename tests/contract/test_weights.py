"""Class weights, ignored labels, and the divisors of means."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import one_jax, run
from _support.contract import BATCH, CLASSES, GROUPS, STEPS

WEIGHT = np.asarray([0.5, 1.0, 2.0, 0.25])
SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(BATCH, CLASSES, STEPS))
LABEL = np.asarray([3, 0, 1, 1, 2])


@one_jax
def test_negative_ignore_index_never_matches_unsigned_labels(backend):
    # 156 has the bit pattern of -100 in 8 bits, but as an unsigned label it is not ignored
    losses = sx.SpikeRate(1, 1, reduction="none"), sx.SpikeMax(reduction="none")

    def evaluate(spikes, unsigned, signed):
        terms = [loss(spikes, unsigned) for loss in losses]
        return *terms, sx.SpikeRate(0, 0, reduction="none")(spikes, signed)

    label = np.asarray([156, 0], "uint8"), np.asarray([156, -100])
    terms, wrapped, ignored = run(backend, evaluate, np.ones((2, 157, 1)), *label)
    assert not terms.any()
    np.testing.assert_array_equal(ignored, [[1] * 157, [0] * 157])
    assert wrapped.all()


def test_weight_has_one_entry_per_class_not_per_neuron():
    spikes = np.repeat(SPIKES, 2, axis=1)
    for loss in (sx.SpikeRate(0.75, 0.125), sx.SpikeMax(mode="softmax")):
        grouped = dataclasses.replace(loss, **GROUPS)
        expected = loss(SPIKES, LABEL, weight=WEIGHT)
        assert grouped(spikes, LABEL, weight=WEIGHT) == pytest.approx(expected)
        with pytest.raises(ValueError, match=r"weight .*\(4,\).*\(8,\)"):
            grouped(spikes, LABEL, weight=np.ones(8))


def test_mean_without_weight_is_zero_with_its_gradient(backend):
    """Smoothing leaves terms of the other classes, where PyTorch's quotient is NaN."""
    loss, label = sx.CrossEntropy(time_axis=-1, label_smoothing=0.25), np.zeros(BATCH, dtype=int)
    evaluate = sx.value_and_grad(loss)
    value, gradient = run(backend, evaluate, SPIKES, label, weight=[0.0, 1.0, 1.0, 1.0])
    assert value == 0
    assert not gradient.any()
