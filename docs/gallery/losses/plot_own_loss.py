"""
A loss of your own
==================

A loss consists of two parts. The readout computes a quantity from the spikes, which is called the
reading. The criterion compares the reading with the target.

This example defines both parts for a new loss: the labelled neuron should lead, and it should lead
early. We also write the derivatives of both parts, so the loss has a gradient in NumPy and CuPy as
well. A single line tests that all libraries agree.
"""

# %%
# The formula
# -----------
#
# Later spikes have less weight, and the labelled class should be ahead of every other class by a
# margin:
#
# .. math::
#    u_c = \sum_t e^{-t / \tau} s_{c, t}, \qquad
#    L = \sum_{c \ne y} \max(m - (u_y - u_c), 0)^2 .
#
# Once the lead of the label is at least the margin, the loss and its gradient are 0.
#
# The loss
# --------
#
# The readout and the criterion each return their result and its *pullback*. The pullback is a
# function that takes the derivative of the loss with respect to the result, and returns the
# derivative of the loss with respect to the argument. ``xp`` is the namespace of the array library.
# The code uses only functions of the array API standard, so the same code works with all libraries.
# Labels, masks, weights, reductions and layouts are inherited from ``ClassLoss``.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

import textwrap
from dataclasses import dataclass, replace

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import FuncNorm, LinearSegmentedColormap, Normalize
from matplotlib.ticker import MaxNLocator

import spikeloss_xp as sx

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


@dataclass(frozen=True)
class EarlyLead(sx.losses.ClassLoss):
    """The label should lead by a margin, in counts that fade with time."""

    time_constant: float = 20
    margin: float = 1

    def read(self, trains):
        """Count the spikes of each neuron, each for ``exp(-t / time_constant)``."""
        xp, spikes = trains.xp, trains.values  # masked spikes are 0
        step = xp.astype(trains.time.positions(spikes), spikes.dtype)
        worth = xp.exp(-step / self.time_constant)
        return trains.reading(
            trains.time.sum(worth * spikes)
        ), lambda cotangent: cotangent * worth

    def criterion(self, reading, labels):
        """Return ``max(margin - (u_y - u_c), 0)²`` for each class except ``y``."""
        xp, u, classes = reading.xp, reading.u, reading.classes
        label, zero = labels.one_hot(reading), xp.zeros_like(u)
        own = classes.sum(xp.where(label, u, zero))
        short = xp.where(label, zero, xp.clip(self.margin - own + u, min=0))

        def pullback(cotangent):
            # of each class; the label has minus their sum
            slope = 2 * cotangent * short
            return slope - xp.where(label, classes.sum(slope), zero)

        return short * short, pullback


# %%
# Its gradient
# ------------
#
# The labelled neuron fires five times in each of two samples. In the first sample it fires late,
# and in the second sample it fires early.

spikes = np.zeros((2, 3, 60))
spikes[0, 0, 35:60:5] = spikes[1, 0, 4:29:5] = 1
spikes[:, 1, [8, 30, 50]] = 1
spikes[:, 2, [15, 42]] = 1
labels = [0, 0]

loss = EarlyLead(time_axis=-1, reduction="sum")
value, gradient = sx.value_and_grad(loss)(spikes, labels)
terms = replace(loss, reduction="none")(spikes, labels)  # [batch, class]
counted = np.cumsum(spikes * np.exp(-np.arange(60) / 20), axis=-1)  # up to each step

# %%

fig, axes = figure(3, 2, size=(7, 4.4), sharex=True, sharey="row")
largest = np.abs(gradient).max()
for sample, (above, read, below) in enumerate(axes.T):
    raster(above, spikes[sample])
    trace(read, counted[sample], highest=counted.max())
    heat(below, gradient[sample], "", largest=largest)
    beside(read, [f"{term:.2f}" for term in terms[sample]], "loss", room=False)
    for ax in (above, read):
        shade(ax, row=0)
    above.set_title(("label late", "label early")[sample])
    read.set_title("early count so far")
    below.set(title="gradient", xlabel="time (steps)")
for ax in axes.flat:
    names(ax, ["label", "class 1", "class 2"])
describe(
    fig,
    "If the label fires late, its gradient is blue and the gradient of the others "
    "is orange, both strongest at the first steps. If the label fires early, its "
    "count leads, and the loss and the gradient are 0",
)

# %%
# In the left sample, a spike of the label lowers the loss, and an early spike lowers it most. A
# spike of any other class raises the loss, and a spike of the class that is furthest ahead raises
# it most. In the right sample, the label leads by the margin, so the gradient is 0. A loss that
# counts spikes cannot tell the two samples apart:

counts = sx.CrossEntropy(time_axis=-1, reduction="none")
print("CrossEntropy", counts(spikes, labels))
print("EarlyLead   ", terms.sum(axis=-1))

# %%
# A test that all libraries agree
# -------------------------------
#
# In this test, PyTorch and JAX differentiate the readout and the criterion automatically. The
# gradient in NumPy comes from the pullbacks that we wrote. If the two gradients agree, the
# pullbacks are right.

print(sx.testing.assert_consistent(loss, spikes.astype(np.float32), labels))
sx.testing.assert_consistent(
    loss, spikes, labels, lengths=[60, 25], weight=[1, 2, 3]
)
for odd in (np.zeros_like(spikes), np.ones_like(spikes)):  # silent, and saturated
    sx.testing.assert_consistent(loss, odd, [0, 2])

# %%
# The test also detects mistakes, such as a wrong factor in a pullback:


class Mistaken(EarlyLead):
    """The same loss with half of its gradient."""

    def criterion(self, reading, labels):
        """Return the right terms and a wrong pullback."""
        terms, pullback = super().criterion(reading, labels)
        return terms, lambda cotangent: pullback(cotangent) / 2


try:
    sx.testing.assert_consistent(Mistaken(time_axis=-1), spikes, labels)
except AssertionError as complaint:
    for line in str(complaint).splitlines():
        print(textwrap.fill(line, 85, subsequent_indent="    "))
else:
    raise RuntimeError(
        "not found: is there a library here that differentiates by itself?"
    )
