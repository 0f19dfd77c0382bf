"""The training measurement runs with each loss, and its page has the tables of its record."""

import json

import pytest
import training_page

torch = pytest.importorskip("torch")

import measure


def _train(name, cell, **options):
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand((6, 24, 64), generator=generator) < 0.5).float()
    return measure.train(name, cell, 0.0, 0.02, spikes, torch.arange(24) % 10, **options)


def test_training_runs_with_each_loss():
    for name in measure.LOSSES:
        before, after = (_train(name, "narrow", epochs=epochs, seeds=[0]) for epochs in (0, 2))
        assert after.keys() == {"accuracy", "spikes", "silent", "ties"}, name
        assert after != before, name


def test_tie_counts_as_a_guess():
    spikes = torch.zeros((3, 1, 4, 10))  # [time, seed, sample, class]
    spikes[0, 0, 0, 3] = 1  # right and alone
    spikes[0, 0, 1, [3, 4]] = 1  # right, and one of two
    spikes[0, 0, 2, 4] = 1  # wrong; the last is silent: all ten classes tie
    assert measure.summary(spikes, torch.full((4,), 3)) == {
        "accuracy": [pytest.approx((1 + 0.5 + 0 + 0.1) / 4)],
        "spikes": [1.0],
        "silent": [0.5],
        "ties": [0.5],
    }


def test_page_has_the_tables_of_its_record():
    written = training_page.PAGE.read_text(encoding="utf-8")
    record = json.loads(training_page.RECORD.read_text(encoding="utf-8"))
    assert written == training_page.text(written, record), "run tools/training/training_page.py"
