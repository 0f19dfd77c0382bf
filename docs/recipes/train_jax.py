"""Train a network in JAX with optax and Equinox: see docs/quickstart.md."""

import equinox as eqx
import jax
import numpy as np
import optax
from digits import labels, spikes
from lif_jax import fire

import spikeloss_xp as sx


def run(layers, inputs):
    """Return the output spikes, ``[time, sample, class]``."""
    for layer in layers:
        currents = jax.vmap(jax.vmap(layer))(inputs)
        _, inputs = jax.lax.scan(fire, 0 * currents[0], currents)
    return inputs


def train(loss, epochs=10, seed=0):
    """Train on 1437 digits, and return the accuracy on the other 360."""
    keys = jax.random.split(jax.random.key(seed))
    layers = [
        eqx.nn.Linear(64, 100, key=keys[0]),
        eqx.nn.Linear(100, 10, key=keys[1]),
    ]
    optimizer = optax.adam(0.005)
    state = optimizer.init(layers)
    gradient = jax.jit(jax.grad(lambda layers, x, y: loss(run(layers, x), y)))
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        for batch in rng.permutation(1437)[:1400].reshape(14, 100):
            slopes = gradient(layers, spikes[:, batch], labels[batch])
            updates, state = optimizer.update(slopes, state)
            layers = eqx.apply_updates(layers, updates)
    output = run(layers, spikes[:, 1437:])
    return float(sx.SpikeMax(time_axis=0).accuracy(output, labels[1437:]))


if __name__ == "__main__":
    print(train(sx.CrossEntropy(time_axis=0)))
