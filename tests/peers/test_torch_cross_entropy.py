"""Compare with the losses of PyTorch, called with readings of spike trains as logits.

test_tables.py compares the losses with their defaults.
"""

import functools

import pytest

import spikeloss_xp as sx
from _support.side_by_side import assert_match, generator, labels, potentials, torch, trains

F = torch.nn.functional

BATCH, CLASSES, STEPS = 6, 4, 10
SHAPE = (BATCH, CLASSES, STEPS)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.25], dtype=torch.float64)


def check(target, weight, line, temperature=1.0, **options):
    """Compare a loss of the counts with a line of PyTorch, a function of the logits."""
    ours = sx.CrossEntropy(time_axis=-1, temperature=temperature, **options)
    assert_match(
        lambda x: line(x.sum(-1) / temperature),
        lambda x: ours(x, target, weight=weight),
        potentials(SHAPE, torch.float64),
    )


@pytest.mark.parametrize(
    ("reduction", "smoothing", "temperature", "ignored", "weight"),
    [("mean", 0.3, 1, 2, None), ("none", 0.3, 0.25, -100, WEIGHT), ("mean", 0, 1, 2, WEIGHT)],
)
def test_class_indices_match_cross_entropy(reduction, smoothing, temperature, ignored, weight):
    label = labels(CLASSES, (BATCH,))
    label[1::3] = ignored
    options = {"label_smoothing": smoothing, "ignore_index": ignored, "reduction": reduction}
    line = functools.partial(F.cross_entropy, target=label, weight=weight, **options)
    check(label, weight, line, temperature, **options)


@pytest.mark.parametrize(
    ("smoothing", "temperature", "weight"), [(0, 1, None), (0.3, 0.25, WEIGHT)]
)
def test_class_probabilities_match_cross_entropy(smoothing, temperature, weight):
    """PyTorch divides a mean by the number of samples, as "batchmean" does."""
    target = torch.rand(SHAPE[:2], generator=generator(3), dtype=torch.float64)
    if smoothing:  # PyTorch spreads the smoothed part over rows that sum to 1
        target = target / target.sum(1, keepdim=True)
    options = {"label_smoothing": smoothing}
    line = functools.partial(F.cross_entropy, target=target, weight=weight, **options)
    check(target, weight, line, temperature, reduction="batchmean", **options)


@pytest.mark.parametrize(
    ("reduction", "weight", "pos_weight"),  # PyTorch does not divide a mean by the weights
    [("mean", None, 3.0), ("sum", WEIGHT, (0.5, 2.0, 1.0, 12.5)), ("none", WEIGHT, 1.0)],
)
def test_spike_moid_matches_binary_cross_entropy(reduction, weight, pos_weight):
    soft_label = torch.rand((BATCH, CLASSES), generator=generator(3), dtype=torch.float64)
    every_class = torch.tensor(pos_weight, dtype=torch.float64).expand(CLASSES)
    theirs = torch.nn.BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=every_class)
    ours = sx.SpikeMoid(reduction=reduction, alpha=0.25, theta=0.5, pos_weight=pos_weight)
    assert_match(
        lambda x: theirs((x.mean(-1) - 0.5) / 0.25, soft_label),
        lambda x: ours(x, soft_label, weight=weight),
        trains(SHAPE, torch.float64),
    )
