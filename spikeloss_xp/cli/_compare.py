"""The command ``compare``: evaluate losses on several backends and compare the results."""

import argparse
import json
import math
import statistics
import sys
import textwrap
import timeit
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp import losses
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli import _terminal
from spikeloss_xp.cli._files import file_errors, read_npz
from spikeloss_xp.cli._terminal import UsageError, printable, usage_errors
from spikeloss_xp.testing import PRECISION, Comparison, Device, compare, reference, select_devices

HELP = "evaluate the losses on every array library and compare the results"
DESCRIPTION = """\
Evaluate the losses and their gradients on every array library of this
machine, and compare them with NumPy in float64. The exit status is 0 if all
results agree, 1 if some do not, 2 after an error, and 130 or 143 after an
interruption."""
EXAMPLES = """\
examples:
  # compare every library on the recording that comes with this one
  spikeloss-xp compare
  # compare one loss in double precision, on spikes of your own
  spikeloss-xp compare recording.npz --loss SpikeTime --dtype float64"""
SHIPPED = "grasshopper auditory receptor"
LOSSES = ("CrossEntropy", "SpikeTime", "SpikeRate", "SpikeMax", "SpikeMoid", "SparsityEnforcer")
WINDOW = 50  # time steps; long enough to estimate a rate, short enough to follow its changes
MAX_CALLS, MAX_SECONDS = 50, 0.2  # timing a loss stops at the first of these limits
HEADINGS = ("library", "device", "value", "value err", "grad err", "time", "verdict")
ALIGN = "<<>>>><"  # text on the left, numbers on the right
WIDTH = 80
RED, GREEN, BOLD, RESET = "\033[31m", "\033[32m", "\033[1m", "\033[0m"


def add_options(parser: _terminal.Parser) -> None:
    """Add the options of the command."""
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
    device_help = "a device of this name or kind, such as cpu, cuda or cuda:1"
    add("--device", metavar="NAME", help=device_help)
    dtype_help = "the dtype of the spikes (default: %(default)s)"
    add("--dtype", choices=PRECISION, default="float32", help=dtype_help)
    add("--json", action="store_true", help="print JSON instead of text")


class Recording(NamedTuple):
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
        where, unused = select_devices(options.backend, options.dtype, options.device)
    usable, skipped = _choose(recording, options.loss)
    rows: list[Comparison] = []
    with np.errstate(all="ignore"):  # only NumPy would warn, and the rows show any overflow
        for row in compare_all(usable, recording, where, options.dtype):
            rows.append(row)
            done = f"{len(rows)} of {len(usable) * len(where)}"
            _terminal.show_status(f"{done}: {row.loss} on {row.device}")
    agree = all(row.problem is None for row in rows)
    if options.json:
        metadata: dict[str, Any] = {"recording": recording.name, "shape": recording.input.shape}
        metadata |= {"dtype": options.dtype, "agree": agree, "unused": unused, "left_out": skipped}
        report = json.dumps({**metadata, "rows": [_as_json(row) for row in rows]}, indent=2)
    else:
        versions = dict.fromkeys(f"{device.library} {device.version}" for device in where)
        reasons = [f"Not used: {name}: {reason}" for name, reason in unused.items()]
        reasons += [f"Left out: {name}: {reason}" for name, reason in skipped.items()]
        spikes = f"spikes {list(recording.input.shape)}, {options.dtype}"
        libraries = textwrap.fill(", ".join(versions), WIDTH)
        lines = [f"{printable(recording.name)}: {spikes}", libraries, ""]
        lines += [table(rows, colour=_terminal.has_colour(sys.stdout)), "", _summary(rows)]
        lines += [textwrap.fill(reason, WIDTH, subsequent_indent="  ") for reason in reasons]
        report = "\n".join(lines)
    _terminal.write(report + "\n")
    return 0 if agree else 1


def load(path: str | None) -> Recording:
    """Return the recording in an .npz file, or the shipped one if `path` is None."""
    data = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
    with resources.as_file(data) as own, file_errors(own if path is None else path) as file:
        return _recording(path or SHIPPED, read_npz(file, _names))


def _recording(name: str, arrays: dict[str, np.ndarray]) -> Recording:
    spikes, targets = arrays.pop("input"), {}
    if spikes.ndim < 3 or not spikes.size:
        required = "the axes [batch, class or *space, time], and elements"
        raise UsageError(f"`input` must have {required}; got shape {spikes.shape}")
    for key, array in {"input": spikes, **arrays}.items():
        if not np.isfinite(array).all():
            raise UsageError(f"`{key}` holds NaN or infinity")
    for key, array in arrays.items():
        kind = _kind(key, array, spikes.shape)
        targets[kind] = array
        if kind == "classes":
            classes, lowest, highest = math.prod(spikes.shape[1:-1]), array.min(), array.max()
            if lowest < 0 or highest >= classes:
                found = f"from 0 to {classes - 1}; got values from {lowest} to {highest}"
                raise UsageError(f"`{key}`: labels must be classes, {found}")
            hot = array[..., None] == np.arange(classes)
            targets.setdefault("multi-hot", np.moveaxis(hot, -1, 1))
    return Recording(name, spikes, targets)


