"""Drawing functions shared by the examples: rasters, traces and gradients.

All pictures in the documentation use the same colours. Spikes are black, target spikes are green,
and what the loss reads from the spikes is purple. The gradient is blue where one more spike lowers
the loss and orange where it raises the loss. The live page has the same values in
``_static/live.css``.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import FuncNorm, LinearSegmentedColormap, Normalize
from matplotlib.ticker import MaxNLocator

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
