"""A loss in modules of Equinox, Flax, Keras and Lightning, if they are installed."""

import subprocess
import sys

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.processes import (
    CASES,
    HARDEST,
    RECIPES,
    RTOL,
    error,
    free_port,
    launch,
    one_process,
    recipes,
)
from _support.side_by_side import import_peer, torch
from _support.split import mixing
from spikeloss_xp.torch import parameter_groups

jax = pytest.importorskip("jax")

NAMES = "SpikeTime-mean", HARDEST
"""A loss without class weights, and one with them; a module does the same with all others."""


def in_linen(batch, matrix):
    """Return the value and the gradient with respect to the matrix of the model."""
    linen, recipe = import_peer("flax.linen"), recipes("in_flax")

    class Network(linen.Module):
        @linen.compact
        def __call__(self, spikes):
            return self.param("matrix", lambda key: matrix) @ spikes

    trainer = recipe.LinenTrainer(Network(), batch.loss)
    arrays = batch.spikes, batch.target
    variables = trainer.init(jax.random.key(0), *arrays, **batch.options)
    value, gradient = recipe.linen_value_and_grad(trainer, variables, *arrays, batch.options)
    return value, gradient["params"]["network"]["matrix"]


def in_nnx(batch, matrix):
    nnx, recipe = import_peer("flax.nnx"), recipes("in_flax")

    class Network(nnx.Module):
        def __init__(self):
            self.matrix = nnx.Param(matrix)

        def __call__(self, spikes):
            return self.matrix[...] @ spikes

    trainer = recipe.NNXTrainer(Network(), batch.loss)
    value, gradient = recipe.nnx_value_and_grad(trainer, batch.spikes, batch.target, batch.options)
    return value, gradient["network"]["matrix"][...]


def in_equinox(batch, matrix):
    eqx, trainer = import_peer("equinox"), recipes("in_equinox").Trainer

    class Network(eqx.Module):
        matrix: jax.Array

        def __call__(self, spikes):
            return self.matrix @ spikes

    options = dict(batch.options)
    module = trainer(Network(matrix), jax.numpy.asarray(options.pop("weight")), batch.loss)
    value, gradient = module.value_and_grad(batch.spikes, batch.target, **options)
    # The loss is no leaf, and an equal loss gives an equal structure: nothing is compiled again.
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(module))
    again = eqx.tree_at(lambda m: m.network.matrix, module, np.ones(1))
    assert jax.tree.structure(again) == jax.tree.structure(module)
    return value, gradient.matrix


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("evaluate", "name"),
    [(in_linen, NAMES[0]), (in_linen, HARDEST), (in_nnx, HARDEST), (in_equinox, HARDEST)],
)
def test_loss_of_a_module_equals_numpy(evaluate, name):
    batch = CASES[name]
    with jax.enable_x64(True):
        found = evaluate(batch, jax.numpy.asarray(mixing(batch.spikes.shape[1])))
    assert error(found, one_process(batch)) < RTOL


@pytest.mark.compiles
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_network_learns(backend, monkeypatch, tmp_path):
    """In a process of its own, because importing Keras fixes its backend."""
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    import_peer("keras")
    program = [sys.executable, str(RECIPES / "in_keras.py")]
    assert float(subprocess.check_output(program, text=True)) > 0.85


# Lightning, in two processes, with hyper-parameters and checkpoints


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run one training step for each case, in one group of processes."""
    import_peer("lightning")
    environment = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    environment |= {"NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("lightning")
    batches = {name: CASES[name] for name in NAMES}
    return launch("run_lightning.py", folder, batches, number=2, **environment)


@pytest.mark.parametrize("name", NAMES)
def test_training_step_equals_one_process(results, name):
    values, (first, second) = zip(*(found[name] for found in results), strict=True)
    assert np.array_equal(first, second)
    assert error((np.mean(values), first), one_process(CASES[name])) < RTOL


# Lightning calls functions that newer versions of PyTorch deprecate.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_checkpoint_restores_loss_and_class_weights(tmp_path):
    lightning, module = import_peer("lightning"), recipes("in_lightning").Classifier
    loss = sx.SpikeMax(
        moving_window=3, mode="softmax", reduction="mean", time_axis=-1
    )  # of any output, negative too
    torch.manual_seed(0)
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(**options, max_steps=1, enable_checkpointing=False)
    batch = torch.ones(2, 3, 5), torch.tensor([0, 2]), {"lengths": torch.tensor([5, 3])}
    network = torch.nn.Linear(5, 5)
    rates = [group["lr"] for group in parameter_groups(network)]
    trained = module(network, loss, class_weights=[1.0, 2.0, 3.0])
    trainer.fit(trained, torch.utils.data.DataLoader([batch], batch_size=None))
    assert [group["lr"] for group in trained.optimizers().param_groups] == rates
    trainer.save_checkpoint(tmp_path / "checkpoint")
    new = {"network": torch.nn.Linear(5, 5), "class_weights": torch.zeros(3)}
    loaded = module.load_from_checkpoint(tmp_path / "checkpoint", **new, weights_only=False)
    assert loaded.hparams.loss == loaded.loss.loss == loss
    assert loaded.loss.weight.tolist() == [1, 2, 3]
