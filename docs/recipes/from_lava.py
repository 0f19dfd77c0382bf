"""Carry a network of lava-dl's `cuba.Dense` to other frameworks, through NIR."""

import nir
import numpy as np
import torch
from lava.lib.dl import slayer


def to_nir(blocks, dt=1e-4):
    """Return the NIR graph of `cuba.Dense` blocks, which have one decay each."""
    layers = []
    for block in blocks:
        synapse, neuron = block.synapse, block.neuron
        weight = synapse.pre_hook_fx(synapse.weight).detach()[:, :, 0, 0, 0].numpy()
        decays = [float(neuron.current_decay), float(neuron.voltage_decay)]
        synaptic, membrane = (dt * neuron.p_scale / decay for decay in decays)
        ones = np.ones(len(weight))
        neurons = nir.CubaLIF(
            tau_syn=synaptic * ones,
            tau_mem=membrane * ones,
            w_in=synaptic / dt * ones,
            r=membrane / dt * ones,
            v_leak=0 * ones,
            v_reset=0 * ones,
            v_threshold=float(neuron.threshold) * ones,
        )
        layers += [nir.Affine(weight, 0 * ones), neurons]
    return nir.NIRGraph.from_list(*layers)


def run(network, spikes):
    """Return the output of an imported network, [time, batch, neuron]."""
    state, outputs = None, []
    for step in spikes:
        output, state = network(step, state)
        outputs.append(output)
    return torch.stack(outputs)


if __name__ == "__main__":
    import norse.torch as norse

    torch.manual_seed(1)
    options = {"threshold": 1.25, "current_decay": 0.25, "voltage_decay": 0.125}
    blocks = [
        slayer.block.cuba.Dense(options, inputs, neurons, delay_shift=False)
        for inputs, neurons in ((16, 20), (20, 5))
    ]
    for block in blocks:
        block.synapse.weight.data += 0.05  # so that the neurons fire
    spikes = (torch.rand(50, 4, 16) < 0.3).float()  # [time, batch, input]
    there = spikes.permute(1, 2, 0)
    for block in blocks:
        there = block(there)
    here = run(norse.from_nir(to_nir(blocks), dt=1e-4), spikes)
    differing = int((here != there.permute(2, 0, 1)).sum())
    print(f"{differing} of {int(there.sum())} output spikes differ")
