"""Return the spikes of each layer in Spyx: see docs/guides/initialisation.md."""

import jax


def spikes_of_layers(network, inputs):
    """Return the spikes ``[time, sample, neuron]`` of each spiking layer."""
    x, found = inputs, []
    for layer in network.layers:
        if not hasattr(layer, "initial_state"):
            x = layer(x)
            continue
        state = layer.initial_state(x.shape[1])
        _, x = jax.lax.scan(lambda s, now, of=layer: of(now, s)[::-1], state, x)
        found.append(x)
    return found
