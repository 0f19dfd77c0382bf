"""Write the tables of docs/diagnosis-measured.md: ``python tools/training/verdict_page.py``.

The numbers come from the last measurements with verdict.py and advice.py, in
tests/data/verdict.json. The text of the page is written by hand.
"""

import itertools
import statistics
import sys
from typing import Any

import runs
from runs import Records, pages

RECORD, PAGE = "verdict", pages.DOCS / "diagnosis-measured.md"
SETS = {
    "plain": "PyTorch",
    "snnTorch": "snnTorch",
    "SpikingJelly": "SpikingJelly",
    "JAX": "JAX and Spyx",
    "timing": "spike times",
}
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
        "## What the report finds": [found_by_set(record)],
        "### After training": [found_after(record)],
        "## The repair": [repaired(record)],
        "### Networks that learn": [of_learning(record)],
        "### MNIST and speech": [on_other_data(record)],
    }
    seeds = ", ".join(f"{seed} ({stream})" for stream, seed in record["seeds"].items())
    blind = (
        r"(?<=^- \*\*Without gradients\*\*, it names a problem for ).*(?= of those that learn\.$)"
    )
    figures = {blind: found_without_gradients(record)}
    page = pages.with_figures(pages.with_tables(page, tables), figures)
    return runs.with_versions(page, f"seeds {seeds}", record)


def percent(number: float, of: int) -> str:
    return f"{100 * number / of:.0f} %"


def found_by_set(record: dict[str, Any]) -> str:
    """Return the table with the share of networks for which a problem is reported."""
    rows = []
    for name, groups in record["verdict"].items():
        fail, learn = groups["fails"], groups["learns"]
        numbers = [fail["flagged"][0], learn["flagged"][0], max(learn["flagged"][1:])]
        shares = [
            percent(x, of["networks"]) for x, of in zip(numbers, (fail, learn, learn), strict=True)
        ]
        sizes = [str(x["networks"]) for x in (fail, learn)]
        rows.append((SETS[name], sizes[0], shares[0], sizes[1], *shares[1:]))
    header = ("", "fail", "reported", "learn", "reported", "in the worst epoch")
    return pages.table(header, rows)


def found_without_gradients(record: dict[str, Any]) -> str:
    """Return the shares of failing and of learning networks with a problem, in words."""
    ranges = []
    for group in ("fails", "learns"):
        of_sets = [groups[group] for groups in record["verdict"].values()]
        shares = [100 * of["without gradients"] / of["networks"] for of in of_sets]
        ranges.append(f"{min(shares):.0f} to {max(shares):.0f} %")
    return f"{ranges[0]} of those that fail, and for {ranges[1]}"


def found_after(record: dict[str, Any]) -> str:
    """Return the table with the share of networks for which the report names a problem."""
    rows = []
    for data, groups in record["ended"].items():
        fail, learn = groups["fails"], groups["learns"]
        shares = [
            percent(of[key], of["networks"])
            for of in (fail, learn)
            for key in ("before", "without earlier", "reported")
        ]
        rows.append((data, str(fail["networks"]), *shares[:3], str(learn["networks"]), *shares[3:]))
    reported = ("before", "after", "with `earlier`")
    header = ("", "fail", *reported, "learn", *reported)
    return pages.table(header, rows)


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
