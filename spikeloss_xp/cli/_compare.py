"""The command ``compare``: evaluate losses on several backends and compare the results."""

import argparse
import contextlib
import json
import math
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli import _terminal
from spikeloss_xp.cli._files import check_memory, file_errors, one_hot, open_npz
from spikeloss_xp.cli._terminal import UsageError, printable, usage_errors
from spikeloss_xp.losses import (
    CrossEntropy,
    SparsityEnforcer,
    SpikeMax,
    SpikeMoid,
    SpikeRate,
    SpikeTime,
)
from spikeloss_xp.testing import PRECISION, Comparison, Place, compare, reference, select_places

EXAMPLES = """\
  # compare every library on the recording that comes with this one
  spikeloss-xp compare
  # compare one loss in double precision, on spikes of your own
  spikeloss-xp compare recording.npz --loss SpikeTime --dtype float64"""
SHIPPED = "grasshopper auditory receptor"
LOSSES = ("CrossEntropy", "SpikeTime", "SpikeRate", "SpikeMax", "SpikeMoid", "SparsityEnforcer")
WINDOW = 50  # time steps; long enough to estimate a rate, short enough to follow its changes
MAX_CALLS, MAX_SECONDS = 50, 0.2  # timing a loss stops at the first of these limits
HEADINGS = ("library", "device", "value", "value err", "grad err", "time", "verdict")
LEFT = (0, 1, 6)  # these columns hold text, and the others numbers
WIDTH = 80
RED, GREEN, BOLD, RESET = "\033[31m", "\033[32m", "\033[1m", "\033[0m"


