"""The measurements of trainings run, and their pages have the tables of their records."""

import pytest

torch = pytest.importorskip("torch")

import advice
import measure
import penalties
import runs
import training_page
import verdict
import verdict_page


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """Binary spikes of 24 samples, and their labels, on one thread."""
    generator = torch.Generator().manual_seed(0)
    part = torch.rand((6, 24, 64), generator=generator).round(), torch.arange(24) % 10
    for module in (measure, penalties, verdict):
        monkeypatch.setattr(module.data, "load", lambda name: (part, part))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other in matrices as small as these
    yield part
    torch.set_num_threads(threads)


@pytest.mark.parametrize("module", [training_page, verdict_page])
def test_page_has_the_tables_of_its_record(module):
    written = module.PAGE.read_text(encoding="utf-8")
    expected = module.text(written, runs.read(module.RECORD))
    assert written == expected, f"run tools/training/{module.__name__}.py"


@pytest.mark.parametrize("name", ["sigmoid", "recurrent", "convolution"])
def test_losses_are_measured(name):
    settings = [each for each in measure.settings() if each[::2] == (name, 0.02)]
    assert [loss for _, loss, _ in settings] == list(measure.LOSSES)
    before = measure.measured(settings[0], epochs=0)
    assert before != measure.measured(settings[0], epochs=2)


def test_penalties_are_printed(capsys):
    penalties.main(epochs=1)
    assert len(capsys.readouterr().out.splitlines()) == len(penalties.PENALTIES)


@pytest.mark.parametrize("kind", ["dense", "recurrent", "convolution", "batch norm", "SGD"])
def test_network_is_trained_in_each_way(monkeypatch, kind):
    row = "small", kind, "plain"
    monkeypatch.setitem(advice.TASKS, "small", advice.Task("", 24, 1, 12, fails=1.1, learns=1.1))
    monkeypatch.setitem(advice.ROWS, row[:2], (("plain",), 1))
    monkeypatch.setattr(advice, "MOST", 10)
    monkeypatch.setattr(advice, "VARIED", (row,))
    (record,) = advice.measured(row)
    assert list(record["accuracy"]) == ["as drawn", *advice.WAYS]


def test_record_counts_networks_and_findings(monkeypatch):
    monkeypatch.setattr(verdict, "DIGITS", verdict.DIGITS._replace(epochs=1))
    found = verdict.of_sets([verdict.measured(("plain", i)) for i in range(2)])["plain"]
    assert sum(group["networks"] for group in found.values()) == 2
    assert len(found["fails"]["flagged"]) == 2  # before training and after the epoch


def test_record_counts_what_the_report_finds_after_training(monkeypatch):
    monkeypatch.setattr(verdict, "DIGITS", verdict.DIGITS._replace(epochs=1))
    (one,) = [verdict.ended(("plain", 1))]
    assert one["set"] == "plain"
    codes = [["quiet-output"], ["not-moved", "busy-hidden"], []]
    ended = [{"set": "plain", "group": "fails", "codes": x} for x in codes]
    counts = {"networks": 3, "reported": 2, "without earlier": 1}
    assert verdict.of_ended(ended) == {"digits": {"fails": counts}}
