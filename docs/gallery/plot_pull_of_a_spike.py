"""
How strongly a loss pulls
=========================

``CrossEntropy`` uses the spike count of a class as its logit, or the square root of the count.
``SpikeMax`` uses the logarithm of the count.

This example compares the three logits in two ways: how much does one more spike change the logit,
and how certain is the loss of a prediction that is due to chance?
"""

# %%
# The logit, and what one spike adds
# ----------------------------------
#
# The gradient of a cross entropy with respect to a spike of the label is, apart from its sign, the
# product of two factors. The first factor is 1 - p, where p is the probability of the label. The
# second factor is the slope of the logit at the spike count n of the label. We call this slope the
# pull. To get the slope, we divide the gradient by 1 - p. The code below does this for a label with
# n spikes and a second class with 3 spikes.
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
    value, gradient = sx.value_and_grad(loss)(
        counts[..., None], [0], cotangent=np.ones(1)
    )
    return -gradient[0, 0, 0] / -np.expm1(-value[0])


print("spikes           1     4    25")
for name, loss in losses.items():
    print(f"{name:15}", *(f"{slope(loss, number):5.2f}" for number in (1, 4, 25)))

# %%
# As this code shows, you can also call a loss with spike counts: ``counts[..., None]`` is a spike
# train with a single step.
#
# The picture shows the three logits and their slopes. Below half a spike, ``SpikeMax`` continues
# the logarithm along its tangent, so that its loss is finite if the label is silent.

n = np.linspace(0, 25, 501)
root = np.sqrt(n + 3 / 8)
logarithm = np.where(
    n < 0.5, np.log(0.5) + (n - 0.5) / 0.5, np.log(np.maximum(n, 0.5))
)
curves = {
    "n": (n, np.ones_like(n)),
    "root of n + 3/8": (root, 0.5 / root),
    "log(n)": (logarithm, 1 / np.maximum(n, 0.5)),
}
for name, (_, derivative) in curves.items():
    for number in (1, 4, 25):
        assert np.isclose(
            slope(losses[name], number), derivative[20 * number], rtol=1e-4
        )

# %%

fig, (left, right) = figure(1, 2, size=(7, 2.9))
for name, (logit, derivative) in curves.items():
    left.plot(n, logit - logit[0], color=COLOURS[name], linewidth=2)
    right.plot(n, derivative, color=COLOURS[name], linewidth=2, label=name)
left.set(
    title="logit, from silence on",
    xlabel="number of spikes n",
    ylim=(0, 12),
    xlim=(0, 25),
)
right.set(
    title="pull: slope of the logit",
    xlabel="number of spikes n",
    xlim=(0, 25),
    ylim=(0, 2.1),
)
right.legend()
describe(
    fig,
    "The logit n is a line with slope 1. The square root and the logarithm rise "
    "steeply at few spikes and then slowly. The slope of the square root falls "
    "from 0.82 to 0.10, and the slope of the logarithm from 2 to 0.04",
)

silent, busy = curves["root of n + 3/8"][1][[0, -1]]
print(f"slope of the root: {silent:.2f} at silence, {busy:.2f} at 25 spikes")

# %%
# The picture compares the pull on a silent neuron with the pull on a neuron that fires 25 times. If
# the logit is n, both pulls are the same. If the logit is the square root of n, the pull on the
# silent neuron is eight times as strong. If the logit is the logarithm of n, it is fifty times as
# strong.
#
# How certain a loss is of a random result
# ----------------------------------------
#
# Before training, the spike counts of ten output neurons differ only by chance. To imitate this, we
# draw all counts from the same Poisson distribution, so the counts contain no information about the
# class. The left picture shows the standard deviation of a logit. The right picture shows the
# probability that the loss assigns to the class with the most spikes.

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
    "The standard deviation of n grows with the square root of the mean. The "
    "standard deviation of the square root stays near one half, and that of the "
    "logarithm falls. With n, the probability of the class with the most spikes "
    "rises to 0.9; with the square root, it stays near 0.2",
)

# %%

for mean in (1, 10, 100):
    k = np.argmin(abs(means - mean))
    shares = ", ".join(f"{name} {certain[name][k]:.0%}" for name in losses)
    print(f"mean of {means[k]:5.1f} spikes: {shares}")

# %%
# If the logit is n and there are many spikes, the softmax is certain of a class that has the most
# spikes only by chance. Nine samples in ten have a different label, so the first training steps
# push the firing neurons towards silence.
#
# The square root of a random count has a standard deviation of about one half at any mean (F. J.
# Anscombe, 1948), so the softmax of square roots stays undecided as long as the classes differ only
# by chance. At high learning rates and with long samples, training with counts may fail, and
# training with ``readout="sqrt_count"`` works. The scatter of the logits is a likely reason. The
# page "Measured: which loss trains best" describes the measurements.
#
# Bounds pull until they are reached
# ----------------------------------
#
# With the bounds ``rates=(0.5, 0.02)``, the labelled neuron should fire in at least half of the
# steps, and every other neuron in at most 2 % of the steps. Bounds pull until this is the case,
# even if the softmax is already certain. In this example, a sample has 100 steps. In the left
# picture, the label has n spikes and the second class has 40 spikes. In the right picture, the
# label has 10 spikes and the second class has n spikes. For the weight of the bounds, we use the
# values that trained best: 3 with counts, and 1 with square roots.

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
    "The cross entropy pulls the label by at most 1, and the other class by at "
    "least -1. With bounds, the pull on a silent label is many times larger and "
    "ends at 50 spikes, and the other class is pulled down from 2 spikes on",
)

# sphinx_gallery_start_ignore
# The numbers of the text.
assert round(silent, 2) == 0.82
assert round(busy, 2) == 0.1
assert abs(scatter["root of n + 3/8"][means > 2] - 0.5).max() < 0.06
assert certain["root of n + 3/8"].max() < 0.3
assert abs(certain["n"][-1] - 0.9) < 0.03
# sphinx_gallery_end_ignore
