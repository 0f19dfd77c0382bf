"""A leaky integrate-and-fire neuron in JAX, which other programs of this folder import."""

import jax


def fire(membrane, current):
    """Return the next membrane potentials and the spikes of LIF neurons."""
    membrane = 0.9 * membrane + current
    # its derivative is the surrogate gradient
    smooth = jax.nn.sigmoid(4 * (membrane - 1))
    spike = (membrane > 1) + (smooth - jax.lax.stop_gradient(smooth))
    return membrane - spike, spike
