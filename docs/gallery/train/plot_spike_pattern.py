"""
Learning where every spike belongs
==================================

A small spiking network learns to write a word with the spikes of 28 output neurons.

The inputs of the network are random spikes, and the target is a spike train for each output neuron.
``SpikeTime`` measures how far the output is from the target. Its gradient moves, adds and removes
spikes until the word appears.
"""

# %%
# The task
# --------
#
# The target is a word made of dots. Each dot is four neurons high, and the dots in a row are five
# steps apart. The input consists of 100 neurons that fire at random, in 5 % of all steps. We draw
# the input spikes once, and they stay the same during training. Arrays have shape ``[time, batch,
# neuron]``, with a batch size of one.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import numpy as np
import torch
from matplotlib import pyplot as plt

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

LETTERS = {
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "I": "01110 00100 00100 00100 00100 00100 01110",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "E": "11111 10000 10000 11110 10000 10000 11111",
}


def written(word, high=4, wide=5, margin=6):
    """Return a word as spikes, ``[time, 1, neuron]``."""
    rows = [
        "0".join(row)
        for row in zip(*(LETTERS[c].split() for c in word), strict=True)
    ]
    dots = np.asarray([[int(dot) for dot in row] for row in rows])
    spikes = np.zeros((dots.shape[1] * wide, dots.shape[0] * high))
    spikes[wide // 2 :: wide] = np.repeat(dots, high, axis=0).T
    return np.pad(spikes, ((margin, margin), (0, 0)))[:, None]


target = torch.tensor(written("SPIKE"), dtype=torch.float32)
steps, _, outputs = target.shape
generator = torch.Generator().manual_seed(0)
inputs = (torch.rand((steps, 1, 100), generator=generator) < 0.05).float()

# %%


def dots(ax, spikes, *, size=14):
    """Draw target spikes as circles, output spikes as dots, pink if surplus."""
    ax.scatter(
        *trains(target), s=size, facecolors="none", edgecolors=TARGET, linewidths=0.9
    )
    ax.scatter(*trains(spikes * target), s=5, color=SPIKES, linewidths=0)
    ax.scatter(*trains(spikes * (1 - target)), s=7, color=PINK, linewidths=0)
    ax.set(xlim=(-1, steps), ylim=(outputs, -1), ylabel="neuron")


def trains(spikes):
    """Return time step and neuron of each spike."""
    return np.nonzero(spikes[:, 0].numpy())


fig, (left, right) = figure(1, 2, size=(7, 2.3))
left.scatter(*trains(inputs), s=5, color=SPIKES, linewidths=0)
left.set(
    xlim=(-1, steps),
    ylim=(100, -1),
    title="input",
    xlabel="time (steps)",
    ylabel="neuron",
)
right.set(title="target of the output", xlabel="time (steps)")
dots(right, torch.zeros_like(target), size=8)
describe(
    fig,
    "Left: input spikes, scattered at random. Right: target spikes, as circles in "
    "columns that spell the word SPIKE",
)

# %%
# The network
# -----------
#
# The network has two layers of leaky integrate-and-fire neurons, with 100 inputs, 256 hidden
# neurons and 28 outputs. At each step, a membrane potential keeps 0.9 of its value and adds the
# input current; in the step after a spike, it is lowered by 1. The derivative of a spike with
# respect to the potential is 0 almost everywhere, so training replaces it by a triangle, which is 1
# at the threshold and falls to 0 at a distance of 1.


class Fire(torch.autograd.Function):
    """A spike where the membrane has reached 1, with a triangle for a derivative."""

    @staticmethod
    def forward(ctx, membrane):
        """Return the spikes."""
        ctx.save_for_backward(membrane)
        return (membrane >= 1).to(membrane.dtype)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradient with respect to the membrane."""
        (membrane,) = ctx.saved_tensors
        return gradient * torch.clamp(1 - abs(membrane - 1), min=0)


def layer(current):
    """Return the spikes for these currents, ``[time, batch, neuron]``."""
    membrane = spike = torch.zeros_like(current[0])
    spikes = []
    for now in current:
        membrane = 0.9 * membrane + now - spike
        spike = Fire.apply(membrane)
        spikes.append(spike)
    return torch.stack(spikes)


# %%
# Training
# --------
#
# ``SpikeTime`` filters both trains with an exponential and sums the squared differences. With a
# time constant of 5 steps, the trace of a spike that is slightly late still overlaps with the trace
# of the target spike. The closer the spike is to its target, the less it costs:

loss = sx.SpikeTime(time_constant=5, time_axis=0, reduction="sum")
one = torch.zeros((60, 1, 1))
one[10] = 1
for late in (0, 1, 2, 3, 4, 8):
    print(f"{late:2} steps late: {loss(torch.roll(one, late, 0), one).item():.2f}")
print(f"      missing: {loss(torch.zeros_like(one), one).item():.2f}")

# %%
# A spike that is 4 or more steps late costs more than a missing spike. The loss therefore moves
# spikes that are close to their targets, and removes those that are far away. The gradient flows
# through both layers to the weights:

TRAINING, SHORT = 150, 30


def train(scale, training):
    """Return losses and output spikes over training, for a scale of weights."""
    generator = torch.Generator().manual_seed(1)
    hidden = scale * torch.randn((100, 256), generator=generator)
    output = 0.6 * scale * torch.randn((256, outputs), generator=generator)
    weights = [hidden.requires_grad_(), output.requires_grad_()]
    optimiser = torch.optim.Adam(weights, lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, TRAINING)

    losses, outcomes = [], []
    for _ in range(training + 1):
        spikes = layer(layer(inputs @ hidden) @ output)
        value = loss(spikes, target)
        losses.append(value.item())
        outcomes.append(spikes.detach())
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    return losses, outcomes


losses, outcomes = train(0.13, TRAINING)
losses_from_large, outcomes_from_large = train(0.39, SHORT)

# %%
# How many spikes are right
# -------------------------
#
# Target spikes of the same neuron are at least five steps apart, so an output spike can be within
# two steps of at most one target spike.


def near(spikes, reach):
    """Return where a spike is at most `reach` steps away, ``[time, 1, neuron]``."""
    padded = np.pad(spikes.numpy() > 0, ((reach, reach), (0, 0), (0, 0)))
    return np.any([padded[k : k + steps] for k in range(2 * reach + 1)], axis=0)


def found(output, reach):
    """Return the number of target spikes with an output spike within `reach`."""
    return int(np.sum((target.numpy() > 0) & near(output, reach)))


number = int(target.sum())
print(f"The target has {number} spikes.")
print("after     loss  output  exact  to 1 step  to 2 steps")
for step in (0, 10, 20, 40, 60, 100, TRAINING):
    output = outcomes[step]
    exact, one, two = (found(output, reach) for reach in (0, 1, 2))
    print(
        f"{step:5}  {losses[step]:7.1f}  {int(output.sum()):6}  "
        f"{exact:5}  {one:9}  {two:10}"
    )

assert found(outcomes[-1], 2) >= 0.98 * number
assert np.sum((outcomes[-1].numpy() > 0) & ~near(target, 2)) <= 0.02 * number

# %%
# The left picture shows the loss during training. The loss is 0 when every spike is in its place.
# To show this value, the scale is linear below 1, and logarithmic above. A single spike that is one
# step late costs 1.10.
#
# The grey line shows a training run whose initial weights are three times as large. The output of
# this network starts with far too many spikes. Within ten training steps, nearly all output spikes
# are gone, and few come back:

fired = [int(outcomes_from_large[step].sum()) for step in (0, 1, 10, SHORT)]
print(f"Output spikes from large weights, after 0, 1, 10 and {SHORT} steps:", *fired)

# %%

fig, (left, right) = figure(1, 2, size=(7, 2.7))
left.plot(losses_from_large, color=GREY)
left.text(SHORT + 5, losses_from_large[-1], "from large weights", va="center")
left.plot(losses, color=TEAL)
left.set_yscale("symlog", linthresh=1, linscale=0.4)
left.set(title="loss", ylim=(-0.1, None), yticks=(0, 1, 10, 100, 1000, 10000))
left.set_yticklabels(["0", "1", "10", "100", "1000", "10000"])
lines = {"to 2 steps": (2, TEAL), "to 1 step": (1, GOLD), "exact": (0, PINK)}
for text, (reach, colour) in lines.items():
    share = [100 * found(spikes, reach) / number for spikes in outcomes]
    right.plot(share, color=colour, label=text)
right.set(title="target spikes that are met (%)", ylim=(0, 104))
right.legend(loc="lower right")
for ax in (left, right):
    ax.set_xlabel("training step")
describe(
    fig,
    "The loss falls from about 1000 to 0. From large weights, it stays near 1000. "
    "The share of target spikes that are met rises to 100 %, and rises fastest if "
    "output spikes may be 2 steps away",
)

# %%
# The output during training
# --------------------------
#
# Circles are target spikes, dots inside them are output spikes in the right place, and pink dots
# are output spikes in a wrong place. At first the spikes gather around the strokes of the letters.
# Then each spike moves to its exact step.

shown = (0, 15, 35, TRAINING)
fig, axes = figure(2, 2, size=(7, 4), sharex=True, sharey=True)
for ax, step in zip(axes.flat, shown, strict=True):
    dots(ax, outcomes[step], size=8)
    ax.set_title(
        f"after {step} steps: {found(outcomes[step], 0)} of {number} in place"
    )
    ax.label_outer()
for ax in axes[-1]:
    ax.set_xlabel("time (steps)")
describe(
    fig,
    "The word SPIKE in circles: at first with a few stray pink dots, then with "
    "pink dots near the letters, and at the end with a dot in all circles except "
    "one",
)

# sphinx_gallery_thumbnail_number = 3
