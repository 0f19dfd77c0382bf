"""The numbers on the page "Why not the plain line?" are those of the records."""

import json
import statistics

from _support.pages import DOCS, ROOT, table

PAGE = (DOCS / "why-not-the-plain-line.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())


def record(name):
    return json.loads((ROOT / "tests" / "data" / f"{name}.json").read_text(encoding="utf-8"))


COSTS = [  # the loss on the page, the row of the record, and the library beside it
    ("`SpikeRate`", "SpikeRate [256, 10, 100]: PyTorch", "snnTorch"),
    ("`SpikeMax`", "SpikeMax [256, 10, 100]: PyTorch", "snnTorch"),
    ("`SpikeRate`, window of 100 steps", "SpikeRate [32, 256, 1000], W 100: PyTorch", "lava-dl"),
    ("`SpikeTime`, filter of 100 steps", "SpikeTime [32, 256, 1000], L 100: PyTorch", "lava-dl"),
]


def test_milliseconds_are_the_record():
    found, rows = {row["work"]: row for row in record("benchmarks")["rows"]}, []
    for loss, work, other in COSTS:
        size = work.split("[")[1].split("]")[0]
        ours = found[work]["milliseconds"]
        theirs = float(f"{ours * found[work]['ratios'][other]:.3g}")
        rows.append((loss, size, f"{ours:.3g}", f"{theirs:g} ({other})"))
    header = ("loss", "samples, neurons, steps", "here (ms)", "other library (ms)")
    assert table(header, rows) in PAGE
    machine = record("benchmarks")["machine"].split(";")[0].replace(", ", " with ")
    assert f"measured on an {machine}:" in TEXT


def test_ratios_are_the_record():
    daily, found = record("daily"), []
    for size in ("[20, 100, 10]", "[100, 256, 20]"):
        own = daily["rows"][f"PyTorch: counts: {size} first"]
        share = daily["rows"][f"share: counts: {size}"]["ratio"]
        plain = own["milliseconds"] / own["ratio"]
        numbers = (f"{own['milliseconds']:.2f}", f"{plain:.2f}", f"{own['ratio']:.1f}")
        found.append((f"`{size}`", *numbers, f"{100 * share:.1f} %"))
    header = ("spikes", "here (ms)", "plain line (ms)", "ratio", "share of a training step")
    assert table(header, found) in PAGE
    lengths = daily["rows"]["price: PyTorch: counts: lengths"]["ratio"]
    assert f"With `lengths`, the loss takes {lengths:.1f} times as long as without" in TEXT
    assert f"measured on an {daily['machine'].split(',')[0].replace('(R)', '')}" in TEXT


def test_accuracies_are_the_record():
    trainings = record("training")["trainings"]
    networks = {one["network"] for one in trainings if one["loss"] == "SpikeMax"}
    for rate, words in ((0.02, "at a learning rate of 0.02"), (0.005, "at 0.005")):
        counts, bounds = (
            100 * statistics.fmean(
                x
                for one in trainings
                if (one["rate"], one["loss"]) == (rate, loss) and one["network"] in networks
                for x in one["accuracy"]
            )
            for loss in ("count", "count, bounds")
        )  # fmt: skip
        assert f"from {counts:.0f} to {bounds:.0f} % {words}" in TEXT


def test_shares_of_the_diagnosis_are_the_record():
    groups = {"fails": "the networks that failed on digits", "learns": "those that learned"}
    of_times = []
    for group, words in groups.items():
        shares = {
            name: 100 * each[group]["flagged"][0] / each[group]["networks"]
            for name, each in record("verdict")["verdict"].items()
        }
        of_times.append(shares.pop("timing"))
        lowest, highest = min(shares.values()), max(shares.values())
        assert f"for {lowest:.0f} to {highest:.0f} % of {words}" in TEXT
    assert "these are {:.0f} % and {:.0f} %".format(*of_times) in TEXT
