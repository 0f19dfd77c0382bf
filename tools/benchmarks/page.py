"""Write the tables, numbers and plots of the benchmark page: ``python tools/benchmarks/page.py``.

They come from the records of the last measurement, which are benchmarks.json, daily.json and
scaling.json in tests/data. The text of the page is written by hand.
"""

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.append(str(ROOT / "docs" / "gallery"))  # for the colours and the style of the plots

from _support import pages

DATA, PAGE = ROOT / "tests" / "data", pages.DOCS / "benchmarks.md"
RECORD, SCALING, DAILY = (DATA / f"{name}.json" for name in ("benchmarks", "scaling", "daily"))
PICTURES = pages.DOCS / "images"

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
# The rows of daily.py that the page shows: the name in the record, and the name on the page.
LOSSES = {
    "counts": "spike counts",
    "each step": "a term at each step",
    "window 20": "a window of 20 steps",
    "SpikeRate": "`SpikeRate`",
    "SpikeTime": "`SpikeTime`",
}
LIKELIHOODS = {
    "log rates": "`PoissonNLL` of log rates",
    "rates": "`PoissonNLL` of rates",
    "logits": "`BernoulliNLL` of logits",
}
PENALTIES = {
    "a cap": "a cap on the mean rate",
    "a cap per neuron": "a cap on the rate of each neuron",
    "L1": "an L1 penalty",
}
MASKED = ("counts: lengths", "counts: where", "each step: lengths", "SpikeRate: lengths")
OPTIONS = ("lengths", "where", "weight", "num_classes", "rates")
SMALL, MEDIUM, LARGE_BATCH = SIZES = ("[20, 100, 10]", "[100, 256, 20]", "[100, 256, 200]")
CHARTED = SMALL, LARGE_BATCH
Timed = Mapping[str, Mapping[str, float]]  # name of the row: milliseconds, and ratio
SLOWER = {  # rows where snnTorch is faster
    "SpikeRate [256, 10, 100]: PyTorch": "`mse_count_loss` (compared with `SpikeRate`)",
    "SpikeMax [256, 10, 100]: PyTorch": "`ce_count_loss` (compared with `SpikeMax`)",
}
FULL_NAMES = {"lax.conv": "`jax.lax.conv`", "fftconvolve": "`scipy.signal.fftconvolve`"}

# Colour-blind readers can tell these colours of Okabe and Ito apart; the markers differ too.
CURVES = {  # colour, marker, and vertical offset of the label in points
    "spikeloss_xp": ("#0072B2", "o", -3),
    "spikeloss_xp, JAX": ("#56B4E9", "s", 5),
    "no filter": ("#7f7f7f", "x", -5),
    "lava-dl": ("#D55E00", "v", 0),
    "conv1d": ("#009E73", "D", 0),
    "lax.conv": ("#CC79A7", "^", 0),
}
TITLES = {
    "steps": "Longer recordings",
    "length of the filter": "Longer filters",
    "neurons": "More neurons",
}


def short(number: float) -> str:
    """Return a number with two digits, or all digits before the decimal point."""
    return f"{number:#.2g}".rstrip(".") if number < 99.5 else f"{number:.0f}"


def with_times(
    first: str, found: Timed, rows: Mapping[str, str], columns: Mapping[str, str]
) -> str:
    """Return a table with our milliseconds and the ratio, for each row and column.

    `rows` maps the part of a name in the record that the row stands for to its words on the page.
    `columns` maps the words above a column to the remaining parts of the name.
    """
    lines = []
    for name, words in rows.items():
        cells = [found[column.format(name)] for column in columns.values()]
        numbers = (x for cell in cells for x in (cell["milliseconds"], cell["ratio"]))
        lines.append((words, *map(short, numbers)))
    header = (x for words in columns for x in (f"{words}, ms", "ratio"))
    return pages.table((first, *header), lines)


def with_ratios(
    first: str, found: Timed, rows: Mapping[str, str], columns: Mapping[str, str]
) -> str:
    """Return the same table without the milliseconds."""
    lines = (
        (words, *(short(found[column.format(name)]["ratio"]) for column in columns.values()))
        for name, words in rows.items()
    )
    return pages.table((first, *columns), lines)


