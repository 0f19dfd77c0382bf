"""Draw the library at a glance, for the README: ``python docs/gallery/glance.py``."""

import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import torch

matplotlib.use("agg")  # to a file, also where there is no screen

import pictures
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch

import spikeloss_xp as sx

jax.config.update("jax_enable_x64", True)

PATH = Path(__file__).parents[1] / "images" / "glance.png"
LIBRARIES = {"NumPy": np, "PyTorch": torch, "JAX": jnp}
CODE = """\
# spikes and target: arrays of NumPy, PyTorch or JAX
loss = sx.SpikeTime(time_axis=-1, reduction="sum")
value, gradient = sx.value_and_grad(loss)(spikes, target)"""
NEURONS = ["on target", "late", "too few", "too many", "silent"]


def sample():
    """Return spikes and target spikes, ``[batch, neuron, time]``."""
    target, spikes = np.zeros((2, 1, 5, 60))
    target[0, 0, [6, 22, 36, 51]] = spikes[0, 0, [6, 22, 36, 51]] = 1
    target[0, 1, [8, 28, 46]] = spikes[0, 1, [11, 31, 49]] = 1
    target[0, 2, [5, 14, 23, 32, 41, 50]] = spikes[0, 2, [5, 32, 50]] = 1
    target[0, 3, [16, 44]] = spikes[0, 3, [4, 16, 21, 26, 38, 44, 49]] = 1
    target[0, 4, [12, 26, 40]] = 1
    return spikes, target


def evaluate(spikes, target):
    """Return value and gradient in each library: this is what the picture says is the same."""
    loss = sx.SpikeTime(time_constant=5, time_axis=-1, reduction="sum")
    results = {}
    for name, library in LIBRARIES.items():
        value, gradient = sx.value_and_grad(loss)(
            library.asarray(spikes), library.asarray(target)
        )
        results[name] = float(value), np.asarray(gradient)
    return results


def draw(spikes, target, results):
    """Return the picture: what happens to one sample, and the same in three libraries."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 8.5, "axes.titlesize": 9.5})
    figure = plt.figure(figsize=(8, 3.75))
    grid = figure.add_gridspec(
        1, 4, width_ratios=(1, 1, 0.36, 1.1), wspace=0.22,
        left=0.1, right=0.925, top=0.91, bottom=0.47,
    )  # fmt: skip
    raster, trace, total, heat = axes = [figure.add_subplot(panel) for panel in grid]
    titles = "spikes |, target ○", "filtered", "loss", "gradient"
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)

    pictures.raster(raster, spikes[0], target=target[0])
    pictures.names(raster, NEURONS)
    kernel = sx.exponential_kernel(time_constant=5, length=100)
    read, filtered_target = (
        sx.causal_filter(trains[0], kernel, time_axis=-1)
        for trains in (spikes, target)
    )
    pictures.trace(trace, read, target=filtered_target)
    value, gradient = results["NumPy"]
    add_up(
        total,
        sx.SpikeTime(time_constant=5, reduction="none", time_axis=-1)(
            spikes, target
        ),
        value,
    )
    scale = pictures.heat(heat, gradient[0], "").colorbar.ax
    scale.set_yticklabels(["more\nspikes", "0", "fewer\nspikes"])
    for ax in (raster, trace, heat):
        ax.set(xlabel="time (steps)", xticks=(0, 20, 40))
    for ax in (trace, heat):
        ax.set_yticks([])
    for left, right in itertools.pairwise(axes):
        arrow(figure, left, right)
    box = {"facecolor": "#f3f5f8", "edgecolor": "none", "boxstyle": "square,pad=1"}
    code = {
        "family": "monospace",
        "fontsize": 8,
        "va": "center",
        "linespacing": 1.75,
    }
    figure.text(0.025, 0.16, CODE, bbox=box, **code)
    tabulate(figure, results)
    return figure


def add_up(ax, terms, value):
    """Write the loss of each neuron beside its row, and their sum below."""
    each = terms[0].sum(axis=-1)
    ax.set(xlim=(0, 1), ylim=(len(each) - 0.5, -0.5))
    ax.axis("off")
    for row, loss in enumerate(each):
        ax.text(0.8, row, f"{loss:.2f}", ha="right", va="center")
    ax.plot(
        [0.1, 0.85],
        [len(each) - 0.5] * 2,
        color=pictures.GREY,
        linewidth=1,
        clip_on=False,
    )
    ax.text(
        0.8,
        len(each) + 0.05,
        f"{value:.2f}",
        ha="right",
        va="center",
        fontweight="bold",
    )


def arrow(figure, left, right, height=0.947):
    """Draw an arrow from one title to the next."""
    start, stop = left.get_position().x1, right.get_position().x0
    figure.add_artist(
        FancyArrowPatch(
            (start + 0.006, height),
            (stop - 0.006, height),
            arrowstyle="-|>",
            mutation_scale=11,
            color=pictures.GREY,
            linewidth=1.4,
            transform=figure.transFigure,
        )
    )


def tabulate(figure, results):
    """Write value and gradient of each library, as evaluated by it."""
    _, expected = results["NumPy"]
    for x, align, title in (
        (0.735, "right", "value"),
        (0.765, "left", "gradient (float64)"),
    ):
        figure.text(x, 0.28, title, ha=align, style="italic")
    for row, (name, (value, gradient)) in enumerate(results.items()):
        y = 0.205 - 0.075 * row
        difference = np.abs(gradient - expected).max() / np.abs(expected).max()
        compared = f"differs by {difference:.0e}" if row else "reference"
        figure.text(0.54, y, name, fontweight="bold")
        figure.text(0.735, y, f"{value:.10f}", ha="right")
        figure.text(0.765, y, compared)


def main():
    """Write the picture."""
    spikes, target = sample()
    figure = draw(spikes, target, evaluate(spikes, target))
    figure.savefig(PATH, dpi=200, pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
