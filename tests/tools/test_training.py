"""The measurements of trainings run, and their pages have the tables of their records."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import advice
import measure
import networks
import penalties
import repair_page
import runs
import training_data
import training_page
import verdict
import verdict_page


@pytest.fixture(autouse=True)
def small_data(monkeypatch):
    """Binary spikes of 24 samples, and their labels, on one thread."""
    generator = torch.Generator().manual_seed(0)
    part = torch.rand((6, 24, 64), generator=generator).round(), torch.arange(24) % 9
    for module in (measure, penalties, verdict):
        monkeypatch.setattr(module.data, "load", lambda name: (part, part))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other in matrices as small as these
    yield part
    torch.set_num_threads(threads)


@pytest.mark.parametrize("module", [repair_page, training_page, verdict_page])
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


def test_recordings_have_their_own_lengths():
    (x, label), (test, test_label) = training_data.speech(2)
    assert (x.shape, test.shape) == ((58, 270, 12), (58, 370, 12))
    assert label.bincount().tolist() == 9 * [30]
    assert len(test_label) == 370
    lengths = training_data.lengths_of(x)
    assert (lengths.min(), lengths.max()) == (14, 52)
    assert (x[::2] == x[1::2]).all()


@pytest.mark.slow
def test_recordings_equal_those_of_aeon():
    """Its files are read here, because aeon 1.6 cannot be imported with NumPy 2.4."""
    aeon = pytest.importorskip("aeon", reason="aeon is not in the test extra")
    folder = Path(aeon.__file__).parent / "datasets" / "data" / "JapaneseVowels"
    texts = [(folder / f"JapaneseVowels_{part}.ts").read_text() for part in ("TRAIN", "TEST")]
    rows = [row.split(":") for text in texts for row in text.split("@data\n")[1].splitlines()]
    recordings = [np.array([x.split(",") for x in of], float) for *of, _ in rows]
    with np.load(runs.ROOT / "tests" / "data" / "japanese_vowels.npz") as file:
        copy = {name: file[name] for name in file.files}
    assert copy["lengths"].tolist() == [x.shape[1] for x in recordings]
    assert copy["speakers"].tolist() == [int(speaker) - 1 for *_, speaker in rows]
    half = 0.02 + 1e-9  # the largest difference after rounding to multiples of 0.04
    assert abs(copy["coefficients"] / 25 - np.concatenate(recordings, axis=1)).max() < half


@pytest.mark.parametrize("kind", ["dense", "recurrent", "convolution", "batch norm", "SGD"])
def test_network_is_trained_in_each_way(monkeypatch, kind):
    row = "small", kind, "plain"
    monkeypatch.setitem(advice.TASKS, "small", advice.Task("", 24, 1, 12, fails=1.1, learns=1.1))
    monkeypatch.setitem(advice.ROWS, row[:2], (("plain",), 1))
    monkeypatch.setattr(advice, "MOST", 10)
    monkeypatch.setattr(advice, "VARIED", (row,))
    (record,) = advice.measured(row)
    assert list(record["accuracy"]) == ["as drawn", *advice.WAYS]


@pytest.mark.parametrize(("name", "kind"), [("MNIST", "dense"), ("speech", "recurrent")])
def test_network_is_trained_on_other_data_with_and_without_bounds(monkeypatch, name, kind):
    small = {"samples": 24, "epochs": 1, "batch": 12, "seeds": 2}
    monkeypatch.setitem(advice.TASKS, name, advice.TASKS[name]._replace(**small))
    monkeypatch.setitem(advice.ROWS, (name, kind), ((), 1))
    (record,) = advice.measured((name, kind, "speech"))
    ways = repair_page.ON_OTHER_DATA
    assert tuple(record["accuracy"]) == (ways if name == "speech" else ways[:4])


def test_network_is_judged_before_after_100_updates_and_at_the_end(monkeypatch):
    monkeypatch.setattr(verdict, "LOOKS", (0, 1, 2))
    monkeypatch.setattr(verdict, "UPDATES", 2)
    records = verdict.with_groups([verdict.judged(("digits 15", i)) for i in range(3)])
    assert [one["kind"] for one in records] == ["dense", "recurrent", "convolution"]
    assert all(len(one["looks"]) == 3 for one in records)
    assert not all(one["fails"] for one in records)
    for cause in verdict.REMOVED:
        assert verdict.without(("digits 15", 1, cause)) <= 1


def test_recurrent_cells_have_the_gradients_of_their_operations(monkeypatch, small_data):
    found, changes = [], {"surrogate": "arctan", "slope": 1.0, "threshold": 0.5, "scale": 4.0}
    for is_fused in (True, False):
        monkeypatch.setattr(networks.Neurons, "is_fused", is_fused)
        study = verdict.Study("digits 15", 1, **changes)
        network, (x, label) = study.network.double(), small_data
        gradients = network.gradients(study.loss(network(x.double()), label))
        found.append({name: x.clone() for name, x in gradients.items()})
    assert study.settings.recurrent
    assert all(x.any() for x in found[0].values())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("number", "of", "words"), [(0, 10, "0 (0 to 28)"), (5, 10, "50 (24 to 76)")]
)
def test_interval_is_that_of_wilson(number, of, words):
    assert verdict_page.interval(number, of) == words
