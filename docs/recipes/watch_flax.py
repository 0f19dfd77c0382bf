"""Return hidden spikes in Flax: see docs/guides/watch-a-training.md."""

import itertools

import jax
from flax import nnx
from lif_jax import fire

import spikeloss_xp as sx

loss = sx.CrossEntropy(time_axis=0)


class Network(nnx.Module):
    """A network that returns the spikes of all layers."""

    def __init__(self, sizes, rngs):
        pairs = itertools.pairwise(sizes)
        self.layers = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs])

    def __call__(self, spikes):
        """Return the spikes ``[time, sample, neuron]`` of each layer."""
        found = []
        for layer in self.layers:
            currents = layer(spikes)
            _, spikes = jax.lax.scan(fire, 0 * currents[0], currents)
            found.append(spikes)
        return found


@nnx.jit
def gradient_and_spikes(network, inputs, labels):
    """Return the gradient, and the spikes of all layers."""

    def of_network(network):
        spikes = network(inputs)
        return loss(spikes[-1], labels), spikes

    return nnx.grad(of_network, has_aux=True)(network)


def diagnosed(network, inputs, labels, earlier=None, updates=100):
    """Return the report on a batch. Call this function outside of `jit`."""
    gradient, (*hidden, output) = gradient_and_spikes(network, inputs, labels)
    gradients = [gradient["layers"][i]["kernel"] for i in range(len(network.layers))]
    found = {"hidden": hidden, "gradients": gradients}
    since = {"earlier": earlier, "updates": updates}
    return sx.diagnose(loss, output, labels, **found, **since)
