"""Write the tables, numbers and plot of the benchmark page in the documentation.

``python tools/benchmarks/page.py`` writes them from the records of the last measurement, which are
benchmarks.json, daily.json and scaling.json in tests/data. The text of the page is written by hand.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import contenders
from rows import spike_time
from timing import times

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from _support import pages

DATA, PAGE = ROOT / "tests" / "data", pages.DOCS / "benchmarks.md"
RECORD, SCALING, DAILY = (DATA / f"{name}.json" for name in ("benchmarks", "scaling", "daily"))
PICTURE = pages.DOCS / "images" / "scaling.png"

LARGE = "[32, 256, 1000]"
HIGHLIGHTS = {  # (row, contender): the description on the page
    ("SpikeTime [2, 64, 10000], L 1000: PyTorch", "lava-dl"): (
        "`SpikeTime` for 2 samples of 64 neurons and 10,000 steps, with a filter of 1000 steps"
    ),
    (f"SpikeTime {LARGE}, L 100: PyTorch", "lava-dl"): "`SpikeTime`",
    (f"SpikeTime {LARGE}, L 100: JAX, jit", "lax.conv"): "`SpikeTime` compiled by JAX",
    (f"SpikeTime {LARGE}, L 100: NumPy, value", "fftconvolve"): "`SpikeTime` in NumPy, value only",
    (f"SpikeRate {LARGE}, W 100: PyTorch", "lava-dl"): "`SpikeRate` with a window of 100 steps",
}
# The rows of daily.py that the page shows.
LOSSES = {  # the name in the record: the name on the page
    "counts": "spike counts",
    "each step": "a term at each step",
    "window 20": "a window of 20 steps",
    "SpikeTime": "`SpikeTime`",
}
PENALTIES = {
    "a cap": "a cap on the mean rate",
    "a cap per neuron": "a cap on the rate of each neuron",
    "L1": "an L1 penalty",
}
SIZES = ("[20, 100, 10]", "[100, 256, 20]", "[100, 256, 200]")
AXES = ("first", "last")  # the position of the time axis
SLOWER = {  # rows where snnTorch is faster
    "SpikeRate [256, 10, 100]: PyTorch": "`mse_count_loss` (compared with `SpikeRate`)",
    "SpikeMax [256, 10, 100]: PyTorch": "`ce_count_loss` (compared with `SpikeMax`)",
}
FULL_NAMES = {
    "lax.conv": "`jax.lax.conv`",
    "fftconvolve": "`scipy.signal.fftconvolve`",
}

# Colour-blind readers can tell these colours of Okabe and Ito apart; the markers differ too.
CURVES = {  # contender, library, colour, marker, and vertical offset of the label in points
    "spikeloss_xp": (contenders.ours, "PyTorch", "#0072B2", "o", -3),
    "spikeloss_xp, JAX": (contenders.ours, "JAX", "#56B4E9", "s", 5),
    "no filter": (contenders.floor, "PyTorch", "#7f7f7f", "x", -5),
    "lava-dl": (contenders.lava, "PyTorch", "#D55E00", "v", 0),
    "conv1d": (contenders.conv1d, "PyTorch", "#009E73", "D", 0),
    "lax.conv": (contenders.lax_conv, "JAX", "#CC79A7", "^", 0),
}
SWEEPS: dict[str, tuple[str, list[int], Callable[[int], tuple[tuple[int, ...], int]]]] = {
    "steps": ("Longer recordings", [100, 1000, 10_000, 100_000], lambda n: ((1, 64, n), 100)),
    "length of the filter": (
        "Longer filters", [10, 32, 100, 316, 1000, 3162], lambda n: ((2, 64, 10_000), n),
    ),
    "neurons": ("More neurons", [1, 10, 100, 1000, 10_000], lambda n: ((1, n, 1000), 100)),
}  # fmt: skip


def cells(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the lines of a row in the large table, one for each contender except ours."""
    first = row["work"], f"{row['milliseconds']:.3g} ms"
    for name, ratio in row["ratios"].items():
        wanted = row["wanted"].get(name, 0)
        mark = " **missed**" * (ratio < wanted)
        yield (*first, name, pages.ratio(ratio), f"{pages.ratio(wanted) if wanted else ''}{mark}")
        first = "", ""
    if not row["ratios"]:
        yield (*first, "", "", "")


def missed(rows: list[dict[str, Any]]) -> int:
    """Return the number of ratios that are below their target."""
    return sum(row["ratios"][name] < x for row in rows for name, x in row["wanted"].items())


def daily_tables(ratios: dict[str, float]) -> Iterator[str]:
    """Yield the tables that compare the losses with the plain lines, as measured by daily.py."""

    def pair(first: str, second: str) -> str:
        return f"{ratios[first]:.2g}/{ratios[second]:.2g}"

    def line(loss: str, libraries: Sequence[str], sizes: Sequence[str]) -> tuple[str, ...]:
        names = [f"{library}: {loss}: {size}" for library in libraries for size in sizes]
        return (LOSSES[loss], *(pair(*(f"{name} {axis}" for axis in AXES)) for name in names))

    yield pages.table(("loss", *SIZES), (line(x, ["PyTorch"], SIZES) for x in LOSSES))
    libraries = ("PyTorch, compiled", "JAX", "NumPy")
    yield pages.table(("loss", *libraries), (line(x, libraries, SIZES[1:2]) for x in LOSSES))
    libraries = ("PyTorch", "JAX", "NumPy")
    rows = []
    for option in ("lengths", "weight", "num_classes", "rates"):
        names = [f"price: {library}: %s: {option}" for library in libraries]
        rows.append((f"`{option}`", *(pair(x % "counts", x % "each step") for x in names)))
    yield pages.table(("option", *libraries), rows)
    rows = []
    for penalty in PENALTIES:
        names = [f"penalty: {library}: {penalty}: %s" for library in libraries[:2]]
        rows.append(
            (
                PENALTIES[penalty],
                *(pair(x % "[20, 100, 100]", x % "[100, 256, 200]") for x in names),
            )
        )
    rows.append(
        ("a label for each pixel", *(f"{ratios[f'pixels: {x}']:.2g}" for x in libraries[:2]))
    )
    yield pages.table(("loss", *libraries[:2]), rows)


