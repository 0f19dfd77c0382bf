"""The statistics of layers: masks, potentials, graded spikes and spike times."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.diagnoses import FRESH, LABEL, LENGTHS, POTENTIALS, STEPS, WIDE, codes

LOSS = sx.CrossEntropy(time_axis=-1)
PENALTY = sx.SparsityEnforcer(0.3, time_axis=-1)
BATCH = LOSS, FRESH, LABEL


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


def test_graded_spikes_of_a_single_sample_are_counted_as_spikes():
    """Only every third sample is looked at to decide whether the layer is binary."""
    binary = (np.random.default_rng(0).random((len(LABEL), 120, STEPS)) < 0.05).astype(float)
    spikes = np.where(np.arange(len(LABEL))[:, None, None] == 1, 0.3 * binary, binary)
    assert spikes.size > 3 * (1 << 14)
    (*layers, _) = sx.diagnose(*BATCH, hidden=[spikes, 2 * binary]).layers
    for layer in layers:
        assert layer.rate == pytest.approx(binary.mean())


def test_large_layers_are_reduced_in_chunks(monkeypatch):
    hidden = [WIDE, WIDE > 0, 0.5 * WIDE]  # bools are converted, and graded spikes are counted
    whole = sx.diagnose(*BATCH, hidden=hidden, lengths=LENGTHS)
    monkeypatch.setattr("spikeloss_xp.diagnosis._spikes.CHUNK", 1 << 10)
    assert sx.diagnose(*BATCH, hidden=hidden, lengths=LENGTHS) == whole


def test_several_outputs_are_layers():
    heads = {"boxes": FRESH, "classes": np.zeros((24, 7, STEPS))}
    report = sx.diagnose(None, heads, time_axis=-1, hidden=[WIDE], lengths=[10] * 24)
    assert [layer.name for layer in report.layers] == ["hidden.0", "output.boxes", "output.classes"]
    assert report.layers[1].rate == pytest.approx(FRESH[..., :10].mean())
    assert [(x.code, x.names) for x in report.findings] == [("silent-output", ("output.classes",))]


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
