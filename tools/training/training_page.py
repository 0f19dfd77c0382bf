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

MEAN = 'reduction="mean", time_axis=0'
NAMES = {  # of the losses in the record: in words, and as code
    "count": ("counts", "`CrossEntropy(time_axis=0)`"),
    "sqrt_count": ("root", '`CrossEntropy(time_axis=0, readout="sqrt_count")`'),
    "sqrt_count, soft to sharp": ("root, soft to sharp", "the same, `temperature` from 1 to 1/4"),
    "SpikeMax": ("`SpikeMax`", f"`SpikeMax({MEAN})`"),
    "SpikeRate": ("`SpikeRate`", f"`SpikeRate(0.5, 0.02, {MEAN})`"),
    "SpikeMoid": ("`SpikeMoid`", f"`SpikeMoid(theta=0.2, alpha=0.1, {MEAN})`"),
}
RATES = (0.001, 0.005, 0.02)


def text(page: str, record: dict) -> str:
    """Return the page with its tables replaced by those of the record."""
    plain, framework = (
        [one for one in record["trainings"] if (one["network"] == "snnTorch") == of_snntorch]
        for of_snntorch in (False, True)
    )
    tables = {
        "# Which loss trains": [pages.table(("in the tables", "loss"), NAMES.values())],
        "## Plain networks": [accuracies(plain, [{}])],
        "## Networks of snnTorch": [accuracies(framework, [{"steps": 25}, {"steps": 100}])],
        "## Spikes and silent labels": [activity(plain)],
    }
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds; {versions}"
    figures = {r"(?<=^Measured with: ).*(?=\.$)": measured}
    return pages.with_figures(pages.with_tables(page, tables), figures)


def mean(trainings: list[dict], key: str, **where: object) -> float:
    """Return the mean of a figure over the seeds of the trainings that have some settings."""
    chosen = [one[key] for one in trainings if where.items() <= one.items()]
    return statistics.fmean(map(statistics.fmean, chosen))


def accuracies(trainings: list[dict], lengths: list[dict]) -> str:
    """Return a table with a row for each loss and a column for each learning rate.

    A cell has a figure for each of some settings, and the largest figures of a column are bold.
    """
    rows = []
    for loss in NAMES:
        of_loss = [one for one in trainings if one["loss"] == loss]
        figures = [mean(of_loss, "accuracy", rate=x, **where) for x in RATES for where in lengths]
        figures.append(min(statistics.fmean(one["accuracy"]) for one in of_loss))
        rows.append([f"{100 * figure:.1f}" for figure in figures])
    best, each = [max(column, key=float) for column in zip(*rows, strict=True)], len(lengths)
    lines = []
    for (words, _), figures in zip(NAMES.values(), rows, strict=True):
        pairs = zip(figures, best, strict=True)
        shown = [f"**{figure}**" if figure == most else figure for figure, most in pairs]
        cells = [", ".join(shown[i : i + each]) for i in range(0, len(figures), each)]
        lines.append((words, *cells))
    return pages.table(("", *(f"rate {rate:g}" for rate in RATES), "lowest setting"), lines)


def activity(trainings: list[dict]) -> str:
    """Return a table of output spikes of the longest trains, and of silent labels, by rate."""
    steps, rows = max(one["steps"] for one in trainings), []
    for loss, (words, _) in NAMES.items():
        by_rate = [{"loss": loss, "rate": rate} for rate in RATES]
        spikes = (f"{mean(trainings, 'spikes', steps=steps, **where):.0f}" for where in by_rate)
        silent = (f"{mean(trainings, 'silent', **where):.0%}" for where in by_rate)
        rows.append((words, ", ".join(spikes), ", ".join(silent)))
    return pages.table(("", f"spikes, {steps} steps", "silent labels"), rows)


def write() -> None:
    """Write the page from the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    PAGE.write_text(text(PAGE.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    write()
