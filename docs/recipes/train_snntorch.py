"""Train a spiking network in snnTorch, as shown in docs/quickstart.md."""

import digits
import snntorch as snn
import torch
from snntorch import utils

import spikeloss_xp as sx

spikes, labels = torch.tensor(digits.spikes), torch.tensor(digits.labels)


def run(network, inputs):
    """Return the output spikes, ``[time, sample, class]``."""
    utils.reset(network)
    return torch.stack([network(step)[0] for step in inputs])


def train(loss, epochs=10, seed=0):
    """Train on 1437 digits, and return the accuracy on the other 360."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        *(torch.nn.Linear(64, 100), snn.Leaky(0.9, init_hidden=True)),
        *(torch.nn.Linear(100, 10), snn.Leaky(0.9, init_hidden=True, output=True)),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    for _ in range(epochs):
        for batch in torch.randperm(1437).split(100):
            value = loss(run(network, spikes[:, batch]), labels[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    output = run(network, spikes[:, 1437:])
    return float(sx.SpikeMax(time_axis=0).accuracy(output, labels[1437:]))


if __name__ == "__main__":
    print(train(sx.CrossEntropy(time_axis=0)))
