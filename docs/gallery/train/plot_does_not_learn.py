"""
From 8 % to 95 %: a network that does not learn
===============================================

A deep spiking network does not learn: its accuracy stays at chance. The report of `diagnose` shows
the cause, and after two changes the network learns.

Six hidden layers should learn handwritten digits. The surrogate gradient is a fast sigmoid with
slope 25, and the weights are those that PyTorch draws, both of which are common defaults.
"""

# %%
# The network
# -----------
#
# Each pixel is an input neuron. The more ink a pixel has, the more often it fires. At each step, a
# neuron multiplies its membrane potential by 0.9 and adds the input current. If the potential then
# reaches 1, the neuron fires, and 1 is subtracted from the potential. Arrays have the axes ``[time,
# batch, neuron]``. The network returns its output spikes, and the spikes of each hidden layer.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_digits

import spikeloss_xp as sx

# sphinx_gallery_start_ignore
# Copies, so that this script runs alone.

SPIKES, TARGET, FILTERED = "#222832", "#16845c", "#8a5cc0"  # black, green, purple
INK = SPIKES  # of texts
PINK, GOLD, TEAL = "#c43a80", "#94700a", "#0c8096"  # for everything else
GREY, LIGHT, PALE = "#707a84", "#e6eaef", "#fbeecb"
STYLE = {
    "figure.dpi": 130,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=[TEAL, PINK, GOLD, GREY]),
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def figure(rows=1, columns=1, *, size=(7, 4), **options):
    """Return a figure in the shared style, and its axes.

    The `options` are passed to `plt.subplots`. The style applies to later figures
    too.
    """
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def describe(fig, text):
    """Attach an alternative text to a picture, as a hidden title for the site."""
    fig.suptitle(text, visible=False).set_in_layout(False)


# sphinx_gallery_end_ignore

# the matrices are small: more threads would wait for one another
torch.set_num_threads(1)

STEPS, TRAINING = 15, 1437


class Fire(torch.autograd.Function):
    """A spike at the threshold, with a fast sigmoid as surrogate."""

    @staticmethod
    def forward(ctx, above, slope):
        """Return the spikes."""
        ctx.save_for_backward(above)
        ctx.slope = slope
        return (above >= 0).to(above.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient of the potential, and none for the slope."""
        (above,) = ctx.saved_tensors
        return gradient / (1 + ctx.slope * above.abs()) ** 2, None


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
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.mul_(scale)

    def forward(self, spikes):
        """Return the output spikes and a list of the hidden layers' spikes."""
        of_layers = []
        for layer in self.layers:
            potential, fired = 0, []
            for current in layer(spikes):
                potential = 0.9 * potential + current
                fired.append(Fire.apply(potential - 1, self.slope))
                potential = potential - fired[-1].detach()
            spikes = torch.stack(fired)
            of_layers.append(spikes)
        return of_layers[-1], of_layers[:-1]


ink, labels = (torch.tensor(x) for x in load_digits(return_X_y=True))
order = torch.randperm(len(ink), generator=torch.Generator().manual_seed(0))
ink, labels = ink[order].float() / 16, labels[order]
images = torch.floor(torch.arange(STEPS + 1)[:, None, None] * ink).diff(dim=0)
test, test_labels = images[:, TRAINING:], labels[TRAINING:]

loss = sx.CrossEntropy(time_axis=0)


def train(network, epochs=5):
    """Train a network, and return its accuracy before and after each epoch."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002)
    generator = torch.Generator().manual_seed(0)
    accuracies = [accuracy(network)]
    for _ in range(epochs):
        for batch in torch.randperm(TRAINING, generator=generator).split(64):
            optimizer.zero_grad()
            loss(network(images[:, batch])[0], labels[batch]).backward()
            optimizer.step()
        accuracies.append(accuracy(network))
    return accuracies


@torch.no_grad()
def accuracy(network):
    """Return the fraction of the test images that are classified correctly."""
    return loss.accuracy(network(test)[0], test_labels).item()


default = Network(slope=25, scale=1)
curves = {"slope 25": train(default)}
print(f"{curves['slope 25'][-1]:.0%} of the test images are classified correctly")

# %%
# What the report says
# --------------------
#
# Compute the gradients of one batch, and pass them to `diagnose` with the spikes of the hidden
# layers:


def report_of(network):
    """Return the report on one batch."""
    network.zero_grad()
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
# notes, because a silent layer can then still learn.
#
# First change: a wider surrogate
# -------------------------------
#
# Take a potential that is 0.16 below the threshold. The derivative of a fast sigmoid with slope 25
# is 0.04 there. Each layer multiplies the gradient by such small numbers, so the gradient vanishes.
# With slope 1, the derivative at the same potential is 0.74.

curves["slope 1"] = train(Network(slope=1, scale=1))
wide = report_of(Network(slope=1, scale=1))
print(
    f"{curves['slope 1'][-1]:.0%}, and the findings are "
    f"{[x.code for x in wide.findings]}"
)

# %%
# Second change: larger weights
# -----------------------------
#
# The report now contains only notes about silent layers. If we multiply all weights by 1.5, all
# hidden layers fire from the beginning, and the network learns faster.

after = report_of(Network(slope=1, scale=1.5))
curves["slope 1, larger weights"] = train(Network(slope=1, scale=1.5))
print(after)

# %%
# Before and after
# ----------------

# sphinx_gallery_thumbnail_number = 1
fig, ax = figure(size=(6, 3))
for (name, curve), colour in zip(curves.items(), (GREY, GOLD, TEAL), strict=True):
    ax.plot([100 * x for x in curve], "o-", color=colour, label=name)
ax.set(xlabel="epoch", ylim=(0, 100), title="accuracy on the test images (%)")
ax.legend()
describe(
    fig,
    "Accuracy over five epochs: 8 percent with slope 25, and above 90 with slope 1",
)

# %%
# The report can also draw the layers. This is the picture before the changes: each layer fires less
# than the layer before it, and the gradients are far too small. Weights with a problem are red:

describe(before.plot(), "Rates that fall to 0, and gradients below 1e-10")

# %%
# This is the picture after the changes: all hidden layers fire, and all weights have a useful
# gradient.

describe(after.plot(), "Rates from 12 percent, and gradients of 1e-3 to 0.1")

plt.show()
