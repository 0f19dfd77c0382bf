"""Scale initial weights in snnTorch: see docs/diagnosis-measured.md."""

import snntorch as snn
import torch
from snntorch import surrogate

wide = surrogate.fast_sigmoid(slope=1)
leaky = snn.Leaky(beta=0.9, spike_grad=wide)  # with the options of your neurons


@torch.no_grad()
def fire(currents):
    """Return the spikes of a layer, ``[time, sample, neuron]``."""
    membrane, spikes = leaky.init_leaky(), []
    for current in currents:
        spike, membrane = leaky(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)
