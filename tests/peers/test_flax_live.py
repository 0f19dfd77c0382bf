"""A loss as an attribute of Flax modules, linen and nnx, if Flax is installed."""

import pytest

from _support.side_by_side import import_peer

jax = pytest.importorskip("jax")
linen, nnx = import_peer("flax.linen"), import_peer("flax.nnx")

from _support.processes import CASES, RTOL, SPLIT_MATTERS, error, one_process, recipes
from _support.split import mixing

every_loss = pytest.mark.parametrize("name", SPLIT_MATTERS)


class Linen(linen.Module):
    neurons: int

    @linen.compact
    def __call__(self, spikes):
        return self.param("matrix", lambda key: jax.numpy.asarray(mixing(self.neurons))) @ spikes


class NNX(nnx.Module):
    def __init__(self, neurons):
        self.matrix = nnx.Param(jax.numpy.asarray(mixing(neurons)))

    def __call__(self, spikes):
        return self.matrix[...] @ spikes


@every_loss
def test_loss_of_a_linen_module_equals_numpy(name):
    batch, module = CASES[name], recipes("in_flax")
    arrays = batch.spikes, batch.target, batch.options
    with jax.enable_x64(True):
        trainer = module.LinenTrainer(Linen(batch.spikes.shape[1]), batch.loss)
        variables = trainer.init(jax.random.key(0), *arrays[:2], **batch.options)
        value, gradient = module.linen_value_and_grad(trainer, variables, *arrays)
    got = value, gradient["params"]["network"]["matrix"]
    assert error(got, one_process(batch)) < RTOL


@every_loss
def test_loss_of_an_nnx_module_equals_numpy(name):
    batch, module = CASES[name], recipes("in_flax")
    arrays = batch.spikes, batch.target, batch.options
    with jax.enable_x64(True):
        trainer = module.NNXTrainer(NNX(batch.spikes.shape[1]), batch.loss)
        value, gradient = module.nnx_value_and_grad(trainer, *arrays)
    got = value, gradient["network"]["matrix"][...]
    assert error(got, one_process(batch)) < RTOL
