"""Return hidden spikes in Equinox: see docs/guides/watch-a-training.md."""

import itertools

import equinox as eqx
import jax
from lif_jax import fire

import spikeloss_xp as sx

loss = sx.CrossEntropy(time_axis=0)


class Network(eqx.Module):
    """A network that returns the spikes of all layers."""

    layers: list[eqx.nn.Linear]

    def __init__(self, sizes, key):
        pairs = list(itertools.pairwise(sizes))
        keys = jax.random.split(key, len(pairs))
        self.layers = [
            eqx.nn.Linear(*pairs[i], key=keys[i]) for i in range(len(pairs))
        ]

    def __call__(self, spikes):
        """Return the spikes ``[time, sample, neuron]`` of each layer."""
        found = []
        for layer in self.layers:
            currents = jax.vmap(jax.vmap(layer))(spikes)
            _, spikes = jax.lax.scan(fire, 0 * currents[0], currents)
            found.append(spikes)
        return found


@eqx.filter_jit
def gradient_and_spikes(network, inputs, labels):
    """Return the gradient, and the spikes of all layers."""

    def of_network(network):
        spikes = network(inputs)
        return loss(spikes[-1], labels), spikes

    return eqx.filter_grad(of_network, has_aux=True)(network)


def diagnosed(network, inputs, labels, earlier=None, updates=100):
    """Return the report on a batch. Call this function outside of `jit`."""
    gradient, (*hidden, output) = gradient_and_spikes(network, inputs, labels)
    gradients = jax.tree.leaves(gradient)
    found = {"hidden": hidden, "gradients": gradients}
    since = {"earlier": earlier, "updates": updates}
    return sx.diagnose(loss, output, labels, **found, **since)
