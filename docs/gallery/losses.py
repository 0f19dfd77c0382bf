"""Draw what each loss sees, for its page: ``python docs/gallery/losses.py``."""

import dataclasses
import itertools

import numpy as np
import pictures
from glance import PATH, arrow, plt
from PIL import Image

import spikeloss_xp as sx

STEPS = 40
LABEL, SEVERAL = np.asarray([1]), np.asarray([[True, True, False, False]])
FEWER, EARLIER = ["more\nspikes", "0", "fewer\nspikes"], ["later", "0", "earlier"]
FIRST, LIMITS = np.asarray([[5.0, 4, 10, 36]]), np.asarray([0.06, 0.1])
SIGNAL = 0.12 + 0.1 * np.sin(np.arange(STEPS) / 6 + np.arange(4)[:, None])


def trains(*rows):
    """Return spikes at the steps of each neuron, ``[batch, neuron, time]``."""
    return np.asarray([[np.isin(range(STEPS), row) for row in rows]], dtype=float)


def times(spikes):
    """Return the time of each spike, and infinity in the other steps."""
    return np.where(spikes == 1, np.arange(STEPS), np.inf)


SPIKES = trains([5, 17, 30], [9, 29], [3, 12, 18, 27, 34], [])
WANTED = trains([5, 17, 30], [5, 25], [3, 27], [12, 28])
COUNTS = SPIKES[0].sum(axis=-1)
RATES = COUNTS / STEPS
WINDOW = sx.MovingWindow(10, time_axis=-1).rate(SPIKES)[0]
LATENCIES = np.where(SPIKES.any(axis=-1), SPIKES.argmax(axis=-1), STEPS)[0]
FILTERED = [sx.causal_filter(x[0], sx.exponential_kernel(4, STEPS)) for x in (SPIKES, WANTED)]
OPTIONS = {"reduction": "sum", "time_axis": -1}
CASES = {  # the loss, its target, the title and values of its reading, and their target values
    "CrossEntropy": (sx.CrossEntropy(time_axis=-1), LABEL, "spike counts", COUNTS),
    "SquaredError": (
        sx.SquaredError(moving_window=10, **OPTIONS), SIGNAL[None], "moving rates", WINDOW, SIGNAL
    ),
    "SpikeTime": (sx.SpikeTime(time_constant=4), WANTED, "filtered", *FILTERED),
    "SpikeRate": (sx.SpikeRate(0.25, 0.05), LABEL, "rates", RATES, [[0.05, 0.25, 0.05, 0.05]]),
    "SpikeMax": (sx.SpikeMax(), LABEL, "shares", COUNTS / COUNTS.sum()),
    "SpikeLatency": (sx.SpikeLatency(**OPTIONS), FIRST, "latencies", LATENCIES, FIRST),
    "SpikeMoid": (
        sx.SpikeMoid(alpha=0.05, theta=0.1), SEVERAL, "probabilities",
        1 / (1 + np.exp((0.1 - RATES) / 0.05)), SEVERAL,
    ),
    "SparsityEnforcer": (
        sx.SparsityEnforcer(LIMITS[1], min_rate=LIMITS[0], per="neuron"), None, "mean activity",
        RATES, np.tile(LIMITS, (4, 1)).T,
    ),
    "times": (
        sx.times.SpikeTime(time_constant=4, reduction="sum"), times(WANTED), "filtered",
        *FILTERED,
    ),
}  # fmt: skip


def evaluate(loss, target):
    """Return the terms of the rows, or of the sample, the value, and the gradient of the rows."""
    of_times = isinstance(loss, sx.times.SpikeTime)
    spikes = times(SPIKES) if of_times else SPIKES
    arguments = () if target is None else (target,)
    value, gradient = sx.value_and_grad(loss)(spikes, *arguments)
    if of_times:  # a number for each spike, drawn three steps wide
        gradient = sum(np.roll(gradient, step, axis=-1) for step in (-1, 0, 1))
    if target is None:
        return (), value, gradient[0]
    terms = np.asarray(dataclasses.replace(loss, reduction="none")(spikes, *arguments))[0]
    return terms.reshape(len(terms), -1).sum(-1) if terms.ndim else (), value, gradient[0]


def bars(ax, x, wanted):
    """Draw a bar for each row, its number, and dashed lines where it is wanted."""
    rows, largest = np.arange(len(x)), max(np.max(x), np.max(wanted, initial=0))
    ax.barh(rows, x, height=0.5, color="#d1e1ee", edgecolor=pictures.BLUE)
    for row, number in enumerate(x):
        box = {"color": "white", "pad": 0.5}  # over the dashed lines
        ax.text(number + 0.04 * largest, row, f"{number:.3g}", va="center", bbox=box)
    for aim in wanted:
        ax.vlines(aim, rows - 0.42, rows + 0.42, color=pictures.INK, linestyles=(0, (3, 2)))
    ax.set(xlim=(0, 1.3 * largest), xticks=[], ylim=(len(x) - 0.5, -0.5))
    ax.spines["bottom"].set_visible(False)


def draw(loss, target, title, reading, wanted=()):
    """Return the picture of one loss."""
    terms, value, gradient = evaluate(loss, target)
    plt.rcParams.update(pictures.STYLE | {"font.size": 8.5, "axes.titlesize": 9.5})
    figure, axes = plt.subplots(1, 4, figsize=(7, 2.05), dpi=100, width_ratios=(1, 1, 0.36, 1.1))
    figure.subplots_adjust(left=0.1, right=0.925, top=0.86, bottom=0.22, wspace=0.24)
    spikes, read, total, heat = axes
    circled = title == "filtered"
    labels = [1] if target is LABEL else [0, 1] if target is SEVERAL else []
    pictures.raster(spikes, SPIKES[0], wanted=WANTED[0] if circled else None)
    for row in labels:
        pictures.shade(spikes, row)
    if np.ndim(reading) == 2:
        pictures.trace(read, reading, wanted=wanted)
    else:
        bars(read, reading, wanted)
    for row, term in enumerate([*terms, value]):
        height, weight = (4.2, "bold") if row == len(terms) else (row, "normal")
        text = f"{term:.{2 if value > 1 else 4}f}"
        total.text(0.9, height, text, ha="right", va="center", fontweight=weight)
    total.axhline(3.6, 0.1, color=pictures.GREY, linewidth=len(terms) / 4, clip_on=False)
    total.set(xlim=(0, 1), ylim=spikes.get_ylim())
    total.axis("off")
    scale = pictures.heat(heat, gradient, "").colorbar.ax
    scale.set_yticklabels(EARLIER if isinstance(loss, sx.times.SpikeTime) else FEWER)
    first = "spikes and target" if circled else "spikes and label" if labels else "spikes"
    for ax, text in zip(axes, (first, title, "loss", "gradient"), strict=True):
        ax.set_title(text)
    for ax in (spikes, heat, *[read] * (np.ndim(reading) == 2)):
        ax.set(xlabel="time (steps)", xticks=(0, 20))
    for ax in axes[1:]:
        ax.set_yticks([])
    pictures.names(spikes, [f"neuron {row}" for row in range(4)])
    for left, right in itertools.pairwise(axes):
        arrow(figure, left, right, 0.905)
    return figure


def main():
    """Write the pictures, in few colours, so that they are small."""
    for name, case in CASES.items():
        canvas = draw(*case).canvas
        canvas.draw()
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(256)
        picture.save(PATH.parent / "losses" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
