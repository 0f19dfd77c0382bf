"""The picture of a run: the curves on top of each other, and what the output neurons fire."""

import matplotlib
import numpy as np
from digits import CLASSES, STEPS, TASKS, PatternTask

matplotlib.use("Agg")  # to a file, also where there is no screen

from matplotlib import pyplot as plt
from matplotlib import ticker

INK, GREY, WANTED = "#22272e", "#9aa3ad", "#e8590c"
LINES = {  # the first is drawn first, and each leaves the one below it to be seen
    "NumPy": {"color": "#a5c8f0", "linewidth": 6, "solid_capstyle": "round"},
    "PyTorch": {"color": "#e8590c", "linewidth": 2.2},
    "JAX": {"color": INK, "linewidth": 1.1, "dashes": (3, 3)},
}
STYLE = {
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


TYPICAL = 5  # a test digit whose distance from its pattern, after training, is about the median


def draw(results, digits, path, sample=TYPICAL):
    """Draw a row for each loss: its curves, and the spikes for one test digit."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            len(results), 3, figsize=(9, 0.7 + 1.75 * len(results)), squeeze=False,
            width_ratios=(2.1, 1, 1), layout="constrained",
        )  # fmt: skip
        label = digits.test_labels[sample]
        for row, (name, runs) in zip(axes, results.items(), strict=True):
            draw_curves(row[0], name, runs)
            task, run = TASKS[name], runs["NumPy"]
            wanted = task.target([label])[:, 0] if isinstance(task, PatternTask) else None
            draw_raster(row[1], run.before[:, sample], label)
            draw_raster(row[2], run.after[:, sample], label, wanted)
        axes[0, 0].legend(frameon=False, bbox_to_anchor=(1, 0.9), loc="upper right", handlelength=3)
        axes[0, 1].set_title(f"output for a {label}, untrained", fontsize=10, loc="left")
        axes[0, 2].set_title("trained", fontsize=10, loc="left")
        axes[-1, 0].set_xlabel("training step")
        for ax in axes[-1, 1:]:
            ax.set_xlabel("time (steps)")
        for ax in axes[:, 1]:
            ax.set_ylabel("output neuron")
        for ax in axes[:-1].flat:
            ax.tick_params(labelbottom=False)
        figure.savefig(path, dpi=140, facecolor="white", pil_kwargs={"optimize": True})
        plt.close(figure)


def draw_curves(ax, name, runs):
    """Draw the loss over training, averaged over a few steps, in each framework."""
    for library, run in runs.items():
        losses = run.losses.ravel()
        few = 11 if len(losses) > 300 else 1
        means = losses[: len(losses) // few * few].reshape(-1, few).mean(axis=1)
        ax.plot(few * (np.arange(len(means)) + 0.5), means, label=library, **LINES[library])
    largest = max(run.differences(runs["NumPy"]).max() for run in runs.values())
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    ax.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(ticker.NullLocator())
    ax.set_ylabel("loss")
    ax.set_title(name, fontsize=10, fontweight="bold", loc="left")
    note = f"largest relative difference {largest:.0e}"
    ax.text(0.99, 0.95, note, transform=ax.transAxes, ha="right", va="top", fontsize=8)


def draw_raster(ax, spikes, label, wanted=None):
    """Draw output spikes, ``[time, neuron]``, over those wanted if there is a pattern."""
    ax.axhspan(label - 0.5, label + 0.5, color="#eef2f6", linewidth=0)
    if wanted is not None:
        ax.scatter(*np.nonzero(wanted), s=34, facecolors="none", edgecolors=WANTED, label="wanted")
    ax.scatter(*np.nonzero(spikes), s=26, marker="|", color=INK, linewidths=1.4)
    if wanted is not None:
        ax.legend(frameon=False, loc="lower right", handletextpad=0, borderaxespad=0)
    ax.set(xlim=(-1, STEPS), ylim=(-0.7, CLASSES - 0.3), yticks=range(0, CLASSES, 3))
