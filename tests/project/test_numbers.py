"""Numbers in the README, "Can I trust it?" and "Initialisation" are those of the records."""

import json
import statistics

import pytest

from _support.pages import DOCS, ROOT

README = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
TRUST = " ".join((DOCS / "trust.md").read_text(encoding="utf-8").split())


def record(name):
    return json.loads((ROOT / "tests" / "data" / f"{name}.json").read_text(encoding="utf-8"))


def test_costs_are_the_record():
    rows = record("daily")["rows"]
    ratios, shares = (
        [rows[name.format(size)]["ratio"] * factor for size in ("[20, 100, 10]", "[100, 256, 20]")]
        for name, factor in (("PyTorch: counts: {} first", 1), ("share: counts: {}", 100))
    )
    assert (
        f"takes {ratios[0]:.1f} times as long as the line above for spikes `[20, 100, 10]` "
        f"({shares[0]:.1f} % of a training step), and {ratios[1]:.1f} times as long for "
        f"`[100, 256, 20]` ({shares[1]:.1f} %)"
    ) in TRUST
    assert (
        f"takes {ratios[1]:.1f} times as long as the hand-written line for spikes of shape "
        f"`[100, 256, 20]`, or {shares[1]:.0f} % of a training step"
    ) in README


def test_accuracies_are_the_record():
    trainings = record("training")["trainings"]
    networks = {one["network"] for one in trainings if one["loss"] == "SpikeMax"}
    counts, bounds = (
        100 * statistics.fmean(
            x
            for one in trainings
            if (one["rate"], one["loss"]) == (0.02, loss) and one["network"] in networks
            for x in one["accuracy"]
        )
        for loss in ("count", "count, bounds")
    )  # fmt: skip
    assert f"{bounds:.0f} % with bounds on the firing rates (`rates`), and {counts:.0f} %" in README


def test_share_of_diagnosed_networks_is_the_record():
    sets = [each for name, each in record("verdict")["verdict"].items() if name != "timing"]
    flagged = sum(each["fails"]["flagged"][0] for each in sets)
    failed = sum(each["fails"]["networks"] for each in sets)
    share = f"{100 * flagged / failed:.0f} %"
    assert f"reported a problem for {share} of the networks that failed on digits" in README


REPAIRED = {  # of each row of the guide, the data and the kinds of networks, and the two ways
    "digits, dense, five frameworks": ("digits", {"dense"}, "wide", "3 %"),
    "digits, narrow, wide, deep, convolutional": (
        "digits",
        {"width 50", "width 400", "deep", "convolution", "batch norm"},
        *("wide", "3 %"),
    ),
    "digits, dense, SGD": ("digits", {"SGD"}, "wide", "3 %"),
    "spike times, dense": ("timing", {"dense"}, "wide", "3 %"),
    "spike times, recurrent, slope 5 / threshold": (
        *("timing", {"recurrent"}),
        *("narrower, default weights", "narrower"),
    ),
    "mnist1d, dense": ("mnist1d", {"dense"}, "wide", "3 %"),
}


@pytest.mark.parametrize("row", REPAIRED)
def test_repaired_networks_are_the_record(row):
    task, kinds, *ways = REPAIRED[row]
    found = record("verdict")
    networks = [
        each["accuracy"]
        for each in found["advice"]
        if each["group"] == "fails" and each["task"] == task and each["kind"] in kinds
    ]
    cells = [row, str(len(networks))]
    for way in ways:
        reached = [accuracy[way] for accuracy in networks]
        learn = sum(x > found["tasks"][task]["learns"] for x in reached)
        cells += [f"{100 * statistics.fmean(reached):.0f} %", str(learn)]
    page = (DOCS / "guides" / "initialisation.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(cells)} |" in page
