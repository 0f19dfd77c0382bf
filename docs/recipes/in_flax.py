"""Use a loss as an attribute of a Flax module: see docs/modules.md."""

import functools

import flax.linen
import jax
import optax
from flax import nnx

import spikeloss_xp as sx


class LinenTrainer(flax.linen.Module):
    """A linen module that holds a network and its loss."""

    network: flax.linen.Module
    loss: sx.losses.Loss

    def __call__(self, spikes, target, **options):
        """Return the loss."""
        return self.loss(self.network(spikes), target, **options)


@functools.partial(jax.jit, static_argnums=0)
def linen_value_and_grad(trainer, variables, spikes, target, options):
    """Return the loss of a linen module, and the gradient of its variables."""
    return jax.value_and_grad(trainer.apply)(variables, spikes, target, **options)


class NNXTrainer(nnx.Module):
    """An nnx module that holds a network and its loss."""

    def __init__(self, network, loss):
        self.network = network
        self.loss = loss

    def __call__(self, spikes, target, **options):
        """Return the loss."""
        return self.loss(self.network(spikes), target, **options)


@nnx.jit
def nnx_value_and_grad(trainer, spikes, target, options):
    """Return the loss of an nnx module, and the gradient of its parameters."""
    evaluate = nnx.value_and_grad(lambda trainer: trainer(spikes, target, **options))
    return evaluate(trainer)


@nnx.jit
def nnx_train_step(trainer, optimizer, spikes, target, options):
    """Update the parameters of an nnx module. Return the loss before the update."""
    value, gradient = nnx_value_and_grad(trainer, spikes, target, options)
    optimizer.update(trainer, gradient)
    return value


def nnx_train(network, loss, batches, learning_rate=0.005):
    """Train a network, and return the loss of each batch before its update."""
    trainer = NNXTrainer(network, loss)
    optimizer = nnx.Optimizer(trainer, optax.adam(learning_rate), wrt=nnx.Param)
    return [nnx_train_step(trainer, optimizer, *batch) for batch in batches]
