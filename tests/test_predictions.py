"""What losses and classifiers predict, and how they count it, against loops in NumPy."""

from functools import partial

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, one_jax, run
from _support.contract import ENTROPY_READOUTS

BATCH, CLASSES, STEPS = 6, 3, 5
random = np.random.default_rng(3)
SPIKES = (random.random((BATCH, CLASSES, STEPS)) < 0.4).astype(float)
LABEL = np.asarray([0, 2, 1, -100, 2, 0])
ENTROPY = partial(sx.CrossEntropy, time_axis=-1)
LOSSES = {
    **{readout: ENTROPY(readout=readout, temperature=3.0) for readout in ENTROPY_READOUTS},
    "SpikeMax": sx.SpikeMax(),
    "SpikeRate": sx.SpikeRate(0.5, 0.1),
    "SpikeRate, reversed": sx.SpikeRate(0.1, 0.5),
    "SpikeRate, per class": sx.SpikeRate((0.9, 0.2, 0.5), (0.1, 0.6, 0.0)),
    "SpikeLatency": sx.SpikeLatency(time_axis=-1),
    "SpikeLatency, reversed": sx.SpikeLatency(4, 0, time_axis=-1),
    "Rate": sx.Rate(time_axis=-1),
}
MASKS = {
    "all": {},
    "lengths": {"lengths": np.asarray([5, 0, 3, 5, 2, 4])},
    "entries": {"where": random.random(SPIKES.shape) < 0.7},
    "neurons": {"where": np.repeat(random.random((BATCH, CLASSES, 1)) < 0.6, STEPS, axis=2)},
}


def scores(name, spikes, **masks):
    """Return the score of each class and its mask; of a loss, minus the loss with that label."""
    loss = LOSSES[name]
    mask = reference.full_mask(spikes.shape, -1, masks.get("where"), masks.get("lengths"))
    if name == "Rate":
        loss = ENTROPY(readout="rate")
    u = reference.read(loss, spikes, **masks).u[..., 0]
    if name == "latency" or name.startswith("SpikeLatency"):
        u = -u if "reversed" not in name else u
    if name == "SpikeRate, reversed":
        u = -u
    if name == "SpikeRate, per class":
        true, false = np.asarray(loss.true_rate), np.asarray(loss.false_rate)
        u = (u - false) ** 2 - (u - true) ** 2
    return u, mask.any(axis=-1)


def loops(name, spikes, label, **masks):
    """Return predictions and the confusion matrix, sample by sample; the first of ties wins."""
    u, mask = scores(name, spikes, **masks)
    counts, predictions = np.zeros((CLASSES, CLASSES)), []
    for b in range(len(spikes)):
        present = np.flatnonzero(mask[b]) if mask[b].any() else [0]
        predictions.append(min(present, key=lambda c: (-round(u[b, c], 9), c)))
        if label[b] != -100 and mask[b, label[b]]:
            counts[label[b], predictions[-1]] += 1
    return np.asarray(predictions), counts


@one_jax
@pytest.mark.parametrize("mask", MASKS)
def test_predictions_equal_loops(backend, mask):
    options = MASKS[mask]

    def evaluate(spikes, label, **options):
        return [
            (one.predict(spikes, **options), one.confusion(spikes, label, **options),
             one.accuracy(spikes, label, **options))
            for one in LOSSES.values()
        ]  # fmt: skip

    found = run(backend, evaluate, SPIKES, LABEL, **options)
    for name, (predicted, counts, accuracy) in zip(LOSSES, found, strict=True):
        expected, matrix = loops(name, SPIKES, LABEL, **options)
        np.testing.assert_array_equal(predicted, expected, name)
        np.testing.assert_array_equal(counts, matrix, name)
        np.testing.assert_allclose(accuracy, np.trace(matrix) / matrix.sum(), 1e-6, 0, err_msg=name)


