"""The numbers about a batch."""

from dataclasses import replace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.diagnoses import FIRST, FRESH, LABEL, POTENTIALS, STEPS, codes

LOSS = sx.CrossEntropy(time_axis=-1)
BATCH = LOSS, FRESH, LABEL


POISSON = sx.PoissonNLL(time_axis=-1)
LOG_RATES, COUNTS = diagnoses.LOG_RATES, diagnoses.COUNTS
HALF = np.arange(STEPS) < 10


@pytest.mark.parametrize(
    "loss", [sx.times.SpikeTime(time_constant=0.5), sx.times.VictorPurpura(cost=0.5)]
)
def test_target_times_may_come_from_each_library(backend, loss):
    times, target = np.random.default_rng(0).random((2, 24, 3, 4)).round(1)
    report = sx.diagnose(loss, *map(backend.asarray, (times, target)))
    assert report.numbers["loss"] == pytest.approx(loss(times, target), rel=1e-5)


@pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean", "none"])
def test_loss_in_a_report_is_the_mean_whatever_the_reduction(reduction):
    options = {"lengths": [20, 3] * 12, "weight": [1.0, 2.0, 3.0, 4.0]}
    mean = sx.CrossEntropy(time_axis=-1, moving_window=3)
    report = sx.diagnose(replace(mean, reduction=reduction), FRESH, LABEL, **options)
    assert report.numbers["loss"] == pytest.approx(mean(FRESH, LABEL, **options))


def test_numbers_are_those_by_hand():
    """Two samples, two classes and four steps; the last step of the second does not count."""
    spikes = np.asarray([[[1, 1, 0, 1], [0, 0, 0, 0]], [[1, 0, 0, 0], [1, 0, 0, 1.0]]])
    report = sx.diagnose(
        LOSS, spikes, [0, 1], lengths=[4, 3], hidden=[np.asarray([[[0, 1]], [[0, 0]]])]
    )
    p = 1 / (1 + np.exp(3))  # of the wrong class, with 3 spikes against 0; 1 against 1 is a tie
    expected = {
        "loss": (-np.log(1 - p) + np.log(2)) / 2,
        "loss of equal scores": np.log(2),
        "accuracy": 0.5,
        "input, as it is read": "[batch, class, time] = (2, 2, 4)",
        "classes, neurons of a class": (2, 1),
        "fraction that is masked": 1 / 8,
        "classes that never fire": 0,
        "largest gradient of each class": [0.25, 0.25],
        "samples of each class": [1, 1],
        "confusion, labels by predictions": [[1, 0], [1, 0]],
        "fraction of labels without a gradient": 0,
    }
    assert list(report.numbers) == list(expected)
    for name, number in expected.items():
        got = report.numbers[name]
        assert got == number if isinstance(number, str) else np.allclose(got, number), name
    assert codes(report) == ["ambiguous-layout"]
    assert report.layers == (
        ("hidden.0", 1 / 4, 0, 0, 2, True, None, True),
        ("output", pytest.approx(5 / 14), 0, 0, 2, True, None, True),
    )


@pytest.mark.parametrize(("classes", "shown"), [(100, True), (101, False)])
def test_confusion_matrix_is_left_out_for_many_classes(classes, shown):
    report = sx.diagnose(LOSS, np.eye(classes)[..., None], np.arange(classes))
    assert ("confusion, labels by predictions" in report.numbers) == shown


IN_PAIRS = sx.CrossEntropy(time_axis=-1, num_classes=2, readout="latency", temperature=2)


