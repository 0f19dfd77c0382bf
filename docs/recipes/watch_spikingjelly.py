"""Collect hidden spikes in SpikingJelly: see docs/guides/watch-a-training.md."""

import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.layer import Linear

network = torch.nn.Sequential(
    *(Linear(64, 100), neuron.LIFNode()),
    *(Linear(100, 10), neuron.LIFNode()),
)
functional.set_step_mode(network, "m")  # all time steps in one call
hidden = {}
layers = [x for x in network.named_children() if isinstance(x[1], neuron.LIFNode)]
for name, layer in layers[:-1]:  # the last one is the output
    layer.register_forward_hook(lambda _, x, y, key=name: hidden.update({key: y}))


def forward(inputs):
    """Return the output and the hidden spikes, ``[time, sample, neuron]``."""
    functional.reset_net(network)
    return network(inputs), hidden
