"""Compare with the losses of PyTorch, called with readings of spike trains as logits."""

import functools
import itertools

import pytest

import spikeloss_xp as sx
from _support.side_by_side import assert_match, generator, labels, potentials, torch, trains

F = torch.nn.functional

BATCH, CLASSES, STEPS = 6, 4, 10
SHAPE = (BATCH, CLASSES, STEPS)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.25], dtype=torch.float64)


def windowed(input, window):
    return F.pad(input, (window - 1, 0)).unfold(-1, window, 1).mean(-1)


READINGS = {
    "count": ({}, lambda x: x.sum(-1)),
    "root": ({"readout": "sqrt_count"}, lambda x: (x.sum(-1) + 0.375).sqrt()),
    "rate": ({"readout": "rate"}, lambda x: x.mean(-1)),
    "max": ({"readout": "max"}, lambda x: x.amax(-1)),
    "latency": ({"readout": "latency"}, lambda x: -torch.cumprod(1 - x, -1).sum(-1)),
    "softmax sum": ({"readout": "softmax_sum"}, lambda x: F.softmax(x, 1).sum(-1)),
    "each step": ({"moving_window": 1}, lambda x: x),
    "window": ({"moving_window": 3, "readout": "rate"}, lambda x: windowed(x, 3)),
    "root in a window": (
        {"moving_window": 3, "readout": "sqrt_count"},
        lambda x: (3 * windowed(x, 3) + 0.375).sqrt(),
    ),
}
OF_SPIKES = ("root", "latency", "root in a window")


def inputs(reading):
    spikes = trains(SHAPE, torch.float64)
    if reading in OF_SPIKES:
        return 0.9 * spikes
    # The product has many equal entries, of 0, so that the maximum has ties.
    return potentials(SHAPE, torch.float64) * spikes


def targets(reading, ignored):
    """Return labels for each sample or step; every third is `ignored`."""
    shape = (BATCH, STEPS) if "moving_window" in READINGS[reading][0] else (BATCH,)
    label = labels(CLASSES, shape)
    label[1::3] = ignored
    return label


def in_turn(*reductions):
    """Parametrize a test over the readings, with one of the reductions for each."""
    return pytest.mark.parametrize(
        ("reading", "reduction"), list(zip(READINGS, itertools.cycle(reductions)))
    )


def check(reading, target, weight, line, **options):
    """Compare a loss with a line of PyTorch, a function of the logits."""
    arguments, read = READINGS[reading]
    ours = sx.CrossEntropy(time_axis=-1, **arguments, **options)
    assert_match(
        lambda x: line(read(x) / ours.temperature),
        lambda x: ours(x, target, weight=weight),
        inputs(reading),
    )


@in_turn("mean", "batchmean", "sum", "none")
@pytest.mark.parametrize(
    ("smoothing", "temperature", "ignored", "weight"),
    [(0, 1, -100, None), (0.3, 1, 2, None), (0.3, 0.25, -100, WEIGHT)],
)
def test_class_indices_match_cross_entropy(
    reading, reduction, smoothing, temperature, ignored, weight
):
    label = targets(reading, ignored)
    options = {"label_smoothing": smoothing, "ignore_index": ignored}
    theirs = functools.partial(F.cross_entropy, target=label, weight=weight, **options)
    name, divisor = reduction, 1
    if reduction == "batchmean":
        name, divisor = "sum", int((label.reshape(BATCH, -1) != ignored).any(1).sum())
    options |= {"temperature": temperature, "reduction": reduction}
    check(reading, label, weight, lambda u: theirs(u, reduction=name) / divisor, **options)


@in_turn("batchmean", "sum")
@pytest.mark.parametrize(
    ("smoothing", "temperature", "weight"), [(0, 1, None), (0.3, 0.25, WEIGHT)]
)
def test_class_probabilities_match_cross_entropy(
    reading, reduction, smoothing, temperature, weight
):
    """PyTorch divides a mean by the number of samples, as "batchmean" does for samples."""
    per_step = "moving_window" in READINGS[reading][0]
    if per_step and reduction == "batchmean":
        reduction = "sum"  # PyTorch divides by the number of steps too
    shape = (BATCH, CLASSES, STEPS) if per_step else (BATCH, CLASSES)
    target = torch.rand(shape, generator=generator(3), dtype=torch.float64)
    if smoothing:  # PyTorch spreads the smoothed part over rows that sum to 1
        target = target / target.sum(1, keepdim=True)
    options = {"weight": weight, "label_smoothing": smoothing}
    name = reduction.replace("batchmean", "mean")
    line = functools.partial(F.cross_entropy, target=target, reduction=name, **options)
    options = {"label_smoothing": smoothing, "temperature": temperature, "reduction": reduction}
    check(reading, target, weight, line, **options)


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


def test_spike_rate_matches_mse_loss():
    label = labels(CLASSES, (BATCH,))
    assert_match(
        lambda x: F.mse_loss(x.mean(-1), F.one_hot(label, CLASSES) * 1.0),
        lambda x: sx.SpikeRate(1, 0, reduction="mean")(x, label),
        trains(SHAPE, torch.float64),
    )
