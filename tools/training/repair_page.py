"""Write the tables of docs/repair-measured.md: ``python tools/training/repair_page.py``.

The numbers come from the last measurement with advice.py, in tests/data/verdict.json. The text of
the page is written by hand.
"""

import itertools
import statistics
import sys
from typing import Any

import runs
from runs import Records, pages

RECORD, PAGE = "verdict", pages.DOCS / "repair-measured.md"
PACKAGES = "torch jax scikit-learn mnist1d snntorch spikingjelly norse spyx mlxtend"
GROUPS = ("fails", "between", "learns")
REPAIRS = ("wide", "3 %")  # with default weights and with scaled weights, as the record names them
REPAIRED = {  # of each row: the data, the kinds of networks, and both ways to train them
    "digits, dense, five frameworks": ("digits", {"dense"}, REPAIRS),
    "digits, narrow, wide, deep, convolutional": (
        *("digits", {"width 50", "width 400", "deep", "convolution", "batch norm"}, REPAIRS),
    ),
    "digits, dense, SGD": ("digits", {"SGD"}, REPAIRS),
    "spike times, dense": ("timing", {"dense"}, REPAIRS),
    "spike times, recurrent, slope 5 / threshold": (
        *("timing", {"recurrent"}, ("narrower, default weights", "narrower")),
    ),
    "mnist1d, dense": ("mnist1d", {"dense"}, REPAIRS),
}

ON_OTHER_DATA = (
    *("as drawn", "as drawn, bounds", "scaled", "scaled, bounds"),
    "scaled, bounds, all recurrent weights",
)


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by tables from the record."""
    tables = {
        "## Networks that failed": [repaired(record)],
        "## Networks that learn": [of_learning(record)],
        "## MNIST and speech": [on_other_data(record)],
    }
    seed = f"seed {record['seeds']['advice']}"
    return runs.with_versions(pages.with_tables(page, tables), seed, record, PACKAGES.split())


def outcome(networks: Records, tasks: dict[str, Any], way: str) -> tuple[str, str]:
    """Return the mean accuracy of networks trained in a way, and the number that learn."""
    if not all(way in one["accuracy"] for one in networks):
        return "", ""
    accuracies = [one["accuracy"][way] for one in networks]
    learn = sum(one["accuracy"][way] > tasks[one["task"]]["learns"] for one in networks)
    return f"{100 * statistics.fmean(accuracies):.0f} %", str(learn)


def repaired(record: dict[str, Any]) -> str:
    """Return the table with the outcome for networks that failed, by data and kind."""
    rows = []
    for words, (task, kinds, ways) in REPAIRED.items():
        networks = [
            one
            for one in record["advice"]
            if (one["group"], one["task"]) == ("fails", task) and one["kind"] in kinds
        ]
        outcomes = (outcome(networks, record["tasks"], way) for way in ways)
        rows.append((words, str(len(networks)), *itertools.chain(*outcomes)))
    columns = ("default weights", "learn", "scaled", "learn")
    return pages.table(("networks that failed", "number", *columns), rows)


def of_learning(record: dict[str, Any]) -> str:
    """Return the table with the outcome for kinds of which at least four networks learned."""
    found: dict[str, Records] = {}
    for one in record["advice"]:
        if one["group"] == "learns" and "3 %" in one["accuracy"]:
            data = "spike times" if one["task"] == "timing" else one["task"]
            found.setdefault(f"{data}, {one['kind']}", []).append(one)
    rows = []
    for kind, networks in found.items():
        if len(networks) < 4:
            continue
        before, _ = outcome(networks, record["tasks"], "as drawn")
        rows.append((kind, str(len(networks)), before, *outcome(networks, record["tasks"], "3 %")))
    header = ("networks that learned", "number", "before", "scaled", "learn")
    return pages.table(header, rows)


def on_other_data(record: dict[str, Any]) -> str:
    """Return the table with the outcome, with and without bounds, for networks on other data."""
    networks = [[x for x in record["advice"] if x["task"] == task] for task in ("MNIST", "speech")]
    rows = [
        (way, *itertools.chain(*(outcome(x, record["tasks"], way) for x in networks)))
        for way in ON_OTHER_DATA
    ]
    columns = [(f"{x[0]['task']}, {x[0]['kind']} ({len(x)})", "learn") for x in networks]
    return pages.table(("", *itertools.chain(*columns)), rows)


if __name__ == "__main__":
    runs.write_page(sys.modules[__name__])
