"""Scale initial weights in PyTorch: see docs/diagnosis-measured.md."""

import torch


@torch.no_grad()
def scale_weights(layers, fire, inputs, rate=0.05):
    """Scale each layer until it fires in this share of the steps of a batch.

    The layers have PyTorch's default weights. Return the factor of each layer.
    """
    factors = []
    for layer in layers:
        weight, low, high = layer.weight.clone(), 1e-3, 1e3
        for _ in range(20):  # bisection
            factor = (low * high) ** 0.5
            layer.weight.copy_(factor * weight)
            spikes = fire(layer(inputs))
            low, high = (factor, high) if spikes.mean() < rate else (low, factor)
        factors.append(factor)
        inputs = spikes
    return factors


def scaled_adam(layers, factors, lr=0.002):
    """Return Adam with learning rates in proportion to the factors of the layers."""
    pairs = zip(layers, factors, strict=True)
    return torch.optim.Adam(
        {"params": list(layer.parameters()), "lr": lr * factor}
        for layer, factor in pairs
    )
