"""
Distances between recorded spike trains
=======================================

``SpikeTime`` is a distance between spike trains, so it can compare recordings too.

The loss is the squared van Rossum distance in discrete time. In this example, we take 20 seconds of
a recording from an auditory receptor of a grasshopper, and compare each second with each other
second in a single call. We do this for three time constants. With a short time constant, the
distance shows which spikes coincide. With a long time constant, it compares spike counts.
"""

# %%
# The recording
# -------------
#
# The spikes are included in the library. They come from one receptor neuron of *Locusta migratoria*
# that heard a tone whose amplitude was modulated by noise [1]_. The first 10 seconds had noise up
# to 200 Hz, and the next 10 seconds had noise up to 800 Hz. The bins are 1 ms long. The noise
# continues from second to second, so **no second is a repetition of another**.
#
# .. dropdown:: Copy these drawing functions first
#
#    .. literalinclude:: /gallery/pictures.py
#       :language: Python
#       :start-at: import numpy

from importlib import resources

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator

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


def _rows(ax, neurons, steps):
    """Give each neuron a row, the first at the top, and each step a place in x."""
    ax.set(xlim=(-0.5, steps - 0.5), ylim=(neurons - 0.5, -0.5))
    # and not already named
    if isinstance(ax.yaxis.get_major_locator(), MaxNLocator):
        ax.yaxis.get_major_locator().set_params(integer=True)


# sphinx_gallery_end_ignore

shipped = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
with resources.as_file(shipped) as path, np.load(path) as arrays:
    recorded = arrays["input"]  # [second, stimulus, time]
trains = np.concatenate([recorded[:, 0], recorded[:, 1]])  # [train, time]
counts = trains.sum(axis=-1, dtype=int)

# %%

fig, ax = figure(size=(7, 3.8))
raster(ax, trains)
ax.axhline(9.5, color=PINK, linewidth=1)
ax.set(
    xlabel="time (ms)",
    yticks=[4.5, 14.5],
    yticklabels=["noise to\n200 Hz", "noise to\n800 Hz"],
)
beside(ax, counts, "spikes")
describe(
    fig,
    "A raster of twenty seconds, ten for each noise, with 73 to 127 spikes each. "
    "The first second of each noise has the most spikes, and no two seconds look "
    "alike",
)

# %%
# What the time constant does
# ---------------------------
#
# The loss filters both trains with an exponential kernel with time constant :math:`\tau`. The
# filtered trains are called traces, and the distance is the sum of the squared differences between
# the two traces. The picture shows a quarter of a second of two trains. With a time constant of 1
# ms, a trace shows little more than the spikes themselves. With a time constant of 100 ms, it is
# nearly a count of the recent spikes.

CONSTANTS = 1, 10, 100
pair = trains[[3, 4], :250]

fig, axes = figure(4, size=(7, 4.6), sharex=True)
raster(axes[0], pair)
axes[0].set_title("two seconds of the recording, their first 250 ms")
for ax, constant in zip(axes[1:], CONSTANTS, strict=True):
    trace(
        ax,
        sx.causal_filter(
            pair, sx.exponential_kernel(constant, 8 * constant), time_axis=-1
        ),
    )
    ax.set_title(rf"filtered with $\tau$ = {constant} ms")
axes[-1].set_xlabel("time (ms)")
for ax in axes:
    names(ax, ["4th second", "5th second"])
describe(
    fig,
    "Two spike trains and their filtered traces, which are separate peaks at 1 ms, "
    "overlapping peaks at 10 ms and curves that rise almost steadily at 100 ms",
)

# %%
# All pairs at once
# -----------------
#
# A loss takes any number of trains, so a single call is enough for all pairs. With
# ``reduction="none"``, the loss returns a term for each step, and the sum of these terms over time
# is the distance. We divide the distance by the cost of one surplus spike, so that distances have
# the same unit for every time constant.


def distances(first, second, constant):
    """Return the distances between two sets of trains, in surplus spikes."""
    # [train, train, time]
    first, second = np.broadcast_arrays(first[:, None], second[None, :])
    loss = sx.SpikeTime(
        time_constant=constant, length=8 * constant, reduction="none", time_axis=-1
    )
    spike = np.eye(1, first.shape[-1])
    return loss(first, second).sum(axis=-1) / loss(spike, 0 * spike).sum()


matrices = {constant: distances(trains, trains, constant) for constant in CONSTANTS}

# %%

fig, axes = figure(1, 3, size=(7, 2.4), sharey=True)
for ax, (constant, matrix) in zip(axes, matrices.items(), strict=True):
    image = ax.imshow(matrix, cmap="YlGnBu", norm=PowerNorm(0.5, 0, 500))
    ax.axhline(9.5, color=PINK, linewidth=1)
    ax.axvline(9.5, color=PINK, linewidth=1)
    ax.set(
        xticks=[4.5, 14.5],
        xticklabels=["200 Hz", "800 Hz"],
        title=rf"$\tau$ = {constant} ms",
    )
    ax.set(yticks=[4.5, 14.5], yticklabels=["200 Hz", "800 Hz"])
    ax.tick_params(length=0)
