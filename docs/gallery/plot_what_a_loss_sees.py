"""
What a loss sees
================

A loss computes a quantity from the spikes, such as a rate, and compares this quantity with a
target.

This example applies four losses to the same small sample. Each picture shows the spikes at the top,
the quantity that the loss computes from the spikes in the middle, and the gradient of the loss at
the bottom.
"""

# %%
# A sample of five neurons
# ------------------------
#
# The arrays have shape ``[batch, neuron, time]``. One neuron never fires, and another neuron fires
# at every third step.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import jax.numpy as jnp
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import FuncNorm, LinearSegmentedColormap, Normalize
from matplotlib.ticker import MaxNLocator

import spikeloss_xp as sx
from spikeloss_xp.slayer import published

# sphinx_gallery_start_ignore
# Copies, so that this script runs alone.

SPIKES, TARGET, FILTERED = "#222832", "#16845c", "#8a5cc0"  # black, green, purple
INK = SPIKES  # of texts
LOWERS, RAISES = "#1f75c4", "#d4590f"  # the gradient: blue below 0, and orange above
PINK, GOLD, TEAL = "#c43a80", "#94700a", "#0c8096"  # for everything else
GREY, LIGHT, PALE = "#707a84", "#e6eaef", "#fbeecb"
GRADIENT = LinearSegmentedColormap.from_list(
    "gradient",
    ["#0b3c6f", LOWERS, "#8fc1e8", "white", "#f9b98a", RAISES, "#8a3003"],
    N=257,  # odd, so that 0 is white
)
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


def raster(ax, spikes, *, color=SPIKES, target=None, size=0.36):
    """Draw spikes as ticks, and `target` spikes as open circles around them.

    `color` is a single colour for all neurons, or a list with one colour per neuron.
    """
    spikes = np.asarray(spikes)
    neurons, steps = spikes.shape
    if target is not None:
        neuron, step = np.nonzero(target)
        ax.scatter(
            step, neuron, s=46, facecolors="none", edgecolors=TARGET, linewidths=1.4
        )
    neuron, step = np.nonzero(spikes)
    if not isinstance(color, str):
        color = [color[row] for row in neuron]
    ax.vlines(step, neuron - size, neuron + size, color=color, linewidth=1.3)
    _rows(ax, neurons, steps)


def trace(ax, x, *, color=FILTERED, target=None, highest=None):
    """Draw a line for each neuron, on one scale, and a dashed line for its `target`.

    `target` has shape ``[neuron]`` or ``[neuron, time]``. `highest` is the value
    that fills a row, by default the largest value. If there are negative values,
    the lines start in the middle of their rows, otherwise at the bottom.
    """
    x = np.asarray(x)
    neurons, steps = x.shape
    target = x[:0] if target is None else np.asarray(target)
    target = (
        np.broadcast_to(target[:, None], x.shape) if target.ndim == 1 else target
    )
    both = np.concatenate([x, target])
    highest = max(float(np.abs(both).max()), 1e-12) if highest is None else highest
    bottom, height = (0, 0.42) if both.min() < 0 else (0.4, 0.8)
    time = np.arange(steps)
    for neuron, line in enumerate(x):
        zero = neuron + bottom
        curve = zero - height * line / highest
        ax.axhline(zero, color=LIGHT, linewidth=1)
        ax.fill_between(time, zero, curve, color=color, alpha=0.2, linewidth=0)
        ax.plot(time, curve, color=color, linewidth=1.4)
    for neuron, line in enumerate(target):
        curve = neuron + bottom - height * line / highest
        ax.plot(time, curve, color=TARGET, linewidth=1.3, linestyle=(0, (3, 2)))
    _rows(ax, neurons, steps)


