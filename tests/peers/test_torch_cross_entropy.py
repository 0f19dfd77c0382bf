"""Compare with the losses of PyTorch, called with readings of spike trains as logits.

test_tables.py compares the losses with their defaults.
"""

import pytest

import spikeloss_xp as sx
from _support.side_by_side import assert_match, generator, labels, potentials, torch, trains

BATCH, CLASSES, STEPS = 6, 4, 10
SHAPE = (BATCH, CLASSES, STEPS)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.25], dtype=torch.float64)
LABEL = labels(CLASSES, (BATCH,))
LABEL[1::3] = -100  # which is ignored
MASSES = torch.rand(SHAPE[:2], generator=generator(3), dtype=torch.float64)
PROBABILITIES = MASSES / MASSES.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("target", "reduction", "smoothing", "temperature", "weight"),
    [
        (LABEL, "mean", 0.3, 1, None),
        (LABEL, "none", 0.3, 0.25, WEIGHT),
        (LABEL, "mean", 0, 1, WEIGHT),
        (MASSES, "mean", 0, 1, None),
        (PROBABILITIES, "mean", 0.3, 0.25, WEIGHT),  # PyTorch smooths rows that sum to 1
    ],
)
def test_counts_match_cross_entropy(target, reduction, smoothing, temperature, weight):
    """Of probabilities, PyTorch divides a mean by the number of samples, as "batchmean" does."""
    ours = "batchmean" if reduction == "mean" and target is not LABEL else reduction
    options = {"temperature": temperature, "label_smoothing": smoothing, "reduction": ours}
    loss = sx.CrossEntropy(time_axis=-1, **options)
    theirs = torch.nn.CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing)
    assert_match(
        lambda x: theirs(x.sum(-1) / temperature, target),
        lambda x: loss(x, target, weight=weight),
        potentials(SHAPE, torch.float64),
    )


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