def test_largest_gradient_of_a_class_is_that_of_any_of_its_neurons():
    report = sx.diagnose(IN_PAIRS, FRESH, LABEL // 2)
    size = np.abs(sx.value_and_grad(IN_PAIRS)(FRESH, LABEL // 2)[1]).reshape(24, 2, -1)
    got = report.numbers["largest gradient of each class"]
    np.testing.assert_allclose(got, size.max(axis=(0, 2)), rtol=1e-6)
    without_last = np.arange(4)[None, :, None] < 3
    report = sx.diagnose(IN_PAIRS, FRESH, LABEL // 2, where=without_last)
    assert all(report.numbers["largest gradient of each class"])


FIRST_TIMES = sx.times.CrossEntropy(temperature=1.0, silent_time=20.0, num_classes=2)
ONE_CLASS = np.where(np.arange(4) == 1, 1.0, np.nan) + 0 * FIRST
AT_STEP = np.where(HALF, diagnoses.HOT, np.roll(diagnoses.HOT, 1, axis=1)).astype("float32")
NEVER, SAMPLES, READ = "classes that never fire", "samples of each class", "input, as it is read"
UP_TO_2 = np.where(np.arange(24) < 21, 20, np.arange(24) - 21)  # the last have 0, 1 and 2 steps


@pytest.mark.parametrize(
    ("arguments", "options", "name", "number"),
    [
        ((LOSS, diagnoses.HOT * (np.arange(STEPS) == 3), LABEL), {}, NEVER, 0),
        ((sx.CrossEntropy(time_axis=-1, readout="max"), -1 - np.abs(POTENTIALS), LABEL), {},
         NEVER, 0),
        ((IN_PAIRS, FRESH * (np.arange(4) == 1)[:, None], LABEL // 2), {}, NEVER, 1),
        ((FIRST_TIMES, ONE_CLASS, LABEL // 2), {}, NEVER, 1),
        ((FIRST_TIMES, ONE_CLASS, LABEL // 2), {}, READ, "[batch, class] = (24, 4)"),
        ((FIRST_TIMES, ONE_CLASS[..., None], LABEL // 2), {}, READ,
         "[batch, class, spike] = (24, 4, 1)"),
        (BATCH, {"lengths": UP_TO_2}, SAMPLES, [6, 5, 6, 6]),
        (BATCH, {"where": np.arange(4)[None, :, None] != 1}, SAMPLES, [6, 6, 6, 6]),
        ((sx.CrossEntropy(time_axis=-1, moving_window=5), FRESH, AT_STEP), {}, SAMPLES,
         [12, 12, 12, 12]),
        (BATCH, {"weight": [0, 1, 1, 1]}, "fraction of labels without a gradient", 0.25),
        # With target trains, there are no classes.
        ((sx.SpikeTime(time_axis=-1), FRESH, FRESH), {}, "neurons", 4),
        ((sx.SpikeTime(time_axis=-1), FRESH, FRESH), {}, "accuracy", None),
        ((sx.SpikeTime(time_axis=-1), FRESH, FRESH), {}, "neurons that never fire", 0),
        ((POISSON, LOG_RATES, COUNTS), {}, "neurons that never fire", None),
    ],
)  # fmt: skip
def test_numbers_of_a_batch(arguments, options, name, number):
    assert sx.diagnose(*arguments, **options).numbers.get(name) == number


def test_report_on_a_recording_speaks_of_neurons_and_shows_its_score():
    random = np.random.default_rng(0)
    log_rates = random.normal(-1.5, 0.5, size=(2, 30, 100))
    counts = random.poisson(np.exp(log_rates)).astype(float)
    loss = sx.PoissonNLL(time_axis=-1)
    report = sx.diagnose(loss, log_rates, counts)
    assert report.numbers["input, as it is read"] == "[batch, neuron, time] = (2, 30, 100)"
    assert report.numbers["neurons"] == 30
    expected = {
        "bits_per_spike": float(loss.bits_per_spike(log_rates, counts)),
        "mean_rate": np.exp(log_rates).mean(),
        "mean_count": counts.mean(),
    }
    scalars = report.scalars()
    for name, number in expected.items():
        assert scalars[name] == pytest.approx(number), name
    assert "class" not in str(report)
    kept = random.random(counts.shape) < 0.25  # coordinated dropout
    masked = sx.diagnose(loss, log_rates, counts, where=kept)
    assert not masked.findings
    assert masked.scalars()["mean_count"] == pytest.approx(counts[kept].mean())
    assert masked.scalars()["mean_rate"] == pytest.approx(np.exp(log_rates[kept]).mean())
