"""The command ``spikeloss-xp compare``, which compares the array libraries on recorded spikes."""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from spikeloss_xp import __version__, losses, testing
from spikeloss_xp._arrays import host
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.testing import PRECISION, Comparison, Device, compare, reference, select_devices

DESCRIPTION = """Evaluate the losses and their gradients with every array library on this machine,
and compare the results with those of NumPy in float64. The exit status is 0 if all results agree,
1 if any of them differs, and 2 after an error."""
FILE_HELP = """a file with spikes `input` [batch, *space, time], and with `target` (trains of that
shape), `label` (class indices or multi-hot labels), or both; by default, a recording from a
grasshopper's ear"""
WINDOW = 50  # time steps; long enough to estimate a rate, short enough to follow its changes
LOSSES: dict[str, tuple[Any, str]] = {  # each loss, and its kind of target
    "SpikeTime": (losses.SpikeTime(), "trains"),
    "PoissonNLL": (losses.PoissonNLL(time_axis=-1), "counts"),
    "SpikeRate": (losses.SpikeRate(0.2, 0.03, moving_window=WINDOW), "classes"),
    "SpikeMax": (losses.SpikeMax(), "classes of spikes"),
    "SpikeMoid": (losses.SpikeMoid(alpha=1, theta=0), "multi-hot"),
    "CrossEntropy": (losses.CrossEntropy(time_axis=-1), "classes"),
    "SparsityEnforcer": (losses.SparsityEnforcer(), "none"),
}
# The number of axes of a target that has a label for each step.
AXES_WITH_TIME = {"classes": 2, "classes of spikes": 2, "multi-hot": 3}
WHY_LEFT_OUT = "the file has no target for this loss, or negative numbers, which the loss rejects"
HEADER = f"{'loss':16}  {testing.HEADER}  verdict"
ROW = "{loss:16}  " + testing.ROW + "  {verdict}"