def shares(ratios: dict[str, float]) -> str:
    """Return the losses' share of a training step in words, for a small and a large network."""
    parts = (
        " and ".join(f"{100 * ratios[f'share: {loss}: {size}']:.1f} %" for size in SIZES[:2])
        for loss in ("counts", "window 20")
    )
    return " of the step, and the loss in a window of 20 steps takes ".join(parts)


def extremes(ratios: dict[str, float]) -> str:
    """Return the smallest and the largest ratio of the first table in words."""
    names = (f"PyTorch: {x}: {size} {axis}" for x in LOSSES for size in SIZES for axis in AXES)
    found = [ratios[name] for name in names]
    return f"{min(found):.2g} and {max(found):.2g}"


def text(page: str, record: dict[str, Any], daily: dict[str, float]) -> str:
    """Return the page with its tables and the numbers in its sentences replaced."""
    rows = record["rows"]
    found = {row["work"]: row["ratios"] for row in rows}
    slower = [f"{1 / found[work]['snnTorch']:.3g} for {words}" for work, words in SLOWER.items()]
    highlights = [
        (words, FULL_NAMES.get(other, other), f"**{found[work][other]:.3g}**")
        for (work, other), words in HIGHLIGHTS.items()
    ]
    *beside_lines, prices, penalties = daily_tables(daily)
    tables = {
        "## Compared with the line that you would write": beside_lines,
        "### Options": [prices],
        "### Penalties and pixels": [penalties],
        "## Long filters and windows": [
            pages.table(("loss", "compared with", "times faster"), highlights)
        ],
    }
    figures = {
        r"(?<=^In PyTorch they take between )[\d.]+ and [\d.]+": extremes(daily),
        r"(?<=^The loss of the spike counts takes ).*(?=\.$)": shares(daily),
        r"(?<=^The losses of snnTorch are faster by a factor of ).*(?=\.$)": " and ".join(slower),
        r"(?<=^Of these ratios, )\d+ have a target, and \d+": (
            f"{sum(len(row['wanted']) for row in rows)} have a target, and {missed(rows)}"
        ),
        r"\d+(?= % of the memory of input and target together)": f"{100 * record['memory']:.0f}",
        r"(?<=^Measured on: ).*(?=\.$)": record["machine"],
    }
    return pages.with_figures(pages.with_tables(page, tables), figures)


def records() -> tuple[dict[str, Any], dict[str, float]]:
    """Return the records of table.py and of daily.py."""
    return tuple(json.loads(path.read_text(encoding="utf-8")) for path in (RECORD, DAILY))


def write() -> None:
    """Write the page from the records."""
    PAGE.write_text(text(PAGE.read_text(encoding="utf-8"), *records()), encoding="utf-8")


def draw_scaling(scaling: dict[str, dict], path: Path) -> None:
    """Plot the run time against the number of steps, the filter length and the neurons."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 3, figsize=(11, 3.9), sharey=True, layout="constrained", width_ratios=(1.42, 1, 1)
    )
    for axis, (name, curves) in zip(axes, scaling.items(), strict=True):
        for label, milliseconds in curves["milliseconds"].items():
            *_, color, marker, shift = CURVES[label]
            width, weight = (2.6, "bold") if label.startswith("spikeloss_xp") else (1.2, "normal")
            style = "--" if label == "no filter" else "-"
            sizes = curves["sizes"][: len(milliseconds)]
            axis.loglog(sizes, milliseconds, ms=5, color=color, marker=marker, lw=width, ls=style)
            if axis is axes[0]:
                axis.annotate(
                    label, (sizes[-1], milliseconds[-1]), (7, shift), color=color, fontsize=9,
                    textcoords="offset points", va="center", fontweight=weight,
                )  # fmt: skip
        axis.set_xlabel(name)
        axis.set_title(SWEEPS[name][0], loc="left", fontweight="bold", fontsize=11)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("milliseconds")
    steps = scaling["steps"]["sizes"]
    axes[0].set_xlim(right=steps[-1] * 45)  # room for the labels of the curves
    axes[0].set_xticks(steps)
    axes[0].minorticks_off()
    figure.savefig(path, dpi=200)
    plt.close(figure)


def measure_scaling() -> dict[str, dict]:
    """Return the run time of each contender in milliseconds, as a function of each size."""
    found: dict[str, dict] = {}
    for name, (_, sizes, shape_and_length) in SWEEPS.items():
        settings = [shape_and_length(size) for size in sizes]
        curves = {label: curve(*CURVES[label][:2], settings) for label in CURVES}
        found[name] = {"sizes": sizes, "milliseconds": {k: v for k, v in curves.items() if v}}
    return found


def curve(setup: Callable[..., contenders.Run], library: str, settings: list) -> list[float]:
    """Return the milliseconds with two digits, up to the first run that exceeds two seconds."""
    found: list[float] = []
    for shape, length in settings:
        if not found or found[-1] <= 2000:
            try:
                run = setup(library, spike_time(length), shape)
            except ModuleNotFoundError:
                return []
            found.append(float(f"{times({'ours': run})['milliseconds']:.2g}"))
    return found


if __name__ == "__main__":
    write()
    draw_scaling(json.loads(SCALING.read_text(encoding="utf-8")), PICTURE)
