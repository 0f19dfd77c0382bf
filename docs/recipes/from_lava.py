"""Carry a network of lava-dl's `cuba.Dense` to other frameworks, through NIR."""

import nir
import numpy as np
import torch


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
