"""Collect hidden spikes in snnTorch: see docs/guides/watch-a-training.md."""

from collections import defaultdict

import snntorch as snn
import torch
from snntorch import utils

network = torch.nn.Sequential(
    *(torch.nn.Linear(64, 100), snn.Leaky(0.9, init_hidden=True)),
    *(torch.nn.Linear(100, 10), snn.Leaky(0.9, init_hidden=True, output=True)),
)
steps = defaultdict(list)
layers = [x for x in network.named_children() if isinstance(x[1], snn.Leaky)]
for name, layer in layers[:-1]:  # the last one is the output
    layer.register_forward_hook(lambda _, x, y, key=name: steps[key].append(y))


def forward(inputs):
    """Return the output and the hidden spikes, ``[time, sample, neuron]``."""
    utils.reset(network)
    steps.clear()
    output = torch.stack([network(step)[0] for step in inputs])
    return output, {name: torch.stack(spikes) for name, spikes in steps.items()}
