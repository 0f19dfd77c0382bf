"""Use a loss as a static field of an Equinox module, as shown in docs/modules.md."""

import equinox as eqx
import jax

import spikeloss_xp as sx


class Trainer(eqx.Module):
    """A network with its loss and class weights."""

    network: eqx.Module
    class_weights: jax.Array
    # part of the tree structure, not a leaf
    loss: sx.losses.Loss = eqx.field(static=True)

    @eqx.filter_jit
    def value_and_grad(self, spikes, target, **options):
        """Return the loss, and its gradient with respect to the network."""

        @eqx.filter_value_and_grad
        def of_network(network):
            output = jax.vmap(network)(spikes)
            return self.loss(output, target, weight=self.class_weights, **options)

        return of_network(self.network)
