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
<<<<<<< HEAD
    found = {(one["network"], one["loss"], one["rate"]): one for one in record["trainings"]}
    networks = list(dict.fromkeys(network for network, loss, _ in found if loss in NAMES))

    def array(key: str) -> np.ndarray:  # [loss, network, rate, seed]
        return np.asarray(
            [[[found[x, loss, rate][key] for rate in RATES] for x in networks] for loss in NAMES]
        )

    accuracy, spikes, silent = (array(key) for key in ("accuracy", "spikes", "silent"))
=======
    reported = [one for one in record["trainings"] if one["loss"] in NAMES]
    networks = list(dict.fromkeys(one["network"] for one in reported))
    usual = [one for one in record["trainings"] if one["network"] in networks]
    accuracy, spikes = (array(reported, x) for x in ("accuracy", "spikes"))
>>>>>>> pages2
    in_percent = (100 * accuracy).mean(axis=-1)  # [loss, network, rate]
    shown = [loss for loss in NAMES if loss != "SpikeMax"]
    header = ("network", *(NAMES[loss] for loss in shown))
    tables: dict[str, Iterable[str]] = {
        f"### Learning rate {rate}": [pages.table(header, rows(networks, in_percent[:-1, :, i].T))]
        for i, rate in enumerate(RATES)
        if rate != 0.001  # where the losses differ least
    }
<<<<<<< HEAD
    tables["## All settings"] = [*overview(100 * accuracy), of_outputs(spikes, 100 * silent)]
    usual = dict.fromkeys(x[:2] for x in found if x[0] in networks and x[1] not in NAMES)
=======
    tables["## All settings"] = [overview(100 * accuracy, spikes)]
>>>>>>> pages2
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
