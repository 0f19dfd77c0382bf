"""Scale initial weights in JAX: see docs/diagnosis-measured.md."""

import jax
import optax


def scale_weights(layers, run, inputs, rate=0.05):
    """Scale each layer until it fires in this share of the steps of a batch.

    Return the new layers and their factors.
    """
    scaled, factors = [], []
    for layer in layers:
        low, high = 1e-3, 1e3
        for _ in range(20):  # bisection
            factor = (low * high) ** 0.5
            new = jax.tree.map(
                lambda x, by=factor: by * x if x.ndim > 1 else x, layer
            )
            spikes = run(new, inputs)
            low, high = (factor, high) if spikes.mean() < rate else (low, factor)
        scaled.append(new)
        factors.append(factor)
        inputs = spikes
    return scaled, factors


def scaled_adam(factors, lr=0.002):
    """Return Adam with learning rates in proportion to the factors of the layers."""

    def scale(updates, params=None):
        pairs = zip(updates, factors, strict=True)
        return [
            jax.tree.map(lambda x, by=factor: by * x, layer)
            for layer, factor in pairs
        ]

    return optax.chain(optax.adam(lr), optax.stateless(scale))
