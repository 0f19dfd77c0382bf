"""The measurements of trainings run, and their pages have the tables of their records."""

import json

import numpy as np
import pytest
import training_page
import verdict_page

torch = pytest.importorskip("torch")

import advice
import measure
import networks
import runs
import verdict

SMALL = networks.Settings("plain", "arctan", 2, 3, scale=2, threshold=0.5, rate=0.005, bounds=True)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other in matrices as small as these
    yield
    torch.set_num_threads(threads)


def random_batch(inputs):
    """Return binary spikes of 24 samples, and their labels."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((6, 24, inputs), generator=generator).round(), torch.arange(24) % 10


@pytest.fixture
def small_data(monkeypatch):
    part = random_batch(64)
    monkeypatch.setattr(verdict.data, "load", lambda name: (part, part))


@pytest.mark.parametrize("module", [training_page, verdict_page])
def test_page_has_the_tables_of_its_record(module):
    written = module.PAGE.read_text(encoding="utf-8")
    record = json.loads(module.RECORD.read_text(encoding="utf-8"))
    assert written == module.text(written, record), f"run tools/training/{module.__name__}.py"


@pytest.mark.parametrize("kind", [{"depth": 2}, {"recurrent": True}, {"convolution": True}])
def test_training_changes_a_network_with_each_loss(monkeypatch, kind):
    part = random_batch(40)
    monkeypatch.setattr(measure.data, "load", lambda name: (part, part))
    settings = measure.PLAIN["sigmoid"]._replace(bias=1.0, **kind)
    monkeypatch.setitem(measure.REPORTED, "small", measure.Network("", settings))
    before = measure.train(measure.Setting("small", "count", 0.02), epochs=0, seeds=2)
    for loss in [*measure.LOSSES, "count, in rates"] if settings.depth == 2 else ["count"]:
        after = measure.train(measure.Setting("small", loss, 0.02), epochs=2, seeds=2)
        assert after["spikes"] != before["spikes"], loss
        assert len(after["accuracy"]) == 2


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


@pytest.mark.parametrize(
    "changes", [{"convolution": True, "normalised": True, "skip": True}, {"detached": 1}]
)
def test_record_has_a_look_at_each_epoch(small_data, changes):
    settings = SMALL._replace(**changes)
    accuracy, looks = json.loads(json.dumps(verdict.trained(settings)))
    assert 0 <= accuracy <= 1
    assert len(looks) == 1 + verdict.TASK.epochs
    assert looks[0]["loss"] != looks[-1]["loss"]
    assert len(looks[0]["layers"]) == settings.depth + 1
    detached = 0 if settings.detached is None else settings.detached + 1
    assert sum(each["rms"] is None for each in looks[0]["gradients"]) == 2 * detached


@pytest.mark.parametrize("name", networks.SETS)
def test_streams_have_different_networks(name):
    drawn = {networks.draw(name, x, i) for x in networks.STREAMS for i in range(20)}
    assert len(drawn) == 20 * len(networks.STREAMS)
    kinds = {x.recurrent if name == "timing" else x.convolution for x in drawn}
    assert kinds == {True, False}


@pytest.mark.parametrize("surrogate", networks.OWN)
def test_network_in_jax_equals_the_one_in_torch(surrogate):
    pytest.importorskip("optax")
    settings = SMALL._replace(surrogate=surrogate, seeds=1)  # both then draw the same weights
    x, label = random_batch(64)

    def loss(output, label):
        return verdict.loss_of(settings)(output.reshape(6, 24, -1), label)

    expected, found = (
        networks.build(settings._replace(cell=cell), 64).inspect(loss, x[:, None], label)
        for cell in ("plain", "JAX")
    )
    assert found[0] == pytest.approx(float(expected[0]), rel=1e-5)
    for name, gradient in expected[2].items():
        np.testing.assert_allclose(found[2][name], gradient, atol=1e-5)


SHORT = advice.Task("", 24, 1, 12, fails=1.1, learns=1.1)
DENSE = advice.Key("digits", "dense", "plain", 0)


@pytest.mark.parametrize("kind", ["dense", "recurrent", "convolution", "batch norm", "SGD"])
def test_network_is_trained_in_each_way(monkeypatch, small_data, kind):
    monkeypatch.setitem(advice.TASKS, "small", SHORT)
    key = next(advice.keys("small", kind, "plain"))
    ways = "wide", "recipe", "3 %", "fluctuations"
    record = json.loads(json.dumps(advice.measured(key, None, ways)))
    assert list(record["accuracy"]) == ["as drawn", *ways]
    assert runs.key_of(advice.Key, record) == key
    assert record["group"] == "fails"


@pytest.mark.compiles
@pytest.mark.parametrize("cell", ["plain", "JAX", "Norse"])
def test_scaled_layers_fire_at_the_rate_and_change_slowly(cell):
    pytest.importorskip({"JAX": "optax", "Norse": "norse"}.get(cell, "torch"))
    settings = advice.changed(SMALL._replace(cell=cell, depth=1), "3 %")
    network, batch = networks.build(settings, 64), random_batch(64)
    network.scale(networks.Scaling(), verdict.loss_of(settings), *batch)
    layers = network.evaluated(network.weights, batch[0])
    assert all(0.025 <= float(spikes.mean()) <= 0.1 for spikes in layers)
    assert not network.weights[0]["bias"].any()
    before = np.array([x.tolist() for x in network.weights[0]["kernel"]])
    network.step(verdict.loss_of(settings), *batch)
    moved = np.array([x.tolist() for x in network.weights[0]["kernel"]]) - before
    assert np.abs(moved).max() == pytest.approx(0.03 * networks.rms(before) / 20, rel=0.01)


def test_networks_are_measured_until_there_are_enough_of_each_group(monkeypatch):
    accuracies = iter([0.1, None, 0.5, 0.2, 0.9, 0.8, 0.7, 0.8, 0.9])
    monkeypatch.setattr(advice, "trained", lambda key, way: next(accuracies))
    every = advice.keys("digits", "dense", "plain")
    records = list(advice.measure(every, {}, ("3 %",), {"fails": 1, "learns": 2}))
    assert [list(one["accuracy"].values()) for one in records] == [
        [0.1, 0.0], [0.5], [0.2], [0.9, 0.8], [0.7], [0.8, 0.9],
    ]  # fmt: skip
    assert [one["unreached"] for one in records] == [["3 %"], [], [], [], [], []]
    known = {runs.key_of(advice.Key, one): one for one in records}  # is not measured again
    every = advice.keys("digits", "dense", "plain")
    assert not list(advice.measure(every, known, ("3 %",), {"fails": 1, "learns": 2}))


def test_fluctuations_reach_the_threshold():
    settings = SMALL._replace(scale=1, decay=0.5, width=2000, depth=1, threshold=2)
    x, _ = random_batch(64)
    x = (2 * x - 1).repeat(3, 1, 1)
    weight = networks.build(settings, 64).weights[0]["kernel"].detach()
    membrane = torch.zeros(2000)
    for now in x:
        membrane = 0.5 * membrane + now @ weight
    factor = networks.fluctuating(settings, x)
    assert factor * float(membrane.std()) == pytest.approx(2, rel=0.05)


def test_record_counts_networks_and_findings():
    def look(*problems, without=()):
        return {"problems": list(problems), "without gradients": list(without)}

    fails, learns = ({"set": "plain", "group": group} for group in ("fails", "learns"))
    records = [
        fails | {"looks": [look("busy-hidden", "busy-hidden"), look()]},
        fails | {"looks": [look(without=["silent-output"]), look("no-gradient")]},
        learns | {"looks": [look(), look("saturated")]},
    ]
    found = verdict_page.of_sets(records)["plain"]
    assert found["fails"] == {
        "networks": 2,
        "flagged": [1, 1],
        "without gradients": 1,
        "codes": {"busy-hidden": 1},
    }
    assert [found[name]["flagged"] for name in ("between", "learns")] == [[], [0, 1]]
