"""Compare with the losses of PyTorch, called with readings of spike trains as logits."""

import functools

import pytest

import spikeloss_xp as sx
from _support.side_by_side import assert_match, generator, labels, potentials, torch, trains

F = torch.nn.functional

BATCH, CLASSES, STEPS = 6, 4, 10
SHAPE = (BATCH, CLASSES, STEPS)
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.25], dtype=torch.float64)


def windowed(input, window):
    return F.pad(input, (window - 1, 0)).unfold(-1, window, 1).mean(-1)


def latencies(input):
    return torch.cumprod(1 - input, -1).sum(-1)


READINGS = {
    "count": ({}, lambda x: x.sum(-1)),
    "root": ({"readout": "sqrt_count"}, lambda x: (x.sum(-1) + 0.375).sqrt()),
    "rate": ({"readout": "rate"}, lambda x: x.mean(-1)),
    "max": ({"readout": "max"}, lambda x: x.amax(-1)),
    "last": ({"readout": "last"}, lambda x: x[..., -1]),
    "latency": ({"readout": "latency"}, lambda x: -latencies(x)),
    "softmax sum": ({"readout": "softmax_sum"}, lambda x: F.softmax(x, 1).sum(-1)),
    "each step": ({"moving_window": 1}, lambda x: x),
    "window": ({"moving_window": 3, "readout": "rate"}, lambda x: windowed(x, 3)),
    "count in a window": ({"moving_window": 3}, lambda x: 3 * windowed(x, 3)),
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


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_class_indices_match_cross_entropy(reading, reduction, weight):
    arguments, read = READINGS[reading]
    for smoothing, temperature, ignored in ((0, 1, -100), (0.3, 1, 2), (0.3, 0.25, -100)):
        label = targets(reading, ignored)
        options = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": ignored}
        ours = sx.CrossEntropy(temperature=temperature, time_axis=-1, **arguments, **options)
        theirs = functools.partial(F.cross_entropy, target=label, weight=weight, **options)
        assert_match(
            lambda x, loss=theirs, t=temperature: loss(read(x) / t),
            functools.partial(ours, target=label, weight=weight),
            inputs(reading),
        )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("reduction", ["batchmean", "sum", "none"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_class_probabilities_match_cross_entropy(reading, reduction, weight):
    """PyTorch divides a mean by the number of samples, as "batchmean" does for samples."""
    arguments, read = READINGS[reading]
    per_step = "moving_window" in arguments
    if per_step and reduction == "batchmean":
        reduction = "sum"  # PyTorch divides by the number of steps too
    shape = (BATCH, CLASSES, STEPS) if per_step else (BATCH, CLASSES)
    q = torch.rand(shape, generator=generator(3), dtype=torch.float64)
    theirs = {"reduction": reduction.replace("batchmean", "mean")}
    for smoothing, temperature in ((0, 1), (0.3, 0.25)):
        options = {"label_smoothing": smoothing}
        ours = sx.CrossEntropy(
            temperature=temperature, time_axis=-1, reduction=reduction, **arguments, **options
        )
        # PyTorch spreads the smoothed part over rows that sum to 1.
        target = q if smoothing == 0 else q / q.sum(1, keepdim=True)
        line = functools.partial(F.cross_entropy, target=target, weight=weight, **options, **theirs)
        assert_match(
            lambda x, loss=line, t=temperature: loss(read(x) / t),
            functools.partial(ours, target=target, weight=weight),
            inputs(reading),
        )


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_batchmean_is_the_sum_divided_by_the_unignored_samples(reading, weight):
    arguments, read = READINGS[reading]
    label = targets(reading, -100)
    samples = int((label.reshape(BATCH, -1) != -100).any(1).sum())
    ours = sx.CrossEntropy(time_axis=-1, reduction="batchmean", **arguments)
    assert_match(
        lambda x: F.cross_entropy(read(x), label, weight, reduction="sum") / samples,
        lambda x: ours(x, label, weight=weight),
        inputs(reading),
    )


def test_optax_lines_have_the_same_value_and_gradient():
    """The usual lines in JAX, with class indices and with class probabilities."""
    jax, optax = pytest.importorskip("jax"), pytest.importorskip("optax")
    q = torch.rand((BATCH, CLASSES), generator=generator(3), dtype=torch.float64).numpy()
    q /= q.sum(1, keepdims=True)
    spikes = trains((STEPS, BATCH, CLASSES), torch.float64).numpy()
    label = labels(CLASSES, (BATCH,)).numpy()
    with jax.enable_x64(True):
        for readout, read in (
            ("count", lambda x: x.sum(0)),
            ("sqrt_count", lambda x: (x.sum(0) + 0.375) ** 0.5),
        ):
            ours = sx.CrossEntropy(time_axis=0, readout=readout)
            of_index = optax.softmax_cross_entropy_with_integer_labels
            for line, target in ((of_index, label), (optax.softmax_cross_entropy, q)):
                results = [
                    jax.jit(jax.value_and_grad(loss))(jax.numpy.asarray(spikes), target)
                    for loss in (ours, lambda x, y, f=line, r=read: f(r(x), y).mean())
                ]
                for got, expected in zip(*results, strict=True):
                    torch.testing.assert_close(
                        torch.tensor(got), torch.tensor(expected), rtol=1e-12, atol=1e-12
                    )


@pytest.mark.parametrize(
    ("label", "weight"),
    [(-100, None), (-100, WEIGHT), (0, 0 * WEIGHT)],
    ids=["ignored", "ignored-weighted", "without-weight"],
)
def test_mean_without_weight_is_zero_where_pytorch_gives_nan(label, weight):
    label = torch.full((BATCH,), label)
    spikes = trains(SHAPE, torch.float64).requires_grad_()
    assert F.cross_entropy(spikes.sum(-1), label, weight).isnan()
    ours = sx.CrossEntropy(time_axis=-1)
    value = ours(spikes, label, weight=weight)
    value.backward()
    assert value == 0
    assert not spikes.grad.any()


def test_small_loss_keeps_full_precision():
    logits, label = torch.tensor([[0.0, -12.0]]), torch.tensor([0])
    exact = F.cross_entropy(logits.double(), label)
    assert abs(F.cross_entropy(logits, label) / exact - 1) > 5e-3
    ours = sx.CrossEntropy(reduction="sum", time_axis=-1)
    assert abs(ours(logits[..., None], label) / exact - 1) < 1e-6


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_spike_rate_matches_mse_loss(reduction):
    """Compare `SpikeRate` with the mean squared error, another common loss of spiking networks."""
    label = labels(CLASSES, (BATCH,))
    one_hot = F.one_hot(label, CLASSES).double()
    ours = sx.SpikeRate(1, 0, reduction=reduction)
    assert_match(
        lambda x: F.mse_loss(x.mean(-1), one_hot, reduction=reduction),
        lambda x: ours(x, label),
        trains(SHAPE, torch.float64),
    )


# "mean" differs: PyTorch does not divide it by the weights.
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_spike_moid_matches_binary_cross_entropy(reduction):
    soft_label = torch.rand((BATCH, CLASSES), generator=generator(3), dtype=torch.float64)
    ours = sx.SpikeMoid(reduction=reduction, alpha=0.25, theta=0.5)
    assert_match(
        lambda x: F.binary_cross_entropy_with_logits(
            (x.mean(-1) - 0.5) / 0.25, soft_label, WEIGHT, reduction=reduction
        ),
        lambda x: ours(x, soft_label, weight=WEIGHT),
        trains(SHAPE, torch.float64),
    )


POS_WEIGHT = (0.5, 2.0, 1.0, 12.5)


@pytest.mark.parametrize("reduction", ["sum", "none", "mean"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
@pytest.mark.parametrize("pos_weight", [POS_WEIGHT, 3.0], ids=["each", "one"])
def test_pos_weight_matches_binary_cross_entropy(reduction, weight, pos_weight):
    if reduction == "mean" and weight is not None:
        reduction = "sum"  # PyTorch does not divide a mean by the weights
    soft_label = torch.rand((BATCH, CLASSES), generator=generator(3), dtype=torch.float64)
    every_class = torch.tensor(pos_weight, dtype=torch.float64).expand(CLASSES)
    theirs = torch.nn.BCEWithLogitsLoss(weight, reduction=reduction, pos_weight=every_class)
    ours = sx.SpikeMoid(reduction=reduction, alpha=0.25, theta=0.5, pos_weight=pos_weight)
    assert_match(
        lambda x: theirs((x.mean(-1) - 0.5) / 0.25, soft_label),
        lambda x: ours(x, soft_label, weight=weight),
        trains(SHAPE, torch.float64),
    )


@pytest.mark.parametrize("reduction", ["sum", "none", "mean"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["even", "weighted"])
def test_softmax_sum_matches_the_loss_of_hammouamri_et_al(reduction, weight):
    """Votes at each step are summed, and the sums are the logits of a cross-entropy."""
    label = labels(CLASSES, (BATCH,))
    ours = sx.CrossEntropy(readout="softmax_sum", reduction=reduction, time_axis=0)
    assert_match(
        lambda x: F.cross_entropy(F.softmax(x, dim=2).sum(0), label, weight, reduction=reduction),
        lambda x: ours(x, label, weight=weight),
        3 * potentials((STEPS, BATCH, CLASSES), torch.float64),
    )


def test_softmax_sum_of_padded_samples_matches_the_samples_alone():
    label, lengths = labels(CLASSES, (BATCH,)), [10, 3, 1, 7, 10, 0]
    ours = sx.CrossEntropy(readout="softmax_sum", reduction="sum", time_axis=-1)

    def theirs(x):
        votes = [F.softmax(s[:, :n], dim=0).sum(1) for s, n in zip(x, lengths, strict=True)]
        counted = torch.tensor(lengths) > 0
        return F.cross_entropy(torch.stack(votes)[counted], label[counted], reduction="sum")

    assert_match(
        theirs, lambda x: ours(x, label, lengths=lengths), potentials(SHAPE, torch.float64)
    )


def test_softmax_sum_of_groups_matches_votes_of_their_means():
    label, where = labels(2, (BATCH,)), torch.rand(SHAPE, generator=generator(4)) < 0.7
    ours = sx.CrossEntropy(readout="softmax_sum", num_classes=2, reduction="sum", time_axis=-1)
    assert_match(
        lambda x: F.cross_entropy(
            F.softmax(x.reshape(BATCH, 2, 2, STEPS).mean(2), 1).sum(-1), label, reduction="sum"
        ),
        lambda x: ours(x, label),
        potentials(SHAPE, torch.float64),
    )

    def theirs(x):  # neurons that are masked one by one, some steps without any of a class
        parts = where.reshape(BATCH, 2, 2, STEPS)
        total = torch.where(parts, x.reshape(BATCH, 2, 2, STEPS), 0).sum(2)
        means = (total / parts.sum(2).clamp(min=1)).masked_fill(~parts.any(2), -torch.inf)
        means = torch.where(parts.any(2).any(1, keepdim=True), means, 0)
        votes = torch.where(parts.any(2), F.softmax(means, 1), 0).sum(-1)
        return F.cross_entropy(votes, label, reduction="sum")

    assert_match(theirs, lambda x: ours(x, label, where=where), potentials(SHAPE, torch.float64))
