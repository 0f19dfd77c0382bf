"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The numbers come from the last measurement, in tests/data/training.json. The text of the page is
written by hand. This program also prints the table behind its section on the choice of the bounds.
"""

import json
import statistics
import sys
from typing import Any

from runs import ROOT, Records

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
    "SpikeRate(1, 0)": "`SpikeRate(1, 0)`",
    "SpikeMax": "`SpikeMax`",
}
FAILURES = "points lost, median", "points lost, 90th percentile", "collapsed settings"


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by tables from the record."""
    trainings = record["trainings"]
    reported = [one for one in trainings if one["loss"] in NAMES]
    networks = {one["network"] for one in reported}
    usual = [one for one in trainings if one["network"] in networks and one not in reported]
    tables = {
        "## All settings": [*overview(reported), of_outputs(reported)],
        **{f"### Learning rate {rate}": [each_network(reported, rate)] for rate in RATES},
        "### Losses of the frameworks": [each_framework(usual)],
    }
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds; {versions}"
    figures = {r"(?<=^Measured with: ).*(?=\.$)": measured}
    return pages.with_figures(pages.with_tables(page, tables), figures)


def settings(trainings: Records) -> dict[tuple[str, float], dict[str, list[float]]]:
    """Return the accuracy of each seed in percent, by network and learning rate and by loss."""
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    for one in trainings:
        accuracies = [100 * x for x in one["accuracy"]]
        found.setdefault((one["network"], one["rate"]), {})[one["loss"]] = accuracies
    return found


def of_loss(trainings: Records, loss: str, seed: int) -> dict[str, float]:
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


def statistics_of_seeds(trainings: Records, loss: str) -> dict[str, list[float]]:
    """Return the statistics of a loss over all settings, with one number per seed for each."""
    each = [of_loss(trainings, loss, seed) for seed in range(len(trainings[0]["accuracy"]))]
    return {name: [one[name] for one in each] for name in each[0]}


def with_range(values: list[float]) -> str:
    """Return the mean and the range over the seeds, in words."""
    return f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def overview(trainings: Records) -> list[str]:
    """Return two tables with statistics of each loss over all settings: accuracy and failures."""
    accuracies, failures = [], []
    for loss, words in NAMES.items():
        found = statistics_of_seeds(trainings, loss)
        mean = found["mean"]
        seeds = f"{min(mean):.1f} to {max(mean):.1f}"
        means = {name: f"{statistics.fmean(each):.1f}" for name, each in found.items()}
        best = means["at the best learning rate"]
        accuracies.append((words, means["mean"], seeds, best))
        failures.append((words, *(means[name] for name in FAILURES)))
    header = "loss", "mean", "range of the seeds", "at the best learning rate"
    return [pages.table(header, accuracies), pages.table(("loss", *FAILURES), failures)]


def of_outputs(trainings: Records) -> str:
    """Return the table with the spikes and silent labels of each loss, by learning rate."""
    rows = []
    for loss, words in NAMES.items():
        own = [one for one in trainings if one["loss"] == loss]
        for rate in RATES:
            chosen = [one for one in own if one["rate"] == rate]
            spikes, silent = (
                statistics.fmean(statistics.fmean(one[key]) for one in chosen)
                for key in ("spikes", "silent")
            )
            rows.append((words, str(rate), f"{spikes:.0f}", f"{100 * silent:.0f}"))
    return pages.table(("loss", "learning rate", "output spikes", "silent labels, %"), rows)


def each_network(trainings: Records, rate: float) -> str:
    """Return a table with the accuracy at a learning rate, for each network and loss."""
    everywhere = settings(trainings)
    shown = {loss: words for loss, words in NAMES.items() if loss != "SpikeMax"}
    rows = []
    for network in dict.fromkeys(one["network"] for one in trainings):
        found = everywhere[network, rate]
        rows.append((network, *(f"{statistics.fmean(found[loss]):.0f}" for loss in shown)))
    return pages.table(("network", *shown.values()), rows)


def each_framework(usual: Records) -> str:
    """Return a table with the accuracy of the loss in the examples of each framework."""
    everywhere, rows = settings(usual), []
    for network, loss in dict.fromkeys((one["network"], one["loss"]) for one in usual):
        means = (statistics.fmean(everywhere[network, rate][loss]) for rate in RATES)
        rows.append((network, f"`{loss}`", *(f"{mean:.0f}" for mean in means)))
    return pages.table(("network", "loss", *map(str, RATES)), rows)


def choice(trainings: Records) -> str:
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
