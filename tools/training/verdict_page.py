"""Write the tables of docs/diagnosis-measured.md: ``python tools/training/verdict_page.py``.

The numbers come from the last measurements with verdict.py and advice.py, in
tests/data/verdict.json. The text of the page is written by hand.
"""

import itertools
import statistics
from collections.abc import Iterable
from typing import Any

import runs
from runs import Records, pages

RECORD, PAGE = "verdict", pages.DOCS / "diagnosis-measured.md"
SETS = {
    "plain": "PyTorch",
    "snnTorch": "snnTorch",
    "SpikingJelly": "SpikingJelly",
    "JAX": "JAX and Spyx",
    "Norse": "Norse",
    "timing": "spike times",
}
GROUPS = ("fails", "between", "learns")
# The columns of the tables of ways to train a network: the name in the record, and on the page.
IN_FRAMEWORKS = ("digits, dense", "spike times, dense")  # networks in at least three frameworks
REPAIRS = {"wide": "default weights", "3 %": "scaled"}
NOT_REPEATED = {"fluctuations"}  # an earlier version of advice.py measured this way
VARIANTS = {
    "3 %": "none",
    "2 %": "a learning rate of 2 %",
    "4 %": "a learning rate of 4 %",
    "no warm-up": "no warm-up",
    "fluctuations": "fluctuation-driven weights",
    "narrower": "slope 5 / threshold",
    "narrower, default weights": "slope 5 / threshold, default weights",
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
        "### Variants": [varied(record)],
        "### MNIST and speech": [on_other_data(record)],
    }
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    seeds = ", ".join(f"{seed} ({stream})" for stream, seed in record["seeds"].items())
    figures = {r"(?<=^Measured with: ).*(?=\.$)": f"seeds {seeds}; {versions}"}
    return pages.with_figures(pages.with_tables(page, tables), figures)


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
        blind = [percent(x["without gradients"], x["networks"]) for x in (fail, learn)]
        sizes = [str(x["networks"]) for x in (fail, learn)]
        rows.append((SETS[name], sizes[0], shares[0], sizes[1], *shares[1:], *blind))
    header = ("", "fail", "reported", "learn", "reported", "in the worst epoch")
    blind = ("fail, without gradients", "learn, without gradients")
    return pages.table((*header, *blind), rows)


def found_after(record: dict[str, Any]) -> str:
    """Return the table with the share of networks for which a problem is reported at the end."""
    rows = []
    for data, groups in record["ended"].items():
        fail, learn = groups["fails"], groups["learns"]
        shares = [
            percent(of[key], of["networks"])
            for of in (fail, learn)
            for key in ("without earlier", "reported")
        ]
        rows.append((data, str(fail["networks"]), *shares[:2], str(learn["networks"]), *shares[2:]))
    header = ("", "fail", "reported", "with `earlier`", "learn", "reported", "with `earlier`")
    return pages.table(header, rows)


def outcome(networks: Records, tasks: dict[str, Any], way: str) -> tuple[str, str]:
    """Return the mean accuracy of networks trained in a way, and the number that learn."""
    if not all(way in one["accuracy"] for one in networks):
        return "", ""
    accuracies = [one["accuracy"][way] for one in networks]
    learn = sum(one["accuracy"][way] > tasks[one["task"]]["learns"] for one in networks)
    return f"{100 * statistics.fmean(accuracies):.0f} %", str(learn)


def by_kind(record: dict[str, Any], of: str, ways: Iterable[str]) -> dict[str, Records]:
    """Return the networks of a group that were trained in these ways, by data and kind."""
    found: dict[str, Records] = {}
    for one in record["advice"]:
        if one["group"] == of and {*ways} - NOT_REPEATED <= one["accuracy"].keys():
            data = "spike times" if one["task"] == "timing" else one["task"]
            found.setdefault(f"{data}, {one['kind']}", []).append(one)
    return found


def repaired(record: dict[str, Any]) -> str:
    """Return the table with the outcome for networks that failed, by framework."""
    rows = []
    for kind, networks in by_kind(record, "fails", REPAIRS).items():
        of_sets = {name: [x for x in networks if x["set"] == name] for name in SETS}
        for name, own in of_sets.items() if kind in IN_FRAMEWORKS else ():
            if own:
                outcomes = (outcome(own, record["tasks"], way) for way in REPAIRS)
                rows.append((kind, SETS[name], str(len(own)), *itertools.chain(*outcomes)))
    columns = itertools.chain(*((words, "learn") for words in REPAIRS.values()))
    return pages.table(("networks that failed", "framework", "number", *columns), rows)


def of_learning(record: dict[str, Any]) -> str:
    """Return the table with the outcome for kinds of which at least four networks learned."""
    rows = []
    for kind, networks in by_kind(record, "learns", REPAIRS).items():
        if len(networks) < 4:
            continue
        before, _ = outcome(networks, record["tasks"], "as drawn")
        rows.append((kind, str(len(networks)), before, *outcome(networks, record["tasks"], "3 %")))
    header = ("networks that learned", "number", "before", "scaled", "learn")
    return pages.table(header, rows)


def varied(record: dict[str, Any]) -> str:
    """Return the table with the outcome of each variant for recurrent networks."""
    networks = by_kind(record, "fails", VARIANTS)["spike times, recurrent"]
    rows = [(words, *outcome(networks, record["tasks"], way)) for way, words in VARIANTS.items()]
    return pages.table(("variant", "accuracy", "learn"), rows)


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
    runs.write_page(PAGE, text, RECORD)