def heat(ax, x, label="gradient", *, largest=None, root=False):
    """Draw a gradient, white at 0, blue below and orange above, with a colour bar.

    With `root`, the colours show the square root of the size, so that small values
    are visible next to large ones.
    """
    x = np.asarray(x)
    neurons, steps = x.shape
    largest = max(float(np.abs(x).max()), 1e-300) if largest is None else largest
    norm = (
        FuncNorm((_root, _square), -largest, largest)
        if root
        else Normalize(-largest, largest)
    )
    image = ax.imshow(
        x, cmap=GRADIENT, norm=norm, aspect="auto", interpolation="nearest"
    )
    ax.hlines(
        np.arange(neurons - 1) + 0.5, -0.5, steps - 0.5, color=LIGHT, linewidth=1
    )
    _rows(ax, neurons, steps)
    ticks = largest * np.asarray([-1, -0.1, 0, 0.1, 1] if root else [-1, 0, 1])
    bar = ax.figure.colorbar(image, ax=ax, ticks=ticks, aspect=9, pad=0.015)
    bar.ax.set_yticklabels([f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label(label)
    bar.outline.set_visible(False)
    return image


def _root(x):
    return np.sign(x) * np.sqrt(np.abs(x))


def _square(x):
    return np.sign(x) * np.square(x)


def names(ax, labels):
    """Label each row with the name of its neuron."""
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)


def beside(ax, texts, title="", *, room=True):
    """Write a short text at the right end of each row.

    If `room` is false, no space is reserved for the text, because the colour bar of
    another row has already reserved it.
    """
    place = {"textcoords": "offset points", "annotation_clip": False}
    notes = [ax.annotate(title, (1, 1), (6, 6), xycoords="axes fraction", **place)]
    place |= {"xycoords": ("axes fraction", "data"), "va": "center"}
    notes += [
        ax.annotate(text, (1, row), (6, 0), **place)
        for row, text in enumerate(texts)
    ]
    for note in notes:
        note.set_in_layout(room)


def shade(ax, row, start=None, stop=None):
    """Shade a row, or only its steps from `start` to before `stop`."""
    first, last = ax.get_xlim()
    first = first if start is None else start - 0.5
    last = last if stop is None else stop - 0.5
    ax.fill_between(
        [first, last], row - 0.5, row + 0.5, color=PALE, linewidth=0, zorder=0
    )


def _rows(ax, neurons, steps):
    """Give each neuron a row, the first at the top, and each step a place in x."""
    ax.set(xlim=(-0.5, steps - 0.5), ylim=(neurons - 0.5, -0.5))
    # and not already named
    if isinstance(ax.yaxis.get_major_locator(), MaxNLocator):
        ax.yaxis.get_major_locator().set_params(integer=True)


# sphinx_gallery_end_ignore

STEPS = 80

spikes = np.zeros((1, 5, STEPS), dtype=np.float32)
spikes[0, 1, ::3] = 1
spikes[0, 2, 7:75:12] = 1
spikes[0, 3, [14, 34, 54, 74]] = 1
spikes[0, 4, [20, 22, 24, 26, 58, 60, 62, 64]] = 1

# %%

NEURONS = ["silent", "busy", "regular", "sparse", "bursts"]


def show(
    reading, what, terms, gradient, seen, *, target=None, trains=None, labels=()
):
    """Draw spikes, reading, loss and gradient; `seen` describes the picture."""
    # all classes have one term at each step, not one each
    together = terms.ndim == 2
    heights = (1, 1, 0.22, 1) if together else (1, 1, 1)
    fig, axes = figure(
        len(heights), size=(7, 4.8), sharex=True, height_ratios=heights
    )
    above, read, *term, below = axes
    raster(above, spikes[0], target=trains)
    trace(read, reading, target=target)
    heat(below, gradient[0], root=True)
    above.set_title(
        "spikes (shaded: the label)" if trains is None else "spikes and target"
    )
    read.set_title(what)
    below.set_title(
        "gradient: one more spike lowers the loss (blue) or raises it (orange)"
    )
    if together:
        trace(term[0], terms, color=GREY)
        term[0].set(title="loss at each step", yticks=[])
    losses = terms[0].sum(axis=-1, keepdims=together)  # over time
    beside((*term, read)[0], [f"{loss:.1f}" for loss in losses], "loss", room=False)
    for ax in (above, read, below):
        names(ax, NEURONS)
    for row, start, stop in labels:
        shade(above, row, start, stop)
        shade(read, row, start, stop)
    below.set_xlabel("time (steps)")
    describe(fig, seen)


# %%
# SpikeTime: when a neuron should fire
# ------------------------------------
#
# The target is a spike train for each neuron (circles). The loss filters both trains, and the
# filtered trains are called traces. The loss is the squared difference between the two traces,
# summed over time. The number on the right is the loss of each neuron. The colours show the square
# root of the gradient, so that small values are visible.

trains = np.zeros_like(spikes)
trains[0, 0, 15::25] = 1
trains[0, 1, 10::20] = 1
trains[0, 2] = spikes[0, 2]
trains[0, 3, 10::20] = 1
trains[0, 4, [20, 60]] = 1

spike_time = sx.SpikeTime(time_constant=3, time_axis=-1, reduction="sum")
value, gradient = sx.value_and_grad(spike_time)(spikes, trains)
# [batch, neuron, time]
terms = sx.SpikeTime(time_constant=3, reduction="none", time_axis=-1)(spikes, trains)

# %%

kernel = sx.exponential_kernel(time_constant=3, length=60)
show(
    sx.causal_filter(spikes[0], kernel, time_axis=-1),
    "filtered, and the filtered target (dashed)",
    terms,
    gradient,
    "The gradient is blue around each missing spike of the silent neuron, orange "
    "everywhere for the busy neuron, 0 for the regular neuron, and blue and "
    "then orange at each late spike",
    target=sx.causal_filter(trains[0], kernel, time_axis=-1),
    trains=trains[0],
)
print(f"loss {value:.1f}")

# %%
# The gradient of the silent neuron is negative around each circle, because a spike there would
# lower the loss. The gradient of the busy neuron is positive everywhere. The regular neuron already
# fires at its target times, so its gradient is 0. The sparse neuron fires four steps too late, so
# earlier spikes would lower the loss.
#
# SpikeRate: how often a neuron should fire
# -----------------------------------------
#
# The target is a class: the labelled neuron should fire at one rate, and all other neurons at a
# second, lower rate. With a moving window, the loss computes the rate over the last steps at every
# step, and compares this rate with the target rate.

spike_rate = sx.SpikeRate(
    true_rate=0.6, false_rate=0.1, moving_window=16, time_axis=-1, reduction="sum"
)
value, gradient = sx.value_and_grad(spike_rate)(spikes, [0])
terms = sx.SpikeRate(0.6, 0.1, moving_window=16, reduction="none", time_axis=-1)(
    spikes, [0]
)
rate = sx.moving_average(spikes, 16, time_axis=-1)

# %%

show(
    rate[0],
    "rate in the last 16 steps, and its target (dashed)",
    terms,
    gradient,
    "The gradient is strong and blue for the silent labelled neuron, and strong "
    "and orange for the busy neuron. For the bursting neuron it is orange around "
    "the bursts and blue between them. All rows fade at the end",
    target=[0.6, 0.1, 0.1, 0.1, 0.1],
    labels=[(0, 0, STEPS)],
)
print(f"loss {value:.1f}")

# %%
# Each spike is part of the window for 16 steps, starting with its own. This is why the gradient of
# the bursting neuron turns orange before a burst begins, and why all rows fade towards the end,
# where fewer steps are left.
#
# SpikeMax: who should fire most
# ------------------------------
#
# The label may change over time. In this example, the label is the silent neuron for the first 40
# steps, and then the bursting neuron. For each class, the loss computes the share of its rate in
# the sum of all rates. Each step has a single term: the negative logarithm of the label's share.

labels = np.repeat([[0, 4]], 40, axis=1)  # [batch, time]
spike_max = sx.SpikeMax(moving_window=16, time_axis=-1, reduction="sum")
value, gradient = sx.value_and_grad(spike_max)(spikes, labels)
# [batch, time]
terms = sx.SpikeMax(moving_window=16, reduction="none", time_axis=-1)(spikes, labels)

# %%

show(
    rate[0] / (rate[0].sum(axis=0) + 1e-6),
    "share of the rates in the last 16 steps",
    terms,
    gradient,
    "The gradient is strong and blue for the silent neuron while it is the label, "
    "then for the bursting neuron, and weak and orange in all other rows. The loss "
    "falls at the second burst",
    labels=[(0, 0, 40), (4, 40, STEPS)],
)

# %%

print(f"loss {value:.1f}, finite gradient: {np.isfinite(gradient).all()}")

as_published = published.SpikeMax(moving_window=16, time_axis=-1, reduction="sum")
print(f"loss as it was published: {as_published(torch.asarray(spikes), labels):.1f}")

# %%
# The share of a silent neuron is 0, and the logarithm of 0 is minus infinity. Below half a spike,
# the loss therefore replaces the logarithm by its tangent, so that the value and the gradient are
# finite. The fewer spikes the labelled neuron has, the larger its gradient. All other classes
# have the same gradient, because the share of the label does not depend on which of them fires.
#
# SpikeMoid: several labels at once
# ---------------------------------
#
# A sample may have several labels. The loss computes a probability for each class. The probability
# is a sigmoid function of the rate, and is one half at the rate ``theta``.

several = np.asarray([[True, False, True, False, False]])  # [batch, class]
spike_moid = sx.SpikeMoid(
    moving_window=16, alpha=0.1, theta=0.2, time_axis=-1, reduction="sum"
)
value, gradient = sx.value_and_grad(spike_moid)(spikes, several)
terms = sx.SpikeMoid(
    moving_window=16, reduction="none", alpha=0.1, theta=0.2, time_axis=-1
)(spikes, several)

# %%

show(
    1 / (1 + np.exp(-(rate[0] - 0.2) / 0.1)),
    "probability that the class applies",
    terms,
    gradient,
    "The gradient is strong and blue for the two labelled neurons, which are the "
    "silent and the regular neuron, and orange for the others. It is strongest for "
    "the busy neuron and around the bursts",
    labels=[(0, 0, STEPS), (2, 0, STEPS)],
)
print(f"loss {value:.1f}")

# %%
# The rate of the silent neuron is as far from its target as possible. Still, the gradient of this
# neuron is not 0.
#
# Does the gradient point the right way?
# --------------------------------------
#
# To test this, give the silent neuron one spike, at the step with the most negative gradient. The
# value of every loss falls:

tasks = [
    (spike_time, trains),
    (spike_rate, [0]),
    (spike_max, labels),
    (spike_moid, several),
]
for loss, target in tasks:
    value, gradient = sx.value_and_grad(loss)(spikes, target)
    step = np.argmin(gradient[0, 0])
    more = spikes.copy()
    more[0, 0, step] = 1
    name = type(loss).__name__
    print(
        f"{name:9}  {value:6.1f}, "
        f"with a spike at step {step:2}: {loss(more, target):6.1f}"
    )

# %%
# The same code with other libraries
# ----------------------------------
#
# The array library of the spikes computes the loss. NumPy has no automatic differentiation, so
# ``value_and_grad`` computes its gradients in closed form. PyTorch and JAX differentiate the losses
# automatically. The last column gives the largest difference from the gradient in NumPy, relative
# to the largest entry of that gradient.

for loss, target in tasks:
    _, expected = sx.value_and_grad(loss)(spikes, target)
    for library in (np, torch, jnp):
        value, gradient = sx.value_and_grad(loss)(library.asarray(spikes), target)
        difference = (
            np.abs(np.asarray(gradient) - expected).max() / np.abs(expected).max()
        )
        name = f"{type(loss).__name__:9}  {library.__name__:9}"
        print(f"{name}  {float(value):9.4f}  {difference:.0e}")
