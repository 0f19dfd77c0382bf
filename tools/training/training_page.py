"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The figures are those of the last measurement, in tests/data/training.json. The text of the page is
written by hand.
"""

import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from _support import pages

RECORD = ROOT / "tests" / "data" / "training.json"
PAGE = ROOT / "docs" / "which-loss-trains.md"

NAMES = {  # of the losses in the record: in words, and as code
    "count": ("counts", "`CrossEntropy(time_axis=0)`"),
    "sqrt_count": ("root", '`CrossEntropy(time_axis=0, readout="sqrt_count")`'),
    "sqrt_count, soft to sharp": ("root, soft to sharp", "the same, `temperature` from 1 to 1/4"),
    "SpikeMax": ("`SpikeMax`", '`SpikeMax(reduction="mean", time_axis=0)`'),
    "SpikeRate": ("`SpikeRate`", '`SpikeRate(0.5, 0.02, reduction="mean", time_axis=0)`'),
    "SpikeMoid": (
        "`SpikeMoid`",
        '`SpikeMoid(theta=0.2, alpha=0.1, reduction="mean", time_axis=0)`',
    ),
}
TITLES = {"steps": "{} steps", "rate": "rate {:g}"}


def of_snntorch(training: dict) -> bool:
    return training["network"] == "snnTorch"


def text(page: str, record: dict) -> str:
    """Return the page with its tables replaced by those of the record."""
    trainings = sorted(record["trainings"], key=of_snntorch)
    framework = [one for one in trainings if of_snntorch(one)]
    plain = trainings[: -len(framework)]
    words = [words for words, _ in NAMES.values()]
    tables = {
        "# Which loss trains": [pages.table(("in the tables", "loss"), NAMES.values())],
        "## Plain networks": [accuracies(plain, "rate")],
        "## Networks of snnTorch": [accuracies(framework, "steps", "rate")],
        "## Spikes, silent labels and ties": [
            activity(plain, "plain networks"),
            activity(framework, "snnTorch"),
        ],
        "## Every setting": [
            pages.table(("network", "steps", "rate", *words), every_setting(trainings))
        ],
        "## How it was measured": [untrained(sorted(record["untrained"], key=of_snntorch))],
    }
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds; {versions}"
    figures = {r"(?<=^Measured with: ).*(?=\.$)": measured}
    return pages.with_figures(pages.with_tables(page, tables), figures)


def mean(trainings: list[dict], key: str, **where: object) -> float:
    """Return the mean of a figure over the seeds of the trainings that have some settings."""
    chosen = [one[key] for one in trainings if where.items() <= one.items()]
    return statistics.fmean(map(statistics.fmean, chosen))


def with_best(figures: list[float], best: list[float]) -> list[str]:
    """Return percentages, bold where they round to the best one."""
    shown = [
        (f"{100 * figure:.1f}", f"{100 * most:.1f}")
        for figure, most in zip(figures, best, strict=True)
    ]
    return [f"**{cell}**" if cell == most else cell for cell, most in shown]


def accuracies(trainings: list[dict], *keys: str) -> str:
    """Return a table with a row for each loss and a column for each value of some settings.

    The largest figure of a column is bold.
    """
    columns: list[dict] = []
    for one in trainings:
        column = {key: one[key] for key in keys}
        columns += [column] if column not in columns else []
    titles = [", ".join(TITLES[key].format(x) for key, x in column.items()) for column in columns]
    rows = []
    for loss, (words, _) in NAMES.items():
        of_loss = [one for one in trainings if one["loss"] == loss]
        figures = [mean(of_loss, "accuracy", **column) for column in columns]
        worst = min(statistics.fmean(one["accuracy"]) for one in of_loss)
        scatter = statistics.fmean(statistics.stdev(one["accuracy"]) for one in of_loss)
        figures += [mean(of_loss, "accuracy"), worst]
        rows.append((words, figures, f"{100 * scatter:.1f}"))
    best = [max(column) for column in zip(*(figures for _, figures, _ in rows), strict=True)]
    lines = [(words, *with_best(figures, best), scatter) for words, figures, scatter in rows]
    return pages.table(("", *titles, "mean", "lowest setting", "scatter of seeds"), lines)


def activity(trainings: list[dict], title: str) -> str:
    """Return a table of output spikes, silent labels and ties for each loss and learning rate."""
    rates = list(dict.fromkeys(one["rate"] for one in trainings))
    lengths = list(dict.fromkeys(one["steps"] for one in trainings))
    rows = []
    for loss, (words, _) in NAMES.items():
        for rate in rates:
            where = {"loss": loss, "rate": rate}
            spikes = [f"{mean(trainings, 'spikes', steps=n, **where):.0f}" for n in lengths]
            shares = [f"{mean(trainings, key, **where):.0%}" for key in ("silent", "ties")]
            rows.append((words if rate == rates[0] else "", f"{rate:g}", *spikes, *shares))
    spikes = (f"spikes, {steps} steps" for steps in lengths)
    return pages.table((title, "rate", *spikes, "silent labels", "ties"), rows)


def every_setting(trainings: list[dict]) -> list[tuple[str, ...]]:
    """Return the accuracies of each network, number of steps and learning rate."""
    settings = dict.fromkeys((one["network"], one["steps"], one["rate"]) for one in trainings)
    rows = []
    for network, steps, rate in settings:
        where = {"network": network, "steps": steps, "rate": rate}
        figures = [mean(trainings, "accuracy", loss=loss, **where) for loss in NAMES]
        cells = with_best(figures, [max(figures)] * len(figures))
        rows.append((network, str(steps), f"{rate:g}", *cells))
    return rows


def untrained(networks: list[dict]) -> str:
    """Return a table of output spikes and silent labels before training."""
    rows = []
    for one in networks:
        spikes, silent = mean([one], "spikes"), mean([one], "silent")
        rows.append((one["network"], str(one["steps"]), f"{spikes:.1f}", f"{silent:.0%}"))
    return pages.table(("before training", "steps", "output spikes", "silent labels"), rows)


def write() -> None:
    """Write the page from the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(text(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    write()
