"""`diagnose`: what is right has no problem, and one mistake is the first finding."""

import functools
import json
import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.calls import not_jax
from _support.cases import raises
from _support.diagnoses import (
    EXACT,
    FIRST,
    FRESH,
    LABEL,
    LENGTHS,
    POTENTIALS,
    QUIET,
    STEPS,
    WIDE,
)
from _support.programs import run_python
from _support.root import STAND_INS
from spikeloss_xp.diagnosis import Finding, findings
from spikeloss_xp.diagnosis._report import LOOK_AGAIN, MORE, texts
from spikeloss_xp.readouts import READOUTS
from spikeloss_xp.slayer import published

TEXTS = texts()
LOSS = sx.CrossEntropy(time_axis=-1)
PENALTY = sx.SparsityEnforcer(0.3, time_axis=-1)
BATCH = LOSS, FRESH, LABEL
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
    if x is None:
        return None
    if isinstance(x, dict):
        return {key: on(backend, each) for key, each in x.items()}
    if isinstance(x, list) and not isinstance(x[0], int):
        return [on(backend, each) for each in x]
    return backend.asarray(x)


def problems(report):
    """Return the codes of the problems."""
    return {finding.code for finding in report.findings if finding.severity == "problem"}


@pytest.mark.parametrize("case", diagnoses.HEALTHY, ids=str)
def test_healthy_batch_has_no_problem(case):
    assert not problems(report_of(case)), str(report_of(case))


@pytest.mark.slow(but=50)
@pytest.mark.parametrize("seed", range(1000))
def test_random_healthy_call_has_no_problem(seed):
    case = diagnoses.random_healthy(seed)
    report = sx.diagnose(*case.arguments, **case.options)
    assert not problems(report), str(report)


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


