"""What is right has no problem, and one mistake is the first finding."""

import math
import warnings

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.cases import raises
from _support.diagnoses import (
    FRESH,
    LABEL,
    POTENTIALS,
    QUIET,
    STEPS,
    WIDE,
    codes,
    on,
    problems,
    report_of,
)
from spikeloss_xp.diagnosis import Finding, findings
from spikeloss_xp.diagnosis._report import LOOK_AGAIN, texts
from spikeloss_xp.readouts import READOUTS
from spikeloss_xp.slayer import published

TEXTS = texts()
LOSS = sx.CrossEntropy(time_axis=-1)
BATCH = LOSS, FRESH, LABEL
FAULTY = [(code, case) for code, cases in diagnoses.FAULTY.items() for case in cases]


@pytest.mark.parametrize("case", diagnoses.HEALTHY, ids=str)
def test_healthy_batch_has_no_problem(case):
    assert not problems(report_of(case)), str(report_of(case))


@pytest.mark.parametrize("case", diagnoses.NO_FINDING, ids=str)
def test_batch_at_a_threshold_has_no_note(case):
    assert codes(report_of(case)) == []
    assert str(report_of(case)).endswith(f"\n\nnothing found\n{LOOK_AGAIN}")


@pytest.mark.parametrize(("code", "case"), diagnoses.OTHER_FINDING, ids=str)
def test_mistake_is_not_taken_for_another_one(code, case):
    assert code not in codes(report_of(case))


@pytest.mark.filterwarnings("ignore:no spike in the batch is before")
@pytest.mark.parametrize(("code", "case"), FAULTY, ids=str)
def test_mistake_is_the_first_finding(code, case):
    report = report_of(case)
    assert codes(report)[:1] == [code], str(report)
    severities = [finding.severity for finding in report.findings]
    assert severities == sorted(severities, reverse=True)  # problems before notes


def test_each_finding_has_a_case_and_problems_stand_before_causes_and_notes():
    assert {*diagnoses.FAULTY, "no-graph"} == set(TEXTS)
    severities = [text["severity"] for text in TEXTS.values()]
    assert severities == sorted(severities, key=["problem", "cause", "note"].index)
    causes = {"not-moved", "busy-hidden", "silent-hidden", "silent-output", "quiet-output"}
    causes |= {f"{word}-gradient" for word in ("no", "vanishing", "exploding", "zero")}
    assert {code for code, text in TEXTS.items() if text["severity"] == "cause"} == causes
    notes = {"ambiguous-layout", "absent-class", "missed-class", "mostly-masked", "temperature"}
    notes |= {"no-graph", "silent-target"}
    assert {code for code, text in TEXTS.items() if text["severity"] == "note"} == notes


@pytest.mark.filterwarnings("ignore:no spike in the batch is before")
def test_findings_are_those_of_numpy_on_each_library(backend):
    cases = [*diagnoses.HEALTHY, *(case for _, case in FAULTY)]
    # JAX compiles each operation for each shape, which takes much memory.
    for case in cases[:: 25 if backend.library == "jax" else 6]:
        loss, *arguments = case.arguments
        arguments = [on(backend, x) for x in arguments]
        options = {
            name: x if name in ("time_axis", "earlier") else on(backend, x)
            for name, x in case.options.items()
        }
        report = sx.diagnose(loss, *arguments, **options)
        # The tensors in this test belong to no graph.
        found = [code for code in codes(report) if code != "no-graph"]
        assert found == codes(report_of(case)), str(case)


SIGNED = np.linspace(-1, 1, FRESH.size).reshape(FRESH.shape)
POISSON, BERNOULLI = (kind(time_axis=-1) for kind in (sx.PoissonNLL, sx.BernoulliNLL))
LOG_RATES, COUNTS = diagnoses.LOG_RATES, diagnoses.COUNTS
FRESH_FIRST, TRAINED_BETWEEN = diagnoses.FRESH_FIRST, np.moveaxis(diagnoses.TRAINED, -1, 1)
RARE = (np.arange(FRESH.size) % 50 == 0).reshape(FRESH.shape)  # a mean of 0.0203