def _names(present: Collection[str]) -> list[str]:
    names = [name for name in ("input", "label", "target") if name in present]
    if "input" not in names or len(names) == 1:
        held = ", ".join(map(repr, present)) or "nothing"
        needed = "it must hold an array `input`, and `target` or `label`"
        raise UsageError(f"{needed}; it holds {held}: save its arrays by numpy.savez")
    return names


def _kind(key: str, array: np.ndarray, spikes: tuple[int, ...]) -> str:
    """Return which kind of target an array is, by its shape and dtype."""
    batch, classes, steps = spikes[0], math.prod(spikes[1:-1]), spikes[-1]
    indices, labels = [(batch,), (batch, steps)], [(batch, classes), (batch, classes, steps)]
    integer = array.dtype.kind in "iu"
    if key == "target" and array.shape == spikes:
        return "trains"
    if array.shape in (indices if integer else labels):
        return "classes" if integer else "multi-hot"
    raise UsageError(
        f"`{key}` is {array.dtype} of shape {array.shape}, which fits no loss for an `input` of "
        f"shape {spikes}. Expected: spike trains {spikes} (as `target`); integer class indices "
        f"{indices[0]} or {indices[1]}; bool or floating multi-hot labels {labels[0]} or "
        f"{labels[1]}"
    )


def cases(steps: int) -> Iterator[tuple[str, Any, str]]:
    """Yield each loss with its name and kind of target. Rate losses also have a moving window."""
    window = min(WINDOW, steps)
    yield "SpikeTime", losses.SpikeTime(), "trains"
    for name, loss, kind in (
        ("SpikeRate", losses.SpikeRate(true_rate=0.2, false_rate=0.03), "classes"),
        ("SpikeMax", losses.SpikeMax(), "classes"),
        ("SpikeMax, softmax", losses.SpikeMax(mode="softmax"), "classes"),
        ("SpikeMoid", losses.SpikeMoid(theta=0), "multi-hot"),
        ("CrossEntropy", losses.CrossEntropy(time_axis=-1), "classes"),
    ):
        yield name, loss, kind
        yield f"{name}, window {window}", replace(loss, moving_window=window), kind
    yield "SparsityEnforcer", losses.SparsityEnforcer(), ""


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
        by_step = target is not None and target.ndim == {"classes": 2, "multi-hot": 3}.get(kind)
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
    usable: dict[str, tuple[Any, ...]], recording: Recording, where: Sequence[Device], dtype: str
) -> Iterator[Comparison]:
    """Yield one row for each loss on each device, ordered by loss."""
    library = adapter(where[0].library)
    with library.scope(dtype):  # a library rounds that has the dtype: NumPy may lack it
        rounded = library.to_host(where[0].put(recording.input, dtype))
    if not np.isfinite(rounded).all():  # infinities would compare as equal
        raise UsageError(
            f"{recording.name}: `input` holds numbers too large for {dtype}: choose another --dtype"
        )
    for name, (loss, *targets) in usable.items():
        with usage_errors(f"{recording.name}: {name} refuses these arrays: "):
            expected = reference(loss, rounded, *targets)
        for device in where:
            arrays = recording.input, dtype, *targets
            try:
                row, again = compare(loss, device, *arrays, expected=expected)
                yield replace(row, loss=name, seconds=_median_seconds(again))
            except Exception as error:  # a failing backend becomes a row; the others continue
                yield Comparison(name, device, problem=f"{type(error).__name__}: {error}")


def _median_seconds(call: Callable[[], None]) -> float:
    call()  # warm-up; compilation happened in an earlier call
    durations: list[float] = []
    while len(durations) < MAX_CALLS and sum(durations) < MAX_SECONDS:
        durations.append(timeit.timeit(call, number=1))
    return statistics.median(durations)


def _verdict(row: Comparison) -> str:
    if row.problem is None:
        return "agrees"
    return "FAILED" if row.value is None else "DISAGREES"


def _as_json(row: Comparison) -> dict[str, Any]:
    """Return a row as JSON holds it. NaN and infinite results become null."""
    values = {**vars(row), "verdict": _verdict(row)}
    device: Device = values.pop("device")
    values |= {"backend": device.library, "version": device.version, "device": device.name}
    infinite = [k for k, x in values.items() if isinstance(x, float) and not math.isfinite(x)]
    return values | dict.fromkeys(infinite)


def _summary(rows: Sequence[Comparison]) -> str:
    disagreeing, count = sum(row.problem is not None for row in rows), len(rows)
    found = f"All {count} rows agree with NumPy in float64: they differ by rounding only"
    if disagreeing:
        found = f"{disagreeing} of {count} rows DISAGREE with NumPy in float64"
    errors = "The errors are relative to the largest entry of the reference"
    return textwrap.fill(f"{found}. {errors}; the time is that of value and gradient.", WIDTH)


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
    columns = zip(cells, ALIGN, widths, strict=True)
    padded = (f"{cell:{side}{width}}" for cell, side, width in columns)
    return "  " + "  ".join(padded).rstrip()


def _cells(row: Comparison) -> tuple[str, ...]:
    numbers = (row.value, ".5g"), (row.value_difference, ".1e"), (row.gradient_difference, ".1e")
    texts = ("" if number is None else format(number, form) for number, form in numbers)
    seconds = "" if row.seconds is None else _duration(row.seconds)
    return row.device.library, row.device.name, *texts, seconds, _verdict(row)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{1e3 * seconds:.3f} ms" if seconds < 0.01 else f"{1e3 * seconds:.1f} ms"
