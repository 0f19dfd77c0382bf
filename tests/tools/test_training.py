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
    kinds = {x.recurrent if name == "timing" else x.convolution for x in drawn}
    assert kinds == {True, False}


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


SHORT = advice.Task("", 24, 1, 12, fails=1.1, learns=1.1)
DENSE = advice.Key("digits", "dense", "plain", 0)


@pytest.mark.parametrize("kind", ["dense", "recurrent", "convolution", "batch norm", "SGD"])
def test_network_is_trained_in_each_way(monkeypatch, small_data, kind):
    monkeypatch.setitem(advice.TASKS, "small", SHORT)
    key = next(advice.keys("small", kind, "plain"))
    record = json.loads(json.dumps(advice.measured(key, {}, tuple(advice.WAYS))))
    assert record["results"].keys() == {"as drawn", *advice.WAYS}
    depth = record["settings"]["depth"]
    for result in record["results"].values():
        assert len(result["rates"]) == depth + 1
    assert all(0.025 <= rate <= 0.1 for rate in record["results"]["3 %"]["rates"])
    assert advice.key_of(record) == key
    assert advice.group(record) == "fails"


def test_network_whose_rate_is_not_reached_does_not_learn(monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("no input")

    monkeypatch.setattr(verdict, "trained", fail)
    result = advice.trained(SMALL, SHORT, random_networks.Scaling())
    assert (result["accuracy"], result["error"]) == (0, "no input")


def test_ways_that_were_measured_before_are_not_measured_again(monkeypatch):
    monkeypatch.setattr(advice, "trained", lambda *arguments: {"accuracy": 0.5})
    known = {"as drawn": {"accuracy": 0.1}, "3 %": {"accuracy": 0.9}}
    results = advice.measured(DENSE, known, ("3 %", "wide"))["results"]
    assert results == known | {"wide": {"accuracy": 0.5}}


def test_networks_are_measured_until_there_are_enough_of_each_group(monkeypatch):
    def trained(settings, task, scaling=None):
        return {"accuracy": next(accuracies)}

    accuracies = iter([0.1, 0.8, 0.5, 0.2, 0.9, 0.8, 0.7, 0.8, 0.9])
    monkeypatch.setattr(advice, "trained", trained)
    wanted = {"fails": 1, "learns": 2}
    every = advice.keys("digits", "dense", "plain")
    records = list(advice.measure(every, {}, ("3 %",), wanted))
    assert [list(one["results"].values()) for one in records] == [
        [{"accuracy": x} for x in each]
        for each in ((0.1, 0.8), (0.5,), (0.2,), (0.9, 0.8), (0.7,), (0.8, 0.9))
    ]


@pytest.mark.compiles
@pytest.mark.parametrize("cell", ["JAX", "Norse"])
def test_layers_of_a_framework_are_scaled(small_data, cell):
    pytest.importorskip(cell.lower())
    if cell == "JAX":
        pytest.importorskip("optax")
    settings = advice.changed(SMALL._replace(cell=cell, depth=1), "3 %")
    result = advice.trained(settings, SHORT, random_networks.Scaling())
    assert all(0.025 <= rate <= 0.1 for rate in result["rates"])


def test_step_is_a_share_of_the_weights():
    network = random_networks.TorchNetwork(SMALL, 64)
    x, label = random_batch(64)
    scaling = random_networks.Scaling(0.02, warm_up=20)
    network.scale(scaling, verdict.loss_of(SMALL), x, label)
    weight, bias = network.layers[0][1].parameters()
    assert not bias.any()
    before = weight.detach().clone()
    network.step(verdict.loss_of(SMALL), x, label)
    size = random_networks.rms(before)
    assert float((weight - before).detach().abs().max()) == pytest.approx(
        0.02 * size / 20, rel=0.01
    )


def test_fluctuations_reach_the_threshold():
    settings = SMALL._replace(scale=1, decay=0.5, width=2000, depth=1, threshold=2)
    x, _ = random_batch(64)
    x = (2 * x - 1).repeat(3, 1, 1)
    network = random_networks.TorchNetwork(settings, 64)
    weight, _ = network.layers[0][1].parameters()
    membrane = torch.zeros(2000)
    for now in x:
        membrane = 0.5 * membrane + now @ weight.detach().T
    factor = random_networks.fluctuating(settings, x)
    assert factor * float(membrane.std()) == pytest.approx(2, rel=0.05)


def test_surrogate_is_as_wide_as_the_threshold():
    drawn = SMALL._replace(threshold=2, scale=4)
    assert advice.changed(drawn, "3 %")[1:3] == ("fast sigmoid", 0.5)
    assert advice.changed(drawn, "recipe")[1:3] == ("fast sigmoid", 1)
    assert advice.changed(drawn, "wide").scale == 1


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_networks_of_the_advice_are_attached(kind):
    keys = advice.keys("digits", kind, "plain")
    drawn = [advice.settings_of(next(keys)) for _ in range(40)]
    assert {settings.convolution for settings in drawn} == {kind == "convolution"}
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


def test_record_has_the_networks_that_were_trained_again():
    def record(index, **accuracies):
        results = {name: {"accuracy": each} for name, each in accuracies.items()}
        return DENSE._replace(index=index)._asdict() | {
            "settings": {"depth": 2},
            "results": results,
        }

    error = {"accuracy": 0.0, "error": "no input"}
    again = record(1, drawn=0.2)
    records = [record(3, drawn=0.1, wide=0.2), record(2, drawn=0.9), again]
    records.append(again | {"results": again["results"] | {"3 %": error}})
    for one in records:
        one["results"]["as drawn"] = one["results"].pop("drawn")
    first, second = verdict_page.of_advice(records)
    assert (first["index"], first["unreached"]) == (3, [])
    assert (second["index"], second["group"], second["unreached"]) == (1, "fails", ["3 %"])
    assert second["accuracy"] == {"3 %": 0.0, "as drawn": 0.2}
