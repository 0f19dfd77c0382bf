"""Compare with the losses of PyTorch, called with readings of spike trains as logits."""

import functools

import pytest

import spikeloss_xp as sx
from _support.side_by_side import assert_match, generator, labels, potentials, torch, trains

F = torch.nn.functional

BATCH, CLASSES, STEPS = 6, 4, 10
SHAPE = (BATCH, CLASSES, STEPS)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.25], dtype=torch.float64)


READINGS = {  # one of the samples, and one of each step
    "count": ({}, lambda x: x.sum(-1)),
    "each step": ({"moving_window": 1}, lambda x: x),
}


def check(reading, target, weight, line, **options):
    """Compare a loss with a line of PyTorch, a function of the logits."""
    arguments, read = READINGS[reading]
    ours = sx.CrossEntropy(time_axis=-1, **arguments, **options)
    assert_match(
        lambda x: line(read(x) / ours.temperature),
        lambda x: ours(x, target, weight=weight),
        potentials(SHAPE, torch.float64),
    )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("reduction", "smoothing", "temperature", "ignored", "weight"),
    [("mean", 0.3, 1, 2, None), ("none", 0.3, 0.25, -100, WEIGHT), ("mean", 0, 1, 2, WEIGHT)],
)
def test_class_indices_match_cross_entropy(
    reading, reduction, smoothing, temperature, ignored, weight
):
    label = labels(CLASSES, (BATCH, STEPS) if reading == "each step" else (BATCH,))
    label[1::3] = ignored
    options = {"label_smoothing": smoothing, "ignore_index": ignored, "reduction": reduction}
    line = functools.partial(F.cross_entropy, target=label, weight=weight, **options)
    check(reading, label, weight, line, temperature=temperature, **options)


@pytest.mark.parametrize(
    ("smoothing", "temperature", "weight"), [(0, 1, None), (0.3, 0.25, WEIGHT)]
)
def test_class_probabilities_match_cross_entropy(smoothing, temperature, weight):
    """PyTorch divides a mean by the number of samples, as "batchmean" does."""
    target = torch.rand(SHAPE[:2], generator=generator(3), dtype=torch.float64)
    if smoothing:  # PyTorch spreads the smoothed part over rows that sum to 1
        target = target / target.sum(1, keepdim=True)
    options = {"weight": weight, "label_smoothing": smoothing}
    line = functools.partial(F.cross_entropy, target=target, **options)
    options = {"label_smoothing": smoothing, "temperature": temperature}
    check("count", target, weight, line, reduction="batchmean", **options)


def test_small_loss_keeps_full_precision():
    logits, label = torch.tensor([[0.0, -12.0]]), torch.tensor([0])
    exact = F.cross_entropy(logits.double(), label)
    assert abs(F.cross_entropy(logits, label) / exact - 1) > 5e-3
    ours = sx.CrossEntropy(reduction="sum", time_axis=-1)
    assert abs(ours(logits[..., None], label) / exact - 1) < 1e-6


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
