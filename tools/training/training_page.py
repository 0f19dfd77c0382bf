"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The figures are those of the last measurement, in tests/data/training.json. The text of the page is
written by hand.
"""

import itertools
import json
import re
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
SNNTORCH = "snnTorch"


def text(page: str, record: dict) -> str:
    """Return the page with its tables replaced by those of the record."""
    plain, framework = split(record["trainings"])
    words = [words for words, _ in NAMES.values()]
    page = pages.with_tables(
        page,
        {
            "# Which loss trains": [pages.table(("in the tables", "loss"), NAMES.values())],
            "## Plain networks": [accuracies(plain, by_steps=False)],
            "## Networks of snnTorch": [accuracies(framework, by_steps=True)],
            "## Spikes, silent labels and ties": [
                activity(plain, "plain networks"),
                activity(framework, "snnTorch"),
            ],
            "## Every setting": [
                pages.table(
                    ("network", "steps", "rate", *words), every_setting([*plain, *framework])
                )
            ],
            "## How it was measured": [untrained(record["untrained"])],
        },
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds; {versions}"
    page, number = re.subn(r"(?<=^Measured with: ).*(?=\.$)", measured, page, flags=re.MULTILINE)
    if number != 1:
        raise ValueError(f"{PAGE.name} has {number} lines 'Measured with: '")
    return page


def split(figures: list[dict]) -> tuple[list[dict], list[dict]]:
    """Return the figures of plain networks, and those of snnTorch."""
    return (
        [one for one in figures if one["network"] != SNNTORCH],
        [one for one in figures if one["network"] == SNNTORCH],
    )


def accuracies(trainings: list[dict], *, by_steps: bool) -> str:
    """Return a table with a row for each loss and a column for each learning rate.

    With `by_steps` there is a column for each number of steps and learning rate. The largest figure
    of a column is bold.
    """
    columns = list(dict.fromkeys(_column(one, by_steps=by_steps) for one in trainings))
    rows = []
    for loss, (words, _) in NAMES.items():
        of_loss = [one for one in trainings if one["loss"] == loss]
        groups = [
            [one for one in of_loss if _column(one, by_steps=by_steps) == column]
            for column in columns
        ]
        figures = [_mean(group, "accuracy") for group in [*groups, of_loss]]
        worst = min(statistics.fmean(one["accuracy"]) for one in of_loss)
        scatter = statistics.fmean(statistics.stdev(one["accuracy"]) for one in of_loss)
        rows.append((words, [*figures, worst], f"{100 * scatter:.1f}"))
    best = [max(column) for column in zip(*(figures for _, figures, _ in rows), strict=True)]
    header = ("", *columns, "mean", "lowest setting", "scatter of seeds")
    return pages.table(
        header,
        [
            (words, *_with_best(figures, best), scatter)
            for words, figures, scatter in rows
        ],
    )  # fmt: skip


def _column(training: dict, *, by_steps: bool) -> str:
    rate = f"rate {training['rate']:g}"
    return f"{training['steps']} steps, {rate}" if by_steps else rate


def _mean(trainings: list[dict], key: str) -> float:
    """Return the mean of a figure over trainings and seeds."""
    return statistics.fmean(statistics.fmean(one[key]) for one in trainings)


def _with_best(figures: list[float], best: list[float]) -> list[str]:
    """Return percentages, bold where they round to the best one."""
    shown = [f"{100 * figure:.1f}" for figure in figures]
    return [
        f"**{cell}**" if cell == f"{100 * most:.1f}" else cell
        for cell, most in zip(shown, best, strict=True)
    ]


def activity(trainings: list[dict], title: str) -> str:
    """Return a table of output spikes, silent labels and ties for each loss and learning rate."""
    rates = list(dict.fromkeys(one["rate"] for one in trainings))
    lengths = list(dict.fromkeys(one["steps"] for one in trainings))
    header = (
        title, "rate", *(f"spikes, {steps} steps" for steps in lengths), "silent labels", "ties",
    )  # fmt: skip
    rows = []
    for loss, (words, _) in NAMES.items():
        for rate in rates:
            group = [one for one in trainings if (one["loss"], one["rate"]) == (loss, rate)]
            spikes = [
                _mean([one for one in group if one["steps"] == steps], "spikes")
                for steps in lengths
            ]
            shares = [f"{_mean(group, key):.0%}" for key in ("silent", "ties")]
            name = words if rate == rates[0] else ""
            rows.append((name, f"{rate:g}", *(f"{number:.0f}" for number in spikes), *shares))
    return pages.table(header, rows)


def every_setting(trainings: list[dict]) -> list[tuple[str, ...]]:
    """Return the accuracies of each network, number of steps and learning rate."""
    settings: dict[tuple, dict[str, float]] = {}
    for one in trainings:
        setting = one["network"], str(one["steps"]), f"{one['rate']:g}"
        settings.setdefault(setting, {})[one["loss"]] = _mean([one], "accuracy")
    rows = []
    for setting, figures in settings.items():
        in_order = [figures[loss] for loss in NAMES]
        rows.append((*setting, *_with_best(in_order, [max(in_order)] * len(in_order))))
    return rows


def untrained(figures: list[dict]) -> str:
    """Return a table of output spikes and silent labels before training."""
    rows = [
        (one["network"], str(one["steps"]), f"{_mean([one], 'spikes'):.1f}",
         f"{_mean([one], 'silent'):.0%}")
        for one in itertools.chain(*split(figures))
    ]  # fmt: skip
    return pages.table(("before training", "steps", "output spikes", "silent labels"), rows)


def write() -> None:
    """Write the page from the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(text(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    write()
