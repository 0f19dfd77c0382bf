"""Write the figures of the benchmark page of the documentation, and its pictures.

``python tools/benchmarks/page.py`` writes them again, from the figures of the last measurement: the
tables of the page, and tests/data/scaling.json. The text of the page is written by hand.
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

import contenders
import numpy as np
from rows import spike_time
from timing import measure_seconds

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from _support import pages

DOCS, SCALING = ROOT / "docs", ROOT / "tests" / "data" / "scaling.json"
PAGE = DOCS / "benchmarks.md"

HIGHLIGHTS = {  # (row, contender): the work in words
    ("SpikeTime [2, 64, 10000], L 1000: PyTorch", "lava-dl"): (
        "`SpikeTime` over 10,000 steps, with a filter of 1000 steps"
    ),
    ("SpikeTime [32, 256, 1000], L 100: JAX, jit", "lax.conv"): (
        "`SpikeTime` of a large batch, compiled by JAX"
    ),
    ("SpikeTime [32, 256, 1000], L 100: PyTorch", "conv1d"): (
        "`SpikeTime` of a large batch, in PyTorch"
    ),
    ("SpikeRate [32, 256, 1000], W 100: PyTorch", "lava-dl"): (
        "`SpikeRate` of a large batch, in a window of 100 steps"
    ),
    ("SpikeMoid [32, 256, 1000]: PyTorch", "lava-dl"): (
        "`SpikeMoid` of a large batch, over all time"
    ),
    ("SpikeTime [32, 256, 1000], L 100: NumPy, value", "fftconvolve"): (
        "`SpikeTime` of a large batch in NumPy, the value alone"
    ),
}
SLOWER = {
    ("SpikeRate [256, 10, 100]: PyTorch", "snnTorch"): "`SpikeRate` of a small batch",
    ("SpikeMax [256, 10, 100]: PyTorch", "snnTorch"): "`SpikeMax` of a small batch",
}
CONTENDERS = {
    "conv1d": "`torch.conv1d`",
    "lax.conv": "`jax.lax.conv`",
    "fftconvolve": "`scipy.signal.fftconvolve`",
}

# Okabe and Ito's colours, which differ for colour-blind readers too; markers differ as well.
STYLES = {
    "spikeloss_xp": {"color": "#0072B2", "marker": "o", "lw": 2.6},
    "spikeloss_xp, JAX": {"color": "#56B4E9", "marker": "s", "lw": 2.6},
    "no filter": {"color": "#7f7f7f", "marker": "x", "ls": "--", "lw": 1.2},
    "lava-dl": {"color": "#D55E00", "marker": "v", "lw": 1.2},
    "conv1d": {"color": "#009E73", "marker": "D", "lw": 1.2},
    "lax.conv": {"color": "#CC79A7", "marker": "^", "lw": 1.2},
}
# In points, so that labels do not overlap.
LABEL_SHIFTS = {"spikeloss_xp, JAX": 5, "spikeloss_xp": -3, "no filter": -5}
FASTER_COLOR, SLOWER_COLOR = "#0072B2", "#D55E00"


class Figure(NamedTuple):
    """A ratio of times, its cell of the table, the wanted ratio, and whether it is missed."""

    ratio: float
    cell: str
    target: str
    missed: bool


def figures(table: str) -> dict[tuple[str, str], Figure]:
    """Return the figures of a table by row and contender."""
    found, work = {}, ""
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
        cells += [""] * (5 - len(cells))
        if line.startswith("|  |"):
            cells = [cell.strip() for cell in line[1:-1].split("|")]
        name, _, other, ratio, target = cells[:5]
        work = name or work
        if other:
            missed = "**missed**" in target
            target = target.replace("**missed**", "").strip()
            found[work, other] = Figure(_number(ratio), ratio, target, missed)
    return found


def _name(contender: str) -> str:
    return CONTENDERS.get(contender, contender)


def _number(text: str) -> float:
    """Return a number that may be written as 1 / number."""
    one, slash, divisor = text.partition("/")
    return 1 / float(divisor) if slash else float(one)


def text(page: str, machine: str, table: str, others: str) -> str:
    """Return the page with its tables, and its sentences with figures, replaced."""
    found = figures(table)
    highlights = [
        (work, f"**{found[key].ratio:.3g} times faster** than {_name(key[1])}")
        for key, work in HIGHLIGHTS.items()
    ]
    slower = [
        f"{work} takes {1 / found[key].ratio:.3g} times as long as that of {key[1]}"
        for key, work in SLOWER.items()
    ]
    wanted = sum(bool(figure.target) for figure in found.values())
    missed = [
        (work, other, figure.cell, figure.target)
        for (work, other), figure in found.items()
        if figure.missed
    ]
    page = pages.with_tables(
        page,
        {
            "## Beside other libraries": [pages.table(("work", "this library is"), highlights)],
            "## What was wanted, and what was missed": [
                pages.table(("work", "against", "measured", "wanted"), missed)
            ],
            "## All rows": [table, others],
        },
    )
    most = next(found[key].ratio for key in HIGHLIGHTS)
    for figure, new in {
        r"(?<=others take, from )\S+(?= times for SpikeTime)": f"{most:.3g}",
        r"(?<=a window are not faster: ).*(?=\.$)": ", and ".join(slower),
        r"(?<=Of the ratios below, )\d+ have a target, and \d+": (
            f"{wanted} have a target, and {len(missed)}"
        ),
        r"(?<=^Measured on: ).*(?=\.$)": machine,
    }.items():
        page, number = re.subn(figure, lambda _, new=new: new, page, flags=re.MULTILINE)
        if number != 1:
            raise ValueError(f"docs/benchmarks.md has {number} places for {figure}")
    return page


def last_figures() -> tuple[str, str, str]:
    """Return the machine and the two tables of the page as it is."""
    page = PAGE.read_text(encoding="utf-8")
    (machine,) = re.findall(r"^Measured on: (.*)\.$", page, re.MULTILINE)
    table, others = (
        re.search(rf"^{re.escape(heading)}.*\n(?:\|.*\n)+", page, re.MULTILINE)[0].rstrip("\n")
        for heading in ("| work, value and gradient", "| | measured")
    )
    return machine, table, others


def write(machine: str, table: str, others: str, *, measure: bool) -> None:
    """Write the page and its pictures; measure the curves, or take those of the record."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(text(page, machine, table, others), encoding="utf-8")
    if measure:
        SCALING.write_text(json.dumps(measure_scaling()) + "\n", encoding="utf-8")
    draw_speedup(figures(table), DOCS / "images" / "speedup.png")
    draw_scaling(json.loads(SCALING.read_text(encoding="utf-8")), DOCS / "images" / "scaling.png")


