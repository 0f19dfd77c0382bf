"""Compute a gradient one step at a time: see docs/segments.md."""

import numpy as np
import torch

import spikeloss_xp as sx

step_loss = sx.CrossEntropy(time_axis=-1, readout="last")


def online_gradient(weights, spikes, labels, decay):
    """Return the gradient of the sum of the losses over all steps."""
    trace, gradient = np.zeros_like(spikes[..., 0]), np.zeros_like(weights)
    for step in range(spikes.shape[-1]):
        trace = decay * trace + spikes[..., step]  # [batch, presynaptic neuron]
        potential = trace @ weights.T  # [batch, class]
        _, signal = sx.value_and_grad(step_loss)(potential[..., None], labels)
        gradient += signal[..., 0].T @ trace
    return gradient


def main():
    """Compare with backpropagation through time, and with `causal_filter`."""
    rng = np.random.default_rng(0)
    spikes = 1.0 * (rng.random((8, 10, 100)) < 0.1)
    labels, weights = rng.integers(10, size=8), rng.normal(size=(10, 10))
    decay = np.exp(-1 / 20)

    parameter = torch.tensor(weights, requires_grad=True)
    potential, total = torch.zeros(8, 10, dtype=torch.float64), 0
    for step in torch.tensor(spikes).unbind(-1):
        potential = decay * potential + step @ parameter.T
        total = total + step_loss(potential[..., None], labels)
    total.backward()
    gradient = online_gradient(weights, spikes, labels, decay)
    np.testing.assert_allclose(gradient, parameter.grad, rtol=1e-9, atol=1e-9)

    traces = sx.causal_filter(spikes, sx.exponential_kernel(20, 100), time_axis=-1)
    trace = 0
    for step in range(100):
        trace = decay * trace + spikes[..., step]
        np.testing.assert_allclose(traces[..., step], trace, rtol=1e-12, atol=1e-12)


if __name__ == "__main__":
    main()
