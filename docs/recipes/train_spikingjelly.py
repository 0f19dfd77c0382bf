"""Train a spiking network in SpikingJelly, as shown in docs/quickstart.md."""

import digits
import torch
from spikingjelly.activation_based import functional, layer, neuron

import spikeloss_xp as sx

spikes, labels = torch.tensor(digits.spikes), torch.tensor(digits.labels)


def train(loss, epochs=10, seed=0):
    """Train on 1437 digits, and return the accuracy on the other 360."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        *(layer.Linear(64, 100), neuron.LIFNode()),
        *(layer.Linear(100, 10), neuron.LIFNode()),
    )
    functional.set_step_mode(network, "m")  # all time steps in one call
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    for _ in range(epochs):
        for batch in torch.randperm(1437).split(100):
            value = loss(network(spikes[:, batch]), labels[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            functional.reset_net(network)
    output = network(spikes[:, 1437:])
    return float(sx.SpikeMax(time_axis=0).accuracy(output, labels[1437:]))


if __name__ == "__main__":
    print(train(sx.CrossEntropy(time_axis=0)))
