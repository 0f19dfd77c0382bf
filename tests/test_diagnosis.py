"""`diagnose`: what is right has no problem, and one mistake is the first finding."""

import functools
import tomllib
from importlib import resources

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.diagnoses import EXACT, FRESH, LABEL, WIDE

TEXTS = tomllib.loads((resources.files(sx) / "data" / "findings.toml").read_text(encoding="utf-8"))
LOSS = sx.CrossEntropy(time_axis=-1)
FAULTY = [(code, case) for code, cases in diagnoses.FAULTY.items() for case in cases]


@functools.cache
def report_of(case):
    """Return the report of a case."""
    return sx.diagnose(*case.arguments, **case.options)


def codes(report):
    """Return the codes of the findings."""
    return [finding.code for finding in report.findings]


def on(backend, x):
    """Return the arrays of an argument, which may be nested, on a backend."""
    if isinstance(x, dict):
        return {key: on(backend, each) for key, each in x.items()}
    if isinstance(x, list) and not isinstance(x[0], int):
        return [on(backend, each) for each in x]
    return backend.asarray(x)


def assert_no_problem(report):
    assert not [each for each in report.findings if each.severity == "problem"], str(report)


@pytest.mark.parametrize("case", diagnoses.HEALTHY, ids=str)
def test_healthy_batch_has_no_problem(case):
    assert_no_problem(report_of(case))


@pytest.mark.parametrize("name", diagnoses.HEALTHY_NETWORKS)
def test_healthy_network_has_no_problem(name):
    outputs = diagnoses.network(updates=0), diagnoses.network(updates=30)
    assert_no_problem(report_of(diagnoses.HEALTHY_NETWORKS[name](*outputs)))


@pytest.mark.parametrize("case", diagnoses.NO_FINDING, ids=str)
def test_batch_at_a_threshold_has_no_note(case):
    assert codes(report_of(case)) == []


@pytest.mark.filterwarnings("ignore:no spike of the batch is before")
@pytest.mark.parametrize(("code", "case"), FAULTY, ids=str)
def test_mistake_is_the_first_finding(code, case):
    report = report_of(case)
    assert codes(report)[:1] == [code], str(report)
    names = list(TEXTS)
    places = [names.index(each) for each in codes(report)]
    assert places == sorted(set(places)) or code == "not-finite"  # which several layers may have


def test_each_finding_has_a_case_and_problems_stand_before_notes():
    assert set(diagnoses.FAULTY) == set(TEXTS)
    severities = [text["severity"] for text in TEXTS.values()]
    assert severities == sorted(severities, reverse=True)
    notes = {"ambiguous-layout", "absent-class", "labels-too-low", "ties", "mostly-masked"}
    notes |= {"certain-and-wrong", "one-answer"}
    assert {code for code, text in TEXTS.items() if text["severity"] == "note"} == notes


@pytest.mark.filterwarnings("ignore:no spike of the batch is before")
def test_findings_are_those_of_numpy_on_each_library(backend):
    cases = [*diagnoses.HEALTHY, *(case for _, case in FAULTY)]
    for case in cases[::6]:
        loss, *arguments = case.arguments
        arguments = [on(backend, x) for x in arguments]
        options = {name: on(backend, x) for name, x in case.options.items()}
        report = sx.diagnose(loss, *arguments, **options)
        assert codes(report) == codes(report_of(case)), str(case)