@pytest.mark.parametrize(
    ("arguments", "options", "seen"),
    [
        ((LOSS, SIGNED, LABEL), {},
         "100% of the values are fractional or negative (values range from -1 to 1)"),
        ((LOSS, SIGNED, LABEL), {"where": LABEL < 3},
         "100% of the values are fractional or negative (values range from -1 to 0.917)"),
        ((LOSS, np.where(np.arange(STEPS) < 10, POTENTIALS, 0), LABEL), {},
         "50% of the values are fractional or negative (values range from -1.64 to 2.09)"),
        ((LOSS, FRESH, 0 * LABEL + 2), {}, "all 24 labels are 2"),
        (BATCH, {"lengths": np.maximum(1, LABEL % 3)},
         "lengths are at most 2, but there are 20 steps"),
        (BATCH, {"weight": [0, 0, 0, 0]}, "the gradient of the loss is 0 at labels"),
        ((LOSS, FRESH, 0 * LABEL - 100), {}, "the gradient of the loss is 0 everywhere"),
        ((LOSS, FRESH, LABEL % 2), {}, "the largest label is 1, but there are 4 classes"),
        ((LOSS, diagnoses.FRESH_FIRST[:, :STEPS], LABEL[:STEPS]), {},  # [time, batch, class]
         "several axes of (20, 20, 4) have the same length, and the labels are below 4, as if the "
         "last axis held classes"),
        ((LOSS, TRAINED_BETWEEN[:STEPS], LABEL[:STEPS]), {},
         "several axes of (20, 20, 4) have the same length, and the labels are below 4, as if the "
         "last axis held classes"),
        ((diagnoses.entropy(time_axis=1), TRAINED_BETWEEN[:STEPS], LABEL[:STEPS]), {},
         "several axes of (20, 20, 4) have the same length"),
        ((LOSS, diagnoses.TRAINED[..., :4], LABEL), {},
         "several axes of (24, 4, 4) have the same length"),
        ((sx.SpikeRate(0.5, 0.02, time_axis=0), 3 * FRESH_FIRST[:1], LABEL), {},
         "the input has one time step, and entries up to 3"),
        ((LOSS, FRESH, LABEL % 2 * 2), {}, "no sample has label [1, 3]"),
        ((POISSON, 1000 + LOG_RATES, COUNTS), {}, "the loss is inf"),
        ((LOSS, diagnoses.WITH_NAN, LABEL), {},
         "the loss is nan, and entries of the input are NaN or infinite"),
        ((BERNOULLI, np.full(FRESH.shape, 5.0), RARE), {},
         "the mean rate is 48.9 times the mean count"),  # 0.993 / 0.0203
    ],
)  # fmt: skip
def test_finding_says_what_was_seen(arguments, options, seen):
    assert sx.diagnose(*arguments, **options).findings[0].seen == seen


