"""Draw what each loss reads, for its page, and all losses on one sample, for "Which loss".

``python docs/gallery/losses.py`` writes the pictures, each with a narrow one for phones.
"""

import dataclasses
import itertools

import numpy as np
import pictures
from glance import PATH, arrow, plt
from PIL import Image

import spikeloss_xp as sx

STEPS = 40
ONE_HOT = np.asarray([[False, True, False, False]])
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
TARGETS = trains([5, 17, 30], [5, 25], [3, 27], [12, 28])
COUNTS = SPIKES[0].sum(axis=-1)
RATES = COUNTS / STEPS
WINDOW = sx.moving_average(SPIKES, 10, time_axis=-1)[0]
LATENCIES = np.where(SPIKES.any(axis=-1), SPIKES.argmax(axis=-1), STEPS)[0]
FILTERED = [
    sx.causal_filter(x[0], sx.exponential_kernel(4, STEPS), time_axis=-1)
    for x in (SPIKES, TARGETS)
]
OPTIONS = {"reduction": "sum", "time_axis": -1}
# the loss, its target, the title and values of its reading, and their target values
CASES = {
    "CrossEntropy": (sx.CrossEntropy(time_axis=-1), LABEL, "spike counts", COUNTS),
    "CrossEntropy-rates": (
        sx.CrossEntropy(time_axis=-1, rates=(0.25, 0.05)), LABEL, "spike counts", COUNTS,
        [[2, 10, 2, 2]],
    ),
    "SquaredError": (
        sx.SquaredError(moving_window=10, **OPTIONS), SIGNAL[None], "moving rates", WINDOW, SIGNAL
    ),
    "SpikeTime": (sx.SpikeTime(time_constant=4, **OPTIONS), TARGETS, "filtered", *FILTERED),
    "SpikeRate": (sx.SpikeRate(0.25, 0.05, **OPTIONS), LABEL, "rates", RATES,
                  [[0.05, 0.25, 0.05, 0.05]]),
    "SpikeMax": (sx.SpikeMax(**OPTIONS), LABEL, "shares", COUNTS / COUNTS.sum()),
    "SpikeLatency": (sx.SpikeLatency(**OPTIONS), FIRST, "latencies", LATENCIES, FIRST),
    "SpikeMoid": (
        sx.SpikeMoid(alpha=0.05, theta=0.1, **OPTIONS), SEVERAL,
        "probabilities",
        1 / (1 + np.exp((0.1 - RATES) / 0.05)), SEVERAL,
    ),
    "SparsityEnforcer": (
        sx.SparsityEnforcer(LIMITS[1], min_rate=LIMITS[0], per="neuron", time_axis=-1), None,
        "mean activity",
        RATES, np.tile(LIMITS, (4, 1)).T,
    ),
    "times": (
        sx.times.SpikeTime(time_constant=4, reduction="sum"), times(TARGETS), "filtered",
        *FILTERED,
    ),
}  # fmt: skip


def evaluate(loss, target):
    """Return the value, and the gradient of the rows."""
    of_times = isinstance(loss, sx.times.SpikeTime)
    arguments = () if target is None else (target,)
    spikes = times(SPIKES) if of_times else SPIKES
    value, gradient = sx.value_and_grad(loss)(spikes, *arguments)
    if of_times:  # a number for each spike, drawn three steps wide
        gradient = sum(np.roll(gradient, step, axis=-1) for step in (-1, 0, 1))
    return value, gradient[0]


def rows_of(loss, target):
    """Return a part of the loss for each row, and which of the parts add up to the loss."""
    every = [True] * 4
    if target is None:  # a penalty on the mean of the rows
        return [loss(SPIKES[:, [row]]) / 4 for row in range(4)], every
    if getattr(loss, "rates", None):
        counts = dataclasses.replace(loss, rates=None)
        bounds = np.sqrt(STEPS * np.asarray(loss.rates) + 3 / 8)
        roots = np.sqrt(COUNTS + 3 / 8)
        missing, surplus = bounds[0] - roots, roots - bounds[1]
        lack = np.where(ONE_HOT[0], missing, surplus)
        penalties = loss.rate_weight * np.maximum(lack, 0) ** 2
        return penalties + np.where(ONE_HOT[0], counts(SPIKES, target), 0), every
    if isinstance(loss, sx.CrossEntropy | sx.SpikeMax):  # the loss for each label
        return [loss(SPIKES, [row]) for row in range(4)], ONE_HOT[0]
    of_times = isinstance(loss, sx.times.SpikeTime)
    spikes = times(SPIKES) if of_times else SPIKES
    terms = dataclasses.replace(loss, reduction="none")(spikes, target)[0]
    return np.reshape(terms, (4, -1)).sum(-1), every