def add_command(commands: "argparse._SubParsersAction[_terminal.Parser]") -> None:
    """Add the command and its options to those of the program."""
    parser = commands.add_parser(
        "compare",
        help="evaluate the losses on every array library and compare the results",
        description="Evaluate the losses and their gradients on every array library of this\n"
        "machine, and compare them with NumPy in float64. The exit status is 0 if all\n"
        "results agree, 1 if some do not, 2 after an error, and 130 or 143 after an\n"
        "interruption.",
        epilog=f"examples:\n{EXAMPLES}",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    file_help = (
        "a file with spikes `input` [batch, *space, time], and `target` (spike trains of that "
        "shape) or `label` (class indices or multi-hot labels), or both; by default a recording of "
        "a grasshopper's auditory receptor, which comes with the library"
    )
    add("file", nargs="?", metavar="FILE.npz", help=file_help)
    loss_help = f"use only this loss, one of {', '.join(LOSSES)}; may be repeated"
    add("--loss", action="append", choices=LOSSES, metavar="LOSS", help=loss_help)
    library_help = "use only this array library, by its import name; may be repeated"
    add("--backend", action="append", metavar="NAME", help=library_help)
    parser.add_shared_options(PRECISION)


@dataclass(frozen=True)
class Recording:
    """Spikes, and the targets that a file provides for them.

    Attributes
    ----------
    name : str
        The path of the file, or a description of the shipped recording.
    input : numpy.ndarray
        Spikes, ``[batch, *space, time]``.
    targets : dict of str to numpy.ndarray
        By kind: "trains" of the shape of `input`; "classes", indices ``[batch]`` or ``[batch,
        time]``; "multi-hot" labels, ``[batch, class]`` or ``[batch, class, time]``.
    """

    name: str
    input: np.ndarray
    targets: dict[str, np.ndarray]


def run(options: argparse.Namespace) -> int:
    """Compare the losses on the selected backends, print the results, return the exit status."""
    recording = load(options.file)
    with usage_errors():
        where, unused = select_places(options.backend, options.dtype, options.device)
    usable, skipped = _choose(recording, options.loss)
    rows: list[Comparison] = []
    with np.errstate(all="ignore"):  # only NumPy would warn, and the rows show any overflow
        for row in compare_all(usable, recording, where, options.dtype):
            rows.append(row)
            done = f"{len(rows)} of {len(usable) * len(where)}"
            _terminal.show_status(f"{done}: {row.loss} on {row.place}")
    agree = all(row.problem is None for row in rows)
    if options.json:
        metadata: dict[str, Any] = {"recording": recording.name, "shape": recording.input.shape}
        metadata |= {"dtype": options.dtype, "agree": agree, "unused": unused, "left_out": skipped}
        report = json.dumps({**metadata, "rows": [_as_json(row) for row in rows]}, indent=2)
    else:
        versions = dict.fromkeys(f"{place.library} {place.version}" for place in where)
        reasons = [f"Not used: {name}: {reason}" for name, reason in unused.items()]
        reasons += [f"Left out: {name}: {reason}" for name, reason in skipped.items()]
        report = "\n".join(
            (
                f"{printable(recording.name)}: spikes {list(recording.input.shape)}, "
                f"{options.dtype}\n{textwrap.fill(', '.join(versions), WIDTH)}\n",
                f"{table(rows, colour=_terminal.has_colour(sys.stdout))}\n",
                textwrap.fill(_summary(rows), WIDTH),
                *(textwrap.fill(reason, WIDTH, subsequent_indent="  ") for reason in reasons),
            )
        )
    _terminal.write(report + "\n")
    return 0 if agree else 1


def load(path: str | None) -> Recording:
    """Return the recording in an .npz file, or the shipped one if `path` is None."""
    if path is not None:
        return _read(Path(path), path)
    shipped = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
    with resources.as_file(shipped) as file:
        return _read(file, SHIPPED)


def _read(path: Path, name: str) -> Recording:
    with contextlib.ExitStack() as stack, file_errors(path):
        opened = open_npz(path, _names, stack)
        shape = opened["input"].shape
        if len(shape) < 3 or 0 in shape:
            raise UsageError(
                "`input` must have the axes [batch, class or *space, time], and elements; got "
                f"shape {shape}"
            )
        arrays = {}
        for key, rows in opened.items():
            kind = "input" if key == "input" else _kind(key, rows, shape)
            check_memory(f"`{key}` of shape {rows.shape} is too large", math.prod(rows.shape))
            arrays[kind] = array = rows.read(0, shape[0])
            if not np.isfinite(array).all():
                raise UsageError(f"`{key}` holds NaN or infinity")
            if kind == "classes":
                with usage_errors(f"`{key}`: "):
                    hot = np.moveaxis(one_hot(array, math.prod(shape[1:-1])), -1, 1)
                arrays.setdefault("multi-hot", hot)
        return Recording(name, arrays.pop("input"), arrays)


def _names(present: Collection[str]) -> list[str]:
    names = [name for name in ("input", "label", "target") if name in present]
    if "input" not in names or len(names) == 1:
        raise UsageError(
            "it must hold an array `input`, and `target` or `label`; it holds "
            f"{', '.join(map(repr, present)) or 'nothing'}"
        )
    return names


def _kind(key: str, rows: Any, spikes: tuple[int, ...]) -> str:
    """Return which kind of target an array is, by its shape and dtype."""
    batch, classes, steps = spikes[0], math.prod(spikes[1:-1]), spikes[-1]
    integer = rows.dtype.kind in "iu"
    if key == "target" and rows.shape == spikes:
        return "trains"
    if integer and rows.shape in ((batch,), (batch, steps)):
        return "classes"
    if not integer and rows.shape in ((batch, classes), (batch, classes, steps)):
        return "multi-hot"
    raise UsageError(
        f"`{key}` is {rows.dtype} of shape {rows.shape}, which fits no loss for an `input` of "
        f"shape {spikes}. Expected: spike trains {spikes} (as `target`); integer class indices "
        f"{(batch,)} or {(batch, steps)}; bool or floating multi-hot labels {(batch, classes)} or "
        f"{(batch, classes, steps)}"
    )


def cases(steps: int) -> Iterator[tuple[str, Any, str]]:
    """Yield each loss with its name and kind of target. Rate losses also have a moving window."""
    window = min(WINDOW, steps)
    yield "SpikeTime", SpikeTime(), "trains"
    for name, loss, kind in (
        ("SpikeRate", SpikeRate(true_rate=0.2, false_rate=0.03), "classes"),
        ("SpikeMax", SpikeMax(), "classes"),
        ("SpikeMax, softmax", SpikeMax(mode="softmax"), "classes"),
        ("SpikeMoid", SpikeMoid(theta=0), "multi-hot"),
        ("CrossEntropy", CrossEntropy(time_axis=-1), "classes"),
    ):
        yield name, loss, kind
        yield f"{name}, window {window}", replace(loss, moving_window=window), kind
    yield "SparsityEnforcer", SparsityEnforcer(), ""


def _choose(
    recording: Recording, names: Collection[str] | None
) -> tuple[dict[str, tuple[Any, ...]], dict[str, str]]:
    """Return the losses with their targets, and why each of the others is left out, by name."""
    usable: dict[str, tuple[Any, ...]] = {}
    skipped: dict[str, str] = {}
    for name, loss, kind in cases(recording.input.shape[-1]):
        if names is not None and name.partition(",")[0] not in names:
            continue
        target = recording.targets.get(kind)
        by_step = kind == "classes" and target is not None and target.ndim > 1
        by_step |= kind == "multi-hot" and target is not None and target.ndim > 2
        if kind and target is None:
            skipped[name] = "the file has no target for this loss"
        elif by_step and loss.moving_window is None:
            skipped[name] = "the target has a time axis, which needs a moving window"
        else:
            usable[name] = (loss,) if target is None else (loss, target)
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UsageError(f"{recording.name}: nothing to evaluate ({reasons})")
    return usable, skipped


def compare_all(
    losses: dict[str, tuple[Any, ...]], recording: Recording, where: Sequence[Place], dtype: str
) -> Iterator[Comparison]:
    """Yield one row for each loss in each place, ordered by loss."""
    library = adapter(where[0].library)
    with library.scope(dtype):  # a library rounds that has the dtype: NumPy may lack it
        rounded = library.to_host(where[0].put(recording.input, dtype))
    if not np.isfinite(rounded).all():  # infinities would compare as equal
        raise UsageError(
            f"{recording.name}: `input` holds numbers too large for {dtype}: choose another --dtype"
        )
    for name, (loss, *targets) in losses.items():
        with usage_errors(f"{recording.name}: {name} refuses these arrays: "):
            expected = reference(loss, rounded, *targets)
        for place in where:
            arrays = recording.input, dtype, *targets
            try:
                row, again = compare(loss, place, *arrays, expected=expected)
                yield replace(row, loss=name, seconds=_median_seconds(again))
            except Exception as error:  # a failing backend becomes a row; the others continue
                yield Comparison(name, place, problem=f"{type(error).__name__}: {error}")


def _median_seconds(call: Callable[[], None]) -> float:
    call()  # warm-up; compilation happened in an earlier call
    durations: list[float] = []
    while len(durations) < MAX_CALLS and sum(durations) < MAX_SECONDS:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def _verdict(row: Comparison) -> str:
    if row.problem is None:
        return "agrees"
    return "FAILED" if row.value is None else "DISAGREES"


def _as_json(row: Comparison) -> dict[str, Any]:
    """Return a row as JSON holds it. NaN and infinite results become null."""
    values = {**vars(row), "verdict": _verdict(row)}
    place: Place = values.pop("place")
    values |= {"backend": place.library, "version": place.version, "device": place.device}
    infinite = [k for k, x in values.items() if isinstance(x, float) and not math.isfinite(x)]
    return values | dict.fromkeys(infinite)


def _summary(rows: Sequence[Comparison]) -> str:
    disagreeing, count = sum(row.problem is not None for row in rows), len(rows)
    found = f"All {count} rows agree with NumPy in float64: they differ by rounding only"
    if disagreeing:
        found = f"{disagreeing} of {count} rows DISAGREE with NumPy in float64"
    return (
        f"{found}. The errors are relative to the largest entry of the reference; the time is that "
        "of value and gradient."
    )


def table(rows: Sequence[Comparison], *, colour: bool) -> str:
    """Return rows as an aligned text table, with a heading line for each loss.

    The table has 80 columns or fewer, unless names of libraries or devices are very long.
    """

    def paint(text: str, code: str) -> str:
        return f"{code}{text}{RESET}" if colour else text

    cells = [HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_aligned(HEADINGS, widths), _aligned(["-" * width for width in widths], widths)]
    loss = None
    for row, texts in zip(rows, cells[1:], strict=True):
        if row.loss != loss:
            lines.append(paint(loss := row.loss, BOLD))
        verdict = paint(texts[-1], GREEN if row.problem is None else RED)
        lines.append(_aligned(texts, widths).removesuffix(texts[-1]) + verdict)
        if row.problem is not None:
            problem = textwrap.indent(textwrap.fill(row.problem, WIDTH - 4), " " * 4)
            lines.append(paint(problem, RED))
    return "\n".join(lines)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if column in LEFT else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  " + "  ".join(padded).rstrip()


def _cells(row: Comparison) -> tuple[str, ...]:
    numbers = (row.value, ".5g"), (row.value_difference, ".1e"), (row.gradient_difference, ".1e")
    texts = ("" if number is None else format(number, form) for number, form in numbers)
    seconds = "" if row.seconds is None else _duration(row.seconds)
    return row.place.library, row.place.device, *texts, seconds, _verdict(row)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    milliseconds = seconds * 1e3
    digits = 3 if milliseconds < 10 else 1
    return f"{milliseconds:.{digits}f} ms"
