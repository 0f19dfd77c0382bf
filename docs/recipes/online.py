"""Compute a gradient one step at a time: see docs/segments.md."""

import numpy as np

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
