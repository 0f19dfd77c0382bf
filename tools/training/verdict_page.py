"""Write the tables of docs/diagnosis-measured.md: ``python tools/training/verdict_page.py``.

The numbers come from the last measurement with verdict.py, in tests/data/verdict.json. The text of
the page is written by hand.
"""

import math
import sys
from typing import Any

import runs
from runs import Records, pages

RECORD, PAGE = "verdict", pages.DOCS / "diagnosis-measured.md"
PACKAGES = "torch scikit-learn mlxtend aeon sktime tslearn"
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


def text(page: str, record: dict[str, Any]) -> str:
    """Return the page with its tables replaced by tables from the record."""
    tables = {
        "## On new data": [found_by_data(record["unseen"])],
        "## On the data used for tuning": [found_by_data(record["chosen"])],
        "## What the causes explain": [explained(record["unseen"])],
    }
    seed = f"seed {record['seeds']['verdict']}"
    return runs.with_versions(pages.with_tables(page, tables), seed, record, PACKAGES.split())


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


if __name__ == "__main__":
    runs.write_page(sys.modules[__name__])
