"""A loss in a static field of an Equinox module, if Equinox is installed."""

import numpy as np
import pytest

from _support.side_by_side import import_peer

jax = pytest.importorskip("jax")
eqx = import_peer("equinox")

from _support.processes import CASES, RTOL, SPLIT_MATTERS, error, one_process, recipes
from _support.split import mixing


class Network(eqx.Module):
    matrix: jax.Array

    def __call__(self, spikes):
        return self.matrix @ spikes


@pytest.mark.parametrize("name", [n for n in SPLIT_MATTERS if "weight" in CASES[n].options])
def test_loss_in_a_static_field_equals_numpy(name):
    batch = CASES[name]
    trainer = recipes("in_equinox").Trainer
    options = {k: x for k, x in batch.options.items() if k != "weight"}
    with jax.enable_x64(True):
        network = Network(jax.numpy.asarray(mixing(batch.spikes.shape[1])))
        module = trainer(network, jax.numpy.asarray(batch.options["weight"]), batch.loss)
        value, gradient = module.value_and_grad(batch.spikes, batch.target, **options)
    assert error((value, gradient.matrix), one_process(batch)) < RTOL
    # The loss is no leaf, and an equal loss gives an equal structure: nothing is compiled again.
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(module))
    again = eqx.tree_at(lambda m: m.network.matrix, module, np.ones(1))
    assert jax.tree.structure(again) == jax.tree.structure(module)
