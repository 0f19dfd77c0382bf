"""Scale the initial weights of a network in JAX, as shown in docs/diagnosis-measured.md."""

import jax


def scale_weights(layers, run, inputs, rate=0.05):
    """Return the layers with weights for which each fires in this share of the steps of a batch."""
    scaled = []
    for layer in layers:
        low, high = 1e-3, 1e3
        for _ in range(20):  # bisection
            factor = (low * high) ** 0.5
            new = jax.tree.map(lambda x, by=factor: by * x if x.ndim > 1 else x, layer)
            spikes = run(new, inputs)
            low, high = (factor, high) if spikes.mean() < rate else (low, factor)
        scaled.append(new)
        inputs = spikes
    return scaled