def bars(ax, x, targets):
    """Draw a bar for each row, its number, and dashed lines at the targets."""
    rows, largest = np.arange(len(x)), max(np.max(x), np.max(targets, initial=0))
    ax.barh(rows, x, height=0.5, color="#e6dcf3", edgecolor=pictures.FILTERED)
    for row, number in enumerate(x):
        box = {"color": "white", "pad": 0.5}  # over the dashed lines
        ax.text(number + 0.04 * largest, row, f"{number:.3g}", va="center", bbox=box)
    for target in targets:
        ax.vlines(
            target,
            rows - 0.42,
            rows + 0.42,
            color=pictures.TARGET,
            linestyles=(0, (3, 2)),
        )
    ax.set(xlim=(0, 1.3 * largest), xticks=[], ylim=(len(x) - 0.5, -0.5))
    ax.spines["bottom"].set_visible(False)


def add_up(ax, parts, counted, value):
    """Draw a bar for the part of each row, hollow if it does not count, and their sum."""
    digits = ".2f" if value > 1 else ".3g"
    for row, (part, counts) in enumerate(zip(parts, counted, strict=True)):
        color = pictures.LIGHT if counts else "none"
        edge = pictures.INK if counts else pictures.GREY
        ax.barh(row, part, height=0.5, color=color, edgecolor=edge, linewidth=0.8)
        place = part + 0.04 * max(parts), row
        ax.text(*place, f"{part:{digits}}", va="center", color=edge)
    ax.axhline(3.6, 0, 0.9, color=pictures.GREY, linewidth=1, clip_on=False)
    ax.text(0, 4.2, f"{value:{digits}}", va="center", fontweight="bold")
    ax.set(xlim=(0, 1.9 * max(parts)), ylim=(3.5, -0.5))
    ax.axis("off")


def draw(loss, target, title, reading, targets=(), *, narrow=False):
    """Return the picture of one loss: four panels in a row, or two below two."""
    value, gradient = evaluate(loss, target)
    parts, counted = rows_of(loss, target)
    np.testing.assert_allclose(np.sum(parts, where=counted), value)
    plt.rcParams.update(pictures.STYLE | {"font.size": 8.5, "axes.titlesize": 9.5})
    if narrow:
        figure, axes = plt.subplots(2, 2, figsize=(4.2, 3.7), dpi=180)
        edges = {"left": 0.15, "right": 0.98, "top": 0.93, "bottom": 0.12}
        figure.subplots_adjust(**edges, wspace=0.2, hspace=0.5)
        (spikes, read), (heat, total) = axes
        box = total.get_position()  # beside the labels of the colours
        total.set_position((box.x0 + 0.13, box.y0, box.width - 0.13, box.height))
    else:
        shape = {"figsize": (7.2, 2.05), "width_ratios": (1, 0.9, 0.6, 1.1)}
        figure, axes = plt.subplots(1, 4, dpi=200, **shape)
        edges = {"left": 0.09, "right": 0.925, "top": 0.86, "bottom": 0.22}
        figure.subplots_adjust(**edges, wspace=0.22)
        spikes, read, total, heat = axes
    circled = title == "filtered"
    labels = [1] if target is LABEL else [0, 1] if target is SEVERAL else []
    pictures.raster(spikes, SPIKES[0], target=TARGETS[0] if circled else None)
    for row in labels:
        pictures.shade(spikes, row)
    if np.ndim(reading) == 2:
        pictures.trace(read, reading, target=targets)
    else:
        bars(read, reading, targets)
    add_up(total, parts, counted, value)
    scale = pictures.heat(heat, gradient, "").colorbar.ax
    scale.set_yticklabels(EARLIER if isinstance(loss, sx.times.SpikeTime) else FEWER)
    of_class = "spikes and label" if labels else "spikes"
    first = "spikes and target" if circled else of_class
    titles = first, title, "loss", "gradient"
    for ax, text in zip((spikes, read, total, heat), titles, strict=True):
        ax.set_title(text)
    for ax in (spikes, heat, *[read] * (np.ndim(reading) == 2)):
        ax.set(xlabel="time (steps)", xticks=(0, 20))
    for ax in (read, heat):
        ax.set_yticks([])
    for ax in (spikes, heat) if narrow else (spikes,):
        pictures.names(ax, [f"neuron {row}" for row in range(4)])
    for left, right in () if narrow else itertools.pairwise(axes):
        arrow(figure, left, right, 0.905)
    return figure


