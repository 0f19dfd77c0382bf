"""Small spiking networks of PyTorch modules, and a batch for them."""

import itertools
from typing import Any

from _support.side_by_side import torch  # skips the tests without PyTorch
from spikeloss_xp.torch import record

STEPS, BATCH = 12, 8
RANDOM = torch.Generator().manual_seed(0)
INPUTS = (torch.rand((STEPS, BATCH, 20), generator=RANDOM) < 0.3).float()
LABEL = torch.arange(BATCH) % 3


def heaviside(x):
    soft = torch.sigmoid(2 * x)
    return (x > 0).float() - soft.detach() + soft


class Neurons(torch.nn.Module):
    """Neurons that process all steps in one call."""

    def forward(self, currents):
        membrane, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            membrane = 0.9 * membrane + current
            spikes.append(heaviside(membrane - 1))
            membrane = membrane - spikes[-1].detach()
        return torch.stack(spikes)


class Cell(torch.nn.Module):
    """Neurons that process one step, and return their state too."""

    def forward(self, current, membrane=0.0):
        membrane = 0.9 * membrane + current
        spikes = heaviside(membrane - 1)
        return spikes, membrane - spikes.detach()


class Loop(torch.nn.Module):
    """A network that runs step by step, with recurrent hidden neurons."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(30, 3)  # not in the order of the calls
        self.first, self.again = torch.nn.Linear(20, 30), torch.nn.Linear(30, 30, bias=False)
        self.output, self.neurons = Cell(), Cell()

    def forward(self, inputs):
        spikes, membrane, below, found = torch.zeros(BATCH, 30), 0.0, 0.0, []
        for x in inputs:
            spikes, membrane = self.neurons(self.first(x) + self.again(spikes), membrane=membrane)
            output, below = self.output(self.last(spikes), below)
            found.append(output)
        return torch.stack(found)


def module_of(forward, **parts: Any) -> torch.nn.Module:
    """Return a module of a new class, with the given forward method, submodules and parameters."""
    module = type("Module", (torch.nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def layers(*sizes, neurons=Neurons):
    pairs = itertools.pairwise(sizes)
    return [x for pair in pairs for x in (torch.nn.Linear(*pair), neurons())]


def sequence(*modules: Any) -> torch.nn.Sequential:
    """Return a network of the modules and lists of modules."""
    lists = (x if isinstance(x, list) else [x] for x in modules)
    return torch.nn.Sequential(*itertools.chain(*lists))


class Recurrent(torch.nn.Module):
    """Neurons that contain all their weights."""

    def __init__(self, inputs, neurons):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(neurons, inputs))
        self.recurrent = torch.nn.Parameter(torch.randn(neurons, neurons))
        self.leak, self.bias = map(torch.nn.Parameter, torch.tensor([0.5, 0.1]))

    def forward(self, x):
        found, membrane = [torch.zeros(BATCH, len(self.weight))], 0.0
        for step in x:
            membrane = self.leak * membrane + step @ self.weight.T + self.bias
            membrane = membrane + found[-1] @ self.recurrent.T - found[-1]
            found.append(heaviside(membrane - 1))
        return torch.stack(found[1:])


def recurrent():
    return sequence(Recurrent(20, 30), Recurrent(30, 25), Recurrent(25, 3))


def with_a_named_argument():
    linear = torch.nn.Linear(20, 30)
    return module_of(
        lambda self, x: self.neurons(currents=3 * self.linear(x)), linear=linear, neurons=Neurons()
    )


def network_of(*sizes, gain=3.0, seed=0):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(*layers(*sizes))
    for module in network[::2]:
        module.weight.data *= gain
    return network


def recorded(network, modules=None, inputs=INPUTS):
    """Return the recording of a run of the network, and its output."""
    with record(network, modules) as seen:
        output = network(inputs)
    return seen, output


def has_hooks(network):
    return any(module._forward_hooks for module in network.modules())
