"""Ties and thresholds of spike counts are decided by the counts, and not by rounding.

Random classifications have seeds, as the random calls of `contract/test_differential.py`.
"""

import itertools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import TESTED, on
from _support.calls import run
from _support.random_calls import STEP_THRESHOLDS, around, pick

GROUPS = (3, 5, 6, 7, 9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", [None, 30])
def test_rate_equal_to_theta_is_not_above_it(window, dtype):
    for group, steps in itertools.product(GROUPS, (3, 5, 7)):
        for number in range(1, group * steps + 1):
            spikes = (np.arange(group * steps) < number).astype(dtype).reshape(1, group, steps)
            theta = number / (group * (window or steps))
            loss = sx.SpikeMoid(
                moving_window=window,
                alpha=1,
                theta=theta,
                num_classes=1,
                time_axis=-1,
            )
            assert not loss.predict(spikes, per_step=bool(window)).any(), (theta, group, steps)


@pytest.mark.parametrize("group", [1, 3])
def test_gradient_at_the_pseudo_count_is_that_of_the_logarithm(backend, group):
    """With exactly `pseudo_count` spikes the slope is ``(p - 1) / r``, whatever rounding does."""
    steps, count = 40, 3  # in float64 3 / 40 is less than 3 * (1 / 40)
    spikes = np.zeros((1, 2 * group, steps))
    spikes[0, 0, :count] = 1
    spikes[0, -1, 0] = 1
    loss = sx.SpikeMax(pseudo_count=count, num_classes=2, time_axis=-1)
    _, gradient = run(backend, sx.value_and_grad(loss), spikes, [0])
    per_spike = 1 / steps / group
    total = (count + 1) * per_spike + 1e-6
    expected = (1 / total - 1 / (count * per_spike)) * per_spike
    np.testing.assert_allclose(gradient[0, 0, 0], expected, rtol=1e-5)


def test_max_readout_ties_share_the_gradient(backend):
    spikes = backend.asarray(np.asarray([[[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]]))
    loss = sx.CrossEntropy(readout="max", time_axis=-1)
    _, gradient = backend.compiled(sx.value_and_grad(loss))(spikes, np.asarray([1]))
    p = 1 / (1 + np.exp(-1.0))
    expected = np.asarray([[[0, p / 2, 0, p / 2], [-p / 4] * 4]])
    np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=0, atol=backend.rtol)


def check_random_classification(backend, seed):
    """Compare predictions of a random classifier, and their counts, with the largest spike counts.

    Samples, steps or both are masked, which changes the durations of all classes alike.
    """
    random = np.random.default_rng([seed, 2])
    batch, classes, group = random.integers([1, 2, 1], [9, 7, 13])
    steps = around(random, 300)
    dtypes = filter(backend.has, ("bool", "uint8", "float16", "float32", backend.dtype))
    dtype, windowed = pick(random, *dtypes), random.random() < 0.6
    window = pick(random, 1, around(random, steps), steps, 3 * steps, *STEP_THRESHOLDS)
    # few spikes, and trains that are shuffled copies of each other, so that many classes tie
    train = random.random((batch, 1, group * steps)) < pick(random, 0.02, 0.15, 0.6)
    spikes = np.concatenate([random.permuted(train, axis=-1) for _ in range(classes)], axis=1)
    spikes = spikes.reshape(batch, classes * group, steps)
    mask, options = np.ones((batch, steps), bool), {}
    if random.random() < 0.5:
        options["lengths"] = random.integers(0, steps + 1, size=batch)
        mask &= np.arange(steps) < options["lengths"][:, None]
    if random.random() < 0.5:
        options["where"] = random.random((batch, steps)) < 0.8
        mask &= options["where"]
    counts = spikes.reshape(batch, classes, group, steps).sum(axis=2) * mask[:, None]
    if windowed:
        loss = sx.SpikeMax(moving_window=window, num_classes=classes, time_axis=-1)
        sums = np.cumsum(counts, axis=-1)
        counts = sums - np.pad(sums, ((0, 0), (0, 0), (window, 0)))[..., :steps]
        counts *= mask[:, None]  # a masked step predicts 0
    else:
        loss = sx.SpikeMax(num_classes=classes, time_axis=-1)
        counts = counts.sum(axis=-1)
    expected, mask = np.argmax(counts, axis=1), mask if windowed else mask.any(axis=-1)
    ignored = random.random(mask.shape) < 0.2
    label = np.where(ignored, -100, random.integers(classes, size=mask.shape))
    counted, matrix = mask & ~ignored, np.zeros((classes, classes))
    np.add.at(matrix, (label[counted], expected[counted]), 1)

    @backend.compiled
    def evaluate(x, y, masks):
        return loss.predict(x, per_step=windowed, **masks), *(
            count(x, y, **masks) for count in (loss.confusion, loss.accuracy)
        )

    arrays = {name: backend.asarray(value) for name, value in options.items()}
    results = evaluate(backend.asarray(spikes, dtype), backend.asarray(label), arrays)
    predicted, confusion, accuracy = map(backend.numpy, results)
    message = f"{loss} of {group} neurons a class, {spikes.shape}, {dtype}, seed {seed}"
    assert confusion.dtype in ("float32", "float64"), message
    np.testing.assert_array_equal(predicted, expected, message)
    np.testing.assert_array_equal(confusion, matrix, message)
    right = np.trace(matrix) / matrix.sum() if counted.any() else np.nan
    np.testing.assert_allclose(accuracy, right, rtol=1e-6, err_msg=message)


@pytest.mark.parametrize("name", TESTED)
def test_random_ties_go_to_the_first_and_are_counted(name, seeds):
    with on(name) as backend:
        for seed in seeds({"numpy": 60, "torch": 20}.get(name, 2), slow=3):
            check_random_classification(backend, seed)