def burst_at(middle):
    """Return rates that rise from 0.1 to 2.6 counts per step in the middle of a burst."""
    return 0.1 + 2.5 * np.exp(-(((np.arange(STEPS) - middle) / 3) ** 2))


def counts_and_rate(ax, counts, rate):
    """Draw a bar for the recorded count in each step, and a line for the predicted rate."""
    steps = np.arange(len(counts))
    line = {"color": pictures.FILTERED, "linewidth": 1.6}
    bars = {"color": "#d3e9e0", "edgecolor": pictures.TARGET, "linewidth": 0.6}
    shown = ax.bar(steps, counts, width=1, label="recorded count", **bars)
    (drawn,) = ax.plot(steps, rate, label="predicted rate", **line)
    ax.set(xlim=(-0.5, len(counts) - 0.5))
    return shown, drawn


def three_panels(narrow):
    """Return a figure with three panels in a row, or one below another if it is narrow."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 8.5, "axes.titlesize": 9.5})
    if narrow:
        figure, axes = plt.subplots(3, figsize=(4.2, 5), dpi=180)
        edges = {"left": 0.06, "right": 0.86, "top": 0.94, "bottom": 0.1}
        figure.subplots_adjust(**edges, hspace=0.5)
    else:
        figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.05), dpi=200)
        edges = {"left": 0.03, "right": 0.925, "top": 0.86, "bottom": 0.22}
        figure.subplots_adjust(**edges, wspace=0.22)
        for left, right in itertools.pairwise(axes):
            arrow(figure, left, right, 0.905)
    return figure, axes


def draw_likelihood(*, narrow=False):
    """Return the picture of PoissonNLL: a neuron whose second burst is predicted too late."""
    rate = np.maximum(burst_at(8), burst_at(30))
    recorded = np.maximum(burst_at(8), burst_at(25))
    counts = np.random.default_rng(4).poisson(recorded)
    loss, x, n = (
        sx.PoissonNLL(time_axis=-1),
        np.log(rate)[None, None],
        counts[None, None],
    )
    value, gradient = sx.value_and_grad(loss)(x, n)
    terms = dataclasses.replace(loss, reduction="none")(x, n)[0, 0]
    np.testing.assert_allclose(terms.mean(), value)
    figure, (read, each, pull) = three_panels(narrow)
    shown = counts_and_rate(read, counts, rate)
    read.legend(handles=shown, loc="upper left", handlelength=1.2)
    read.set(ylim=(0, 7), yticks=range(5))
    bars = {"color": pictures.LIGHT, "edgecolor": pictures.INK, "linewidth": 0.6}
    each.bar(range(STEPS), terms, width=1, **bars)
    each.set_yticks((0, 2, 4, 6))
    note = {"xycoords": "axes fraction", "va": "top", "fontweight": "bold"}
    each.annotate(f"mean {value:.2f}", (0.04, 1), **note)
    colors = np.where(gradient[0, 0] < 0, pictures.LOWERS, pictures.RAISES)
    pull.bar(range(STEPS), gradient[0, 0], width=1, color=colors)
    largest = np.abs(gradient).max()
    pull.set_ylim(-1.05 * largest, 1.05 * largest)
    pull.set_yticks((-largest, 0, largest), ["higher\nrate", "0", "lower\nrate"])
    pull.yaxis.tick_right()
    pull.spines["left"].set_visible(False)
    titles = "counts and rate", "loss of each step", "gradient"
    for ax, title in zip((read, each, pull), titles, strict=True):
        ax.set(title=title, xticks=(0, 20), xlim=(-0.5, STEPS - 0.5))
        ax.axhline(0, color=pictures.GREY, linewidth=0.8)
    for ax in (pull,) if narrow else (read, each, pull):
        ax.set_xlabel("time (steps)")
    return figure


TABLE = (  # of the page "Which loss": name, options, loss and target
    ("CrossEntropy", "counts", sx.CrossEntropy(time_axis=-1), LABEL),
    (
        "CrossEntropy", "rates=(0.5, 0.02)",
        sx.CrossEntropy(time_axis=-1, rates=(0.5, 0.02)), LABEL,
    ),
    ("SpikeRate", "0.5, 0.02", sx.SpikeRate(0.5, 0.02, **OPTIONS), LABEL),
    ("SpikeMax", "", sx.SpikeMax(**OPTIONS), LABEL),
    ("SpikeMoid", "theta=0.1", sx.SpikeMoid(theta=0.1, alpha=0.05, **OPTIONS), ONE_HOT),
    (
        "SquaredError", "of rates", sx.SquaredError(time_axis=-1),
        np.asarray([[0.05, 0.25, 0.05, 0.05]]),
    ),
    None,  # the explanation of the colours
    (
        "CrossEntropy", "first spikes",
        sx.CrossEntropy(time_axis=-1, readout="latency", temperature=10), LABEL,
    ),
    ("SpikeLatency", "10, 36", sx.SpikeLatency(10, 36, time_axis=-1), LABEL),
    ("SpikeTime", "time_constant=4", sx.SpikeTime(time_constant=4, **OPTIONS), TARGETS),
    (
        "times.SpikeTime", "in the times", sx.times.SpikeTime(time_constant=4, reduction="sum"),
        times(TARGETS),
    ),
)  # fmt: skip
KEY = """\
The gradient is blue where
one more spike lowers the loss,
and orange where it raises the
loss. Bars show gradients that
are the same at every step. In
times.SpikeTime, orange spikes
should come earlier, and blue
spikes should come later."""


def compare(columns):
    """Return a picture of all losses on the sample: its spikes, then value and gradient of each."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 8.5, "axes.titlesize": 9})
    rows = (1 + len(TABLE)) // columns
    size = 2.4 * columns if columns > 2 else 4.2, 1.35 * rows
    figure, axes = plt.subplots(
        rows, columns, figsize=size, dpi=180, layout="constrained"
    )
    first, *panels = axes.flat
    pictures.raster(first, SPIKES[0], target=TARGETS[0])
    pictures.shade(first, 1)
    first.set(yticks=[], xticks=(0, 20))
    first.set_title("spikes and target\n", linespacing=1.4)
    for ax, case in zip(panels, TABLE, strict=True):
        if case:
            of_loss(ax, *case)
        else:
            ax.axis("off")
            ax.text(0, 1.5, KEY, va="top", linespacing=1.3, transform=ax.transAxes)
    for ax in axes[:, 0]:
        pictures.names(ax, ["", "label", "", "silent"])
    for ax in axes[-1]:
        ax.set_xlabel("time (steps)")
    return figure