bar = fig.colorbar(
    image, ax=axes, aspect=14, pad=0.01, ticks=[0, 10, 50, 100, 200, 500]
)
bar.set_label("surplus spikes")
bar.outline.set_visible(False)
describe(
    fig,
    "Three matrices on the same scale. At 1 ms the matrix is nearly uniform, at 10 "
    "ms the distances are smaller, and at 100 ms they are smallest, except in the "
    "row and column of the first second of each noise",
)

# %%
# What the matrices show
# ----------------------
#
# The first second of each stimulus stands out, because the neuron fired most in these seconds. With
# a long time constant, little else is visible. The reason is that a distance depends mostly on how
# many spikes the two trains have:

others = ~np.eye(len(trains), dtype=bool)  # a train is at no distance from itself
total = counts[:, None] + counts[None, :]
difference = (counts[:, None] - counts[None, :]) ** 2
print("Correlations with the sum of the spike counts, and their squared difference:")
for constant, matrix in matrices.items():
    r_total, r_difference = (
        np.corrcoef(matrix[others], number[others])[0, 1]
        for number in (total, difference)
    )
    print(f"{constant:3} ms: {r_total:.2f} and {r_difference:.2f}")

# %%
# With a time constant of 1 ms, most spikes of both trains have no counterpart in the other train,
# so they are surplus. With a time constant of 100 ms, it matters little when the spikes occur. The
# matrices do **not** show the stimulus: two seconds of the same stimulus are as far apart as two
# seconds of different stimuli.

same = others & (np.arange(20)[:, None] // 10 == np.arange(20) // 10)
for constant, matrix in matrices.items():
    across = matrix[:10, 10:].mean()
    print(
        f"{constant:3} ms: same stimulus {matrix[same].mean():.0f}, "
        f"different {across:.0f}"
    )
print(f"spikes of two trains: {total[others].mean():.0f}")

# %%
# This is expected, because no sound was repeated. Responses to a repeated sound would be close to
# each other, if the neuron is precise enough for the time constant.
#
# What a repetition would look like
# ---------------------------------
#
# We can make artificial repetitions: in a copy of each second, we move every spike by a random,
# normally distributed time. The left picture shows the distances between the recorded seconds and
# copies whose spikes were moved by 4 ms. The diagonal holds the distance between each second and
# its own copy. The right picture shows the distance between a second and its own copy, divided by
# the distance between this second and the copies of other seconds.

rng = np.random.default_rng(0)


def moved(trains, deviation):
    """Return trains with the same spikes, each moved by a random number of steps."""
    train, step = np.nonzero(trains)
    step = np.rint(step + rng.normal(0, deviation, step.shape)).astype(int)
    copies = np.zeros(trains.shape)
    np.add.at(copies, (train, np.clip(step, 0, trains.shape[-1] - 1)), 1)
    return copies


# %%

deviations = 1, 2, 4, 8, 16, 32, 64
fig, (left, right) = figure(1, 2, size=(7, 3.2), width_ratios=(1, 1.35))
left.imshow(distances(trains, moved(trains, 4), 10), cmap="YlGnBu", vmin=0)
left.set(
    title=r"$\tau$ = 10 ms, moved by 4 ms", xlabel="copy", ylabel="recorded second"
)
left.set(xticks=[], yticks=[])
right.set_xscale("log", base=2)
right.set(xticks=deviations, xticklabels=deviations, ylim=(0, 1.05))
right.set(xlabel="standard deviation of the movement (ms)")
right.set_title("distance of own copy / of other copies")
for constant in CONSTANTS:
    found = [
        distances(trains, moved(trains, deviation), constant)
        for deviation in deviations
    ]
    ratios = [np.diag(matrix).mean() / matrix[others].mean() for matrix in found]
    right.plot(
        deviations,
        ratios,
        marker="o",
        markersize=4,
        label=rf"$\tau$ = {constant} ms",
    )
    right.legend()
    print(f"{constant:3} ms:", "  ".join(f"{ratio:.2f}" for ratio in ratios))
describe(
    fig,
    "Left: a matrix with small distances on the diagonal, because each second is "
    "nearest to its own copy. Right: three curves that rise as spikes are moved "
    "farther, earliest for 1 ms and latest for 100 ms",
)

# %%
# The time constant acts as a tolerance. Take copies whose spikes are moved by 4 ms. With a time
# constant of 1 ms, a copy is almost as far away as a different second. With 10 ms, it is half as
# far away. With 100 ms, the distance between a second and its copy is almost 0.
#
# .. [1] A. Rokem, S. Watzl, T. Gollisch, M. Stemmler, A. V. M. Herz and I. Samengo, "Spike-timing
#    precision underlies the coding efficiency of auditory receptor neurons", Journal of
#    Neurophysiology 95, 2541-2552, 2006. The spike times are those that nitime distributes.

# sphinx_gallery_thumbnail_number = 3
