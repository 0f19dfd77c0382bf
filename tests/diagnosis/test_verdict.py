"""What `diagnose` says before training, and what it judges after about 100 updates."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.diagnoses import FRESH, HOT, LABEL, QUIET, STEPS, TRAINED, WIDE
from spikeloss_xp.diagnosis._report import LOOK_AGAIN

LOSS = sx.CrossEntropy(time_axis=-1)
BUSY = {"hidden": [1 + 0 * WIDE]}  # a possible cause
VANISHING = {"gradients": diagnoses.gradients(1e-6, 1.0)}
WRONG = np.roll(HOT, 1, axis=1) * np.ones(STEPS)


def severities(report):
    """Return the severity of each finding by its code."""
    return {finding.code: finding.severity for finding in report.findings}


def right(number, labels=LABEL):
    """Return spikes in which the first samples have the right class, and the others a wrong one."""
    shift = np.arange(len(labels)) >= number
    hot = ((labels + shift) % 4)[:, None] == np.arange(4)
    return (hot[..., None] * np.ones(STEPS)).astype("float32")


@pytest.mark.parametrize("options", [BUSY, VANISHING, {"hidden": [0 * WIDE]}])
def test_possible_cause_is_a_note_before_training_and_a_problem_if_the_batch_has_not_moved(options):
    first = sx.diagnose(LOSS, WRONG, LABEL, **options)
    assert {*severities(first).values()} == {"note"}
    then = sx.diagnose(LOSS, WRONG, LABEL, **options, earlier=first)
    assert then.findings[0].code == "not-moved"
    assert severities(then) == dict.fromkeys(["not-moved", *severities(first)], "problem")
    moved = sx.diagnose(LOSS, right(20), LABEL, **options, earlier=first)
    assert {*severities(moved).values()} <= {"note"}


def test_batch_that_has_not_moved_without_a_possible_cause_is_a_note():
    assert severities(sx.diagnose(LOSS, WRONG, LABEL, earlier=9.0)) == {"not-moved": "note"}


@pytest.mark.parametrize(("number", "found"), [(9, True), (10, False)])
def test_limit_is_a_fifth_of_the_way_from_chance_to_1(number, found):
    """Of 24 samples and four classes, 6 are right by chance; a fifth of the way is 9.6."""
    report = sx.diagnose(LOSS, right(number), LABEL, earlier=9.0)
    assert ("not-moved" in severities(report)) == found
    if found:
        words = "after 100 updates, the accuracy has covered 17% of the way from chance to 100%"
        assert report.findings[0].seen == words


def test_chance_is_the_share_of_the_commonest_class_after_masks_and_weights():
    labels = np.where(np.arange(24) < 18, 0, LABEL)  # 19 or 20 of 24 have class 0
    always = 0 * FRESH + (np.arange(4) == 0)[:, None]
    assert "not-moved" in severities(sx.diagnose(LOSS, always, labels, earlier=9.0))
    masked = sx.diagnose(LOSS, right(12), LABEL, earlier=9.0, where=np.arange(24) < 12)
    assert "not-moved" not in severities(masked)
    masked = sx.diagnose(LOSS, right(12), LABEL, earlier=9.0, where=np.arange(24) >= 12)
    assert "not-moved" in severities(masked)
    rare = {"weight": [0.01, 1, 1, 1]}  # makes the other classes as common
    answers = np.where(labels == 0, 1, labels)
    spikes = (answers[:, None] == np.arange(4))[..., None] * np.ones(STEPS)
    assert "not-moved" in severities(sx.diagnose(LOSS, spikes, labels, earlier=9.0))
    assert "not-moved" not in severities(sx.diagnose(LOSS, spikes, labels, earlier=9.0, **rare))


def test_network_that_has_learned_its_batch_has_no_problem_at_the_end():
    for options in (BUSY, VANISHING, {"gradients": diagnoses.gradients(0.0, 0.0)}):
        report = sx.diagnose(LOSS, right(22), LABEL, **options, earlier=1.4, updates=5000)
        assert "problem" not in severities(report).values()


@pytest.mark.parametrize(("updates", "found"), [(89, False), (90, True)])
def test_too_few_updates_are_not_judged(updates, found):
    report = sx.diagnose(LOSS, WRONG, LABEL, **BUSY, earlier=9.0, updates=updates)
    assert ("problem" in severities(report).values()) == found
    assert (LOOK_AGAIN in str(report)) == (not found)
    assert report.numbers["earlier loss, updates since"] == (9.0, updates)
    assert f" updates since (9, {updates}) " in " ".join(str(report).split())


@pytest.mark.parametrize("updates", [0, -1, 1.5, "many"])
def test_number_of_updates_must_be_a_positive_integer(updates):
    with pytest.raises((TypeError, ValueError), match="updates must be"):
        sx.diagnose(LOSS, WRONG, LABEL, earlier=9.0, updates=updates)
    with pytest.raises(TypeError, match="earlier must be a number"):
        sx.diagnose(LOSS, WRONG, LABEL, earlier="loss")


def test_quiet_output_is_a_fact_only_after_training():
    half = diagnoses.HALF
    assert "quiet-output" not in severities(sx.diagnose(LOSS, QUIET, half))
    assert severities(sx.diagnose(LOSS, QUIET, half, earlier=9.0)) == {"quiet-output": "note"}
    failed = sx.diagnose(LOSS, QUIET, (half + 2) % 4, earlier=9.0)
    assert severities(failed)["quiet-output"] == "problem"
    busy = np.tile(QUIET, (1, 1, 3))
    busy[:, :, :6] = 1  # 1 % of the steps
    assert "quiet-output" not in severities(sx.diagnose(LOSS, busy, half, earlier=9.0))
    latency = sx.CrossEntropy(time_axis=-1, readout="latency")  # it needs a single spike
    assert "quiet-output" not in severities(sx.diagnose(latency, QUIET, half, earlier=9.0))


# Losses without classes ---------------------------------------------------------------------------

TIMES = sx.SpikeTime(time_axis=-1, time_constant=5)
SILENCE = float(TIMES(0 * TRAINED, TRAINED))


def test_report_on_trains_shows_the_loss_of_silence():
    report = sx.diagnose(TIMES, FRESH, TRAINED)
    assert report.numbers["loss of silent outputs"] == pytest.approx(SILENCE)


def test_potentials_are_compared_with_their_mean():
    random = np.random.default_rng(0)
    target = random.normal(5, 1, size=(24, 3))
    loss = sx.SquaredError(time_axis=-1, readout="last")
    constant = random.normal(size=(24, 3, STEPS))
    constant[..., -1] = target.mean(0)
    first = 30.0  # the loss of potentials of 0
    report = sx.diagnose(loss, constant, target, **BUSY, earlier=first)
    assert severities(report)["not-moved"] == "problem"
    half = 0.5 * constant + 0.5 * target[..., None]
    assert "not-moved" not in severities(sx.diagnose(loss, half, target, earlier=first))


def test_function_is_called_with_silent_outputs_only_with_an_earlier_report():
    calls = []

    def loss(x, y):
        calls.append(x)
        return ((x.mean(axis=-1) - y) ** 2).mean()

    target = np.full((24, 4), 0.3)
    sx.diagnose(loss, FRESH, target, time_axis=-1)
    before, calls[:] = len(calls), []
    options = {"time_axis": -1, "earlier": 0.5, **BUSY}
    report = sx.diagnose(loss, 0.01 * FRESH, target, **options)
    assert len(calls) == before + 1
    assert not calls[-1].any()
    assert severities(report)["busy-hidden"] == "problem"
    moved = sx.diagnose(loss, 0 * FRESH + 0.25, target, **options)
    assert severities(moved)["busy-hidden"] == "note"


@pytest.mark.filterwarnings("ignore:no spike in the batch")
def test_without_a_constant_answer_the_loss_must_fall():
    times = np.full((6, 3, 1), 4.0)
    loss = sx.times.SpikeTime(time_constant=5.0)
    value = float(loss(times, times + 3))
    for earlier, found in ((1.002 * value, True), (1.004 * value, False)):
        report = sx.diagnose(loss, times, times + 3, earlier=earlier)
        assert ("not-moved" in severities(report)) == found


# NaN ----------------------------------------------------------------------------------------------


def test_loss_that_became_nan_is_a_finding_that_says_since_when():
    nan = np.where(np.arange(STEPS) == 3, np.nan, FRESH)
    report = sx.diagnose(LOSS, nan, LABEL, earlier=1.5, updates=40)
    assert report.findings[0].seen == "the loss is nan, and was 1.5 40 updates before"
    assert severities(report)["diverged"] == "problem"
    first = sx.diagnose(LOSS, nan, LABEL)
    for earlier in (first, math.nan):
        report = sx.diagnose(LOSS, nan, LABEL, earlier=earlier)
        assert report.findings[0].seen == "the loss is nan, and was nan 100 updates before"
        repaired = sx.diagnose(LOSS, WRONG, LABEL, earlier=earlier, **BUSY)
        assert severities(repaired)["not-moved"] == "problem"
        assert "diverged" not in severities(repaired)


@pytest.mark.parametrize("labels", [0 * LABEL, 0 * LABEL - 100])
def test_labels_that_leave_nothing_to_learn_are_not_judged(labels):
    report = sx.diagnose(LOSS, WRONG, labels, earlier=9.0)
    assert "not-moved" not in severities(report)