@pytest.mark.parametrize("name", ["count", "SpikeMax", "SpikeRate", "Rate"])
def test_confusion_adds_up_over_any_split(name):
    parts = [LOSSES[name].confusion(SPIKES[s], LABEL[s]) for s in (slice(0, 1), slice(1, 6))]
    np.testing.assert_array_equal(sum(parts), LOSSES[name].confusion(SPIKES, LABEL))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_windows_predict_over_all_time_or_at_each_step(backend, axis):
    by_step = np.moveaxis(SPIKES, -1, axis)
    window = ENTROPY(moving_window=2, time_axis=axis, readout="sqrt_count")
    labels = random.integers(CLASSES, size=(BATCH, STEPS))
    labels[2, 1:3] = -100
    placed = np.moveaxis(labels, -1, axis if axis in (0, 1) else -1)
    got = run(
        backend,
        each([
            lambda x, y, z: window.predict(x),
            lambda x, y, z: window.predict(x, per_step=True),
            lambda x, y, z: window.confusion(x, y),
            lambda x, y, z: window.confusion(x, z),
            lambda x, y, z: sx.MovingWindow(2, time_axis=axis).confusion(x, z),
            lambda x, y, z: sx.MovingWindow(2, time_axis=axis).accuracy(x, z),
        ]),
        by_step, LABEL, placed,
    )  # fmt: skip
    counts = SPIKES + np.pad(SPIKES, ((0, 0), (0, 0), (1, 0)))[..., :-1]
    steps = counts.argmax(axis=1)
    np.testing.assert_array_equal(got[0], SPIKES.sum(axis=-1).argmax(axis=1))
    np.testing.assert_array_equal(got[1], np.moveaxis(steps, -1, axis if axis in (0, 1) else -1))
    np.testing.assert_array_equal(got[2], loops("count", SPIKES, LABEL)[1])
    matrix = np.zeros((CLASSES, CLASSES))
    counted = labels != -100
    np.add.at(matrix, (labels[counted], steps[counted]), 1)
    np.testing.assert_array_equal(got[3], matrix)
    np.testing.assert_array_equal(got[4], matrix)
    np.testing.assert_allclose(got[5], np.trace(matrix) / matrix.sum(), rtol=1e-6)


def test_independent_classes_have_a_matrix_each(backend):
    loss = sx.SpikeMoid(theta=0.4, alpha=0.1)
    answers = random.random((BATCH, CLASSES)) < 0.5
    where = MASKS["neurons"]["where"]
    functions = each([
        lambda x, y, w: loss.predict(x),
        lambda x, y, w: loss.confusion(x, y, where=w),
        lambda x, y, w: loss.accuracy(x, y, where=w),
    ])  # fmt: skip
    predicted, counts, accuracy = run(backend, functions, SPIKES, answers, where)
    above = SPIKES.mean(axis=-1) > 0.4 + 1e-9  # a rate of theta is no yes
    np.testing.assert_array_equal(predicted, above)
    expected = np.zeros((CLASSES, 2, 2))
    for b, c in zip(*np.nonzero(where[..., 0]), strict=True):
        expected[c, int(answers[b, c]), int(above[b, c])] += 1
    np.testing.assert_array_equal(counts, expected)
    right = (above == answers)[where[..., 0]]
    np.testing.assert_allclose(accuracy, right.mean(), rtol=1e-6)


def test_steps_of_independent_classes_are_counted(backend):
    loss = sx.SpikeMoid(1, theta=0.5, time_axis=1)
    answers = random.random((BATCH, STEPS, CLASSES)) < 0.5
    spikes = np.moveaxis(SPIKES, -1, 1)
    counts = run(backend, loss.confusion, spikes, answers)
    for c in range(CLASSES):
        for i in (0, 1):
            chosen = spikes[..., c][answers[..., c] == i]
            np.testing.assert_array_equal(counts[c, i], [(chosen == 0).sum(), (chosen == 1).sum()])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_reading_that_is_not_finite_counts_as_wrong(backend, bad):
    spikes = SPIKES.copy()
    spikes[0, LABEL[0], 0] = spikes[1, LABEL[1], 0] = bad
    labelled = spikes.sum(axis=-1).argmax(axis=1) == LABEL
    right = labelled[2:].sum()  # of the samples without it
    got = run(backend, each([ENTROPY().confusion, sx.Rate(time_axis=-1).confusion]), spikes, LABEL)
    for counts in got:
        assert np.trace(counts) == right
        assert counts.sum() == 5
    moid = sx.SpikeMoid(theta=0.4)
    counts = run(backend, moid.confusion, spikes[:2], np.eye(3, dtype=bool)[LABEL[:2]])
    assert counts.sum() == 6
    assert (counts[0, 1, 0], counts[2, 1, 0]) == (1, 1)  # where the label is 1, it predicts 0


