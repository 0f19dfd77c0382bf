"""
How strongly a loss pulls
=========================

``CrossEntropy`` takes the number of spikes of a class as its logit, or the root of that number.
``SpikeMax`` takes the logarithm.

The three differ in how much one more spike changes the logit, and
in how certain they are of an answer that is due to chance.
"""

# %%
# The logit, and what one spike adds
# ----------------------------------
#
# The gradient of a cross entropy with respect to a spike of the label is the product of two
# factors: the probability that the label lacks, 1 - p, and the slope of the logit at its number of
# spikes n. So the slope is the gradient divided by that factor. Here it is from the library: the
# label has n spikes, and another class has 3.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import dataclasses

import numpy as np
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
    """Return a figure in the shared style, and its axes; `options` are those of `plt.subplots`.

    The style applies to later figures too.
    """
    plt.rcParams.update(STYLE)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **options)


def describe(fig, text):
    """Attach a text for readers who do not see the picture: the site reads it from the title."""
    fig.suptitle(text, visible=False).set_in_layout(False)


# sphinx_gallery_end_ignore

options = {"time_axis": -1, "reduction": "none"}
losses = {
    "n": sx.CrossEntropy(**options),
    "root of n + 3/8": sx.CrossEntropy(readout="sqrt_count", **options),
    "log(n)": sx.SpikeMax(**options),
}
COLOURS = {"n": GREY, "root of n + 3/8": TEAL, "log(n)": GOLD}


def slope(loss, number):
    """Return the slope of the logit of a class with so many spikes."""
    counts = np.asarray([[number, 3.0]])  # [batch, class]
    value, gradient = sx.value_and_grad(loss)(counts[..., None], [0], cotangent=np.ones(1))
    return -gradient[0, 0, 0] / -np.expm1(-value[0])


print("spikes           1     4    25")
for name, loss in losses.items():
    print(f"{name:15}", *(f"{slope(loss, number):5.2f}" for number in (1, 4, 25)))

# %%
# A loss can be called with numbers of spikes: ``counts[..., None]`` is a train of one step.
#
# The picture has the three logits and their slopes. Below half a spike, ``SpikeMax`` continues the
# logarithm along its tangent, so that its loss is finite at silence.

n = np.linspace(0, 25, 501)
root = np.sqrt(n + 3 / 8)
logarithm = np.where(n < 0.5, np.log(0.5) + (n - 0.5) / 0.5, np.log(np.maximum(n, 0.5)))
curves = {
    "n": (n, np.ones_like(n)),
    "root of n + 3/8": (root, 0.5 / root),
    "log(n)": (logarithm, 1 / np.maximum(n, 0.5)),
}
for name, (_, derivative) in curves.items():
    for number in (1, 4, 25):
        assert np.isclose(slope(losses[name], number), derivative[20 * number], rtol=1e-4)

# %%

fig, (left, right) = figure(1, 2, size=(7, 2.9))
for name, (logit, derivative) in curves.items():
    left.plot(n, logit - logit[0], color=COLOURS[name], linewidth=2)
    right.plot(n, derivative, color=COLOURS[name], linewidth=2, label=name)
left.set(title="logit, from silence on", xlabel="number of spikes n", ylim=(0, 12), xlim=(0, 25))
right.set(
    title="pull: slope of the logit", xlabel="number of spikes n", xlim=(0, 25), ylim=(0, 2.1)
)
right.legend()
describe(
    fig,
    "The logit n is a line with the slope 1. The root and the logarithm rise steeply at few spikes "
    "and then slowly; the slope of the root falls from 0.82 to 0.10, that of the logarithm from 2 "
    "to 0.04",
)

silent, busy = curves["root of n + 3/8"][1][[0, -1]]
print(f"slope of the root: {silent:.2f} at silence, {busy:.2f} at 25 spikes")

# %%
# With n, a neuron that fires 25 times is pulled as strongly as a silent one. The root pulls the
# silent one eight times as strongly, and the logarithm fifty times.
#
# How certain chance is
# ---------------------
#
# Before training, the numbers of spikes of ten output neurons differ by chance. Here they are
# random, from the same Poisson distribution for all classes, so no class is the right one. The left
# panel has the standard deviation of a logit. The right panel has the probability that the loss
# gives to the winner, which is the class with the most spikes.

means = np.geomspace(0.5, 100, 24)
rng = np.random.default_rng(0)
counts = rng.poisson(means[:, None, None], (len(means), 2000, 10)).astype(float)
winner = counts.argmax(axis=-1)

