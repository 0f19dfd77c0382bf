"""Scale a network to a firing rate in Equinox: see docs/guides/initialisation.md."""

import equinox as eqx
import jax
import optax

import spikeloss_xp as sx


def scaled(network, inputs, rate=0.05):
    """Return a network without biases, each of whose layers fires at the rate."""

    def with_factors(factors):
        layers = [
            eqx.tree_at(lambda x: (x.weight, x.bias), x, (by * x.weight, 0 * x.bias))
            for x, by in zip(network.layers, factors, strict=True)
        ]
        return eqx.tree_at(lambda x: x.layers, network, layers)

    @jax.jit
    def rates(factors):
        return [spikes.mean() for spikes in with_factors(factors)(inputs)]

    return with_factors(sx.scale_to_rate(rates, len(network.layers), rate))


def scaled_adam(network, relative_step=0.03):
    """Return Adam, whose steps are this fraction of the weights of each layer."""
    sizes = [(layer.weight**2).mean() ** 0.5 for layer in network.layers]

    def scale(updates, _):
        pairs = zip(updates.layers, sizes, strict=True)
        layers = [
            jax.tree.map(lambda x, by=by: by * x, layer) for layer, by in pairs
        ]
        return eqx.tree_at(lambda x: x.layers, updates, layers)

    return optax.chain(optax.adam(relative_step), optax.stateless(scale))
