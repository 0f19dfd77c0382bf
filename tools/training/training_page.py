"""Write the tables of docs/which-loss-trains.md: ``python tools/training/training_page.py``.

The numbers come from the last measurement, in tests/data/training.json. The text of the page is
written by hand.
"""

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import runs
from runs import Records, pages

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
    reported = [one for one in record["trainings"] if one["loss"] in NAMES]
    networks = list(dict.fromkeys(one["network"] for one in reported))
    usual = [one for one in record["trainings"] if one["network"] in networks]
    accuracy, spikes = (array(reported, x) for x in ("accuracy", "spikes"))
    in_percent = (100 * accuracy).mean(axis=-1)  # [loss, network, rate]
    shown = [loss for loss in NAMES if loss != "SpikeMax"]
    header = ("network", *(NAMES[loss] for loss in shown))
    tables: dict[str, Iterable[str]] = {
        "## Each network": [pages.table(header, rows(networks, in_percent[:-1, :, -1].T))]
    }  # at the highest learning rate, where the losses differ most
    tables["## All settings"] = [overview(100 * accuracy, spikes)]
    frameworks = [
        (network, f"`{loss}`", *(f"{100 * np.mean(x):.0f}" for x in of_rates))
        for (network, loss), of_rates in by_setting(usual, "accuracy").items()
        if loss not in NAMES
    ]
    header = ("network", "loss", *map(str, RATES))
    tables["### Losses of the frameworks"] = [pages.table(header, frameworks)]
    measured = f"{record['epochs']} epochs, {record['seeds']} seeds"
    return runs.with_versions(pages.with_tables(page, tables), measured, record)


def by_setting(trainings: Records, key: str) -> dict[tuple[str, str], list[list[float]]]:
    """Return a number of each training by network and loss, as lists ``[rate][seed]``."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for one in trainings:
        found.setdefault((one["network"], one["loss"]), []).append(one[key])
    return found


def array(trainings: Records, key: str) -> np.ndarray:
    """Return a number of each training in the tables, ``[loss, network, rate, seed]``."""
    found = by_setting(trainings, key)
    networks = dict.fromkeys(network for network, _ in found)
    return np.asarray([[found[network, loss] for network in networks] for loss in NAMES])


def rows(names: Iterable[str], numbers: np.ndarray, digits: int = 0) -> list[tuple[str, ...]]:
    """Return rows of a table with a name and its numbers."""
    return [
        (name, *(f"{x:.{digits}f}" for x in row)) for name, row in zip(names, numbers, strict=True)
    ]


def overview(accuracy: np.ndarray, spikes: np.ndarray) -> str:
    """Return the table with statistics of each loss over all settings."""
    best = accuracy.max(axis=0)
    lost = (best - accuracy).reshape(len(NAMES), -1, accuracy.shape[-1])
    columns = {
        "mean": accuracy.mean(axis=(1, 2, 3)),
        "at the best learning rate": accuracy.max(axis=2).mean(axis=(1, 2)),
        "points lost": np.quantile(lost, 0.9, axis=1).mean(axis=1),
        "collapsed": (accuracy < best / 2).sum(axis=(1, 2)).mean(axis=1),
        "output spikes": spikes.mean(axis=(1, 2, 3)),
    }
    lines = rows(NAMES.values(), np.stack([*columns.values()], axis=1), digits=1)
    return pages.table(("loss", *columns), lines)


if __name__ == "__main__":
    runs.write_page(sys.modules[__name__])
