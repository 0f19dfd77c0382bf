"""The measurements of trainings run, and their pages have the tables of their records."""

import json

import numpy as np
import pytest
import training_page
import verdict_page

torch = pytest.importorskip("torch")

import advice
import measure
import random_networks
import verdict


def random_batch(inputs):
    """Return binary spikes of 24 samples, and their labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((6, 24, inputs), generator=generator).round(), torch.arange(24) % 10


@pytest.fixture
def small_data(monkeypatch):
    part = random_batch(64)
    monkeypatch.setattr(verdict.data, "load", lambda name: (part, part))


@pytest.mark.parametrize("layers", ["one hidden", "recurrent", "convolution"])
def test_training_changes_a_network_with_each_loss(monkeypatch, layers):
    part = random_batch(40)
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


@pytest.mark.parametrize("module", [training_page, verdict_page])
def test_page_has_the_tables_of_its_record(module):
    written = module.PAGE.read_text(encoding="utf-8")
    record = json.loads(module.RECORD.read_text(encoding="utf-8"))
    assert written == module.text(written, record), f"run tools/training/{module.__name__}.py"


SMALL = random_networks.Settings("plain", "arctan", 2, 3, 0.9, 2, 0.5, 0.005, True, "subtract", 0)
CONVOLUTION = SMALL._replace(convolution=True, normalised=True, skip=True)


@pytest.mark.parametrize("settings", [SMALL, CONVOLUTION, SMALL._replace(detached=1)])
def test_record_has_a_look_at_each_epoch(small_data, settings):
    record = json.loads(json.dumps(verdict.trained(settings)))
    assert 0 <= record["accuracy"] <= 1
    assert len(record["looks"]) == 1 + verdict.TASK.epochs
    before, *_, after = record["looks"]
    assert before["loss"] != after["loss"]
    assert len(before["layers"]) == settings.depth + 1
    detached = 0 if settings.detached is None else settings.detached + 1
    assert sum(each["rms"] is None for each in before["gradients"]) == 2 * detached


def test_gradient_that_is_not_finite_is_recorded():
    spikes, gradient = torch.ones((6, 24, 10)), torch.tensor([[torch.nan, 0.0]])
    batch = random_networks.Batch(None, spikes, [], {"weight": gradient})
    look = verdict.observed(verdict.loss_of(SMALL), batch, torch.arange(24) % 10)
    (found,) = json.loads(json.dumps(look))["gradients"]
    assert np.isnan(found["rms"])
    assert look["problems"][0] == "not-finite"
    assert "not-finite" not in look["without gradients"]


@pytest.mark.parametrize("name", random_networks.SETS)
def test_streams_have_different_networks(name):
    drawn = {
        random_networks.draw(name, stream, index)
        for stream in random_networks.STREAMS
        for index in range(20)
    }
    assert len(drawn) == 20 * len(random_networks.STREAMS)
    assert {settings.convolution for settings in drawn} == {True, False}


@pytest.mark.parametrize("surrogate", random_networks.OWN)
def test_network_in_jax_equals_the_one_in_torch(surrogate):
    jax = pytest.importorskip("jax")
    settings = SMALL._replace(surrogate=surrogate)
    network = random_networks.TorchNetwork(settings, 64)
    x, label = random_batch(64)
    loss = verdict.loss_of(settings)
    batch = network.inspect(loss, x, label)
    weights = [
        {"kernel": linear.weight.detach().numpy().T, "bias": linear.bias.detach().numpy()}
        for _, linear in network.layers
    ]
    sizes = random_networks.layers_of(settings, 64)

    def value(weights):
        output = random_networks.jax_spikes(weights, sizes, settings, x.numpy())[-1]
        return loss(output, label.numpy())

    gradients = jax.grad(value)(weights)
    for layer, (weight, bias) in zip(
        gradients, zip(*[iter(batch.gradients.values())] * 2, strict=True), strict=True
    ):
        np.testing.assert_allclose(layer["kernel"].T, weight, atol=1e-5)
        np.testing.assert_allclose(layer["bias"], bias, atol=1e-5)


SHORT = advice.Task("", 24, 1, 12, fails=1.1, learns=0.7, failing=1)


def test_each_change_of_a_failing_network_is_measured(monkeypatch, small_data):
    monkeypatch.setitem(advice.TASKS, "small", SHORT)
    key = next(advice.keys("small", "plain"))
    record = json.loads(json.dumps(advice.measured(key, {})))
    assert advice.fails(record)
    assert advice.complete(record)
    assert set(record["results"]) == set(verdict_page.CHANGES)
    for name, rate in (("scaled", 0.05), ("scaled to 10 %", 0.1)):
        rates = record["results"][name]["rates"]
        assert rates == pytest.approx([rate] * (record["settings"]["depth"] + 1), abs=0.02)


def test_network_that_learns_is_not_changed(monkeypatch, small_data):
    monkeypatch.setitem(advice.TASKS, "small", SHORT._replace(fails=0.0))
    record = advice.measured(next(advice.keys("small", "plain")), {})
    assert list(record["results"]) == ["as drawn"]
    assert advice.complete(record)
    assert not advice.fails(record)


def test_changes_that_were_measured_before_are_not_measured_again(monkeypatch):
    monkeypatch.setattr(advice, "trained", lambda change, task: {"accuracy": 0.5})
    key = next(advice.keys("digits", "plain"))
    known = {"as drawn": {"accuracy": 0.1}, "scaled": {"accuracy": 0.9}}
    before = {"task": "digits", "settings": SMALL._asdict(), "results": known}
    assert not advice.complete(before)
    results = advice.measured(key, known)["results"]
    assert (results["as drawn"], results["scaled"]) == (known["as drawn"], known["scaled"])
    assert {results[name]["accuracy"] for name in results.keys() - known.keys()} == {0.5}


@pytest.mark.compiles
@pytest.mark.parametrize("cell", ["JAX", "Norse"])
def test_layers_of_a_framework_are_scaled(cell):
    pytest.importorskip(cell.lower())
    if cell == "JAX":
        pytest.importorskip("optax")
    surrogate, slope = advice.WIDE[cell]
    settings = SMALL._replace(cell=cell, surrogate=surrogate, slope=slope, depth=1)
    network = random_networks.build(settings, 64)
    x, label = random_batch(64)
    network.scale(x, 0.05, learning_rates=True)
    loss = verdict.loss_of(settings)
    look = verdict.observed(loss, network.inspect(loss, x, label), label)
    rates = [layer["rate"] for layer in look["layers"]]
    assert rates == pytest.approx([0.05] * 2, abs=0.02)


def test_start_values_replace_only_settings_that_are_too_large():
    drawn = SMALL._replace(threshold=0.5, decay=0.95, rate=0.01, scale=4)
    start = advice.changes(drawn)["start values"].settings
    assert (start.surrogate, start.slope, start.scale) == ("fast sigmoid", 1, 1.5)
    assert (start.threshold, start.decay, start.rate) == (0.5, 0.9, 0.002)
    assert start.depth == drawn.depth
    assert start.seed == drawn.seed


def test_networks_of_the_advice_are_dense_and_attached():
    keys = advice.keys("digits", "plain")
    drawn = [random_networks.draw("plain", "advice", next(keys).index) for _ in range(40)]
    assert not any(settings.convolution for settings in drawn)
    assert {settings.detached for settings in drawn} == {None}


def look(*problems, without=()):
    return {"problems": list(problems), "without gradients": list(without)}


def test_record_counts_networks_and_findings():
    fails, learns = {"set": "plain", "accuracy": 0.2}, {"set": "plain", "accuracy": 0.8}
    records = [
        fails | {"looks": [look("busy-hidden", "busy-hidden"), look()]},
        fails | {"looks": [look(without=["silent-output"]), look("no-gradient")]},
        learns | {"looks": [look(), look("saturated")]},
    ]
    assert verdict_page.of_sets(records)["plain"] == {
        "fails": {
            "networks": 2,
            "flagged": [1, 1],
            "without gradients": 1,
            "codes": {"busy-hidden": 1},
        },
        "between": {"networks": 0, "flagged": [], "without gradients": 0, "codes": {}},
        "learns": {"networks": 1, "flagged": [0, 1], "without gradients": 0, "codes": {}},
    }


def test_record_has_the_first_failing_networks(monkeypatch):
    monkeypatch.setitem(advice.TASKS, "digits", advice.TASKS["digits"]._replace(failing=2))
    records = [
        {
            "task": "digits",
            "set": "plain",
            "index": index,
            "settings": {"depth": 2},
            "results": {"as drawn": {"accuracy": accuracy, "problems": ["saturated"] * 2}},
        }
        for index, accuracy in ((3, 0.1), (2, 0.9), (1, 0.2), (0, 0.25), (0, 0.3))
    ]
    found = verdict_page.of_failing(records)
    assert [one["index"] for one in found] == [0, 1]
    assert found[0]["problems"] == ["saturated"]
    assert found[0]["accuracy"] == {"as drawn": 0.3}
