"""The command ``compare``: evaluate losses with several libraries and compare the results."""

import argparse
import json
import math
import statistics
import textwrap
import timeit
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile

from spikeloss_xp import losses
from spikeloss_xp._arrays import host
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.testing import PRECISION, Comparison, Device, compare, reference, select_devices

HELP = "evaluate the losses with every array library and compare the results"
DESCRIPTION = """\
Evaluate the losses and their gradients with every array library on this
machine, and compare the results with those of NumPy in float64. The exit status
is 0 if all results agree, 1 if any of them differs, 2 after an error, and 130
after Ctrl-C."""
EXAMPLES = """\
examples:
  # compare all libraries on the recording that comes with spikeloss-xp
  spikeloss-xp compare
  # compare one loss in double precision on your own spikes
  spikeloss-xp compare recording.npz --loss SpikeTime --dtype float64"""
SHIPPED = "grasshopper auditory receptor"
LOSSES = (
    *("CrossEntropy", "SpikeTime", "SpikeRate", "SpikeMax", "SpikeMoid", "SparsityEnforcer"),
    "PoissonNLL",
)
AXES_WITH_TIME = {"classes": 2, "multi-hot": 3}  # the number of axes if each step has a label
WINDOW = 50  # time steps; long enough to estimate a rate, short enough to follow its changes
MAX_CALLS, MAX_SECONDS = 50, 0.2  # the timing of a loss stops when either limit is reached
HEADINGS = ("library", "device", "value", "value err", "grad err", "time", "verdict")
ALIGN = "<<>>>><"  # text on the left, numbers on the right
WIDTH = 80


