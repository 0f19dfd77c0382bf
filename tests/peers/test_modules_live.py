"""A loss as an attribute of modules of Equinox and Flax, if they are installed."""

import numpy as np
import pytest

from _support.side_by_side import import_peer

jax = pytest.importorskip("jax")

from _support.processes import CASES, RTOL, SPLIT_MATTERS, error, one_process, recipes
from _support.split import mixing


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
    [
        (evaluate, name)
        for evaluate in (in_linen, in_nnx, in_equinox)
        for name in SPLIT_MATTERS
        if evaluate is not in_equinox or "weight" in CASES[name].options  # of which it has a field
    ],
)
def test_loss_of_a_module_equals_numpy(evaluate, name):
    batch = CASES[name]
    with jax.enable_x64(True):
        found = evaluate(batch, jax.numpy.asarray(mixing(batch.spikes.shape[1])))
    assert error(found, one_process(batch)) < RTOL
