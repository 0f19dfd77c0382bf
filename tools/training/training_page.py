"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The figures are those of the last measurement, in tests/data/training.json. The text of the page is
written by hand. With ``--picture`` the picture of the home page is drawn too.
"""

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from _support import pages

RECORD = ROOT / "tests" / "data" / "training.json"
PAGE = ROOT / "docs" / "which-loss-trains.md"
RATES = (0.001, 0.005, 0.02)
MEAN = 'reduction="mean", time_axis=0'
NAMES = {  # of the losses in the record: in words, and as code
    "count": ("counts", "`CrossEntropy(time_axis=0)`"),
    "count, bounds": ("counts, bounds", "`CrossEntropy(time_axis=0, rates=(0.5, 0.02))`"),
    "sqrt_count": ("root", '`CrossEntropy(time_axis=0, readout="sqrt_count")`'),
    "sqrt_count, bounds": ("root, bounds", "the same with `rates=(0.5, 0.02), rate_weight=1`"),
    "SpikeRate": ("`SpikeRate`", f"`SpikeRate(0.5, 0.02, {MEAN})`"),
    "SpikeMax": ("`SpikeMax`", f"`SpikeMax({MEAN})`"),
}
Trainings = list[dict[str, Any]]


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by those of the record."""
    trainings = record["trainings"]
    chosen = [one for one in trainings if one["loss"].partition(", ")[2] not in ("", "bounds")]
    reported = [one for one in trainings if one["loss"] in NAMES]
    usual = [one for one in trainings if one not in chosen and one not in reported]
    tables = {
        "# Which loss trains": [pages.table(("in the tables", "loss"), NAMES.values())],
        "## All settings": [against_the_best(reported, NAMES)],
        "## Each network": [each_network(reported, usual)],
        "## Spikes, silent labels and time": [activity(reported)],
        "## How the bounds were chosen": [choice(chosen)],
    }
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds; {versions}"
    figures = {r"(?<=^Measured with: ).*(?=\.$)": measured}
    return pages.with_figures(pages.with_tables(page, tables), figures)


def settings(trainings: Trainings) -> dict[tuple[str, float], dict[str, list[float]]]:
    """Return the accuracies of the seeds in percent, for each network and rate and each loss."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for one in trainings:
        accuracies = [100 * x for x in one["accuracy"]]
        found.setdefault((one["network"], one["rate"]), {})[one["loss"]] = accuracies
    return found


def of_loss(trainings: Trainings, loss: str, seed: int) -> dict[str, float]:
    """Return the statistics of a loss over all settings, for one seed."""
    everywhere = settings(trainings)
    own = {setting: of[loss][seed] for setting, of in everywhere.items()}
    best = {setting: max(x[seed] for x in of.values()) for setting, of in everywhere.items()}
    lost = sorted(best[setting] - own[setting] for setting in everywhere)
    networks = {network for network, _ in everywhere}
    at_best = (max(own[network, rate] for rate in RATES) for network in networks)
    return {
        "mean": statistics.fmean(own.values()),
        "at the best rate": statistics.fmean(at_best),
        "points lost: median": statistics.median(lost),
        "90 %": statistics.quantiles(lost, n=10, method="inclusive")[-1],
        "largest": lost[-1],
        "collapsed": sum(own[each] < best[each] / 2 for each in everywhere),
    }


def against_the_best(trainings: Trainings, losses: Iterable[str]) -> str:
    """Return a table of the statistics of losses: the mean over the seeds, and their range."""
    rows = []
    for loss in losses:
        seeds = range(len(trainings[0]["accuracy"]))
        each = [of_loss(trainings, loss, seed) for seed in seeds]
        cells = []
        for name in each[0]:
            values = [one[name] for one in each]
            cells.append(f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        rows.append((NAMES.get(loss, (loss,))[0], *cells))
    return pages.table(("", *each[0]), rows)


def each_network(trainings: Trainings, usual: Trainings) -> str:
    """Return a table with the accuracy at the three rates for each network and loss."""
    everywhere, usual_losses = settings(trainings + usual), {one["loss"] for one in usual}
    rows = []
    for network in dict.fromkeys(one["network"] for one in trainings):
        means = {
            loss: " ".join(f"{statistics.fmean(everywhere[network, x][loss]):.0f}" for x in RATES)
            for loss in everywhere[network, RATES[0]]
        }
        others = [f"{means[loss]} (`{loss}`)" for loss in usual_losses & means.keys()]
        rows.append((network, *(means[loss] for loss in NAMES), *(others or [""])))
    return pages.table(("", *(words for words, _ in NAMES.values()), "usual there"), rows)


def activity(trainings: Trainings) -> str:
    """Return a table of spikes, silent labels, accuracy at a third and milliseconds of a loss."""
    rows = []
    for loss, (words, _) in NAMES.items():
        own = [one for one in trainings if one["loss"] == loss]

        def mean(key: str, chosen: Trainings) -> float:
            return statistics.fmean(statistics.fmean(one[key]) for one in chosen)

        by_rate = [[one for one in own if one["rate"] == rate] for rate in RATES]
        spikes = ", ".join(f"{mean('spikes', chosen):.0f}" for chosen in by_rate)
        silent = ", ".join(f"{mean('silent', chosen):.0%}" for chosen in by_rate)
        milliseconds = statistics.median(one["loss_ms"] for one in own if one["loss_ms"])
        rows.append(
            (words, spikes, silent, f"{100 * mean('third', own):.1f}", f"{milliseconds:.2f}")
        )
    header = ("", "output spikes", "silent labels", "accuracy at a third", "ms of the loss")
    return pages.table(header, rows)


def choice(trainings: Trainings) -> str:
    """Return a table of the weights, rates and units among which the bounds were chosen."""
    losses = dict.fromkeys(one["loss"] for one in trainings)
    return against_the_best(trainings, losses)


def write() -> None:
    """Write the page from the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(text(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    write()
