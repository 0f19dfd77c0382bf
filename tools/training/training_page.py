"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The numbers come from the last measurement, in tests/data/training.json. The text of the page is
written by hand. This program also prints the table behind its section on the choice of the bounds.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from _support import pages

RECORD = ROOT / "tests" / "data" / "training.json"
PAGE = ROOT / "docs" / "which-loss-trains.md"
RATES = (0.001, 0.005, 0.02)
NAMES = {  # the names in the tables of the losses in the record
    "count": "counts",
    "count, bounds": "counts, bounds",
    "sqrt_count": "root",
    "sqrt_count, bounds": "root, bounds",
    "SpikeRate": "`SpikeRate`",
    "SpikeMax": "`SpikeMax`",
}
Trainings = list[dict[str, Any]]


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by tables from the record."""
    trainings = record["trainings"]
    reported = [one for one in trainings if one["loss"] in NAMES]
    networks = {one["network"] for one in reported}
    usual = [one for one in trainings if one["network"] in networks and one not in reported]
    tables = {
        "## All settings": [overview(reported)],
        "## Each network": [each_network(reported, usual)],
    }
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds; {versions}"
    figures = {r"(?<=^Measured with: ).*(?=\.$)": measured}
    return pages.with_figures(pages.with_tables(page, tables), figures)


def settings(trainings: Trainings) -> dict[tuple[str, float], dict[str, list[float]]]:
    """Return the accuracy of each seed in percent, by network and learning rate and by loss."""
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
        "at the best learning rate": statistics.fmean(at_best),
        "points lost, median": statistics.median(lost),
        "points lost, 90th percentile": statistics.quantiles(lost, n=10, method="inclusive")[-1],
        "largest": lost[-1],
        "collapsed settings": sum(own[each] < best[each] / 2 for each in everywhere),
    }


def statistics_of_seeds(trainings: Trainings, loss: str) -> dict[str, list[float]]:
    """Return the statistics of a loss over all settings, with one number per seed for each."""
    each = [of_loss(trainings, loss, seed) for seed in range(len(trainings[0]["accuracy"]))]
    return {name: [one[name] for one in each] for name in each[0]}


def with_range(values: list[float]) -> str:
    """Return the mean and the range over the seeds, in words."""
    return f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def overview(trainings: Trainings) -> str:
    """Return the table with the accuracy, collapses and spikes of each loss over all settings."""
    rows = []
    for loss, words in NAMES.items():
        found = statistics_of_seeds(trainings, loss)
        del found["largest"]
        mean, *others = found.values()
        own = [one for one in trainings if one["loss"] == loss]
        by_rate = [[one for one in own if one["rate"] == rate] for rate in RATES]
        spikes, silent = (
            "/".join(
                f"{factor * statistics.fmean(statistics.fmean(one[key]) for one in chosen):.0f}"
                for chosen in by_rate
            )
            for key, factor in (("spikes", 1), ("silent", 100))
        )
        cells = [with_range(mean), *(f"{statistics.fmean(each):.1f}" for each in others)]
        rows.append((words, *cells, spikes, silent))
    return pages.table(("loss", *found, "output spikes", "silent labels, %"), rows)


def each_network(trainings: Trainings, usual: Trainings) -> str:
    """Return a table with the accuracy at each learning rate, for each network and loss."""
    everywhere, usual_losses = settings(trainings + usual), {one["loss"] for one in usual}
    shown = {loss: words for loss, words in NAMES.items() if loss != "SpikeMax"}
    rows = []
    for network in dict.fromkeys(one["network"] for one in trainings):
        means = {
            loss: "/".join(f"{statistics.fmean(everywhere[network, x][loss]):.0f}" for x in RATES)
            for loss in everywhere[network, RATES[0]]
        }
        others = [f"{means[loss]} (`{loss}`)" for loss in usual_losses & means.keys()]
        rows.append((network, *(means[loss] for loss in shown), *(others or [""])))
    return pages.table(("network", *shown.values(), "usual loss"), rows)


def choice(trainings: Trainings) -> str:
    """Return a table of the weights, rates and units from which the bounds were chosen."""
    losses = dict.fromkeys(one["loss"] for one in trainings)
    found = {loss: statistics_of_seeds(trainings, loss) for loss in losses}
    header = ("", *next(iter(found.values())))
    return pages.table(header, [(loss, *map(with_range, x.values())) for loss, x in found.items()])


def write() -> None:
    """Write the page from the record, and print the table of the choice."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(text(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")
    reported = {one["network"] for one in record["trainings"] if one["loss"] in NAMES}
    print(choice([one for one in record["trainings"] if one["network"] not in reported]))


if __name__ == "__main__":
    write()
