"""Train a spiking network in plain PyTorch, as shown in docs/quickstart.md."""

import digits
import torch

import spikeloss_xp as sx

spikes, labels = torch.tensor(digits.spikes), torch.tensor(digits.labels)


def fire(currents):
    """Return the spikes of leaky integrate-and-fire neurons."""
    membrane, output = 0, []
    for current in currents:
        membrane = 0.9 * membrane + current
        # its derivative is the surrogate gradient
        smooth = torch.sigmoid(4 * (membrane - 1))
        output.append((membrane > 1).float() + (smooth - smooth.detach()))
        membrane = membrane - output[-1]
    return torch.stack(output)


def train(loss, epochs=10, seed=0):
    """Train on 1437 digits, and return the accuracy on the other 360."""
    torch.manual_seed(seed)
    hidden, last = torch.nn.Linear(64, 100), torch.nn.Linear(100, 10)
    optimizer = torch.optim.Adam(
        [*hidden.parameters(), *last.parameters()], lr=0.005
    )
    for _ in range(epochs):
        for batch in torch.randperm(1437).split(100):
            value = loss(fire(last(fire(hidden(spikes[:, batch])))), labels[batch])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    output = fire(last(fire(hidden(spikes[:, 1437:]))))
    return float(sx.SpikeMax(time_axis=0).accuracy(output, labels[1437:]))


if __name__ == "__main__":
    print(train(sx.CrossEntropy(time_axis=0)))