WRONG = {
    "shape of the labels": (LOSS, FRESH, LABEL[:-1], {}),
    "type of the labels": (LOSS, FRESH, LABEL / 2, {}),
    "shape of a mask": (LOSS, FRESH, LABEL, {"where": np.ones(7, bool)}),
    "type of a mask": (LOSS, FRESH, LABEL, {"where": np.ones(len(LABEL))}),
    "shape of the lengths": (LOSS, FRESH, LABEL, {"lengths": [3]}),
    "seconds as lengths": (LOSS, FRESH, LABEL, {"lengths": np.full(len(LABEL), 0.5)}),
    "shape of the weights": (LOSS, FRESH, LABEL, {"weight": [1.0]}),
    "axes of the spikes": (LOSS, FRESH[0], LABEL, {}),
    "neurons of a class": (sx.CrossEntropy(time_axis=-1, num_classes=3), FRESH, LABEL, {}),
    "times": (sx.times.SpikeLatency(silent_time=1.0), FRESH[..., None], LABEL, {}),
    "layers": (sx.SparsityEnforcer(0.1), [FRESH, FRESH[0]], None, {"lengths": [2] * len(FRESH)}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shape_or_type_raises_as_a_call(name):
    loss, spikes, target, options = WRONG[name]
    targets = () if target is None else (target,)
    with pytest.raises((ValueError, TypeError)) as of_call:
        loss(spikes, *targets, **options)
    with pytest.raises(of_call.type) as raised:
        sx.diagnose(loss, spikes, *targets, **options)
    assert str(raised.value) == str(of_call.value)


def test_missing_target_raises():
    with pytest.raises(TypeError, match="target"):
        sx.diagnose(LOSS, FRESH)


def test_refused_value_is_a_finding_with_the_message_of_the_loss():
    with pytest.raises(ValueError, match="target") as error:
        LOSS(FRESH, LABEL + 1)
    report = sx.diagnose(LOSS, FRESH, LABEL + 1, hidden=[WIDE])
    assert [each.seen for each in report.findings] == [str(error.value)]
    assert report.numbers["mean loss"] is None
    assert any("hidden[0]" in name for name in report.numbers)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_graph_and_gradient_of_a_tensor_stay_as_they_are(dtype):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(FRESH).to(getattr(torch, dtype)).requires_grad_()
    leaf.grad = torch.ones_like(leaf)
    spikes, label = leaf * 1, torch.tensor(LABEL)
    report = sx.diagnose(LOSS, spikes, label, hidden={"a": leaf})
    assert report.findings == sx.diagnose(LOSS, FRESH, LABEL, hidden={"a": FRESH}).findings
    assert (leaf.grad == 1).all()
    assert spikes.requires_grad
    LOSS(spikes, label).backward()
    assert not (leaf.grad == 1).all()


def test_string_has_every_number_and_finding():
    label = (LABEL + 1) % 4
    report = sx.diagnose(LOSS, EXACT, label, hidden={"<a>": 0 * WIDE})
    assert len(report.findings) == 3
    lines = str(report).splitlines()
    for name in report.numbers:
        assert sum(line.startswith(f"{name}  ") for line in lines) == 1, name
    for each in report.findings:
        at = lines.index(f"{each.severity}: {each.code}: {each.seen}")
        assert lines[at + 1 : at + 3] == [f"    {each.why}", f"    {each.remedy}"]
    assert "hidden['<a>']" in str(report)
    html = report._repr_html_()
    assert html.startswith("<pre>")
    assert "<a>" not in html
    assert "&lt;a&gt;" in html


@pytest.mark.parametrize(
    ("spikes", "label", "options", "seen"),
    [
        (np.linspace(-1, 1, FRESH.size).reshape(FRESH.shape), LABEL, {},
         "100% of the values are fractions or below 0, from -1 to 1"),
        (FRESH, 0 * LABEL + 2, {}, "all 24 labels are 2"),
        (FRESH, LABEL, {"lengths": np.maximum(1, LABEL % 3)}, "lengths are at most 2 of 20 steps"),
        (FRESH, LABEL % 2, {}, "the largest label is 1, of 4 classes"),
        (FRESH, LABEL % 2 * 2, {}, "no sample has label [1, 3]"),
    ],
)  # fmt: skip
def test_finding_says_what_was_seen(spikes, label, options, seen):
    assert sx.diagnose(LOSS, spikes, label, **options).findings[0].seen == seen


def test_string_without_a_finding_says_so():
    text = str(sx.diagnose(LOSS, FRESH, LABEL))
    assert text.endswith("\n\nnothing found")
    assert "[batch, class, time] = (24, 4, 20)" in text
    assert "(4, 1)" in text
    assert "[6, 6, 6, 6]" in text


def test_numbers_are_those_by_hand():
    """Two samples, two classes and four steps; the last step of the second does not count."""
    spikes = np.asarray([[[1, 1, 0, 1], [0, 0, 0, 0]], [[1, 0, 0, 0], [1, 0, 0, 1.0]]])
    report = sx.diagnose(
        LOSS, spikes, [0, 1], lengths=[4, 3], hidden=[np.asarray([[[0, 1]], [[0, 0]]])]
    )
    p = 1 / (1 + np.exp(3))  # of the wrong class, with 3 spikes against 0; 1 against 1 is a tie
    expected = {
        "mean loss": (-np.log(1 - p) + np.log(2)) / 2,
        "input, as it is read": "[batch, class, time] = (2, 2, 4)",
        "classes, neurons of a class": (2, 1),
        "classes that never fire": 0,
        "share that is masked": 1 / 8,
        "largest gradient of each class": [0.25, 0.25],
        "loss of equal scores": np.log(2),
        "samples of each class": [1, 1],
        "accuracy": 0.5,
        "share of ties": 0.5,
        "confusion, labels by answers": [[1, 0], [1, 0]],
        "share of labels without a gradient": 0,
        "output: share of steps with a spike": 5 / 14,
        "output: share of neurons that are silent": 0,
        "output: share of neurons that fire at every step": 0,
        "output: share of samples that are silent": 0,
        "hidden[0]: share of steps with a spike": 1 / 4,
        "hidden[0]: share of neurons that are silent": 0,
        "hidden[0]: share of neurons that fire at every step": 0,
        "hidden[0]: share of samples that are silent": 1 / 2,
    }
    assert list(report.numbers) == list(expected)
    for name, number in expected.items():
        got = report.numbers[name]
        assert got == number if isinstance(number, str) else np.allclose(got, number), name
    assert codes(report) == ["ambiguous-layout", "ties"]


def test_neurons_with_target_trains_are_classes():
    report = sx.diagnose(sx.SpikeTime(), FRESH, FRESH)
    assert report.numbers["classes, neurons of a class"] == (4, 1)
