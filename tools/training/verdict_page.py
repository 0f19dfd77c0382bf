"""Write the tables of docs/diagnosis-measured.md: ``python tools/training/verdict_page.py``.

The numbers come from the last measurements with verdict.py and advice.py, in
tests/data/verdict.json. The text of the page is written by hand.
"""

import itertools
import math
import statistics
import sys
from typing import Any

import runs
from runs import Records, pages

RECORD, PAGE = "verdict", pages.DOCS / "diagnosis-measured.md"
NAMES = {  # of the data sets
    **{"digits 15": "digits", "MNIST 15": "MNIST", "speech 2": "JapaneseVowels (speech)"},
    **{"series BasicMotions": "BasicMotions", "series ArrowHead": "ArrowHead"},
    **{f"series {x}": x for x in ("GunPoint", "ItalyPowerDemand", "OSULeaf", "PLAID", "Trace")},
    **{"features wine": "wine", "features breast_cancer": "breast cancer"},
}
OTHER_LOSSES = {  # by data set
    **{"trains 8": "`SpikeTime`", "trains 12": "`SpikeTime`"},
    "features diabetes": "`SquaredError` of potentials (diabetes)",
}
KINDS = ("dense", "recurrent", "convolution")
LOOKS = ("before", "after 100", "at the end")
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
        "### On new data": [found_by_data(record["unseen"])],
        "### On the data of the limits": [found_by_data(record["chosen"])],
        "### What the causes explain": [explained(record["unseen"])],
        "## The repair": [repaired(record)],
        "### Networks that learn": [of_learning(record)],
        "### MNIST and speech": [on_other_data(record)],
    }
    seeds = ", ".join(f"{seed} ({stream})" for stream, seed in record["seeds"].items())
    page = pages.with_tables(page, tables)
    return runs.with_versions(page, f"seeds {seeds}", record)


def interval(number: int, of: int) -> str:
    """Return a share in percent with its Wilson interval of 95 %."""
    if not of:
        return ""
    z, share = 1.96, number / of
    centre = share + z * z / (2 * of)
    width = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = ((centre + sign * width) / (1 + z * z / of) for sign in (-1, 1))
    return f"{100 * share:.0f} ({max(100 * low, 0):.0f} to {100 * high:.0f})"


def row_of_looks(name: str, records: Records) -> tuple[str, ...]:
    """Return a row with the share of networks that have a problem at each look."""
    cells = [name]
    for fails in (True, False):
        group = [one for one in records if one["fails"] == fails]
        cells.append(str(len(group)))
        for look in range(len(LOOKS)):
            cells.append(
                interval(sum(bool(x["looks"][look]["problem"]) for x in group), len(group))
            )
    return tuple(cells)


def found_by_data(records: Records) -> str:
    """Return the table of the verdict: for all networks with classes, by data, kind and loss."""
    with_classes = [one for one in records if one["data"] not in OTHER_LOSSES]
    rows = [row_of_looks("**classes, all**", with_classes)]
    for data in dict.fromkeys(one["data"] for one in with_classes):
        rows.append(row_of_looks(NAMES[data], [x for x in with_classes if x["data"] == data]))
    for kind in KINDS:
        rows.append(row_of_looks(f"*{kind}*", [x for x in with_classes if x["kind"] == kind]))
    for data, name in OTHER_LOSSES.items():
        if chosen := [one for one in records if one["data"] == data]:
            rows.append(row_of_looks(name, chosen))
    return pages.table(("", "fail", *LOOKS, "learn", *LOOKS), rows)


def explained(records: Records) -> str:
    """Return the table of the causes that were removed alone, and how many networks then learn."""
    found: dict[str, list[bool]] = {}
    for one in records:
        if "without" in one:
            found.setdefault(one["without"]["cause"], []).append(one["without"]["learns"])
    rows = [(f"`{cause}`", str(len(x)), str(sum(x))) for cause, x in found.items()]
    every = [x for of in found.values() for x in of]
    rows.append(("all", str(len(every)), interval(sum(every), len(every)) + " %"))
    return pages.table(("first cause", "networks", "learn without it"), rows)


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