def test_silence_is_a_problem_only_if_no_weight_can_learn():
    silent, hidden = 0 * FRESH, [WIDE]
    for sizes in ((), (1e-3, 1e-3), (0.0, 1.1e-8)):
        options = {"gradients": diagnoses.gradients(*sizes)} if sizes else {}
        report = sx.diagnose(LOSS, silent, LABEL, hidden=hidden, **options)
        assert "silent-output" in codes(report)
        assert not problems(report), sizes
    for size, code in ((0.0, "no-gradient"), (0.9e-8, "vanishing-gradient")):
        dead = diagnoses.gradients(size, size)
        report = sx.diagnose(LOSS, silent, LABEL, hidden=hidden, gradients=dead)
        assert [(x.code, x.severity) for x in report.findings] == [
            ("silent-output", "problem"), (code, "problem"),
        ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:no spike in the batch")
def test_advice_fits_the_loss():
    for rates in (None, (0.5, 0.02)):
        loss = sx.CrossEntropy(time_axis=-1, rates=rates)
        finding = sx.diagnose(loss, 0 * FRESH, LABEL).findings[0]
        assert finding.code == "silent-output"
        assert ("rates=(0.5, 0.02)" in finding.remedy) == (rates is None)  # it is not in use
        assert "surrogate" in finding.why + finding.remedy
    loss, silent = sx.times.CrossEntropy(silent_time=9.0, temperature=1.0), np.full((4, 3), np.inf)
    dead = diagnoses.gradients(0.0, 0.0)
    report = sx.diagnose(loss, silent, [0, 1, 2, 0], hidden=[silent], gradients=dead)
    assert {"silent-hidden", "silent-output", "no-gradient"} <= set(codes(report))
    (remedy,) = (x.remedy for x in report.findings if x.code == "silent-output")
    assert "penalty" in remedy
    assert "rates=" not in remedy
    assert not any("surrogate" in x.why + x.remedy for x in report.findings)


def test_layers_are_in_order_from_input_to_output():
    hidden = [WIDE, 0 * WIDE, np.ones_like(WIDE)]
    report = sx.diagnose(LOSS, 0 * FRESH, LABEL, hidden=hidden)
    assert [(x.code, x.names) for x in report.findings[:3]] == [
        ("silent-hidden", ("hidden.1",)), ("busy-hidden", ("hidden.2",)),
        ("silent-output", ("output",)),
    ]  # fmt: skip


@pytest.mark.parametrize("readout", READOUTS)
def test_bounds_are_a_remedy_only_of_losses_that_accept_them(readout):
    loss = sx.CrossEntropy(time_axis=-1, readout=readout)
    remedy = sx.diagnose(loss, 0 * FRESH, LABEL).findings[0].remedy
    assert ("rates=" in remedy) == (readout in ("count", "sqrt_count", "rate"))


def test_quiet_trains_are_no_problem_without_classes_or_after_learning():
    loss, rare = (
        sx.SpikeTime(time_constant=5.0, time_axis=-1),
        np.eye(200)[None, :24],
    )
    assert "quiet-output" not in codes(sx.diagnose(loss, rare, 0 * rare, earlier=1.0))
    learned = sx.diagnose(LOSS, QUIET, np.arange(24) // 6, earlier=0.0)
    assert not {"quiet-output", "not-moved"} & set(codes(learned))


def test_mask_of_a_likelihood_is_reported_above_90_percent():
    loss, entries = POISSON, np.arange(COUNTS.size)
    entries = entries.reshape(COUNTS.shape)
    for every, found in ((10, []), (11, ["mostly-masked"])):
        where = entries % every == 0
        report = sx.diagnose(loss, LOG_RATES, COUNTS, where=where)
        assert [code for code in codes(report) if code == "mostly-masked"] == found


def test_rates_in_hertz_warn_once():
    with pytest.warns(UserWarning, match="max_rate=10 is above 1") as warned:
        sx.SparsityEnforcer(10, min_rate=10, time_axis=-1)
    assert [each.filename for each in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        published.SparsityEnforcer(10, time_axis=-1)
        sx.SparsityEnforcer(1, time_axis=-1)


@pytest.mark.parametrize(
    ("levels", "shape", "found"),
    [(16, FRESH.shape, False), (17, FRESH.shape, True), (9, (2, 4, 5), False)],
)
def test_values_with_few_levels_are_graded_spikes(levels, shape, found):
    values = (np.arange(math.prod(shape)) % levels + 0.5).reshape(shape)
    assert ("not-spikes" in codes(sx.diagnose(LOSS, values, LABEL[: shape[0]]))) == found


ONE_HOT = (LABEL[:, None] == np.arange(4))[..., None] * np.ones(STEPS)


def test_busy_layer_is_a_problem_if_the_batch_has_not_moved():
    for spikes, severity in ((ONE_HOT, "note"), (np.roll(ONE_HOT, 1, axis=1), "problem")):
        report = sx.diagnose(LOSS, spikes, LABEL, hidden=[1 + 0 * WIDE], earlier=9.0)
        assert {x.code: x.severity for x in report.findings}.get("busy-hidden") == severity


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_unit_of_the_target_changes_no_finding(scale):
    random = np.random.default_rng(0)
    potentials = scale * random.normal(size=(20, 64, 3))
    target = scale * random.normal(size=(64, 3))
    weights = [scale * random.normal(size=shape) for shape in ((5, 4), (4, 3))]
    loss = sx.SquaredError(time_axis=0, readout="last")
    assert not problems(sx.diagnose(loss, potentials, target, gradients=weights))


class Own(sx.CrossEntropy):
    """A loss for which a function is registered."""


class Unknown(sx.CrossEntropy):
    """A loss whose function yields a code that no table has."""


@findings.register
def findings_of_own(loss: Own, batch):
    yield Finding("own", "note", f"the loss is {batch.value:.3g}", "why", "remedy")


@findings.register
def findings_of_unknown(loss: Unknown, batch):
    yield "no-code", "seen"


def test_registered_finding_is_added_to_those_of_the_bases():
    spikes, label = np.zeros((6, 4, 20)), [0, 1, 2, 3, 0, 1]
    spikes[:, :2] = 1
    report = sx.diagnose(Own(time_axis=-1, temperature=1e4), spikes, label)
    codes = [finding.code for finding in report.findings]
    assert {"own", "temperature"} <= set(codes)
    assert codes[-1] == "own"  # after those of the table
    assert f"the loss is {report.numbers['loss']:.3g}" in str(report)
    with raises(ValueError, "'no-code' is not a code of this library"):
        sx.diagnose(Unknown(time_axis=-1), spikes, label)