def draw_speedup(found: dict[tuple[str, str], Figure], path: Path) -> None:
    """Draw the ratios of the first table as bars, and those of the slower rows."""
    plt = _pyplot()
    works = {key: work.replace("`", "") for key, work in {**HIGHLIGHTS, **SLOWER}.items()}
    ratios = [found[key].ratio for key in works]
    figure, axis = plt.subplots(figsize=(9, 3.9), layout="constrained")
    colors = [FASTER_COLOR if ratio > 1 else SLOWER_COLOR for ratio in ratios]
    axis.barh(range(len(works)), np.log10(ratios), color=colors, height=0.62)
    axis.axvline(0, color="#22272e", lw=1)
    for place, (key, ratio) in enumerate(zip(works, ratios, strict=True)):
        other = _name(key[1]).strip("`")
        times = f"{ratio:.3g} times faster" if ratio > 1 else f"{1 / ratio:.3g} times slower"
        label = f"{times} than {other}"
        axis.text(max(math.log10(ratio), 0) + 0.04, place, label, va="center", fontsize=9)
    axis.set_yticks(range(len(works)), works.values(), fontsize=9)
    axis.invert_yaxis()
    axis.set_xticks(range(3), ["1", "10", "100"], fontsize=9)
    axis.set_xlim(-0.45, 4.3)
    axis.set_xlabel("time of the others, as a multiple of ours", fontsize=9)
    axis.set_title("Speed of this library, compared with others", loc="left", fontweight="bold")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def draw_scaling(scaling: dict[str, dict], path: Path) -> None:
    """Draw the time against the number of steps, the filter length and the number of neurons."""
    plt = _pyplot()
    titles = {
        "steps": "Longer recordings",
        "length of the filter": "Longer filters",
        "neurons": "More neurons",
    }
    figure, axes = plt.subplots(
        1, 3, figsize=(11, 3.9), sharey=True, layout="constrained", width_ratios=(1.42, 1, 1)
    )
    for axis, (name, curves) in zip(axes, scaling.items(), strict=True):
        for label, times in curves["milliseconds"].items():
            axis.loglog(curves["sizes"][: len(times)], times, ms=5, label=label, **STYLES[label])
        axis.set_xlabel(name)
        axis.set_title(titles[name], loc="left", fontweight="bold", fontsize=11)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("milliseconds")
    first = next(iter(scaling.values()))
    for label, times in first["milliseconds"].items():
        end = first["sizes"][len(times) - 1], times[-1]
        axes[0].annotate(
            label, end, (7, LABEL_SHIFTS.get(label, 0)), textcoords="offset points",
            va="center", fontsize=9,
            fontweight="bold" if label.startswith("spikeloss_xp") else "normal",
            color=STYLES[label]["color"],
        )  # fmt: skip
    axes[0].set_xlim(right=first["sizes"][-1] * 45)
    axes[0].set_xticks(first["sizes"])
    axes[0].minorticks_off()
    figure.savefig(path, dpi=200)
    plt.close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def measure_scaling() -> dict[str, dict]:
    """Return the milliseconds of each contender against each size, with two digits."""
    sweeps = {
        "steps": ([100, 1000, 10_000, 100_000], lambda n: ((1, 64, n), 100)),
        "length of the filter": ([10, 32, 100, 316, 1000, 3162], lambda n: ((2, 64, 10_000), n)),
        "neurons": ([1, 10, 100, 1000, 10_000], lambda n: ((1, n, 1000), 100)),
    }
    return {
        name: {"sizes": sizes, "milliseconds": sweep(sizes, shape_and_length)}
        for name, (sizes, shape_and_length) in sweeps.items()
    }


def sweep(sizes: list[int], shape_and_length) -> dict[str, list[float]]:
    """Return each contender's milliseconds per size, up to its first size above two seconds."""
    setups = {
        "spikeloss_xp": contenders.torch_eager,
        "spikeloss_xp, JAX": contenders.jax_jit,
        "no filter": contenders.torch_floor,
        "lava-dl": contenders.lava,
        "conv1d": contenders.conv1d,
        "lax.conv": contenders.lax_conv,
    }
    milliseconds: dict[str, list[float]] = {label: [] for label in setups}
    skipped: set[str] = set()
    for size in sizes:
        shape, length = shape_and_length(size)
        runs = {}
        for label, setup in setups.items():
            if label not in skipped:
                try:
                    runs[label] = setup(spike_time(length), shape)
                except ModuleNotFoundError:
                    skipped.add(label)
        for label, seconds in measure_seconds(runs).items():
            milliseconds[label].append(float(f"{1e3 * np.median(seconds):.2g}"))
            if milliseconds[label][-1] > 2000:
                skipped.add(label)
    return {label: times for label, times in milliseconds.items() if times}


if __name__ == "__main__":
    write(*last_figures(), measure=False)