Target = tuple[np.ndarray, ...]  # one array, or an empty tuple for losses that have no target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, by default with the arguments of the process, and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        with np.errstate(all="ignore"):  # the table shows overflows, so NumPy need not warn
            report = _report(options)
    except ValueError as error:
        print(f"spikeloss-xp: error: {error}", file=sys.stderr)
        return 2
    if options.json:  # JSON has no NaN and no infinity: they become null
        finite = json.loads(json.dumps(report), parse_constant=lambda _: None)
        print(json.dumps(finite, indent=2))
    else:
        print(_text(report))
    return 0 if report["agree"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spikeloss-xp")
    parser.add_argument("--version", action="version", version=f"spikeloss-xp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add = commands.add_parser("compare", help=DESCRIPTION, description=DESCRIPTION).add_argument
    add("file", nargs="?", metavar="FILE.npz", help=FILE_HELP)
    add("--loss", action="append", choices=LOSSES, help="compare only this loss; may be repeated")
    add("--backend", action="append", help="use only this array library; may be repeated")
    add("--device", help="use only devices of this name or kind, such as cpu, cuda or cuda:1")
    add("--dtype", choices=PRECISION, default="float32", help="spike dtype; default: %(default)s")
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _report(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the losses and return the results in the form that is printed as JSON.

    If the options or the file cannot be used, raise a `ValueError` with a message for the user.
    """
    arrays, dtype = _read(options.file), options.dtype
    devices, unused = select_devices(options.backend, dtype, options.device)
    library = adapter(devices[0].library)  # this library has the dtype, but NumPy may lack it
    with library.scope(dtype):
        arrays["input"] = library.to_host(devices[0].put(arrays["input"], dtype))
    for name, array in arrays.items():
        if not np.isfinite(array).all():  # NaN and infinity would compare as equal
            raise ValueError(f"`{name}` must contain finite numbers that {dtype} can represent")
    targets = _targets(**arrays)
    names = list(dict.fromkeys(options.loss or LOSSES))
    left_out = [name for name in names if LOSSES[name][1] not in targets]
    if left_out == names:
        raise ValueError(f"nothing to compare for {' and '.join(names)}: {WHY_LEFT_OUT}")
    rows: list[dict[str, Any]] = []
    for name in names:
        if name not in left_out:
            rows += _rows(name, dtype, devices, arrays["input"], *targets[LOSSES[name][1]])
    return {
        "recording": options.file or "grasshopper auditory receptor",
        "shape": arrays["input"].shape,
        "dtype": dtype,
        "agree": all(row["problem"] is None for row in rows),
        "unused": unused,
        "left_out": dict.fromkeys(left_out, WHY_LEFT_OUT),
        "rows": rows,
    }


def _read(path: str | None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file that are named `input`, `label` or `target`."""
    shipped = resources.files("spikeloss_xp") / "data" / "grasshopper.npz"
    file = shipped if path is None else Path(path)
    try:
        with file.open("rb") as stream, NpzFile(stream, allow_pickle=False) as archive:
            present = archive.files
            names = sorted({"input", "label", "target"}.intersection(present))
            arrays = {name: host(archive[name], f"`{name}`") for name in names}
    except Exception as error:  # NumPy and zipfile do not document all the errors they raise
        raise ValueError(f"cannot read {path} as a file from numpy.savez: {error}") from None
    if "input" not in arrays or len(arrays) == 1:
        expected = "an array `input`, and `target` or `label`"
        raise ValueError(f"{path} must contain {expected}; it contains {present}")
    return arrays


def _targets(input: np.ndarray, **arrays: np.ndarray) -> dict[str, Target]:
    """Return the targets in a file, keyed by kind.

    The losses check the shapes and values of the targets. Class indices are also converted to
    multi-hot labels. The kind "none" is for losses that have no target.
    """
    if input.ndim < 3:
        raise ValueError(f"`input` must have the axes [batch, *space, time]; got {input.shape}")
    targets: dict[str, Target] = {"none": ()}
    for name, array in arrays.items():
        if name == "target" and array.ndim == input.ndim:
            targets["trains"] = (array,)
            if array.min(initial=0) >= 0:
                targets["counts"] = (array,)
        elif array.dtype.kind in "iu":
            targets["classes"] = (array,)
            if input.min(initial=0) >= 0:
                targets["classes of spikes"] = (array,)
            hot = array[..., None] == np.arange(math.prod(input.shape[1:-1]))
            if not hot.any(axis=-1).all():
                raise ValueError(f"`{name}` must contain classes from 0 to {hot.shape[-1] - 1}")
            targets.setdefault("multi-hot", (np.moveaxis(hot, -1, 1),))
        else:
            targets["multi-hot"] = (array,)
    return targets


def _rows(
    name: str, dtype: str, devices: Sequence[Device], input: np.ndarray, *target: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Compare a loss on each device, and yield the rows of the report."""
    loss, kind = LOSSES[name]
    if target and target[0].ndim == AXES_WITH_TIME.get(kind):
        loss = replace(loss, moving_window=WINDOW)
    try:
        expected = reference(loss, input, *target)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} rejects these arrays: {error}") from None
    for device in devices:
        try:
            found = compare(loss, device, input, dtype, *target, expected=expected)
            verdict = "DISAGREES" if found.problem else "agrees"
        except Exception as error:  # the other libraries are still compared
            found, verdict = Comparison(problem=f"{type(error).__name__}: {error}"), "FAILED"
        yield {"loss": name, **device.row(), **vars(found), "verdict": verdict}


def _text(report: dict[str, Any]) -> str:
    """Return the report as a table, with notes below it."""
    rows = report["rows"]
    versions = dict.fromkeys(f"{row['backend']} {row['version']}" for row in rows)
    lines = [f"{report['recording']}: spikes {list(report['shape'])}, {report['dtype']}"]
    lines += [", ".join(versions), "", HEADER]
    for row in rows:
        lines.append(ROW.format(**row))
        if row["problem"]:
            lines.append(f"    {row['problem']}")
    agreeing = sum(row["problem"] is None for row in rows)
    lines += ["", f"{agreeing} of {len(rows)} rows agree with NumPy in float64, up to rounding."]
    lines += [f"Not used: {name}: {reason}" for name, reason in report["unused"].items()]
    lines += [f"Left out: {name}: {reason}" for name, reason in report["left_out"].items()]
    return "\n".join(lines)
