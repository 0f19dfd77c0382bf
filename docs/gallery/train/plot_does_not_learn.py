"""
A network that does not learn
=============================

Why does a deep spiking network not learn, and what helps?

Six hidden layers should learn handwritten digits. The surrogate gradient is a fast sigmoid with
slope 25, and the weights are those that PyTorch draws, both of which are common defaults. The
accuracy stays at chance. The report of ``diagnose`` shows the cause, and after two changes the
network learns.
"""

import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import spikeloss_xp as sx

torch.set_num_threads(1)  # faster for small matrices

# %%
# The network
# -----------
#
# Each pixel is an input neuron. The more ink a pixel has, the more often it fires. At each step, a
# neuron multiplies its membrane potential by 0.9 and adds the input current. If the potential then
# reaches 1, the neuron fires, and 1 is subtracted from the potential. Arrays have the axes ``[time,
# batch, neuron]``. The network returns its output spikes, and the spikes of each hidden layer.


class Network(torch.nn.Module):
    """Six hidden layers of 100 neurons, and one output neuron for each digit."""

    def __init__(self, slope, scale):
        super().__init__()
        torch.manual_seed(0)
        sizes = [64, *[100] * 6, 10]
        self.slope = slope
        self.layers = torch.nn.ModuleList(
            map(torch.nn.Linear, sizes[:-1], sizes[1:])
        )
        for layer in self.layers:
            layer.weight.data *= scale

    def forward(self, spikes):
        """Return the output spikes and a list of the hidden layers' spikes."""
        of_layers = []
        for layer in self.layers:
            potential, fired = 0, []
            for current in layer(spikes):
                potential = 0.9 * potential + current
                above = potential - 1
                surrogate = above / (1 + self.slope * above.abs())
                fired.append((above >= 0) + (surrogate - surrogate.detach()))
                potential = potential - fired[-1].detach()
            spikes = torch.stack(fired)
            of_layers.append(spikes)
        return of_layers[-1], of_layers[:-1]


ink, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
order = torch.randperm(len(ink), generator=torch.Generator().manual_seed(0))
ink, labels = ink[order].float() / 16, labels[order]
images = torch.floor(torch.arange(16)[:, None, None] * ink).diff(dim=0)

loss = sx.CrossEntropy(time_axis=0)


@torch.no_grad()
def accuracy(network):
    """Return the accuracy on the images that are not used for training."""
    return loss.accuracy(network(images[:, 1437:])[0], labels[1437:]).item()


def train(network, epochs=5):
    """Train on 1437 images, and return the accuracy before and after each epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
    generator = torch.Generator().manual_seed(0)
    accuracies = [accuracy(network)]
    for _ in range(epochs):
        for batch in torch.randperm(1437, generator=generator).split(64):
            optimizer.zero_grad()
            loss(network(images[:, batch])[0], labels[batch]).backward()
            optimizer.step()
        accuracies.append(accuracy(network))
    return accuracies


narrow = train(Network(slope=25, scale=1))
print(f"{narrow[-1]:.0%} of the test images are classified correctly")

# %%
# What the report says
# --------------------
#
# Compute the gradients of one batch, and pass them to ``diagnose`` with the spikes of the hidden
# layers:


def report_of(network):
    """Return the report on one batch."""
    spikes, hidden = network(images[:, :128])
    loss(spikes, labels[:128]).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return sx.diagnose(
        loss, spikes, labels[:128], hidden=hidden, gradients=gradients
    )


before = report_of(Network(slope=25, scale=1))
print(before)

# %%
# No weight has a gradient above 1e-10, so no update can change this network. This is why the silent
# layers are problems here, even before training. If a gradient reached them, they would only be
# notes, because a silent layer can then still learn. The report can also draw the layers:

before.plot()
plt.show()

# %%
# Two changes
# -----------
#
# First, we make the surrogate wider. Take a potential that is 0.16 below the threshold. With slope
# 25, the derivative of the fast sigmoid is 0.04 there. Each layer multiplies the gradient by such
# small numbers, so the gradient vanishes. With slope 1, the derivative at the same potential is
# 0.74. Second, we multiply all weights by 1.5. Then all hidden layers fire from the beginning, and
# the network learns faster.

wide = train(Network(slope=1, scale=1))
larger = train(Network(slope=1, scale=1.5))
print(f"wide surrogate: {wide[-1]:.0%}, with larger weights: {larger[-1]:.0%}")
print(report_of(Network(slope=1, scale=1.5)))

# %%

fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(narrow, "o-", label="slope 25")
ax.plot(wide, "o-", label="slope 1")
ax.plot(larger, "o-", label="slope 1, larger weights")
ax.set(xlabel="epoch", ylim=(0, 1), title="accuracy on the test images")
ax.legend()
plt.show()

# sphinx_gallery_thumbnail_number = 2
