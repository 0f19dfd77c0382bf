"""Scale a network to a firing rate in Flax or Spyx: see docs/guides/initialisation.md."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import spikeloss_xp as sx


def scale_network(network, forward, rate=0.05):
    """Set biases to 0, and scale each linear layer until it fires at the rate."""
    layers = [x for x in network.layers if isinstance(x, nnx.Linear)]
    kernels = [x.kernel[...] for x in layers]

    @nnx.jit
    def rates(network, layers, factors):
        for layer, kernel, factor in zip(layers, kernels, factors, strict=True):
            layer.kernel[...] = factor * kernel
            layer.bias[...] = 0 * layer.bias[...]
        return [spikes.mean() for spikes in forward(network)]

    return sx.scale_to_rate(lambda f: rates(network, layers, f), len(layers), rate)


def scaled_adam(network, relative_step=0.03):
    """Return Adam, whose steps are this fraction of the weights of each layer."""

    def size(path, x):
        layer = network.layers[path[1].key]
        is_linear = isinstance(layer, nnx.Linear)
        return jnp.sqrt((layer.kernel[...] ** 2).mean()) if is_linear else 0.1

    sizes = jax.tree.map_with_path(size, nnx.state(network, nnx.Param))
    scale = optax.stateless(lambda x, _: jax.tree.map(jnp.multiply, x, sizes))
    return optax.chain(optax.adam(relative_step), scale)
