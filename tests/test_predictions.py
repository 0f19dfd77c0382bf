"""Counts of predictions where the random calls do not reach.

`contract/test_properties.py` compares the predictions and confusion matrices of the losses with
plain loops, and `test_ties.py` those of rates.
"""

from functools import partial

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import each, run
from _support.split import Count
from spikeloss_xp.times.first_spike import TimesLoss

BATCH, CLASSES, STEPS = 6, 3, 5
random = np.random.default_rng(3)
SPIKES = (random.random((BATCH, CLASSES, STEPS)) < 0.4).astype(float)
LABEL = np.asarray([0, 2, 1, -100, 2, 0])
ENTROPY = partial(sx.CrossEntropy, time_axis=-1)
RATE = sx.SpikeMax(time_axis=-1)  # predicts the class with the highest rate
NUMBERS = sx.SquaredError(time_axis=-1)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_reading_that_is_not_finite_counts_as_wrong(backend, bad):
    spikes = SPIKES.copy()
    spikes[0, LABEL[0], 0] = spikes[1, LABEL[1], 0] = bad
    labelled = spikes.sum(axis=-1).argmax(axis=1) == LABEL
    right = labelled[2:].sum()  # of the samples without it
    got = run(backend, each([ENTROPY().confusion, RATE.confusion]), spikes, LABEL)
    for counts in got:
        assert np.trace(counts) == right
        assert counts.sum() == 5
    moid = sx.SpikeMoid(alpha=1, theta=0.4, time_axis=-1)
    counts = run(backend, moid.confusion, spikes[:2], np.eye(3, dtype=bool)[LABEL[:2]])
    assert counts.sum() == 6
    assert (counts[0, 1, 0], counts[2, 1, 0]) == (1, 1)  # where the label is 1, it predicts 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_masked_values_have_no_effect_with_a_window_of_one_step(backend, bad):
    kept = np.random.default_rng(0).random(SPIKES.shape) < 0.6
    roots = ENTROPY(readout="sqrt_count", moving_window=1)
    scores = partial(roots.scores, per_step=True)
    calls = each(
        [
            scores,
            partial(sx.SpikeMax(moving_window=1, time_axis=-1).predict, per_step=True),
        ]
    )
    counts = each([roots.confusion, sx.SpikeMax(moving_window=1, time_axis=-1).confusion])
    steps = np.tile(LABEL[:, None], STEPS)
    for evaluate, *arguments in ((calls,), (counts, steps)):
        clean, got = (
            run(backend, evaluate, np.where(kept, SPIKES, masked), *arguments, where=kept)
            for masked in (0, bad)
        )
        for one, other in zip(got, clean, strict=True):
            np.testing.assert_array_equal(one, other)


def test_impossible_labels_and_lengths_raise_or_make_everything_nan(backend):
    label, late = backend.asarray(LABEL + 1), backend.asarray(np.asarray([5, 6, 5, 5, 5, 5]))
    half = backend.asarray(np.full((6, 3), 0.5))
    calls = [
        (
            sx.SpikeMoid(alpha=1, theta=0, time_axis=-1).confusion,
            half,
            {},
            "must be 0 or 1",
        )
    ]
    for one in (ENTROPY(), ENTROPY(readout="latency"), RATE):
        calls.append((one.confusion, label, {}, "target must be between 0 and 2"))
        calls.append((one.accuracy, LABEL, {"lengths": late}, "lengths must be between 0 and 5"))
    if backend.reads_values:
        for call, target, masks, message in calls:
            with pytest.raises(ValueError, match=message):
                call(backend.asarray(SPIKES), target, **masks)
        return
    every = backend.compiled(lambda x: [call(x, y, **masks) for call, y, masks, _ in calls])
    for got in every(backend.asarray(SPIKES)):
        assert np.isnan(backend.numpy(got)).all()


Q = np.full((BATCH, CLASSES), 1 / 3)
ROWS = [[0.2, 0.7, 0.1], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.5, 0.0, 0.5]]


