"""The command ``spikeloss-xp compare``, which compares the array libraries on recorded spikes."""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any

import numpy as np

from spikeloss_xp import __version__, losses, testing
from spikeloss_xp._tolerance import PRECISION
from spikeloss_xp.testing import Comparison, Device, compare, reference, select_devices

DESCRIPTION = """Evaluate the losses and their gradients with every array library on this machine,
on spikes recorded from a grasshopper's ear, and compare the results with those of NumPy in float64.
The exit status is 0 if all results agree, 1 if any of them differs, and 2 after an error. To
compare the libraries on your own spikes, call spikeloss_xp.testing.assert_consistent in Python."""
# The moving window, in time steps.
WINDOW = 50
LOSSES: dict[str, tuple[Any, str | None]] = {  # each loss, and the name of its target
    "SpikeTime": (losses.SpikeTime(time_axis=-1), "target"),
    "PoissonNLL": (losses.PoissonNLL(time_axis=-1), "target"),
    "SpikeRate": (losses.SpikeRate(0.2, 0.03, time_axis=-1, moving_window=WINDOW), "label"),
    "SpikeMax": (losses.SpikeMax(time_axis=-1), "label"),
    "SpikeMoid": (losses.SpikeMoid(time_axis=-1, alpha=1, theta=0), "one-hot"),
    "CrossEntropy": (losses.CrossEntropy(time_axis=-1), "label"),
    "SparsityEnforcer": (losses.SparsityEnforcer(time_axis=-1), None),
}
HEADER = f"{'loss':16}  {testing.HEADER}  verdict"
ROW = "{loss:16}  " + testing.ROW + "  {verdict}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, by default with the arguments of the process, and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        report = _report(options)
    except ValueError as error:
        print(f"spikeloss-xp: error: {error}", file=sys.stderr)
        return 2
    try:
        print(_json(report) if options.json else _text(report), flush=True)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        # When Python exits, it flushes stdout, which would raise the error again. Therefore, stdout
        # is connected to the null device.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0 if report["agree"] else 1


def _json(report: dict[str, Any]) -> str:
    """Return the report as JSON. NaN and infinity become null, because JSON has neither."""
    return json.dumps(json.loads(json.dumps(report), parse_constant=lambda _: None), indent=2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spikeloss-xp")
    parser.add_argument("--version", action="version", version=f"spikeloss-xp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add = commands.add_parser("compare", help=DESCRIPTION, description=DESCRIPTION).add_argument
    add("--loss", action="append", choices=LOSSES, help="compare only this loss; may be repeated")
    add("--backend", action="append", help="use only this array library; may be repeated")
    add("--device", help="use only devices of this name or kind, such as cpu, cuda or cuda:1")
    add("--dtype", choices=PRECISION, default="float32", help="spike dtype; default: %(default)s")
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _report(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the losses and return the results in the form that is printed as JSON.

    Raise a `ValueError` if the options select a library or device that cannot be used.
    """
    devices, unused = select_devices(options.backend, options.dtype, options.device)
    with (resources.files("spikeloss_xp") / "data" / "grasshopper.npz").open("rb") as file:
        arrays = dict(np.load(file))
    arrays["one-hot"] = arrays["label"][:, None] == np.arange(arrays["input"].shape[1])
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(options.loss or LOSSES):
        target = LOSSES[name][1]
        given = [] if target is None else [arrays[target]]
        rows += _rows(name, options.dtype, devices, arrays["input"], *given)
    return {
        "shape": arrays["input"].shape,
        "dtype": options.dtype,
        "agree": all(row["problem"] is None for row in rows),
        "unused": unused,
        "rows": rows,
    }


def _rows(
    name: str, dtype: str, devices: Sequence[Device], input: np.ndarray, *target: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Compare a loss on each device, and yield the rows of the report."""
    loss, _ = LOSSES[name]
    expected = reference(loss, input, *target)
    for device in devices:
        try:
            found = compare(loss, device, input, dtype, *target, expected=expected)
            verdict = "DISAGREES" if found.problem else "agrees"
        except Exception as error:  # an error does not stop the comparison
            found, verdict = Comparison(problem=f"{type(error).__name__}: {error}"), "FAILED"
        yield {"loss": name, **device.row(), **vars(found), "verdict": verdict}


def _text(report: dict[str, Any]) -> str:
    """Return the report as a table, with notes below it."""
    rows = report["rows"]
    versions = dict.fromkeys(f"{row['backend']} {row['version']}" for row in rows)
    lines = [f"grasshopper auditory receptor: spikes {list(report['shape'])}, {report['dtype']}"]
    lines += [", ".join(versions), "", HEADER]
    for row in rows:
        lines.append(ROW.format(**row))
        if row["problem"]:
            lines.append(f"    {row['problem']}")
    agreeing = sum(row["problem"] is None for row in rows)
    lines += ["", f"{agreeing} of {len(rows)} rows agree with NumPy in float64, up to rounding."]
    lines += [f"Not used: {name}: {reason}" for name, reason in report["unused"].items()]
    return "\n".join(lines)