def of_loss(ax, name, options, loss, target):
    """Draw the gradient of a loss, and write its name, its options and its value above."""
    value, gradient = evaluate(loss, target)
    if np.all(gradient == gradient[:, :1]):
        pulls(ax, gradient[:, 0])
    else:
        pictures.heat(ax, gradient, root=True).colorbar.remove()
        ax.set_xticks((0, 20))
    ax.set_yticks([])
    ax.set_title(f"{name}\n", linespacing=1.4)
    line = {
        "xy": (0, 1),
        "xycoords": "axes fraction",
        "textcoords": "offset points",
    }
    ax.annotate(options, xytext=(0, 4), color=pictures.GREY, **line)
    line |= {"xy": (1, 1), "ha": "right"}
    ax.annotate(f"loss {value:.3g}", xytext=(0, 4), **line)


def pulls(ax, gradient):
    """Draw a bar for the gradient of each row, to the left where it is negative."""
    largest = np.abs(gradient).max()
    for row, x in enumerate(gradient):
        color, side = (pictures.RAISES, 1) if x > 0 else (pictures.LOWERS, -1)
        ax.barh(row, x, height=0.62, color=color)
        ax.annotate(
            f"{x:.2g}".replace("-", "\u2212"), (x, row), (3 * side, 0), va="center",
            textcoords="offset points", ha="left" if x > 0 else "right",
        )  # fmt: skip
    ax.axvline(0, color=pictures.GREY, linewidth=1)
    ax.set(xlim=(-2.3 * largest, 1.7 * largest), xticks=[], ylim=(3.5, -0.5))
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def save(figure, path):
    """Write a picture in few colours, so that it is small."""
    figure.canvas.draw()
    picture = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    picture.quantize(256).save(path, optimize=True)
    plt.close(figure)


def main():
    """Write the pictures."""
    for name, case in CASES.items():
        save(draw(*case), PATH.parent / "losses" / f"{name}.png")
        save(draw(*case, narrow=True), PATH.parent / "losses" / f"{name}-narrow.png")
    save(draw_likelihood(), PATH.parent / "losses" / "PoissonNLL.png")
    save(
        draw_likelihood(narrow=True),
        PATH.parent / "losses" / "PoissonNLL-narrow.png",
    )
    save(compare(4), PATH.parent / "which-loss.png")
    save(compare(2), PATH.parent / "which-loss-narrow.png")


if __name__ == "__main__":
    main()
