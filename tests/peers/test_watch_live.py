"""Loggers and networks of other packages, as docs/guides/watch-a-training.md uses them."""

import csv
import json

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.networks import network_of
from _support.processes import recipes
from _support.side_by_side import import_peer, labels, torch, trains
from spikeloss_xp.torch import record

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long

LOSS = sx.CrossEntropy(time_axis=0)
INPUTS, LABEL = 4 * trains((12, 8, 64)), labels(10, (8,))


def own_network():
    return network_of(64, 20, 10, gain=4.0)  # so large that outputs fire


def train(network, log, batches=3, every=2):
    optimizer = torch.optim.SGD(network.parameters(), 0.5)
    loop = recipes("watch_torch").train
    loop(network, network.forward, LOSS, optimizer, [(INPUTS, LABEL)] * batches, log, every)


def rms(gradient):
    """Return the root mean square of the entries that are not 0."""
    return float(np.sqrt(np.mean(np.square(gradient[gradient != 0]))))


def gradient_sizes(network):
    """Return the size of each gradient in float64, as the scalars name them."""
    sizes = {name: rms(p.grad.double().numpy()) for name, p in network.named_parameters()}
    return {f"gradient/{name}/rms": size for name, size in sizes.items()}


def test_loop_logs_the_scalars_of_the_first_batch():
    network, logged = own_network(), []
    train(network, lambda *each: logged.append(each), batches=1)
    ((scalars, step),) = logged
    assert step == 0
    assert all(p.grad is None for p in network.parameters())
    before = own_network()
    hidden, output = before[:2](INPUTS), before(INPUTS)
    LOSS(output, LABEL).backward()
    assert scalars["hidden.1/rate"] == pytest.approx(hidden.mean().item())
    assert scalars["output/rate"] == pytest.approx(output.mean().item())
    assert scalars["output/rate"] > 0.05
    sizes = gradient_sizes(before)
    assert {name: scalars[name] for name in sizes} == pytest.approx(sizes, rel=1e-5)
    assert min(sizes.values()) > 0


def test_loop_prints_the_problems_of_a_network_that_has_not_moved(capsys):
    network, logged = own_network(), []
    for x in network.parameters():
        x.data.mul_(0.01)  # nothing fires
    train(network, lambda *each: logged.append(each), batches=3, every=1)
    assert capsys.readouterr().out == ""  # two updates are too few
    train(network, lambda *each: logged.append(each), batches=101, every=100)
    assert capsys.readouterr().out.startswith("problem: not-moved: after 100 updates")


# The loggers: each function reads back what was logged, as a dict from steps to scalars.


def from_tensorboard(module, folder):
    reader = import_peer("tensorboard.backend.event_processing.event_accumulator")
    module.writer.close()
    (file,) = (folder / "runs").glob("*/events*")
    events = reader.EventAccumulator(str(file)).Reload()
    found = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            found.setdefault(event.step, {})[name] = event.value
    return found


def from_wandb(module, folder):
    """Read the file of an offline run, whose records are chunks in blocks of 32 KiB."""
    record = import_peer("wandb.proto.wandb_internal_pb2").Record
    module.run.finish()
    import_peer("wandb").teardown()  # waits for the program that writes the file
    (file,) = (folder / "wandb").glob("offline-run-*/*.wandb")
    data, at, parts, found = file.read_bytes(), 7, b"", {}
    while at < len(data):
        if (left := -at % 32768) < 7 and left:  # too little for the header of a chunk
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the only chunk of a record, or its last
            history, parts = record.FromString(parts).history, b""
            items = {each.nested_key[0]: json.loads(each.value_json) for each in history.item}
            items = {name: x for name, x in items.items() if not name.startswith("_")}
            found |= {history.step.num: items} if items else {}
    return found


def from_mlflow(module, folder):
    mlflow, found = import_peer("mlflow"), {}
    mlflow.end_run()
    client, number = mlflow.MlflowClient(), module.run.info.run_id
    for name in client.get_run(number).data.metrics:
        for metric in client.get_metric_history(number, name):
            found.setdefault(metric.step, {})[name] = metric.value
    return found


@pytest.mark.parametrize("read", [from_tensorboard, from_wandb, from_mlflow])
def test_logged_scalars_are_read_back(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
        "MLFLOW_TRACKING_URI": f"file:{tmp_path}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",  # mlflow-skinny has no database
    }.items():
        monkeypatch.setenv(name, value)
    library = read.__name__.removeprefix("from_")
    import_peer(library)
    network, module, logged = own_network(), recipes(f"watch_{library}"), {}

    def log(scalars, step):
        logged[step] = scalars
        module.log(scalars, step)

    train(network, log)
    found = read(module, tmp_path)
    assert set(found) == set(logged) == {0, 2}
    for step, scalars in logged.items():
        assert len(scalars) == 12
        assert found[step] == pytest.approx(scalars, rel=1e-6)  # TensorBoard stores float32