scatter = {
    "n": counts.std(axis=(1, 2)),
    "root of n + 3/8": np.sqrt(counts + 3 / 8).std(axis=(1, 2)),
    "log(n)": np.log(np.maximum(counts, 0.5)).std(axis=(1, 2)),
}
samples = counts.reshape(-1, 10, 1)  # [batch, class, time]
certain = {
    name: np.exp(-loss(samples, winner.ravel())).reshape(winner.shape).mean(axis=1)
    for name, loss in losses.items()
}

# %%

fig, (left, right) = figure(1, 2, size=(7, 2.9), sharex=True)
for name, colour in COLOURS.items():
    left.plot(means, scatter[name], color=colour, linewidth=2, label=name)
    right.plot(means, certain[name], color=colour, linewidth=2)
left.set(title="scatter of the logit", ylim=(0, 2.5), xscale="log")
left.legend()
right.set(title="probability of the winner", ylim=(0, 1))
for ax in (left, right):
    ax.set_xlabel("mean number of spikes")
    ax.set_xticks([1, 10, 100], ["1", "10", "100"])
describe(
    fig,
    "The scatter of n grows with the root of the mean, that of the root stays near one half, and "
    "that of the logarithm falls. With n the probability of the winning class rises to 0.9, with "
    "the root it stays near 0.2",
)

# %%

for mean in (1, 10, 100):
    k = np.argmin(abs(means - mean))
    shares = ", ".join(f"{name} {certain[name][k]:.0%}" for name in losses)
    print(f"mean of {means[k]:5.1f} spikes: {shares}")

# %%
# With n and many spikes, the softmax is certain of a class that chance has chosen. Nine samples in
# ten have another label, so the first training steps push the neurons that fire towards silence.
# The root scatters by about one half whatever the mean is (F. J. Anscombe, 1948), so its softmax
# stays undecided while the classes differ by chance only. This is a likely reason why training with
# ``readout="sqrt_count"`` works at high learning rates and with long samples, where training with
# counts may fail. The page "Which loss trains" has the measurement.
#
# Bounds pull until a rate is reached
# -----------------------------------
#
# With ``rates=(0.5, 0.02)`` the labelled neuron is pulled up to a spike in every second step, and
# the others down to one in fifty, whatever the softmax says. Here a sample has 100 steps. On the
# left the label has n spikes and the other class 40; on the right the label has 10 and the other
# class n. The weights are those that trained best, 3 with counts and 1 with roots.

steps, n = 100, np.arange(100)
fig, (left, right) = figure(1, 2, size=(7, 2.9), sharex=True)
for name, colour, weight in [("n", GREY, 3), ("root of n + 3/8", TEAL, 1)]:
    for rates, line in [(None, ":"), ((0.5, 0.02), "-")]:
        loss = dataclasses.replace(losses[name], rates=rates, rate_weight=weight)
        for axes, label, counts in [
            (left, 0, np.stack([n, np.full_like(n, 40)], axis=1)),
            (right, 1, np.stack([n, np.full_like(n, 10)], axis=1)),
        ]:
            spikes = np.arange(steps) < counts[..., None]  # [sample, class, step]
            _, pull = sx.value_and_grad(loss)(
                spikes, np.full(steps, label), cotangent=np.ones(steps)
            )
            text = name if rates is None else f"{name}, bounds"
            axes.plot(n, -pull[:, 0, 0], line, color=colour, linewidth=2, label=text)
            if rates and label == 0:
                print(f"pull of a silent label, {text}: {-pull[0, 0, 0]:.2f}")
left.set(title="pull on the label", xlabel="its number of spikes n", ylim=(-0.2, 8))
right.set(title="pull on another class", xlabel="its number of spikes n")
left.legend()
describe(
    fig,
    "The cross entropy pulls the label by at most 1, and another class by at least -1. With bounds "
    "the pull on a silent label is many times larger and ends at 50 spikes, and another class is "
    "pulled down from 2 spikes on",
)

# sphinx_gallery_start_ignore
# The numbers of the text.
assert round(silent, 2) == 0.82
assert round(busy, 2) == 0.1
assert abs(scatter["root of n + 3/8"][means > 2] - 0.5).max() < 0.06
assert certain["root of n + 3/8"].max() < 0.3
assert abs(certain["n"][-1] - 0.9) < 0.03
# sphinx_gallery_end_ignore
