"""CrossEntropy: its readouts, class probabilities and their weights, and negative counts."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import each, run
from _support.cases import check_by_hand

BATCH, CLASSES, STEPS = 4, 3, 6
random = np.random.default_rng(5)
SPIKES = random.random((BATCH, CLASSES, STEPS))
LABEL = np.asarray([0, 2, 1, 2])
WEIGHT = np.asarray([0.5, 2.0, 1.25])
SHARES = np.asarray([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
MASKS = {
    "none": {},
    "neurons": {"where": np.repeat(random.random((BATCH, CLASSES, 1)) < 0.6, STEPS, axis=2)},
    "entries": {"where": random.random((BATCH, CLASSES, STEPS)) < 0.5},
    "lengths": {"lengths": np.asarray([6, 0, 3, 1])},
}
SPIKES_BY_HAND = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])  # counts of 3 and 1


def full_mask(where=None, lengths=None):
    mask = np.ones(SPIKES.shape, bool) if where is None else where
    return mask if lengths is None else mask & (np.arange(STEPS) < lengths[:, None, None])


def test_counts_match_hand_calculation(backend):
    p = 1 / (1 + math.exp(-2))
    gradient = np.asarray([[[p - 1], [1 - p]]])
    loss = sx.CrossEntropy(time_axis=-1)
    check_by_hand(backend, loss, SPIKES_BY_HAND, [0], [-math.log(p)], gradient)
    entropy = -0.75 * math.log(p) - 0.25 * math.log(1 - p)
    gradient = np.asarray([[[p - 0.75], [0.75 - p]]])
    check_by_hand(backend, loss, SPIKES_BY_HAND, [[0.75, 0.25]], [entropy], gradient)


def test_roots_match_hand_calculation(backend):
    roots = math.sqrt(3.375), math.sqrt(1.375)
    p = 1 / (1 + math.exp((roots[1] - roots[0]) / 0.5))
    gradient = np.asarray([[[(p - 1) / roots[0]], [(1 - p) / roots[1]]]])  # 1 / (2 root) / 0.5
    loss = sx.CrossEntropy(time_axis=-1, readout="sqrt_count", temperature=0.5)
    check_by_hand(backend, loss, SPIKES_BY_HAND, [0], [-math.log(p)], gradient)


@pytest.mark.parametrize("readout", ["count", "sqrt_count"])
def test_counts_sum_over_the_neurons_of_a_class_and_are_scaled_up(backend, readout):
    """Of two neurons for each class, one is masked in a class: its count is doubled."""
    spikes = np.asarray([[[1.0, 1, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]]])
    where = np.ones(spikes.shape, bool)
    where[0, 3] = False
    loss = sx.CrossEntropy(time_axis=-1, readout=readout, num_classes=2)
    got, masked = (
        run(backend, loss, spikes, np.asarray([0]), **options) for options in ({}, {"where": where})
    )
    for value, counts in ((got, (3, 4)), (masked, (3, 6))):
        u = np.asarray(counts) if readout == "count" else np.sqrt(np.asarray(counts) + 0.375)
        expected = math.log(1 + math.exp(u[1] - u[0]))
        np.testing.assert_allclose(value, expected, rtol=backend.rtol)


@pytest.mark.parametrize("mask", MASKS)
def test_class_probabilities_have_weights(backend, mask):
    counted = full_mask(**MASKS[mask])
    counts, read = np.where(counted, SPIKES, 0).sum(axis=2), counted.any(axis=2)
    parts = np.zeros((BATCH, CLASSES))
    for b, c in zip(*np.nonzero(read), strict=True):
        total = sum(math.exp(counts[b, k]) for k in range(CLASSES) if read[b, k])
        parts[b, c] = -SHARES[b, c] * math.log(math.exp(counts[b, c]) / total)
    some = (SHARES * read).any(axis=1).sum()  # the samples that count
    for class_weight in (None, WEIGHT):
        weight = np.ones(CLASSES) if class_weight is None else class_weight
        terms, total = (weight * parts).sum(axis=1), (weight * SHARES * read).sum()
        expected = {"none": terms, "sum": terms.sum(), "mean": terms.sum() / total}
        expected["batchmean"] = terms.sum() / some
        options = MASKS[mask] if class_weight is None else {**MASKS[mask], "weight": WEIGHT}
        losses = each([sx.CrossEntropy(time_axis=-1, reduction=name) for name in expected])
        values = run(backend, losses, SPIKES, SHARES, **options)
        for got, value in zip(values, expected.values(), strict=True):
            np.testing.assert_allclose(got, value, rtol=0, atol=100 * backend.rtol)


@pytest.mark.slow(but=2)
@pytest.mark.parametrize("mask", ["none", "entries"])
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_class_probabilities_have_one_gradient(smoothing, mask):
    for reduction in ("none", "mean"):
        loss = sx.CrossEntropy(time_axis=-1, label_smoothing=smoothing, reduction=reduction)
        sx.testing.assert_consistent(loss, SPIKES, SHARES, weight=WEIGHT, **MASKS[mask])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
def test_one_hot_row_gives_what_its_index_gives(smoothing, mask):
    one_hot = (LABEL[:, None] == np.arange(CLASSES)).astype(float)
    for reduction in ("none", "mean", "batchmean", "sum"):
        loss = sx.CrossEntropy(time_axis=-1, label_smoothing=smoothing, reduction=reduction)
        got, expected = (
            loss(SPIKES, target, weight=WEIGHT, **MASKS[mask]) for target in (one_hot, LABEL)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_mean_without_weight_is_zero_with_its_gradient(backend):
    """Smoothing leaves terms of the other classes, where PyTorch's quotient is NaN."""
    loss = sx.CrossEntropy(time_axis=-1, label_smoothing=0.25)
    only_label_0 = np.zeros(BATCH, dtype=int)
    value, gradient = run(
        backend, sx.value_and_grad(loss), SPIKES, only_label_0, weight=[0.0, 1.0, 1.0]
    )
    assert value == 0
    assert not gradient.any()


