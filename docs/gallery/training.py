"""Draw the accuracy over learning rates: ``python docs/gallery/training.py``.

One picture is for the README and "Which loss", and one, also narrow for phones, for the page
"Measured: which loss trains best", which has more of the losses. The numbers are in
tests/data/training.json.
"""

import json
import math
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # to a file, also where there is no screen

import pictures
from matplotlib import pyplot as plt

from losses import save

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
SPACE = 3.2  # between the names of two lines, in percent
HOME = {  # the losses in a picture, with their colours and names
    "count": (pictures.GREY, "without\nbounds"),
    "count, bounds": (pictures.TEAL, "with\nbounds"),
}
PAGE = {  # with the names in the tables of the page
    "count": (pictures.GREY, "counts"),
    "count, bounds": (pictures.TEAL, "counts, bounds"),
    "sqrt_count": (pictures.GOLD, "root"),
    "sqrt_count, bounds": (pictures.FILTERED, "root, bounds"),
    "SpikeRate": (pictures.PINK, "SpikeRate"),
    "SpikeRate(1, 0)": (pictures.LOWERS, "SpikeRate(1, 0)"),
}


def accuracies(trainings, loss):
    """Return accuracies in percent, by learning rate, network and seed."""
    found = {}
    for one in trainings:
        if one["loss"] == loss:
            found.setdefault(one["rate"], {})[one["network"]] = [
                100 * x for x in one["accuracy"]
            ]
    return found


def over_rates(ax, trainings, losses):
    """Draw the mean of the networks at each rate, and the range of the seeds."""
    ends = {}
    for loss, (colour, _) in losses.items():
        found = accuracies(trainings, loss)
        rates = sorted(found)
        by_seed = [
            [
                statistics.fmean(each)
                for each in zip(*found[rate].values(), strict=True)
            ]
            for rate in rates
        ]
        means = [statistics.fmean(each) for each in by_seed]
        limits = [[limit(each) for each in by_seed] for limit in (min, max)]
        ax.fill_between(rates, *limits, color=colour, alpha=0.2, linewidth=0)
        ax.plot(rates, means, "o-", color=colour, linewidth=2.2, markersize=5)
        ends[loss] = means[-1]
    ax.set(xscale="log", xlabel="learning rate")
    ax.set_ylim((0, 100) if losses is HOME else (40, 90))
    ax.set_title("mean accuracy of 11 networks (%)")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()
    name_ends(ax, rates[-1], ends, losses)


def name_ends(ax, x, ends, losses):
    """Write the name and the last value of each line beside its end, none over another."""
    lowest, between = -math.inf, "\n" if losses is HOME else " "
    for loss in sorted(ends, key=ends.get):
        colour, name = losses[loss]
        height = max(ends[loss], lowest)
        lowest = height + SPACE
        ax.annotate(
            f"{ends[loss]:.0f} %{between}{name}", (x, height), xytext=(6, 0), va="center",
            textcoords="offset points", annotation_clip=False, color=colour,
            fontweight="bold",
        )  # fmt: skip


def each_network(ax, trainings, losses):
    """Draw the accuracy of each network at the highest learning rate."""
    found = {loss: accuracies(trainings, loss) for loss in losses}
    highest = max(found["count"])
    means = {
        loss: {name: statistics.fmean(x) for name, x in by_rate[highest].items()}
        for loss, by_rate in found.items()
    }
    names = sorted(means["count"], key=means["count"].get)
    for place, name in enumerate(names):
        reached = [means[loss][name] for loss in losses]
        ends = min(reached), max(reached)
        ax.plot(ends, (place, place), color=pictures.LIGHT, linewidth=1, zorder=0)
        for end, (colour, _) in zip(reached, losses.values(), strict=True):
            ax.plot(end, place, "o", color=colour, markersize=5.5)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 100), title=f"each network at {highest:g} (%)")
    ax.tick_params(axis="y", length=0)


def draw(panels, losses, size, rows=1, **ratios):
    """Return a picture with these panels, each of which has its own margins."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 9})
    figure = plt.figure(figsize=size, dpi=200, layout="constrained")
    parts = figure.subfigures(rows, len(panels) // rows, squeeze=False, **ratios)
    record = json.loads(
        (ROOT / "tests" / "data" / "training.json").read_text(encoding="utf-8")
    )
    for part, panel in zip(parts.flat, panels, strict=True):
        panel(part.subplots(), record["trainings"], losses)
    return figure


def main():
    """Write the pictures."""
    both = over_rates, each_network
    for name, figure in {
        "learning-rates": draw([over_rates], HOME, (4.4, 2.9)),
        "training": draw(both, PAGE, (8.4, 3.4), width_ratios=(1, 1.05)),
        "training-narrow": draw(both, PAGE, (4.4, 6.4), rows=2),
    }.items():
        save(figure, IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
