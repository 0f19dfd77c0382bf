"""Write the tables of docs/diagnosis-measured.md: ``python tools/training/verdict_page.py``.

The numbers come from the last measurements with verdict.py and advice.py, in
tests/data/verdict.json. The text of the page is written by hand.
"""

import statistics
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import runs
from runs import Records, pages

RECORD, PAGE = "verdict", pages.DOCS / "diagnosis-measured.md"
SETS = {
    "plain": "plain PyTorch",
    "snnTorch": "snnTorch",
    "SpikingJelly": "SpikingJelly",
    "JAX": "JAX and Spyx",
    "Norse": "Norse",
    "timing": "spike times",
}
GROUPS = ("fails", "between", "learns")
# The columns of the tables of ways to train a network: the name in the record, and on the page.
WAYS = {"as drawn": "as drawn", "wide": "default weights", "recipe": "old recipe", "3 %": "scaled"}
NOT_REPEATED = {"recipe", "fluctuations"}  # an earlier version of advice.py measured these ways
VARIANTS = {
    "2 %": "2 %",
    "3 %": "3 %",
    "4 %": "4 %",
    "no warm-up": "3 %, no warm-up",
    "fluctuations": "fluctuation-driven",
    "narrower": "narrower surrogate",
    "narrower, default weights": "narrower surrogate, default weights",
}


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by tables from the record."""
    tables = {
        "## What the report finds": [found_by_set(record)],
        "## Which findings": [codes(record["verdict"])],
        "## What the advice is worth": [advised(record, "fails", WAYS)],
        "## What it does to networks that learn": [advised(record, "learns", WAYS)],
        "## Variants": [advised(record, "fails", VARIANTS)],
    }
    seeds = ", ".join(f"{seed} ({stream})" for stream, seed in record["seeds"].items())
    return runs.with_versions(pages.with_tables(page, tables), f"seeds {seeds}", record)


def share(number: int, of: int) -> str:
    """Return a share in percent, with the numbers behind it."""
    return f"{100 * number / of:.0f} % ({number} of {of})" if of else ""


def fail_and_learn(groups: dict[str, Any], number: Callable[[dict[str, Any]], int]) -> str:
    """Return the percentages of failing and of learning networks, separated by a slash."""
    both = (groups["fails"], groups["learns"])
    return "/".join(f"{100 * number(group) / group['networks']:.0f}" for group in both)


def found_by_set(record: dict[str, Any]) -> str:
    """Return the table with the share of networks for which a problem is reported."""
    rows = []
    for name, groups in record["verdict"].items():
        before = [share(groups[x]["flagged"][0], groups[x]["networks"]) for x in GROUPS]
        learning = groups["learns"]
        worst = share(max(learning["flagged"][1:]), learning["networks"])
        percent = fail_and_learn(groups, lambda group: group["without gradients"])
        rows.append((SETS[name], *before, worst, f"{percent} %"))
    header = ("", "fail", "between", "learn", "learn, worst epoch", "without gradients: fail/learn")
    return pages.table(header, rows)


def codes(verdict: dict[str, Any]) -> str:
    """Return the table with the share of networks that have each finding before training."""
    total: Counter[str] = Counter()
    for groups in verdict.values():
        for of in ("fails", "learns"):
            total.update(groups[of]["codes"])
    rows = [
        (
            f"`{code}`",
            *(
                fail_and_learn(groups, lambda group, code=code: group["codes"].get(code, 0))
                for groups in verdict.values()
            ),
        )
        for code, _ in total.most_common()
    ]
    return pages.table(("%, fail/learn", *(SETS[name] for name in verdict)), rows)


def outcome(networks: Records, tasks: dict[str, Any], way: str) -> str:
    """Return the mean accuracy of networks trained in a way, and how many of them learn."""
    if not all(way in one["accuracy"] for one in networks):
        return ""
    accuracies = [one["accuracy"][way] for one in networks]
    learn = sum(one["accuracy"][way] > tasks[one["task"]]["learns"] for one in networks)
    return f"{100 * statistics.fmean(accuracies):.0f} % ({learn} of {len(networks)})"


def advised(record: dict[str, Any], of: str, ways: dict[str, str]) -> str:
    """Return the table with the outcome of some ways for the networks of a group."""
    networks = [
        one
        for one in record["advice"]
        if one["group"] == of and ways.keys() - NOT_REPEATED <= one["accuracy"].keys()
    ]
    rows = []
    for task, kind in dict.fromkeys((one["task"], one["kind"]) for one in networks):
        own = [one for one in networks if (one["task"], one["kind"]) == (task, kind)]
        groups = {words: [one for one in own if one["set"] == name] for name, words in SETS.items()}
        for words, chosen in (groups | {"**all**": own}).items():
            if chosen and (words in groups or own not in groups.values()):
                outcomes = [outcome(chosen, record["tasks"], way) for way in ways]
                rows.append((f"{task}, {kind}", words, *outcomes))
    return pages.table(("data and networks", "framework", *ways.values()), rows)


if __name__ == "__main__":
    runs.write_page(sys.modules[__name__])