def test_impossible_labels_and_lengths_raise_or_make_everything_nan(backend):
    label, late = backend.asarray(LABEL + 1), backend.asarray(np.asarray([5, 6, 5, 5, 5, 5]))
    half = backend.asarray(np.full((6, 3), 0.5))
    calls = [(sx.SpikeMoid(theta=0).confusion, half, {}, "must be 0 or 1")]
    for one in (ENTROPY(), ENTROPY(readout="latency"), LOSSES["Rate"]):
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


def test_masked_labels_may_be_anything(backend):
    label, lengths = np.where(LABEL == 2, 77, LABEL), np.where(LABEL == 2, 0, STEPS)
    loss = ENTROPY()
    counts = run(backend, lambda x, y, n: loss.confusion(x, y, lengths=n), SPIKES, label, lengths)
    np.testing.assert_array_equal(counts[:2], loops("count", SPIKES, LABEL)[1][:2])
    assert not counts[2].any()


@pytest.mark.parametrize("kind", [ENTROPY, partial(sx.Rate, time_axis=-1)])
def test_nothing_that_counts_has_no_accuracy(kind):
    for one, label, masks in (
        (kind(), -100, {}), (kind(ignore_index=1), 1, {}), (kind(), 1, {"lengths": [0] * BATCH}),
    ):  # fmt: skip
        label = np.full(BATCH, label)
        assert np.isnan(one.accuracy(SPIKES, label, **masks))
        assert one.confusion(SPIKES, label, **masks).sum() == 0


def test_targets_that_are_no_labels_raise():
    q = np.full((BATCH, CLASSES), 1 / 3)
    with pytest.raises(TypeError, match="target must hold integers"):
        ENTROPY().confusion(SPIKES, q)
    for one in (sx.SpikeLatency(time_axis=-1), LOSSES["Rate"]):
        with pytest.raises(TypeError, match="target must hold integers"):
            one.accuracy(SPIKES, q)
    with pytest.raises(ValueError, match="target must hold class indices of shape"):
        LOSSES["Rate"].accuracy(SPIKES, LABEL[:3])
    with pytest.raises(
        ValueError, match=r"per_step=True needs a CrossEntropy with a moving_window"
    ):
        ENTROPY().predict(SPIKES, per_step=True)
    with pytest.raises(ValueError, match="per_step=True needs a MovingWindow; Rate has none"):
        sx.Rate(time_axis=-1).predict(SPIKES, per_step=True)
    with pytest.raises(TypeError, match="per_step must be True or False"):
        ENTROPY().predict(SPIKES, per_step=1)


def test_losses_of_numbers_predict_no_class():
    loss = sx.SquaredError(time_axis=-1)
    for call in (loss.predict, lambda x: loss.accuracy(x, LABEL)):
        with pytest.raises(TypeError, match="SquaredError predicts no class"):
            call(SPIKES)


def test_composed_predicts_by_its_reading():
    def first_step(xp, spikes, mask):
        return spikes[..., 0], None

    loss = sx.losses.Composed(first_step, lambda xp, u, label: (u, None))
    np.testing.assert_array_equal(loss.predict(SPIKES), SPIKES[..., 0].argmax(axis=1))
    per_step = sx.losses.Composed(lambda xp, x, mask: (x, None), first_step, per_step=True)
    np.testing.assert_array_equal(per_step.predict(SPIKES, per_step=True), SPIKES.argmax(axis=1))
    with pytest.raises(ValueError, match="per_step must be that of the loss, per_step=True"):
        per_step.predict(SPIKES)


def test_module_predicts_as_its_loss():
    torch = pytest.importorskip("torch")
    from spikeloss_xp.backends.torch import LossModule

    loss = ENTROPY(readout="last")
    module, spikes = LossModule(loss, weight=[1, 2, 3]), torch.tensor(SPIKES)
    assert torch.equal(module.predict(spikes), loss.predict(spikes))
    assert torch.equal(module.confusion(spikes, LABEL), loss.confusion(spikes, LABEL))
    assert torch.equal(module.accuracy(spikes, LABEL), loss.accuracy(spikes, LABEL))


def test_neighbouring_counts_are_told_apart_where_their_roots_are_equal():
    spikes = np.asarray([[[8388559.0], [8388560.0]]], dtype=np.float32)
    assert np.sqrt(spikes)[0, 0] == np.sqrt(spikes)[0, 1]
    assert ENTROPY(readout="sqrt_count").predict(spikes) == [1]
