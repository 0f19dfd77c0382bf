"""Numbers in the README and "Can I trust it?" are those of the records."""

import json
import statistics

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
    for size, ratio, share in zip(("[20, 100, 10]", "[100, 256, 20]"), ratios, shares, strict=True):
        cost = f"our loss takes {ratio:.1f} times as long as this line, and {share:.1f} %"
        assert f"For spikes of shape `{size}`, {cost} of the time of a training step" in TRUST
    assert (
        f"takes {ratios[1]:.1f} times as long as `F.cross_entropy(x.sum(0), y)`. In a "
        f"training step with such spikes, the loss takes {shares[1]:.0f} % of the time"
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


def test_shares_of_judged_networks_are_the_record():
    classes = [
        x
        for x in record("verdict")["unseen"]
        if not x["data"].startswith(("trains", "features dia"))
    ]
    shares = []
    for fails in (True, False):
        flagged = [bool(x["looks"][1]["problem"]) for x in classes if x["fails"] == fails]
        shares.append(f"{100 * statistics.fmean(flagged):.0f} % of the {len(flagged)} networks")
    words = f"a problem for {shares[0]} that failed, and for {shares[1]} that learned"
    assert words in " ".join(README.split())
