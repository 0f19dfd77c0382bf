"""The recipes of `docs/recipes.md` against formulas written out in PyTorch."""

import itertools

import numpy as np
import pytest

from _support.peers import import_peer
from _support.processes import recipes
from _support.side_by_side import assert_match, generator, labels, potentials, torch, trains

F = torch.nn.functional

STEPS, BATCH, CLASSES = 20, 8, 5
SHAPE = (STEPS, BATCH, CLASSES)
LABEL = labels(CLASSES, (BATCH,))
SPIKES, NUMBERS = (made(SHAPE, torch.float64) for made in (trains, potentials))
page = recipes("losses_torch")


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_inputs_are_mixed_by_the_fractions_of_the_labels(name):
    # The channel of the label is 1 everywhere, so the mean of a channel is the part of its class.
    channels = F.one_hot(LABEL, CLASSES).double()[None, :, :, None, None]
    frames = channels.expand(STEPS, BATCH, CLASSES, 12, 9)
    torch.manual_seed(0)
    mixed, probabilities = getattr(page, name)(frames, LABEL, CLASSES)
    assert mixed.shape == frames.shape
    torch.testing.assert_close(mixed.mean((-2, -1)), probabilities.expand(SHAPE))
    assert ((probabilities > 0) & (probabilities < 1)).any()
    if name == "cutmix":
        assert set(mixed.unique().tolist()) == {0.0, 1.0}
        box = mixed[0] != frames[0]  # its rows are equal where they are not empty
        rows = [sample[sample.any(-1)] for sample in box.any(1)]
        assert any(len(filled) > 1 for filled in rows)
        assert all((filled == filled[:1]).all() for filled in rows)


def test_distillation_equals_divergence_plus_entropy():
    teacher, temperature = 3 * potentials((BATCH, CLASSES), torch.float64), 4.0
    log_p = F.log_softmax(teacher / temperature, 1)
    entropy = -(log_p.exp() * log_p).sum(1).mean()

    def formula(x):
        logits = x.sum(0)
        log_q = F.log_softmax(logits / temperature, 1)
        divergence = F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")
        part = 0.3 * temperature**2 * (divergence + entropy)
        return part + 0.7 * F.cross_entropy(logits, LABEL)

    assert_match(formula, lambda x: page.distil(x, teacher, LABEL, temperature, 0.3), SPIKES)


def test_triplet_equals_filtered_trains():
    anchor, positive, negative = torch.tensor([[0, 2, 4, 6], [1, 3, 5, 7], [2, 4, 0, 1]])
    time_constant, tail = 4.0, 400

    def formula(x):
        # The filtered trains, beyond their end, and the integral of their squared difference:
        # that over a step is (1 - exp(-2 / tau)) tau / 2, and 2 / tau makes one spike count 1.
        decay = torch.exp(torch.tensor(-1 / time_constant, dtype=x.dtype))
        traces, trace = [], torch.zeros_like(x[0])
        for step in (*x, *torch.zeros((tail, *x.shape[1:]), dtype=x.dtype)):
            trace = decay * trace + step
            traces.append(trace)
        filtered = torch.stack(traces)

        def distance(i, j):
            square = ((filtered[:, i] - filtered[:, j]) ** 2).sum((0, 2))
            return ((1 - decay**2) * square).sqrt()

        return F.relu(distance(anchor, positive) - distance(anchor, negative) + 1).mean()

    def ours(x):
        return page.triplet(x, anchor, positive, negative, time_constant=time_constant)

    assert_match(formula, ours, SPIKES)


def test_dense_labels_equal_cross_entropy_of_maps():
    output = potentials((6, 2, 3, 4, 5), torch.float64)
    label = labels(3, (2, 4, 5))
    label[:, 1] = 255
    assert_match(
        lambda x: F.cross_entropy(x.sum(0), label, ignore_index=255),
        lambda x: page.by_pixel(*page.as_samples(x, label)),
        output,
    )
    predicted = output.sum(0).argmax(1)
    samples, _ = page.as_samples(output, label)
    assert torch.equal(page.by_pixel.predict(samples).reshape(predicted.shape), predicted)
    shares = []
    for i in range(3):
        true, found = label == i, (predicted == i) & (label != 255)
        shares.append((true & found).sum() / (true | found).sum())
    assert page.intersection_over_union(output, label) == pytest.approx(sum(shares) / 3)


@pytest.fixture
def recordings():
    """Return the file of recipes that needs SciPy."""
    import_peer("scipy")
    return recipes("recordings")


def recorded_trials():
    return (torch.rand(SHAPE, generator=generator(6)) < 0.3).double()


def test_trial_matching_equals_the_nearest_of_all_pairings(recordings):
    recorded, step = recorded_trials()[:, :4], torch.arange(STEPS).double()
    kernel = torch.exp(-(step[:, None] - step).abs() / 5)

    def formula(x):
        pairings = []
        for order in itertools.permutations(range(4)):
            missing = x - recorded[:, order]
            pairings.append(torch.einsum("tbn,tu,ubn->", missing, kernel, missing) / 4)
        return min(pairings)

    assert_match(formula, lambda x: recordings.trial_matching(x, recorded), SPIKES[:, :4])


def test_time_rescaling_test_accepts_the_true_model_only_with_the_correction(recordings):
    steps, rejected = 12_000, np.zeros(3, dtype=int)  # 60 s
    rates = np.exp(0.8 * np.sin(np.arange(steps) / 100))
    rates *= 25 * 0.005 / rates.mean()  # 25 Hz
    for seed in range(40):
        rng = np.random.default_rng(seed)
        spikes = rng.random(steps) < -np.expm1(-rates)
        naive = -np.expm1(-np.diff(np.cumsum(rates)[spikes]))
        constant = np.full(steps, rates.mean())
        values = [recordings.time_rescaling_test(each, spikes, rng) for each in (rates, constant)]
        values.append(recordings.kstest(naive, "uniform").pvalue)
        rejected += np.asarray(values) < 0.05
    assert rejected[0] <= 5
    assert list(rejected[1:]) == [40, 40]