# Lightning calls functions that newer versions of PyTorch deprecate.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("every", "unit", "steps"), [(2, "step", ["0", "2", "4"]), (2, "epoch", ["2"])]
)
def test_lightning_callback_logs_every_other(every, unit, steps, tmp_path):
    lightning, loggers = import_peer("lightning"), import_peer("lightning.pytorch.loggers")
    logger = loggers.CSVLogger(tmp_path)
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[recipes("watch_lightning").Watch(every, unit)],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        gradient_clip_val=1e-9,  # later than the callback
        logger=logger,
        max_epochs=2,
    )
    network = own_network()
    batch = INPUTS, LABEL, {"lengths": torch.arange(5, 13)}
    weights = torch.arange(1.0, 11.0)
    module = recipes("in_lightning").Classifier(
        network, LOSS, weights, optimizer=lambda network: torch.optim.SGD(network.parameters(), 0.0)
    )
    trainer.fit(module, torch.utils.data.DataLoader([batch] * 3, batch_size=None))
    assert not network[1]._forward_hooks
    with open(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", encoding="utf-8") as file:
        first, *others = csv.DictReader(file)
    assert [row["step"] for row in (first, *others)] == steps
    hidden, output = network[:2](INPUTS), network(INPUTS)
    value = LOSS(output, LABEL, weight=weights, **batch[2])
    network.zero_grad()
    value.backward()
    unmasked = torch.arange(len(INPUTS))[:, None] < batch[2]["lengths"]  # [time, sample]
    expected = {"loss": value.item(), "hidden.1/rate": hidden[unmasked].mean().item()}
    expected |= gradient_sizes(network)
    assert len(first) == 13
    assert {name: float(first[name]) for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_lightning_callback_logs_the_operations_of_all_validation_data(tmp_path):
    lightning, loggers = import_peer("lightning"), import_peer("lightning.pytorch.loggers")
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[recipes("watch_lightning").Operations()],
        enable_progress_bar=False,
        logger=loggers.CSVLogger(tmp_path),
    )
    network, lengths = own_network(), torch.arange(5, 13)
    parts = slice(0, 5), slice(5, 8)
    batches = [(INPUTS[:, x], LABEL[x], {"lengths": lengths[x]}) for x in parts]
    module = recipes("in_lightning").Classifier(network, LOSS)
    trainer.validate(module, torch.utils.data.DataLoader(batches, batch_size=None), verbose=False)
    with open(tmp_path / "lightning_logs" / "version_0" / "metrics.csv", encoding="utf-8") as file:
        logged = {name: float(x) for row in csv.DictReader(file) for name, x in row.items() if x}
    with record(network, operations=True) as seen, torch.no_grad():
        network(INPUTS)
    expected = seen.activity(time_axis=0, lengths=lengths).scalars()
    assert expected["operations_per_sample"] > expected["module/0/operations_per_sample"] > 0
    assert {name: logged[name] for name in expected} == pytest.approx(expected, rel=1e-12)


# Hidden spikes in JAX. `record` is tested in test_record_live.py.


def in_flax(sizes):
    """Return the recipe, a network, and the weights and biases of its layers."""
    network = recipes("watch_flax").Network(sizes, import_peer("flax.nnx").Rngs(0))
    return network, [(layer.kernel[...], layer.bias[...]) for layer in network.layers]


def in_equinox(sizes):
    jax = pytest.importorskip("jax")
    network = recipes("watch_equinox").Network(sizes, jax.random.key(0))
    return network, [(layer.weight.T, layer.bias) for layer in network.layers]


@pytest.mark.parametrize(("library", "make"), [("flax", in_flax), ("equinox", in_equinox)])
def test_reports_in_jax_have_the_layers_in_order(library, make):
    jax = pytest.importorskip("jax")
    import_peer(library)
    module, inputs, label = recipes(f"watch_{library}"), INPUTS.numpy(), LABEL.numpy()
    network, layers = make([64, 20, 15, 10])

    def loss(layers):
        spikes, rates = inputs, []
        for weight, bias in layers:
            currents = spikes @ weight + bias
            _, spikes = jax.lax.scan(module.fire, 0 * currents[0], currents)
            rates.append(spikes.mean())
        return LOSS(spikes, label), rates

    gradients, rates = jax.jit(jax.grad(loss, has_aux=True))(layers)
    sizes = [rms(np.asarray(x)) for pair in gradients for x in pair]
    if library == "flax":
        sizes = sizes[::2]  # the recipe leaves out the biases
    expected = {f"gradient/{i}/rms": size for i, size in enumerate(sizes)}
    names = "hidden.0/rate", "hidden.1/rate", "output/rate"
    expected |= {name: float(rate) for name, rate in zip(names, rates, strict=True)}
    report = module.diagnosed(network, inputs, label)
    later = module.diagnosed(network, inputs, label, report, 150)
    assert later.numbers["earlier loss, updates since"] == (report.numbers["loss"], 150)
    found = report.scalars()
    assert min(expected.values()) > 0
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert len([name for name in found if name.startswith("gradient/")]) == len(sizes)