def of_losses(found: Timed) -> Iterator[str]:
    """Yield the tables that compare the losses for classification with the baselines."""
    sizes = {size: f"PyTorch: {{}}: {size} first" for size in SIZES}
    yield with_times("loss", found, LOSSES, sizes)
    libraries = ("PyTorch, compiled", "JAX", "NumPy")
    columns = {library: f"{library}: {{}}: {MEDIUM} first" for library in libraries}
    yield with_ratios("loss", found, LOSSES, columns)


def of_options(found: Timed) -> str:
    """Return the table with the price of each option."""
    rows = {option: f"`{option}`" for option in OPTIONS}
    columns = {x: f"price: {x}: counts: {{}}" for x in ("PyTorch", "JAX", "NumPy")}
    return with_ratios("option", found, rows, columns)


def with_masks(found: Timed) -> str:
    """Return the range of the ratios with a mask, in words."""
    names = itertools.product(MASKED, SIZES)
    ratios = [found[f"masked: PyTorch: {name}: {size}"]["ratio"] for name, size in names]
    return f"between {short(min(ratios))} and {short(max(ratios))}"


def of_likelihoods(found: Timed) -> str:
    """Return the table of likelihoods and penalties in PyTorch."""
    columns = {size: f"{{}}: {size}" for size in CHARTED}
    return with_ratios("loss", found, without_classes("PyTorch"), columns)


def without_classes(library: str) -> dict[str, str]:
    """Return the rows of likelihoods and penalties: their names without the size, and words."""
    kinds = {"likelihood": LIKELIHOODS, "penalty": PENALTIES}
    return {
        f"{kind}: {library}: {name}": words
        for kind, names in kinds.items()
        for name, words in names.items()
    }


def charted(library: str) -> dict[str, str]:
    """Return the rows in the chart: their names, with a placeholder for the size, and words."""
    rows = {f"{library}: {name}: {{}} first": words for name, words in LOSSES.items()}
    return rows | {f"{x}: {{}}": words for x, words in without_classes(library).items()}


def conclusion(found: Timed) -> str:
    """Return the range of ratios in PyTorch, and the time that small batches cost, in words."""
    small, large = ([found[x.format(size)] for x in charted("PyTorch")] for size in CHARTED)
    ratios = [row["ratio"] for row in small + large]
    longer = max(row["milliseconds"] * (1 - 1 / row["ratio"]) for row in small)
    return (
        f"between {short(min(ratios))} and {short(max(ratios))}. For the small batch, a call takes "
        f"at most {short(longer)} ms longer than the baseline"
    )


def share(found: Timed, loss: str) -> str:
    """Return the share of a loss in a training step in words, for a small and a large network."""
    small, large = (f"{100 * found[f'share: {loss}: {x}']['ratio']:.1f} %" for x in SIZES[:2])
    return f"{small} of the step for the size `{SMALL}`, and {large} for the size `{MEDIUM}`"


def text(page: str, record: dict[str, Any], daily: dict[str, Any]) -> str:
    """Return the benchmark page with its tables and the numbers in its sentences replaced."""
    timed, found = daily["rows"], {row["work"]: row for row in record["rows"]}
    slower = [
        f"{1 / found[work]['ratios']['snnTorch']:.3g} for {words}" for work, words in SLOWER.items()
    ]
    highlights = [
        (
            words,
            FULL_NAMES.get(other, other),
            f"**{found[work]['ratios'][other]:.3g}**",
        )
        for (work, other), words in HIGHLIGHTS.items()
    ]
    header = ("loss", "compared with", "times faster")
    tables = {
        "## Compared with the line that you would write": of_losses(timed),
        "### Likelihoods and penalties": [of_likelihoods(timed)],
        "### Masks and options": [of_options(timed)],
        "## Long filters and windows": [pages.table(header, highlights)],
    }
    of_ours = r"(?<=^In PyTorch, the ratios of our losses to the baseline are ).*(?=\.$)"
    of_snntorch = r"(?<=^The losses of snnTorch are faster than ours by a factor of ).*(?=\.$)"
    figures = {
        of_ours: conclusion(timed),
        r"(?<=^The loss of the spike counts takes ).*(?=\.$)": share(timed, "counts"),
        r"(?<=^The loss in a window of 20 steps takes ).*(?=\.$)": share(timed, "window 20"),
        of_snntorch: " and ".join(slower),
        r"(?<=^With a mask, the ratios in PyTorch are ).*(?=\.$)": with_masks(timed),
        r"\d+(?= % of the memory of input and target together)": f"{100 * record['memory']:.0f}",
        r"(?<=^For the comparisons with other libraries, we used: ).*(?=\.$)": record["machine"],
        r"(?<=^For the first section, we used: ).*(?=\.$)": daily["machine"],
    }
    return pages.with_figures(pages.with_tables(page, tables), figures)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def written() -> str:
    """Return the page with the numbers from the records."""
    return text(PAGE.read_text(encoding="utf-8"), read(RECORD), read(DAILY))


