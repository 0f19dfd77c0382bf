"""Draw the accuracy over learning rates: ``python docs/gallery/training.py``.

One picture is for the home page, and one, also narrow for phones, for the page "Which loss trains",
which has the figures. They are in tests/data/training.json.
"""

import json
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # to a file, also where there is no screen

import pictures
from matplotlib import pyplot as plt

from losses import save

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
LINES = {
    "count": (pictures.GREY, "counts"),
    "count, bounds": (pictures.TEAL, "with rates"),
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


def over_rates(ax, trainings):
    """Draw the mean of the networks at each rate, and the range of the seeds."""
    for loss, (colour, text) in LINES.items():
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
        options = {"color": colour, "fontweight": "bold", "xytext": (6, 0)}
        ax.annotate(
            f"{means[-1]:.0f} %\n{text}", (rates[-1], means[-1]), va="center",
            textcoords="offset points", annotation_clip=False, **options,
        )  # fmt: skip
    ax.set(xscale="log", xlabel="learning rate", ylim=(0, 100))
    ax.set_title("mean accuracy of 11 networks (%)")
    ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
    ax.minorticks_off()


def each_network(ax, trainings):
    """Draw the accuracy of each network at the highest learning rate."""
    found = {loss: accuracies(trainings, loss) for loss in LINES}
    highest = max(found["count"])
    means = {
        loss: {name: statistics.fmean(x) for name, x in by_rate[highest].items()}
        for loss, by_rate in found.items()
    }
    names = sorted(means["count"], key=means["count"].get)
    for place, name in enumerate(names):
        ends = [means[loss][name] for loss in LINES]
        ax.plot(ends, (place, place), color=pictures.GREY, linewidth=1, zorder=0)
        for end, (colour, _) in zip(ends, LINES.values(), strict=True):
            ax.plot(end, place, "o", color=colour, markersize=5.5)
    ax.set_yticks(range(len(names)), names)
    ax.set(xlim=(0, 100), title=f"each network at {highest:g} (%)")
    ax.tick_params(axis="y", length=0)


def draw(panels, **options):
    """Return a picture with these panels."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 9})
    figure, axes = plt.subplots(
        **options, dpi=200, layout="constrained", squeeze=False
    )
    record = json.loads(
        (ROOT / "tests" / "data" / "training.json").read_text(encoding="utf-8")
    )
    for ax, panel in zip(axes.flat, panels, strict=True):
        panel(ax, [one for one in record["trainings"] if one["loss"] in LINES])
    return figure


def main():
    """Write the pictures."""
    both = over_rates, each_network
    narrow = draw(both, nrows=2, figsize=(4.4, 6), height_ratios=(1, 1.1))
    narrow.axes[0].set_title("mean accuracy (%)")
    for name, figure in {
        "learning-rates": draw([over_rates], figsize=(4.4, 2.9)),
        "training": draw(both, ncols=2, figsize=(8.4, 3), width_ratios=(1, 1.1)),
        "training-narrow": narrow,
    }.items():
        save(figure, IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
