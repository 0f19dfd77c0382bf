"""A report as text, HTML, a figure and scalars."""

import json
import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import diagnoses
from _support.cases import raises
from _support.diagnoses import EXACT, FRESH, LABEL, STEPS, WIDE, codes
from spikeloss_xp.diagnosis._report import LOOK_AGAIN, MORE

LOSS = sx.CrossEntropy(time_axis=-1)
BATCH = LOSS, FRESH, LABEL


POISSON = sx.PoissonNLL(time_axis=-1)
LOG_RATES, COUNTS = diagnoses.LOG_RATES, diagnoses.COUNTS
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


def test_long_lists_are_shown_as_ranges():
    potentials = np.random.default_rng(0).normal(size=(20, 4, 30))
    loss = sx.SquaredError(time_axis=0, readout="last")
    report = sx.diagnose(loss, potentials, potentials[-1] + 1)
    (line,) = [line for line in str(report).splitlines() if line.startswith("largest gradient")]
    assert line.startswith("largest gradient of each neuron  from ")
    assert "class" not in str(report)


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
