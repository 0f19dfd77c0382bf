"""Draw the accuracy over learning rates, for the home page: ``python docs/gallery/training.py``.

The figures are those of the page "Which loss trains", in tests/data/training.json.
"""

import json
import statistics
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # to a file, also where there is no screen

import pictures
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "images" / "training.png"
LINES = {  # of the losses: colour and text
    "count": (pictures.ORANGE, "sx.CrossEntropy(time_axis=0)"),
    "count, bounds": (pictures.BLUE, "sx.CrossEntropy(time_axis=0, rates=(0.5, 0.02))"),
}


def accuracies(trainings, loss):
    """Return the accuracies of a loss in percent, by learning rate and network, of each seed."""
    found = {}
    for one in trainings:
        if one["loss"] == loss:
            found.setdefault(one["rate"], {})[one["network"]] = [100 * x for x in one["accuracy"]]
    return found


def draw(trainings):
    """Return the picture: the mean over networks at each rate, and each network at the highest."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 9})
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8, 3.3), layout="constrained", width_ratios=(1, 1.25)
    )
    for row, (loss, (colour, text)) in enumerate(LINES.items()):
        found = accuracies(trainings, loss)
        rates = sorted(found)
        by_seed = [
            [statistics.fmean(each) for each in zip(*found[rate].values(), strict=True)]
            for rate in rates
        ]
        means = [statistics.fmean(each) for each in by_seed]
        left.fill_between(
            rates, *zip(*((min(each), max(each)) for each in by_seed), strict=True),
            color=colour, alpha=0.2, linewidth=0,
        )  # fmt: skip
        left.plot(rates, means, "o-", color=colour, linewidth=2, markersize=4)
        figure.text(0.01, 1.1 - 0.07 * row, text, family="monospace", color=colour)
        highest = found[rates[-1]]
        names = sorted(found[rates[-1]], key=lambda x: statistics.fmean(baseline(trainings)[x]))
        for place, name in enumerate(names):
            right.plot(statistics.fmean(highest[name]), place, "o", color=colour, markersize=5)
    plain, bounded = (accuracies(trainings, loss)[rates[-1]] for loss in LINES)
    for place, name in enumerate(names):
        ends = statistics.fmean(plain[name]), statistics.fmean(bounded[name])
        right.plot(ends, (place, place), color=pictures.GREY, linewidth=1, zorder=0)
    left.set(
        xscale="log", xlabel="learning rate", ylim=(0, 100), title="mean of the networks, in %"
    )
    left.set_xticks(rates, [f"{rate:g}" for rate in rates])
    left.minorticks_off()
    right.set_yticks(range(len(names)), names)
    right.set(xlim=(0, 100), title=f"each network at {rates[-1]:g}, in %")
    right.tick_params(axis="y", length=0)
    return figure


def baseline(trainings):
    """Return the accuracies with counts at the highest learning rate, of each network."""
    found = accuracies(trainings, "count")
    return found[max(found)]


def main():
    """Write the picture."""
    record = json.loads((ROOT / "tests" / "data" / "training.json").read_text(encoding="utf-8"))
    reported = [one for one in record["trainings"] if one["loss"] in LINES]
    figure = draw(reported)
    figure.savefig(PATH, dpi=200, bbox_inches="tight", pil_kwargs={"optimize": True})


if __name__ == "__main__":
    main()