WRONG = {
    "shape of the labels": (LOSS, FRESH, LABEL[:-1], {}),
    "type of the labels": (LOSS, FRESH, LABEL / 2, {}),
    "shape of a mask": (LOSS, FRESH, LABEL, {"where": np.ones(7, bool)}),
    "type of a mask": (LOSS, FRESH, LABEL, {"where": np.ones(len(LABEL))}),
    "shape of the lengths": (LOSS, FRESH, LABEL, {"lengths": [3]}),
    "seconds as lengths": (LOSS, FRESH, LABEL, {"lengths": np.full(len(LABEL), 0.5)}),
    "shape of the weights": (LOSS, FRESH, LABEL, {"weight": [1.0]}),
    "axes of the spikes": (LOSS, FRESH[0], LABEL, {}),
    "list of spikes": (LOSS, [FRESH], LABEL, {}),
    "neurons of a class": (sx.CrossEntropy(time_axis=-1, num_classes=3), FRESH, LABEL, {}),
    "times": (sx.times.SpikeLatency(silent_time=1.0), FRESH[..., None], LABEL, {}),
    "layers": (
        sx.SparsityEnforcer(0.1, time_axis=-1),
        [FRESH, FRESH[0]],
        None,
        {"lengths": [2] * len(FRESH)},
    ),
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


def test_refused_value_is_a_finding_with_the_message_of_the_loss():
    with pytest.raises(ValueError, match="target") as error:
        LOSS(FRESH, LABEL + 1)
    report = sx.diagnose(LOSS, FRESH, LABEL + 1, hidden=[WIDE])
    assert [each.seen for each in report.findings] == [str(error.value)]
    vanishing = diagnoses.gradients(1e-6, 1.0)
    of_gradients = sx.diagnose(LOSS, FRESH, LABEL + 1, gradients=vanishing)
    assert codes(of_gradients) == ["refused", "vanishing-gradient"]
    of_penalty = sx.diagnose(
        sx.SparsityEnforcer(0.3, time_axis=-1), WIDE, lengths=[99] * 24, gradients=vanishing
    )
    assert codes(of_penalty) == ["refused", "vanishing-gradient"]
    assert report.numbers == {"loss": None}
    assert [layer.name for layer in report.layers] == ["hidden.0"]
    assert "loss" not in report.scalars()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_graph_and_gradient_of_a_tensor_stay_as_they_are(dtype):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(FRESH).to(getattr(torch, dtype)).requires_grad_()
    leaf.grad = torch.ones_like(leaf)
    spikes, label = leaf * 1, torch.tensor(LABEL)
    report = sx.diagnose(LOSS, spikes, label, hidden={"a": leaf})
    numpy_report = sx.diagnose(*BATCH, hidden={"a": FRESH})
    assert report.findings == numpy_report.findings
    assert report.layers == numpy_report.layers
    assert (leaf.grad == 1).all()
    assert spikes.requires_grad
    LOSS(spikes, label).backward()
    assert not (leaf.grad == 1).all()


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
        ((sx.SpikeRate(0.5, 0.02, time_axis=0, reduction="sum"), 3 * FRESH_FIRST[:1], LABEL), {},
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


GRADIENTS = {"fc1": [np.full((2, 3), 1e-3), np.full(3, 1e-3)], "fc2": np.full((3, 2), 2e-3)}


def test_string_is_a_table_of_layers_then_the_batch_then_the_findings():
    hidden, label = {"conv <1>": 0 * WIDE}, (LABEL + 1) % 4
    report = sx.diagnose(LOSS, EXACT, label, hidden=hidden, gradients=GRADIENTS)
    assert str(report).splitlines()[:12] == [
        "  layer                   rate  silent  always on  gradient  weight",
        "* hidden.conv <1>            0    100%         0%   1.0e-03  fc1.0",
        "  output                 0.125      0%         0%   2.0e-03  fc2",
        "",
        "loss                         10",
        "loss of equal scores         1.39",
        "accuracy                     0",
        "input, as it is read         [batch, class, time] = (24, 4, 20)",
        "classes, neurons of a class  (4, 1)",
        "fraction that is masked      0",
        "classes that never fire      0",
        "",
    ]
    of_findings = "\n\n".join(map(str, report.findings))
    assert str(report).endswith(f"\n\n{of_findings}\n\n{MORE}\n{LOOK_AGAIN}")
    assert max(map(len, str(report).splitlines())) <= 80
    for finding in report.findings:
        texts = (f"{finding.severity}: {finding.code}: {finding.seen}", finding.why, finding.remedy)
        assert " ".join(str(finding).split()) == " ".join(" ".join(texts).split())
    assert codes(report) == ["silent-hidden"]


def test_string_has_one_paragraph_for_several_layers_with_the_same_finding():
    report = sx.diagnose(*BATCH, hidden=[0 * WIDE, WIDE, 0 * WIDE])
    first, _ = report.findings
    text = str(first).replace(first.seen, f"{first.seen}; also hidden.2")
    assert " ".join(str(report).split()).endswith(" ".join(f"{text} {MORE} {LOOK_AGAIN}".split()))


def test_table_of_ten_layers_fits_80_columns():
    names = [*(f"encoder.blocks.{i}.attention.projection" for i in range(9)), "twelve_chars"]
    gradients = {f"{name}.weight": np.full((2, 2), 1e-30) for name in [*names, "head"]}
    hidden = dict.fromkeys(names, WIDE)
    report = sx.diagnose(*BATCH, hidden=hidden, gradients=gradients)
    lines = str(report).splitlines()[:12]
    assert max(map(len, lines)) <= 80
    assert lines[3].split()[1] == "...ntion.projection"
    assert lines[10].split()[1] == "hidden.twelve_chars"
    name = "block" * 20  # is not broken in the text
    assert f"hidden.{name}" in str(sx.diagnose(*BATCH, hidden={name: 0 * WIDE}))


def test_weights_without_a_layer_have_their_own_rows():
    report = sx.diagnose(*BATCH, gradients=GRADIENTS)
    first, second, third = str(report).splitlines()[1:4]
    assert first.split() == ["output", "0.21", "0%", "0%"]
    assert second.split() == ["1.0e-03", "fc1.0"]
    assert third.split() == ["2.0e-03", "fc2"]


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_squares_of_gradients_may_underflow_and_overflow(size):
    gradient = np.asarray([[-3, 0], [0, -4]], dtype="float32") * np.float32(size)
    (found,) = sx.diagnose(*BATCH, gradients=[gradient]).gradients
    assert found.rms == pytest.approx(12.5**0.5 * size, rel=1e-6, abs=0)  # of the entries not 0


def test_gradients_without_entries_are_left_out():
    gradients = {"a": np.ones((1, 3)), "b": np.ones((0, 3)), "c": np.ones((2, 2))}
    report = sx.diagnose(*BATCH, gradients=gradients)
    assert [gradient.name for gradient in report.gradients] == ["a", "c"]


def test_scalars_are_plain_floats_with_names_for_any_logger():
    hidden = {"conv 1": [WIDE, 0 * WIDE]}
    gradients = {"fc1.weight": np.full((2, 2), 3e-25, "f"), "fc1.bias": np.full(2, np.nan)}
    report = sx.diagnose(*BATCH, hidden=hidden, gradients=gradients)
    scalars = report.scalars()
    assert list(scalars) == [
        "loss", "accuracy",
        "hidden.conv_1.0/rate", "hidden.conv_1.0/silent", "hidden.conv_1.0/always_on",
        "hidden.conv_1.1/rate", "hidden.conv_1.1/silent", "hidden.conv_1.1/always_on",
        "output/rate", "output/silent", "output/always_on",
        "gradient/fc1.weight/rms",
    ]  # fmt: skip
    assert {type(x) for x in scalars.values()} == {float}
    assert json.loads(json.dumps(scalars, allow_nan=False)) == scalars
    assert scalars["loss"] == report.numbers["loss"]
    assert scalars["hidden.conv_1.0/rate"] == pytest.approx(WIDE.mean())
    assert scalars["hidden.conv_1.1/silent"] == 1
    size = scalars["gradient/fc1.weight/rms"]
    assert size == pytest.approx(3e-25, rel=1e-6, abs=0)  # its square is 0


def test_gradients_of_several_libraries_and_nested_containers_keep_their_order():
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    tensor = torch.full((2, 3), 2.0, dtype=torch.bfloat16)
    gradients = {"z": [tensor, None], "a": (jnp.full((2, 2), 3.0), {"layer10": np.eye(2)})}
    report = sx.diagnose(*BATCH, gradients=gradients)
    assert [(x.name, x.rms) for x in report.gradients] == [
        ("z.0", 2.0), ("z.1", None), ("a.0", 3.0), ("a.1.layer10", 1.0),
    ]  # fmt: skip


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


@pytest.mark.parametrize(
    ("sizes", "seen", "names"),
    [
        ((None, None), "all gradients are None: call diagnose after backward() and before "
         "zero_grad()", ("0.weight", "0.bias", "1.weight", "1.bias")),
        ((1e-3, 0.0, 0.0), "1.weight, 2.weight have no gradient", ("1.weight", "2.weight")),
        ((None, 1e-3), "0.weight, 0.bias have no gradient", ("0.weight", "0.bias")),
        ((0.0, 1e-3), "0.weight has no gradient", ("0.weight",)),
        ((0.0,) * 5, "0.weight, 1.weight, 2.weight and 2 more have no gradient",
         tuple(f"{i}.weight" for i in range(5))),
        ((0.0,) * 4, "0.weight, 1.weight, 2.weight and 1 more have no gradient",
         tuple(f"{i}.weight" for i in range(4))),
        ((0.0,) * 3, "0.weight, 1.weight, 2.weight have no gradient",
         tuple(f"{i}.weight" for i in range(3))),
        ((1e-20, 2e-9), "no gradient is larger than 2.0e-09", ("0.weight", "1.weight")),
        ((1e-6, 1e-3),
         "the gradient of 0.weight is 1.0e-06, and the gradient of 1.weight is 1.0e-03",
         ("0.weight",)),
        ((200.0, 3100.0), "the gradient of 1.weight is 3.1e+03", ("1.weight",)),
        ((np.nan, 1.0), "NaN or infinity in the gradient of 0.weight, 0.bias",
         ("0.weight", "0.bias")),
    ],
)  # fmt: skip
def test_finding_about_gradients_says_what_was_seen(sizes, seen, names):
    report = sx.diagnose(*BATCH, gradients=diagnoses.gradients(*sizes))
    assert (report.findings[0].seen, report.findings[0].names) == (seen, names)


def test_recurrent_weights_do_not_make_a_network_deeper():
    """With four hidden layers, a gradient may shrink by a factor of 6 in each, so by 1296."""
    sizes = {f"{i}.weight": np.full((2, 2), 6.5**i, "f") for i in range(5)}
    recurrent = {f"{i}.{name}": x for i in range(5) for name, x in (
        ("weight", sizes[f"{i}.weight"]), ("recurrent", sizes[f"{i}.weight"]),
    )}  # fmt: skip
    hidden = [WIDE] * 4
    for gradients in (sizes, recurrent):
        report = sx.diagnose(*BATCH, hidden=hidden, gradients=gradients)
        assert "vanishing-gradient" in codes(report)
    assert "vanishing-gradient" not in codes(sx.diagnose(*BATCH, gradients=recurrent))


@pytest.mark.parametrize("readout", READOUTS)
def test_bounds_are_a_remedy_only_of_losses_that_accept_them(readout):
    loss = sx.CrossEntropy(time_axis=-1, readout=readout)
    remedy = sx.diagnose(loss, 0 * FRESH, LABEL).findings[0].remedy
    assert ("rates=" in remedy) == (readout in ("count", "sqrt_count", "rate"))


def test_quiet_trains_are_no_problem_without_classes_or_after_learning():
    loss, rare = (
        sx.SpikeTime(time_constant=5.0, time_axis=-1, reduction="sum"),
        np.eye(200)[None, :24],
    )
    assert "quiet-output" not in codes(sx.diagnose(loss, rare, 0 * rare, earlier=1.0))
    learned = sx.diagnose(LOSS, QUIET, np.arange(24) // 6, earlier=0.0)
    assert not {"quiet-output", "not-moved"} & set(codes(learned))


def test_large_gradient_of_a_readout_is_no_finding():
    """No surrogate gradient lies between a readout and the loss."""
    gradients, rng = diagnoses.gradients(1e-3, 1e-3, 0.3), np.random.default_rng(0)
    potentials, target = rng.normal(size=(24, 4, 20)), np.zeros((24, 4))
    loss = sx.SquaredError(time_axis=-1, readout="max")
    assert "vanishing-gradient" not in codes(
        sx.diagnose(loss, potentials, target, gradients=gradients)
    )
    spikes = (potentials > 1).astype(float)
    assert "vanishing-gradient" in codes(sx.diagnose(loss, spikes, target, gradients=gradients))


def test_gradient_at_a_threshold_is_no_finding():
    healthy = [(1e-3 / 29, 1e-3), (1e-3 / 35, 3e-4, 1e-3), (1e-3 / 200, 1e-4, 3e-4, 1e-3)]
    healthy += [(1e-5, 1.1e-5), (1.0, 1e-3)]
    of_loss = STEPS * np.abs(sx.value_and_grad(LOSS)(FRESH, LABEL)[1]).max(axis=(1, 2)).sum()
    largest = 19.9 * of_loss
    for sizes in (*healthy, (1e-3, 0.0), (largest, largest)):
        report = sx.diagnose(*BATCH, gradients=diagnoses.gradients(*sizes))
        assert codes(report) == [], sizes
    for sizes in ((1.1e-7 * of_loss,) * 2, (1e-3 / 30, 1e-3)):
        exact = [np.full((2, 2), size) for size in sizes]
        for loss in (LOSS, replace(LOSS, reduction="batchmean")):
            assert codes(sx.diagnose(loss, FRESH, LABEL, gradients=exact)) == [], sizes
    loss = sx.CrossEntropy(time_axis=-1, reduction="sum")
    report = sx.diagnose(loss, FRESH, LABEL, gradients=diagnoses.gradients(24 * largest))
    assert codes(report) == []


def test_potentials_of_a_hidden_layer_are_no_finding_and_have_no_rate():
    report = sx.diagnose(*BATCH, hidden=POTENTIALS + 5)
    assert codes(report) == []
    (layer, output), line = report.layers, str(report).splitlines()[1]
    assert not layer.holds_spikes
    assert output.holds_spikes
    assert math.isnan(layer.rate)
    assert math.isnan(layer.always_on)
    assert line.split() == ["hidden", "-", "0%", "-"]
    assert "hidden/rate" not in report.scalars()
    assert "nan" not in report._repr_html_()


@not_jax  # it compiles each operation for each shape, which takes much memory
def test_lengths_mask_the_padding_of_hidden_layers(backend):
    lengths = np.asarray([10, 4])
    padding = np.arange(10) >= lengths[:, None, None]
    spikes = np.where(padding, np.nan, np.tile([[1.0], [0.0], [0.5]], (2, 1, 10)))
    report = sx.diagnose(
        LOSS, backend.asarray(spikes), [0, 1], lengths=lengths,
        hidden=[backend.asarray(spikes), backend.asarray(spikes[..., :4])],
    )  # fmt: skip
    first, other_steps, output = report.layers
    found = first.rate, first.silent, first.always_on, other_steps.rate
    np.testing.assert_allclose(found, [2 / 3, 1 / 3, 2 / 3, 2 / 3], rtol=1e-6)
    assert first[1:] == output[1:]
    assert "not-finite" not in codes(report)


@not_jax
@pytest.mark.parametrize("mask", ["lengths", "where"])
@pytest.mark.parametrize("padding", [-100, 0, 1])
def test_padded_steps_with_labels_change_nothing(backend, mask, padding):
    """With a label at each step, the report is the same as without the padding."""
    loss = sx.CrossEntropy(time_axis=1, moving_window=1)
    x = np.random.default_rng(0).normal(size=(8, 6, 5))
    label = np.where(np.arange(6) < 3, np.arange(8)[:, None] % 2 + 2, 4)
    label[0, 1] = -100  # also a step without a label, which is not masked
    cut = sx.diagnose(
        loss, backend.asarray(x[:, :4]), label[:, :4], hidden=[backend.asarray(x[:, :4])]
    )
    label[:, 4:] = padding
    x[:, 4:] = np.nan
    masks = {"lengths": np.full(8, 4), "where": np.broadcast_to(np.arange(6) < 4, (8, 6))}
    report = sx.diagnose(
        loss, backend.asarray(x), label, hidden=[backend.asarray(x)], **{mask: masks[mask]}
    )
    assert codes(report) == codes(cut)
    assert report.layers[0] == cut.layers[0]
    for name in (
        *("loss", "accuracy", "samples of each class"),
        *("confusion, labels by predictions", "fraction of labels without a gradient"),
    ):
        np.testing.assert_allclose(report.numbers[name], cut.numbers[name], rtol=1e-5, err_msg=name)


ONES, STEP, DOZEN = np.ones((12, 4, 5)), np.arange(5) == 3, np.arange(12) % 4
RATES = np.asarray([0.0, 0.5, 0.0])
CUT = np.where(np.arange(10) < 4, [[[1.0], [0.0], [0.0], [0.0]]], np.nan)
HALF, LATER = np.arange(STEPS) < 10, {"hidden": [np.where(np.arange(STEPS) < 10, WIDE, 1)]}


@pytest.mark.parametrize(
    ("arguments", "options", "numbers"),
    [
        ((PENALTY, np.ones((1, 2, 4))), {"lengths": [1]}, {"rate": 1}),
        ((sx.CrossEntropy(time_axis=-1, readout="max"), POTENTIALS + 5, LABEL), {},
         {"rate": math.nan, "always_on": math.nan}),
        ((PENALTY, RATES), {}, {"silent": 0, "rate": math.nan}),  # half a spike is a rate
        ((PENALTY, RATES[None]), {}, {"silent": 2 / 3, "rate": math.nan}),
        ((PENALTY, [CUT]), {"lengths": [4]}, {"rate": 0.25, "finite": True}),
        ((PENALTY, [CUT]), {"where": np.isfinite(CUT)}, {"rate": 0.25, "finite": True}),
        ((PENALTY, [FRESH]), {"where": HALF, "hidden": [WIDE[..., :7]]},
         {"rate": WIDE[..., :7].mean()}),  # the masks are only those of the layers of the penalty
        (BATCH, {"where": HALF} | LATER, {"rate": WIDE[..., :10].mean()}),
        (BATCH, {"hidden": np.ones((24, 1, 1))}, {"rate": 1}),
        ((LOSS, ONES[..., STEP], DOZEN), {}, {"always_on": 0}),
        ((LOSS, ONES, DOZEN), {"where": STEP}, {"always_on": 0}),
        ((LOSS, ONES[..., :2], DOZEN), {}, {"always_on": 1}),
        ((LOSS, ONES, DOZEN), {"lengths": np.where(np.arange(12) < 6, 1, 5)}, {"always_on": 1}),
        ((LOSS, np.ones((1, 4, 7)), [0]), {}, {"always_on": 0}),
        ((LOSS, np.ones((1, 4, 8)), [0]), {}, {"always_on": 1}),
    ],
)  # fmt: skip
def test_numbers_of_a_layer(arguments, options, numbers):
    layer = sx.diagnose(*arguments, **options).layers[0]
    for name, expected in numbers.items():
        assert getattr(layer, name) == pytest.approx(expected, nan_ok=True), name


def test_pixels_are_neurons():
    for name, x in (("output", FRESH), ("hidden", WIDE)):
        pixels = x.reshape(*x.shape[:1], 2, -1, x.shape[-1])
        (found, expected) = (
            sx.diagnose(None, each, time_axis=-1)
            if name == "output"
            else sx.diagnose(*BATCH, hidden=[each])
            for each in (pixels, x)
        )
        assert found.layers == expected.layers, name


@pytest.mark.parametrize(
    "loss", [sx.times.SpikeTime(time_constant=0.5), sx.times.VictorPurpura(cost=0.5)]
)
def test_target_times_may_come_from_each_library(backend, loss):
    times, target = np.random.default_rng(0).random((2, 24, 3, 4)).round(1)
    report = sx.diagnose(loss, *map(backend.asarray, (times, target)))
    assert report.numbers["loss"] == pytest.approx(loss(times, target), rel=1e-5)


def test_graded_spikes_of_a_single_sample_are_counted_as_spikes():
    """Only every third sample is looked at to decide whether the layer is binary."""
    binary = (np.random.default_rng(0).random((len(LABEL), 120, STEPS)) < 0.05).astype(float)
    spikes = np.where(np.arange(len(LABEL))[:, None, None] == 1, 0.3 * binary, binary)
    assert spikes.size > 3 * (1 << 14)
    (*layers, _) = sx.diagnose(*BATCH, hidden=[spikes, 2 * binary]).layers
    for layer in layers:
        assert layer.rate == pytest.approx(binary.mean())


def test_spikes_without_a_graph_are_a_note_unless_gradients_are_passed():
    torch = pytest.importorskip("torch")
    x = torch.tensor(FRESH)
    assert codes(sx.diagnose(LOSS, x, LABEL)) == ["no-graph"]
    assert codes(sx.diagnose(LOSS, x.clone().requires_grad_(), LABEL)) == []
    assert codes(sx.diagnose(LOSS, x, LABEL, gradients=[torch.ones(2, 2)])) == []
    with torch.no_grad():
        assert codes(sx.diagnose(LOSS, x, LABEL)) == []
    layers = [x.clone().requires_grad_(), x]
    assert codes(sx.diagnose(sx.SparsityEnforcer(0.3, time_axis=-1), layers)) == ["no-graph"]


class Module:
    """An object that holds arrays, but is no sequence and no mapping."""


TIME_FIRST = np.moveaxis(FRESH, -1, 0)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((LOSS, FRESH), {}, TypeError, "target"),
        ((LOSS, 1j * FRESH, LABEL), {}, TypeError, "input"),
        ((LOSS, FRESH.astype(object), LABEL), {}, TypeError, "input"),
        ((LOSS, FRESH.astype(str), LABEL), {}, TypeError, "input"),
        ((PENALTY, FRESH, LABEL), {}, TypeError, "SparsityEnforcer takes no target"),
        ((PENALTY, np.asarray(0.5)), {}, ValueError, r"must have a batch, .* got shape \(\)"),
        (BATCH, {"hidden": [TIME_FIRST]}, ValueError, r"hidden\.0 must have as many samples as"),
        (BATCH, {"gradients": {}}, ValueError, "gradients must hold at least one array or None"),
        (BATCH, {"gradients": [[]]}, ValueError, "gradients must hold at least one array or None"),
        (BATCH, {"gradients": Module()}, TypeError, r"gradients .*jax\.tree\.leaves"),
        (BATCH, {"gradients": [1.0]}, TypeError, r"gradients \(0\) must be an array or None; got"),
        (BATCH, {"gradients": {"a": 1j * WIDE}}, TypeError, r"gradients \(a\) .*complex"),
        (BATCH, {"hidden": [1j * WIDE]}, TypeError, "hidden.0 .*complex"),
        (BATCH, {"hidden": ["text"]}, TypeError, "hidden.0 "),
        (BATCH, {"hidden": [*WIDE[:, :, :2].transpose(2, 0, 1)]}, ValueError, "stack them"),
        (BATCH, {"hidden": {1: WIDE, "a": WIDE[:0]}}, ValueError, "hidden.a has no elements"),
        ((sx.SpikeRate, FRESH, LABEL), {"time_axis": -1}, TypeError, "must be a loss of this lib"),
        (("mean", FRESH, LABEL), {"time_axis": -1}, TypeError, "another function of the input and"),
        ((None, FRESH), {}, TypeError, "time_axis must be given"),
        ((None, FRESH), {"time_axis": 0, "weight": [1, 1]}, TypeError, "weight"),
        (
            (None, FRESH),
            {"time_axis": 0, "where": np.ones((1, 1, 1, 1), bool), "hidden": FRESH},
            ValueError,
            "where must hold bools of shape",
        ),
        ((None, FRESH), {"time_axis": 3}, ValueError, "time_axis=3 is not an axis of output"),
        ((None, np.ones(5)), {"time_axis": 0}, ValueError, r"must have a batch .* shape \(5,\)"),
        (BATCH, {"time_axis": 1}, ValueError, r"time_axis must be that of the loss \(-1\); got 1"),
    ],
)
def test_wrong_call_raises(arguments, options, error, words):
    with pytest.raises(error, match=words):
        sx.diagnose(*arguments, **options)


def test_call_in_a_compiled_function_raises():
    jax = pytest.importorskip("jax")
    spikes, label = jax.numpy.asarray(FRESH), jax.numpy.asarray(LABEL)
    calls = [
        lambda x: sx.diagnose(LOSS, x, label).numbers["loss"],
        lambda x: sx.diagnose(LOSS, spikes, label, hidden=[x]).numbers["loss"],
        lambda x: sx.diagnose(LOSS, spikes, label, gradients={"a": x}).numbers["loss"],
    ]
    for call, name in zip(calls, ("input", "input", r"gradients \(a\)"), strict=True):
        with pytest.raises(TypeError, match=f"{name} must be an array whose values can be read"):
            jax.jit(call)(spikes)  # it traces all arrays, even those that are not its arguments


@pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean", "none"])
def test_loss_in_a_report_is_the_mean_whatever_the_reduction(reduction):
    options = {"lengths": [20, 3] * 12, "weight": [1.0, 2.0, 3.0, 4.0]}
    mean = sx.CrossEntropy(time_axis=-1, moving_window=3)
    report = sx.diagnose(replace(mean, reduction=reduction), FRESH, LABEL, **options)
    assert report.numbers["loss"] == pytest.approx(mean(FRESH, LABEL, **options))


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


def test_large_layers_are_reduced_in_chunks(monkeypatch):
    hidden = [WIDE, WIDE > 0, 0.5 * WIDE]  # bools are converted, and graded spikes are counted
    whole = sx.diagnose(*BATCH, hidden=hidden, lengths=LENGTHS)
    monkeypatch.setattr("spikeloss_xp.diagnosis._spikes.CHUNK", 1 << 10)
    assert sx.diagnose(*BATCH, hidden=hidden, lengths=LENGTHS) == whole


WAITS_OF_PYTORCH = """
import torch, torch_device
import spikeloss_xp as sx
from spikeloss_xp.diagnosis import Finding, findings
torch_device.install()
on_device = torch_device.GpuTensor
spikes = on_device((torch.rand(20, 24, 10) < 0.2).float())
hidden = on_device((torch.rand(20, 24, 50) < 0.1).float())
gradients = [on_device(torch.randn(50, 30)), on_device(torch.randn(10, 50))]
options = dict(hidden=hidden, gradients=gradients)
for window in (None, 5):
    loss = sx.CrossEntropy(time_axis=0, moving_window=window)
    for label in (torch.arange(24) % 10, on_device(torch.arange(24) % 10)):
        torch_device.reset_counts()
        sx.diagnose(loss, spikes, label, **options)
        print(torch_device.WAITS.total())
"""


@pytest.mark.compiles
def test_all_numbers_are_copied_from_a_device_at_once():
    """The second number of each pair includes the labels, which are on the device too."""
    pytest.importorskip("torch")
    assert run_python(WAITS_OF_PYTORCH, path=STAND_INS).split() == ["1", "2"] * 2


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


@pytest.mark.parametrize(
    ("levels", "shape", "found"),
    [(16, FRESH.shape, False), (17, FRESH.shape, True), (9, (2, 4, 5), False)],
)
def test_values_with_few_levels_are_graded_spikes(levels, shape, found):
    values = (np.arange(math.prod(shape)) % levels + 0.5).reshape(shape)
    assert ("not-spikes" in codes(sx.diagnose(LOSS, values, LABEL[: shape[0]]))) == found


# Networks that have learned, any loss, or none ----------------------------------------------------

ABOUT_SIZES = {"vanishing-gradient", "exploding-gradient", "zero-gradient", "no-gradient"}
ONE_HOT = (LABEL[:, None] == np.arange(4))[..., None] * np.ones(STEPS)


def test_busy_layer_is_a_problem_if_the_batch_has_not_moved():
    for spikes, severity in ((ONE_HOT, "note"), (np.roll(ONE_HOT, 1, axis=1), "problem")):
        report = sx.diagnose(LOSS, spikes, LABEL, hidden=[1 + 0 * WIDE], earlier=9.0)
        assert {x.code: x.severity for x in report.findings}.get("busy-hidden") == severity


@pytest.mark.parametrize(
    ("loss", "spikes", "target"),
    [
        (sx.SpikeRate(1.0, 0.0, time_axis=-1, reduction="sum"), ONE_HOT, LABEL),
        (sx.SpikeTime(time_axis=-1, reduction="sum"), ONE_HOT, ONE_HOT),
        (sx.SquaredError(time_axis=-1), ONE_HOT, ONE_HOT.mean(axis=-1)),
        (sx.SparsityEnforcer(0.5, time_axis=-1), ONE_HOT / 4, None),
        (lambda x, y: 0.0 * x.sum(), ONE_HOT, LABEL),
    ],
)
def test_gradients_of_0_at_the_minimum_of_a_loss_are_no_problem(loss, spikes, target):
    axis = None if isinstance(loss, sx.losses.Loss) else -1
    for last, found in ((0.0, set()), (1.0, {"no-gradient"})):  # something is detached
        given = [np.zeros((5, 4)), np.full((4, 4), last)]
        report = sx.diagnose(loss, spikes, target, time_axis=axis, gradients=given)
        assert {*codes(report)} & ABOUT_SIZES == found, str(report)
        assert not problems(report) & ABOUT_SIZES
    missing = sx.diagnose(loss, spikes, target, time_axis=axis, gradients=[None, given[1]])
    assert "no-gradient" in problems(missing)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
def test_unit_of_the_target_changes_no_finding(scale):
    random = np.random.default_rng(0)
    potentials = scale * random.normal(size=(20, 64, 3))
    target = scale * random.normal(size=(64, 3))
    weights = [scale * random.normal(size=shape) for shape in ((5, 4), (4, 3))]
    loss = sx.SquaredError(time_axis=0, readout="last")
    assert not problems(sx.diagnose(loss, potentials, target, gradients=weights))


def test_without_a_loss_layers_and_gradients_are_reported(backend):
    hidden = [backend.asarray(WIDE), backend.asarray(0 * WIDE)]
    weights = [backend.asarray(np.full((3, 3), x, "float32")) for x in (1e-9, 1e3)]
    output = backend.asarray(FRESH)
    report = sx.diagnose(None, output, time_axis=-1, hidden=hidden, gradients=weights)
    assert [layer.name for layer in report.layers] == ["hidden.0", "hidden.1", "output"]
    assert report.layers[-1].rate == pytest.approx(FRESH.mean())
    assert report.numbers == {"output, as it is read": "[batch, neuron, time] = (24, 4, 20)"}
    assert [(x.code, x.severity) for x in report.findings] == [
        ("silent-hidden", "note"), ("vanishing-gradient", "note"),
    ]  # fmt: skip
    assert "class" not in str(report)
    assert "loss" not in report.scalars()


@pytest.mark.parametrize(
    ("sizes", "found"),
    [
        ((1e-12, 1e-12), {"vanishing-gradient"}),
        ((1e6, 1e6), set()),
        ((math.nan, 1.0), {"not-finite"}),
        ((0.0, 1.0), set()),
        ((0.0, 0.0), {"no-gradient"}),
        ((None, 1.0), {"no-gradient"}),
    ],
)
def test_problems_of_gradients_without_a_loss(sizes, found):
    given = [None if size is None else np.full((2, 2), size) for size in sizes]
    assert problems(sx.diagnose(None, FRESH, time_axis=-1, gradients=given)) == found


def test_another_loss_is_called_once_with_spikes_and_target():
    torch = pytest.importorskip("torch")
    calls, target = [], torch.tensor(LABEL)

    def loss(*given):
        calls.append(given)
        return torch.nn.functional.cross_entropy(given[0].sum(-1), given[1])

    spikes = torch.tensor(FRESH, requires_grad=True)
    report = sx.diagnose(loss, spikes, target, time_axis=-1, hidden=[torch.tensor(WIDE)])
    ((first, second),) = calls
    assert torch.equal(first, spikes)
    assert second is target
    assert report.numbers["loss"] == report.scalars()["loss"]
    assert report.numbers["loss"] == pytest.approx(loss(spikes, target).item())
    assert spikes.grad is None


@pytest.mark.parametrize(
    ("shape", "size", "found"),
    [
        ((), 1e-12, {"vanishing-gradient"}),
        ((), 1e-2, set()),
        ((), 1e4, {"exploding-gradient"}),
        ((1,), 1e4, {"exploding-gradient"}),  # like the losses of snnTorch for each step
        (None, 1e4, set()),  # the loss cannot be differentiated
    ],
)
def test_gradients_are_compared_with_that_of_another_loss(shape, size, found):
    torch = pytest.importorskip("torch")

    def loss(x, y):
        value = torch.nn.functional.cross_entropy(x.sum(-1), y)
        return 2.3 if shape is None else value.reshape(shape)

    given, weights = (torch.tensor(FRESH), torch.tensor(LABEL)), [np.full((2, 2), size)] * 2
    report = sx.diagnose(loss, *given, time_axis=-1, gradients=weights)
    assert {*codes(report)} == found


def failing(x):
    raise RuntimeError("no such file")


@pytest.mark.parametrize(
    ("loss", "seen"),
    [
        (failing, "RuntimeError: no such file"),
        (lambda x: x, "the loss must be a number; got an array of shape (24, 4, 20)"),
        (lambda x: float("nan"), "the loss is nan"),
    ],
)
def test_loss_that_fails_is_a_finding_and_the_layers_are_shown(loss, seen):
    report = sx.diagnose(loss, FRESH, time_axis=-1, hidden=[0 * WIDE])
    assert report.findings[0].seen == seen
    assert report.layers[0].silent == 1
    assert "silent-hidden" in codes(report)


def test_loss_may_compute_gradients_of_its_own():
    torch = pytest.importorskip("torch")

    def loss(x):
        (slope,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
        return slope.abs().mean()

    report = sx.diagnose(loss, torch.tensor(FRESH, requires_grad=True), time_axis=-1)
    assert report.numbers["loss"] == pytest.approx(2 * FRESH.mean())


def test_several_outputs_are_layers():
    heads = {"boxes": FRESH, "classes": np.zeros((24, 7, STEPS))}
    report = sx.diagnose(None, heads, time_axis=-1, hidden=[WIDE], lengths=[10] * 24)
    assert [layer.name for layer in report.layers] == ["hidden.0", "output.boxes", "output.classes"]
    assert report.layers[1].rate == pytest.approx(FRESH[..., :10].mean())
    assert [(x.code, x.names) for x in report.findings] == [("silent-output", ("output.classes",))]


def test_time_axis_may_repeat_that_of_the_loss():
    for axis in (-1, 2):
        assert sx.diagnose(*BATCH, time_axis=axis) == sx.diagnose(*BATCH)


# Times, numbers and recordings --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:no spike in the batch")
def test_layers_of_spike_times_have_a_row():
    times = np.where(np.arange(6) < 3, np.inf, 4.0 + np.arange(8)[:, None]) + np.zeros((8, 6))
    output = np.full((8, 3), 15.0) + np.arange(3)
    loss = sx.times.CrossEntropy(temperature=1.0, silent_time=17.0)
    report = sx.diagnose(loss, output, np.arange(8) % 3, hidden={"first": times})
    first, last = report.layers
    assert (first.name, first.silent, first.first_spike) == ("hidden.first", 0.5, 7.5)
    assert (last.name, last.silent, last.first_spike) == ("output", pytest.approx(1 / 3), 15.5)
    assert math.isnan(first.rate)
    lines = str(report).splitlines()
    assert lines[0].split()[:2] == ["layer", "first"]
    assert lines[1].split()[:3] == ["hidden.first", "7.5", "50%"]
    scalars = report.scalars()
    assert scalars["hidden.first/first_spike"] == 7.5
    assert "hidden.first/rate" not in scalars
    assert "7.5" in report._repr_html_()


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


def test_long_lists_are_shown_as_ranges():
    potentials = np.random.default_rng(0).normal(size=(20, 4, 30))
    loss = sx.SquaredError(time_axis=0, readout="last")
    report = sx.diagnose(loss, potentials, potentials[-1] + 1)
    (line,) = [line for line in str(report).splitlines() if line.startswith("largest gradient")]
    assert line.startswith("largest gradient of each neuron  from ")
    assert "class" not in str(report)


def test_model_of_a_recording_that_explains_it_has_no_vanishing_gradient():
    random = np.random.default_rng(0)
    log_rates = random.normal(-1.5, 1.0, size=(8, 30, 100))
    counts = random.poisson(np.exp(log_rates)).astype(float)
    loss, weights = POISSON, diagnoses.gradients(1e-6, 1e-1)
    assert not problems(sx.diagnose(loss, log_rates, counts, gradients=weights))
    unrelated = log_rates[::-1]
    assert codes(sx.diagnose(loss, unrelated, counts, gradients=weights)) == ["vanishing-gradient"]


# The figure and the text --------------------------------------------------------------------------


def drawn(report):
    """Return the title, the names and the lengths of the bars of each panel of a figure."""
    pytest.importorskip("matplotlib").use("Agg")
    figure = report.plot()
    figure.canvas.draw()
    assert figure.get_figwidth() <= 390 / figure.dpi
    return {
        axes.get_title(loc="left"): dict(
            zip(
                [text.get_text() for text in axes.get_yticklabels()],
                [bar.get_width() for bar in axes.patches],
                strict=True,
            )
        )
        for axes in figure.axes
    }


def test_figure_has_a_bar_for_each_layer_and_weight():
    weights = {"a": np.full((2, 2), 1e-9), "b" * 30: np.ones((2, 2)), "bias": np.ones(2)}
    report = sx.diagnose(None, FRESH, time_axis=-1, hidden=[WIDE], gradients=weights)
    assert drawn(report) == {
        "rate": pytest.approx({"hidden.0": WIDE.mean(), "output": FRESH.mean()}),
        "silent neurons": {"hidden.0": 0, "output": 0},
        "gradient": pytest.approx({"a": 1e-9, "..." + 16 * "b": 1}, abs=0),
    }
    assert report.plot().axes[2].get_xlim() == pytest.approx((1e-10, 10), rel=1e-12, abs=0)
    weights["a"][:] = math.nan
    report = sx.diagnose(None, FRESH, time_axis=-1, gradients=weights)
    bad, good = (bar.get_facecolor() for bar in report.plot().axes[2].patches)
    assert bad != good


def test_figure_of_a_likelihood_has_the_score_and_the_rate_of_each_neuron():
    counts = np.where(np.arange(4)[:, None] == 3, 0, COUNTS)
    kept = np.arange(STEPS) < 15
    score = POISSON.bits_per_spike(LOG_RATES[..., kept], counts[..., kept], per="neuron")
    assert math.isnan(score[3])
    bars = drawn(sx.diagnose(POISSON, LOG_RATES, counts, where=kept))
    assert list(bars) == ["bits per spike of each neuron", "mean rate of each neuron"]
    scores, rates = ([*each.values()] for each in bars.values())
    assert scores == pytest.approx([*score], nan_ok=True)
    assert rates == pytest.approx(np.exp(LOG_RATES[..., kept]).mean(axis=(0, 2)))


@pytest.mark.parametrize("size", [0.0, math.nan, math.inf])
def test_figure_of_gradients_without_a_size_can_be_drawn(size):
    given = [np.full((2, 2), size), None]
    assert len(drawn(sx.diagnose(None, 0 * FRESH, time_axis=-1, gradients=given))) == 3


def test_figure_without_a_bar_raises():
    pytest.importorskip("matplotlib")
    with raises(ValueError, "pass hidden or gradients"):
        sx.diagnose(LOSS, FRESH, LABEL + 1).plot()


def test_html_has_the_table_and_escapes_names():
    report = sx.diagnose(*BATCH, hidden={"<a>": WIDE}, gradients={"<b>": np.full((2, 2), 1e-5)})
    html = report._repr_html_()
    assert "<a>" not in html
    assert "<td>hidden.&lt;a&gt;<td>" in html
    assert "<td>1.0e-05<td>&lt;b&gt;" in html
    assert "<pre>loss" in html


def test_report_on_six_layers_fits_40_lines_and_80_columns():
    hidden = [WIDE, *[0 * WIDE] * 5]
    weights = {f"{i}.weight": np.full((2, 2), 10.0**-i) for i in range(6, -1, -1)}
    text = str(sx.diagnose(LOSS, 0 * FRESH, LABEL, hidden=hidden, gradients=weights))
    assert len(text.splitlines()) <= 40, text
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith(f'The guide "What diagnose finds" describes all findings.\n{LOOK_AGAIN}')


# Findings of other people -----------------------------------------------------------------------


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
    with raises(ValueError, "a code of its own, 'no-code', must be a Finding"):
        sx.diagnose(Unknown(time_axis=-1), spikes, label)
