"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The numbers come from the last measurement, in tests/data/training.json. The text of the page is
written by hand.
"""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import runs
from runs import pages

RECORD, PAGE = "training", pages.DOCS / "which-loss-trains.md"
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


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by tables from the record."""
    found = {(one["network"], one["loss"], one["rate"]): one for one in record["trainings"]}
    networks = list(dict.fromkeys(network for network, loss, _ in found if loss in NAMES))

    def array(key: str) -> np.ndarray:  # [loss, network, rate, seed]
        return np.asarray(
            [[[found[x, loss, rate][key] for rate in RATES] for x in networks] for loss in NAMES]
        )

    accuracy, spikes, silent = (array(key) for key in ("accuracy", "spikes", "silent"))
    in_percent = (100 * accuracy).mean(axis=-1)  # [loss, network, rate]
    shown = [loss for loss in NAMES if loss != "SpikeMax"]
    header = ("network", *(NAMES[loss] for loss in shown))
    tables: dict[str, Iterable[str]] = {
        f"### Learning rate {rate}": [pages.table(header, rows(networks, in_percent[:-1, :, i].T))]
        for i, rate in enumerate(RATES)
    }
    tables["## All settings"] = [*overview(100 * accuracy), of_outputs(spikes, 100 * silent)]
    usual = dict.fromkeys(x[:2] for x in found if x[0] in networks and x[1] not in NAMES)
    frameworks = [
        (x[0], f"`{x[1]}`", *(f"{100 * np.mean(found[*x, y]['accuracy']):.0f}" for y in RATES))
        for x in usual
    ]
    header = ("network", "loss", *map(str, RATES))
    tables["### Losses of the frameworks"] = [pages.table(header, frameworks)]
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds"
    return runs.with_versions(pages.with_tables(page, tables), measured, record)


def rows(names: Iterable[str], numbers: np.ndarray, digits: int = 0) -> list[tuple[str, ...]]:
    """Return rows of a table with a name and its numbers."""
    return [
        (name, *(f"{x:.{digits}f}" for x in row)) for name, row in zip(names, numbers, strict=True)
    ]


def overview(accuracy: np.ndarray) -> list[str]:
    """Return two tables with statistics of each loss over all settings: accuracy and failures."""
    best = accuracy.max(axis=0)
    mean = accuracy.mean(axis=(1, 2))  # [loss, seed]
    at_best = accuracy.max(axis=2).mean(axis=(1, 2))
    lost = (best - accuracy).reshape(len(NAMES), -1, accuracy.shape[-1])
    accuracies = [
        (words, f"{own.mean():.1f}", f"{own.min():.1f} to {own.max():.1f}", f"{highest:.1f}")
        for words, own, highest in zip(NAMES.values(), mean, at_best, strict=True)
    ]
    failures = {
        "points lost, median": np.median(lost, axis=1),
        "points lost, 90th percentile": np.quantile(lost, 0.9, axis=1),
        "collapsed settings": (accuracy < best / 2).sum(axis=(1, 2)),
    }
    columns = np.stack([each.mean(axis=1) for each in failures.values()], axis=1)
    header = "loss", "mean", "range of the seeds", "at the best learning rate"
    return [
        pages.table(header, accuracies),
        pages.table(("loss", *failures), rows(NAMES.values(), columns, digits=1)),
    ]


def of_outputs(spikes: np.ndarray, silent: np.ndarray) -> str:
    """Return the table with the spikes and silent labels of each loss, by learning rate."""
    columns = np.stack([spikes, silent]).mean(axis=(2, 4))  # [column, loss, rate]
    lines = [
        (words, str(rate), *(f"{x:.0f}" for x in columns[:, i, j]))
        for i, words in enumerate(NAMES.values())
        for j, rate in enumerate(RATES)
    ]
    return pages.table(("loss", "learning rate", "output spikes", "silent labels, %"), lines)


if __name__ == "__main__":
    runs.write_page(sys.modules[__name__])