def write() -> None:
    """Write the page and the plots from the records."""
    PAGE.write_text(written(), encoding="utf-8")
    found = read(DAILY)["rows"]
    draw_ratios(found, PICTURES / "benchmarks.png", (1, 2), (9.4, 5.2))
    draw_ratios(found, PICTURES / "benchmarks-narrow.png", (2, 1), (5, 9.4))
    draw_scaling(read(SCALING), PICTURES / "scaling.png")


def draw_ratios(found: Timed, path: Path, grid: tuple[int, int], size: tuple[float, float]) -> None:
    """Plot the ratios in PyTorch and in JAX, with this grid of panels and size in inches."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    import pictures

    with plt.rc_context():
        figure, axes = pictures.figure(*grid, size=size, sharex=True, sharey=True)
        for axis, library in zip(axes.flat, ("PyTorch", "JAX"), strict=True):
            draw_bars(axis, found, charted(library))
            axis.set_title(library)
        low, high = axes.flat[0].get_xlim()
        axes.flat[0].set(xlim=(low / 2, high * 1.4))  # room for the numbers
        figure.supxlabel("run time divided by the run time of the baseline", fontsize=10)
        handles, _ = axes.flat[0].get_legend_handles_labels()
        words = [f"{name} {size}" for name, size in zip(("small", "large"), CHARTED, strict=True)]
        figure.legend(handles, words, loc="outside upper right", ncols=2)
        figure.savefig(path, dpi=170)
        plt.close(figure)


def draw_bars(axis: Any, found: Timed, rows: Mapping[str, str]) -> None:
    """Draw the ratios of these rows as bars that begin at 1, for both sizes."""
    import pictures

    for size, colour, shift in zip(
        CHARTED, (pictures.GOLD, pictures.TEAL), (-0.2, 0.2), strict=True
    ):
        ratios = [found[name.format(size)]["ratio"] for name in rows]
        places = [place + shift for place in range(len(rows))]
        axis.barh(places, [ratio - 1 for ratio in ratios], 0.36, left=1, color=colour, label=size)
        for place, ratio in zip(places, ratios, strict=True):
            side, gap = ("left", 3) if ratio >= 1 else ("right", -3)
            axis.annotate(
                short(ratio), (ratio, place), (gap, 0), textcoords="offset points",
                ha=side, va="center_baseline", fontsize=8,
            )  # fmt: skip
    axis.axvline(1, color=pictures.INK, linewidth=1)
    axis.set_xscale("log")
    axis.set_xlabel("← faster     slower →")
    axis.xaxis.set_label_coords(1, -0.08, axis.get_xaxis_transform())  # below the line at 1
    ticks = (0.1, 0.25, 0.5, 1, 2, 4)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(rows)), [words.replace("`", "") for words in rows.values()])
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelbottom=True)
    axis.set_ylim(len(rows) - 0.4, -0.6)


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
            color, marker, shift = CURVES[label]
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
        axis.set_title(TITLES[name], loc="left", fontweight="bold", fontsize=11)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("milliseconds")
    steps = scaling["steps"]["sizes"]
    axes[0].set_xlim(right=steps[-1] * 45)  # room for the labels of the curves
    axes[0].set_xticks(steps)
    axes[0].minorticks_off()
    figure.savefig(path, dpi=200)
    plt.close(figure)


if __name__ == "__main__":
    write()