@pytest.mark.parametrize(
    "loss",
    [ENTROPY(), ENTROPY(moving_window=2), sx.times.CrossEntropy(temperature=1.0, silent_time=2.0)],
)
def test_probabilities_count_as_their_most_probable_class(backend, loss):
    """Of several the first; a row of zeros does not count, nor one whose class is masked."""
    steps = (STEPS,) if getattr(loss, "moving_window", None) else ()
    x = (
        SPIKES / 2 if isinstance(loss, TimesLoss) else SPIKES
    )  # times of 0 and 1 would be refused as trains
    q = np.moveaxis(np.asarray(ROWS)[random.integers(len(ROWS), size=(BATCH, *steps))], -1, 1)
    label = np.where(q.any(axis=1), q.argmax(axis=1), -100)
    for masks in ({}, {"where": np.arange(BATCH) != 2}):
        got, listed = (
            run(backend, lambda x, y, **masks: loss.confusion(x, y, **masks), x, y, **masks)
            for y in (q, label)
        )
        np.testing.assert_array_equal(got, listed)
        assert got.sum() > 0
    assert loss.accuracy(x, q.tolist()) == loss.accuracy(x, label)


LOGITS = [
    *(ENTROPY(readout=readout) for readout in ("sqrt_count", "latency", "softmax_sum")),
    ENTROPY(temperature=0.5),
    ENTROPY(moving_window=2, temperature=2.0),
    sx.times.CrossEntropy(silent_time=3.0, temperature=0.5),
]


@pytest.mark.parametrize("loss", LOGITS, ids=repr)
def test_cross_entropy_of_scores_is_the_loss(loss):
    """Its gradient too, so that any function of logits can be trained."""
    torch = pytest.importorskip("torch")
    window = getattr(loss, "moving_window", None) is not None
    x = torch.tensor(SPIKES / 2 if isinstance(loss, TimesLoss) else SPIKES, requires_grad=True)
    label = torch.tensor(LABEL)
    label = label[:, None].expand(-1, STEPS) if window else label
    theirs = torch.nn.functional.cross_entropy(loss.scores(x, per_step=window), label)
    for value in (theirs, loss(x, label)):
        torch.testing.assert_close(value, loss(x, label))
        (gradient,) = torch.autograd.grad(value, x)
        torch.testing.assert_close(gradient, torch.autograd.grad(loss(x, label), x)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: RATE.accuracy(x, Q), TypeError, "target must hold integers"),
        (lambda x: RATE.accuracy(x, LABEL[:3]), ValueError, "class indices of shape"),
        (lambda x: ENTROPY().predict(x, per_step=True), ValueError, "got a CrossEntropy without"),
        (lambda x: RATE.predict(x, per_step=True), ValueError, "needs a loss with a moving_window"),
        (lambda x: ENTROPY().predict(x, per_step=1), TypeError, "per_step must be True or False"),
        (NUMBERS.scores, TypeError, "SquaredError predicts no classes"),
        (NUMBERS.predict, TypeError, "SquaredError predicts no classes"),
        (lambda x: NUMBERS.accuracy(x, LABEL), TypeError, "SquaredError predicts no classes"),
    ],
)
def test_call_that_cannot_be_counted_raises(call, error, message):
    with pytest.raises(error, match=message):
        call(SPIKES)


class Potentials(Count):
    """A loss whose own readout has a reading at each step: the input."""

    per_step = True

    def read(self, trains):
        return trains.reading(trains.values), lambda cotangent: cotangent


def test_loss_with_a_reading_at_each_step_predicts_at_each_step_only():
    loss = Potentials(time_axis=-1)
    np.testing.assert_array_equal(loss.predict(SPIKES, per_step=True), SPIKES.argmax(axis=1))
    with pytest.raises(ValueError, match="per_step must be True, because Potentials overrides"):
        loss.predict(SPIKES)


def test_neighbouring_counts_are_told_apart_where_their_roots_are_equal():
    spikes = np.asarray([[[8388559.0], [8388560.0]]], dtype=np.float32)
    assert np.sqrt(spikes)[0, 0] == np.sqrt(spikes)[0, 1]
    assert ENTROPY(readout="sqrt_count").predict(spikes) == [1]


@pytest.mark.parametrize(
    ("loss", "options"),
    [(ENTROPY(readout="last"), {}), (ENTROPY(moving_window=1), {"per_step": True})],
)
def test_changing_the_scores_does_not_change_the_spikes(loss, options):
    spikes = SPIKES.copy()
    scores = loss.scores(spikes, **options)
    scores -= scores.max()
    np.testing.assert_array_equal(spikes, SPIKES)