class UsageError(Exception):
    """An error in the arguments or the file, with a message for the user."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    add = parser.add_argument
    file_help = (
        "a file with the spikes `input` [batch, *space, time] and with `target` (spike trains of "
        "the same shape), `label` (class indices or multi-hot labels) or both; the default is a "
        "recording from a grasshopper's auditory receptor, which comes with spikeloss-xp"
    )
    add("file", nargs="?", metavar="FILE.npz", help=file_help)
    loss_help = f"compare only this loss, one of {', '.join(LOSSES)}; may be repeated"
    add("--loss", action="append", choices=LOSSES, metavar="LOSS", help=loss_help)
    library_help = "use only the array library with this import name; may be repeated"
    add("--backend", action="append", metavar="NAME", help=library_help)
    device_help = "use only devices of this name or kind, such as cpu, cuda or cuda:1"
    add("--device", metavar="NAME", help=device_help)
    dtype_help = "the dtype of the spikes (default: %(default)s)"
    add("--dtype", choices=PRECISION, default="float32", help=dtype_help)
    add("--json", action="store_true", help="print JSON instead of a table")


class Recording(NamedTuple):
    """Spikes and the targets that a file provides for them.

    Attributes
    ----------
    name : str
        The path of the file, or a description of the recording that comes with the library.
    input : numpy.ndarray
        Spikes, ``[batch, *space, time]``.
    targets : dict of str to numpy.ndarray
        The targets, keyed by kind. "trains" have the shape of `input`, and are also "counts" if
        they are not negative. "classes" are indices, ``[batch]`` or ``[batch, time]``. "multi-hot"
        labels are ``[batch, class]`` or ``[batch, class, time]``.
    """

    name: str
    input: np.ndarray
    targets: dict[str, np.ndarray]


class Results(NamedTuple):
    """The results of running the command.

    Attributes
    ----------
    recording : Recording
        The spikes on which the losses were evaluated.
    dtype : str
        The dtype of the spikes.
    rows : list of Comparison
        The comparison of each loss on each device, ordered by loss.
    unused : dict of str to str
        The reason why each unused library was not used, keyed by library name.
    left_out : dict of str to str
        The reason why each omitted loss was not evaluated, keyed by loss name.
    """

    recording: Recording
    dtype: str
    rows: list[Comparison]
    unused: dict[str, str]
    left_out: dict[str, str]

    @property
    def agree(self) -> bool:
        """Whether all libraries agree with the reference."""
        return all(row.problem is None for row in self.rows)


def run(options: argparse.Namespace) -> int:
    """Compare the losses, print the results and return the exit status."""
    recording = load(options.file)
    try:
        devices, unused = select_devices(options.backend, options.dtype, options.device)
    except ValueError as error:
        raise UsageError(str(error)) from None
    usable, left_out = _choose(recording, options.loss)
    with np.errstate(all="ignore"):  # the rows show an overflow; only NumPy would warn about it
        rows = compare_all(usable, recording, devices, options.dtype)
    results = Results(recording, options.dtype, rows, unused, left_out)
    report = _as_json(results) if options.json else _as_text(results)
    print(report, flush=True)  # a closed pipe raises here instead of when Python exits
    return 0 if results.agree else 1


def load(path: str | None) -> Recording:
    """Return the recording in an .npz file, by default the one that comes with the library."""
    shipped = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
    name = SHIPPED if path is None else path
    try:
        return _recording(name, _read(shipped if path is None else Path(path)))
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def _read(file: Traversable) -> dict[str, np.ndarray]:
    """Return whichever of the arrays `input`, `label` and `target` an .npz file contains."""
    arrays: dict[str, np.ndarray] = {}
    try:
        with file.open("rb") as stream, NpzFile(stream, allow_pickle=False) as archive:
            present = archive.files
            for name in ("input", "label", "target"):
                if name in present:
                    arrays[name] = host(archive[name], f"`{name}`")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from None
    except Exception as error:  # NumPy and zipfile do not document all the errors they raise
        advice = "Save arrays of numbers with numpy.savez."
        raise UsageError(f"cannot be read: {error}. {advice}") from None
    if "input" not in arrays or len(arrays) == 1:
        names = ", ".join(map(repr, present)) or "no array"
        needed = "an array `input`, and `target` or `label`"
        raise UsageError(f"the file must contain {needed}; it contains {names}")
    return arrays


def _recording(name: str, arrays: dict[str, np.ndarray]) -> Recording:
    spikes = arrays.pop("input")
    targets: dict[str, np.ndarray] = {}
    if spikes.ndim < 3 or not spikes.size:
        required = "the axes [batch, class or *space, time] and at least one entry"
        raise UsageError(f"`input` must have {required}; got shape {spikes.shape}")
    for key, array in {"input": spikes, **arrays}.items():
        if not np.isfinite(array).all():
            raise UsageError(f"`{key}` contains NaN or infinity")
    for key, array in arrays.items():
        kind = _kind(key, array, spikes.shape)
        targets[kind] = array
        if kind == "trains" and array.min() >= 0:
            targets["counts"] = array
        if kind == "classes":
            hot = _one_hot(key, array, classes=math.prod(spikes.shape[1:-1]))
            targets.setdefault("multi-hot", hot)
    return Recording(name, spikes, targets)


def _kind(key: str, array: np.ndarray, spikes: tuple[int, ...]) -> str:
    """Return the kind of target that an array is, based on its shape and dtype."""
    batch, classes, steps = spikes[0], math.prod(spikes[1:-1]), spikes[-1]
    indices, labels = [(batch,), (batch, steps)], [(batch, classes), (batch, classes, steps)]
    integer = array.dtype.kind in "iu"
    if key == "target" and array.shape == spikes:
        return "trains"
    if array.shape in (indices if integer else labels):
        return "classes" if integer else "multi-hot"
    raise UsageError(
        f"`{key}` is {array.dtype} of shape {array.shape}, which no loss accepts for an `input` of "
        f"shape {spikes}. Expected: spike trains {spikes} (as `target`); integer class indices "
        f"{indices[0]} or {indices[1]}; bool or floating multi-hot labels {labels[0]} or "
        f"{labels[1]}"
    )


def _one_hot(key: str, indices: np.ndarray, classes: int) -> np.ndarray:
    """Return class indices as bool labels ``[batch, class]`` or ``[batch, class, time]``."""
    lowest, highest = indices.min(), indices.max()
    if lowest < 0 or highest >= classes:
        raise UsageError(
            f"`{key}` must contain classes from 0 to {classes - 1}; got values from {lowest} to "
            f"{highest}"
        )
    return np.moveaxis(indices[..., None] == np.arange(classes), -1, 1)


def cases(steps: int) -> Iterator[tuple[str, Any, str]]:
    """Yield the name of each loss, the loss, and its kind of target ("" if it takes no target).

    A loss that reads rates is yielded a second time, with a moving window.
    """
    window = min(WINDOW, steps)
    yield "SpikeTime", losses.SpikeTime(), "trains"
    yield "PoissonNLL", losses.PoissonNLL(time_axis=-1), "counts"
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
    """Return the losses to evaluate with their targets, and why the others are left out."""
    usable: dict[str, tuple[Any, ...]] = {}
    left_out: dict[str, str] = {}
    for name, loss, kind in cases(recording.input.shape[-1]):
        if names is not None and name.partition(",")[0] not in names:
            continue
        target = recording.targets.get(kind)
        if not kind:
            usable[name] = (loss,)
        elif target is None:
            left_out[name] = "the file has no target for this loss"
        elif target.ndim == AXES_WITH_TIME.get(kind) and loss.moving_window is None:
            left_out[name] = "the target has a time axis, so the loss needs a moving window"
        else:
            usable[name] = (loss, target)
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"{recording.name}: no loss can be evaluated ({reasons})")
    return usable, left_out


def compare_all(
    usable: dict[str, tuple[Any, ...]], recording: Recording, devices: Sequence[Device], dtype: str
) -> list[Comparison]:
    """Return one row for each loss on each device, ordered by loss."""
    library = adapter(devices[0].library)
    with library.scope(dtype):  # this library has the dtype, which NumPy may lack
        rounded = library.to_host(devices[0].put(recording.input, dtype))
    if not np.isfinite(rounded).all():  # infinite values would compare as equal
        raise UsageError(
            f"{recording.name}: `input` contains numbers too large for {dtype}: choose another "
            "--dtype"
        )
    rows: list[Comparison] = []
    for name, (loss, *targets) in usable.items():
        try:
            expected = reference(loss, rounded, *targets)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{recording.name}: {name} rejects these arrays: {error}") from None
        for device in devices:
            arrays = recording.input, dtype, *targets
            try:
                row, repeat = compare(loss, device, *arrays, expected=expected)
                row = replace(row, loss=name, seconds=_median_seconds(repeat))
            except Exception as error:  # if one library fails, the others are still compared
                row = Comparison(name, device, problem=f"{type(error).__name__}: {error}")
            rows.append(row)
    return rows


def _median_seconds(call: Callable[[], None]) -> float:
    call()  # a warm-up call; an earlier call has compiled the function
    durations: list[float] = []
    while len(durations) < MAX_CALLS and sum(durations) < MAX_SECONDS:
        durations.append(timeit.timeit(call, number=1))
    return statistics.median(durations)


def _verdict(row: Comparison) -> str:
    if row.problem is None:
        return "agrees"
    return "FAILED" if row.value is None else "DISAGREES"


def _as_json(results: Results) -> str:
    recording = results.recording
    report = {
        "recording": recording.name,
        "shape": recording.input.shape,
        "dtype": results.dtype,
        "agree": results.agree,
        "unused": results.unused,
        "left_out": results.left_out,
        "rows": [_json_row(row) for row in results.rows],
    }
    return json.dumps(report, indent=2)


def _json_row(row: Comparison) -> dict[str, Any]:
    """Return a row as a dict for JSON, with None instead of NaN or infinite numbers."""
    values = {**vars(row), "verdict": _verdict(row)}
    device: Device = values.pop("device")
    values |= {"backend": device.library, "version": device.version, "device": device.name}
    infinite = [k for k, x in values.items() if isinstance(x, float) and not math.isfinite(x)]
    return values | dict.fromkeys(infinite)


def _as_text(results: Results) -> str:
    recording, rows = results.recording, results.rows
    versions = dict.fromkeys(f"{row.device.library} {row.device.version}" for row in rows)
    reasons = [f"Not used: {name}: {reason}" for name, reason in results.unused.items()]
    reasons += [f"Left out: {name}: {reason}" for name, reason in results.left_out.items()]
    lines = [
        f"{recording.name}: spikes {list(recording.input.shape)}, {results.dtype}",
        textwrap.fill(", ".join(versions), WIDTH),
        "",
        table(rows),
        "",
        _summary(rows),
        *(textwrap.fill(reason, WIDTH, subsequent_indent="  ") for reason in reasons),
    ]
    return "\n".join(lines)


def _summary(rows: Sequence[Comparison]) -> str:
    differing, count = sum(row.problem is not None for row in rows), len(rows)
    found = f"All {count} rows agree with NumPy in float64, up to rounding"
    if differing:
        found = f"{differing} of {count} rows DISAGREE with NumPy in float64"
    errors = "Errors are relative to the largest entry of the reference"
    times = "Times are for one evaluation of value and gradient"
    return textwrap.fill(f"{found}. {errors}. {times}.", WIDTH)


def table(rows: Sequence[Comparison]) -> str:
    """Return rows as an aligned text table, with a heading for each loss."""
    cells = [HEADINGS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_aligned(HEADINGS, widths), _aligned(["-" * width for width in widths], widths)]
    loss = None
    for row, texts in zip(rows, cells[1:], strict=True):
        if row.loss != loss:
            loss = row.loss
            lines.append(loss)
        lines.append(_aligned(texts, widths))
        if row.problem is not None:
            lines.append(textwrap.indent(textwrap.fill(row.problem, WIDTH - 4), " " * 4))
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