def test_probabilities_hold_at_each_step_of_a_window(backend):
    loss = sx.CrossEntropy(time_axis=0, moving_window=2, reduction="none")
    spikes = np.moveaxis(SPIKES, -1, 0)
    once, each_step = (
        run(backend, loss, spikes, q) for q in (SHARES, np.broadcast_to(SHARES, (6, 4, 3)).copy())
    )
    assert once.shape == (STEPS, BATCH)
    np.testing.assert_array_equal(once, each_step)


def test_count_below_zero_is_nan_where_values_cannot_be_read(backend):
    """The other sample keeps its value and its gradient."""
    spikes = np.ones((2, 3, 4))
    spikes[0, 1] = -0.1
    spikes[1, 1, 0] = 0.5
    loss = sx.CrossEntropy(time_axis=-1, readout="sqrt_count", reduction="none")
    if backend.reads_values:
        with pytest.raises(ValueError, match=r"number of spikes below 0 .*'softmax_sum'.* -0.4"):
            loss(backend.asarray(spikes), LABEL[:2])
        return
    evaluate = sx.value_and_grad(loss)
    terms, gradient = run(
        backend, lambda x, y: evaluate(x, y, cotangent=1 + 0 * y), spikes, LABEL[:2]
    )
    assert np.isnan(terms).tolist() == [True, False]
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(gradient[1]).all()


def test_target_that_cannot_be_read_makes_its_sample_nan(backend):
    """Also with smoothing; the other samples keep their gradient."""
    if backend.reads_values:
        pytest.skip("the values are checked")
    probabilities = SHARES.copy()
    probabilities[1, 0] = -0.25
    for target in (np.asarray([0, 7, 1, 2]), probabilities):
        for smoothing in (0.0, 0.25):
            loss = sx.CrossEntropy(time_axis=-1, label_smoothing=smoothing)
            value, gradient = run(backend, sx.value_and_grad(loss), SPIKES, target)
            assert np.isnan(value)
            assert np.isnan(gradient[1]).all()
            assert np.isfinite(gradient[[0, 2, 3]]).all()
