"""Collect hidden spikes in Norse: see docs/guides/watch-a-training.md."""

import norse.torch as norse
import torch

network = norse.SequentialState(
    *(torch.nn.Linear(64, 100), norse.LIF()),
    *(torch.nn.Linear(100, 10), norse.LIF()),
)
hidden = {}
layers = [x for x in network.named_children() if isinstance(x[1], norse.LIF)]
for name, layer in layers[:-1]:  # the last one is the output
    layer.register_forward_hook(lambda _, x, y, key=name: hidden.update({key: y[0]}))


def forward(inputs):
    """Return the output and the hidden spikes, ``[time, sample, neuron]``."""
    output, _ = network(inputs)  # without a state, the neurons start at rest
    return output, hidden
