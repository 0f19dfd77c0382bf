"""The training measurement runs with each loss, and its page has the tables of its record."""

import json

import pytest
import training_page

torch = pytest.importorskip("torch")

import measure


@pytest.mark.parametrize("layers", ["one hidden", "recurrent", "convolution"])
def test_training_changes_a_network_with_each_loss(monkeypatch, layers):
    generator = torch.Generator().manual_seed(0)
    part = torch.rand((6, 24, 40), generator=generator), torch.arange(24) % 10
    monkeypatch.setattr(measure.data, "load", lambda name: (part, part))
    monkeypatch.setitem(measure.REPORTED, "small", measure.Network("", "sigmoid", layers, 1.0))
    before = measure.train(measure.Setting("small", "count", 0.02), epochs=0, seeds=2)
    for loss in [*measure.LOSSES, "count, in rates"] if layers == "one hidden" else ["count"]:
        after = measure.train(measure.Setting("small", loss, 0.02), epochs=2, seeds=2)
        assert after["spikes"] != before["spikes"], loss
        assert len(after["third"]) == len(after["accuracy"]) == 2


def test_tie_counts_as_a_guess():
    counts = torch.zeros((1, 4, 10))  # [seed, sample, class]
    counts[0, 0, 3] = 1  # right and alone
    counts[0, 1, [3, 4]] = 1  # right, and one of two
    counts[0, 2, 4] = 1  # wrong; the last is silent: all ten classes tie
    assert measure.summary(counts, torch.full((4,), 3)) == {
        "accuracy": [pytest.approx((1 + 0.5 + 0 + 0.1) / 4)],
        "spikes": [1.0],
        "silent": [0.5],
    }


def test_page_has_the_tables_of_its_record():
    written = training_page.PAGE.read_text(encoding="utf-8")
    record = json.loads(training_page.RECORD.read_text(encoding="utf-8"))
    assert written == training_page.text(written, record), "run tools/training/training_page.py"
