"""The command ``spikeloss-xp``."""

import argparse
import os
import sys
from collections.abc import Sequence

import numpy as np

import spikeloss_xp
from spikeloss_xp._consistency import EPSILON, Place, places
from spikeloss_xp.backends import available
from spikeloss_xp.backends._available import describe
from spikeloss_xp.cli._compare import Case, Row, cases, compare
from spikeloss_xp.cli._recording import SHIPPED, Recording, UsageError, load
from spikeloss_xp.cli._table import as_json, table

LOSSES = ("SpikeTime", "SpikeRate", "SpikeMax", "SpikeMoid", "SparsityEnforcer")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status.

    0: all backends agree; 1: some do not; 2: what was asked for cannot be done.
    """
    options = _parser().parse_args(arguments)
    try:
        return _run_compare(options)
    except UsageError as error:
        problem = str(error)
    except MemoryError:
        problem = f"{options.file or SHIPPED}: there is not enough memory to evaluate the losses"
    print(f"spikeloss-xp: error: {_printable(problem)}", file=sys.stderr)
    return 2


def _printable(text: str) -> str:
    """Escape what does not print, which names in a file and of files may have in them."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spikeloss-xp", description=spikeloss_xp.__doc__)
    version = f"spikeloss-xp {spikeloss_xp.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="evaluate the losses on every backend and compare",
        description="Evaluate the losses and their gradients on every array library found here, "
        "and compare them with NumPy in float64. The exit status is 0 if all agree, 1 if some do "
        "not, and 2 if what was asked for cannot be done.",
    )
    compare.add_argument(
        "file",
        nargs="?",
        metavar="FILE.npz",
        help="spikes `input` [batch, *space, time], with `target` (spike trains of that shape) or "
        "`label` (class indices or multi-hot), or both; by default recordings of a grasshopper's "
        "auditory receptor, which come with the library",
    )
    compare.add_argument(
        "--loss", action="append", choices=LOSSES, help="only this loss (may be repeated)"
    )
    compare.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="only this array library, by its import name (may be repeated)",
    )
    compare.add_argument(
        "--dtype", choices=EPSILON, default="float32", help="of the spikes (default: %(default)s)"
    )
    compare.add_argument(
        "--device",
        metavar="NAME",
        help="only devices of this name or kind, such as cpu, cuda or cuda:1",
    )
    compare.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _run_compare(options: argparse.Namespace) -> int:
    recording = load(options.file)
    where, unused = _places(options.backend, options.device, options.dtype)
    wanted = [
        case
        for case in cases(recording)
        if options.loss is None or case.name.partition(",")[0] in options.loss
    ]
    usable = [case for case in wanted if case.left_out is None]
    left_out = {case.name: case.left_out for case in wanted if case.left_out is not None}
    if not usable:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UsageError(f"{recording.name}: nothing to evaluate ({reasons})")

    with np.errstate(all="ignore"):  # what overflows is in the rows, and only NumPy warns of it
        rows = _rows(usable, recording, where, options.dtype)
    agree = all(row.problem is None for row in rows)
    shape = list(recording.input.shape)
    if options.json:
        about = {
            "recording": recording.name,
            "shape": shape,
            "dtype": options.dtype,
            "agree": agree,
            "unused": unused,
            "left_out": left_out,
        }
        print(as_json(rows, **about))
    else:
        print(f"{_printable(recording.name)}: spikes {shape}, {options.dtype}\n")
        print(table(rows, colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ))
        print(f"\n{_verdict(rows)}")
        for heading, why in (("Not used", unused), ("Left out", left_out)):
            for name, reason in why.items():
                print(f"{heading}: {name}: {reason}")
    return 0 if agree else 1


def _places(
    backends: Sequence[str] | None, device: str | None, dtype: str
) -> tuple[list[Place], dict[str, str]]:
    """Return where to evaluate, and why other array libraries are not used.

    A library that was asked for by name must be usable.
    """
    infos = available() if backends is None else {name: describe(name) for name in backends}
    found: list[Place] = []
    unused: dict[str, str] = {}
    for name, info in infos.items():
        here = places(info, device)
        if not info.usable:
            unused[name] = str(info.problem)
        elif not here:
            unused[name] = f"it has no device {device!r}, only {', '.join(info.devices)}"
        elif not here[0].holds(dtype):
            unused[name] = f"it has no {dtype}"
        else:
            found += here
    if not found or (backends is not None and unused):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unused.items())
        raise UsageError(f"cannot be evaluated there: {reasons}")
    return found, unused


def _rows(
    usable: Sequence[Case], recording: Recording, where: Sequence[Place], dtype: str
) -> list[Row]:
    """Evaluate, telling a terminal how far it has got."""
    rows: list[Row] = []
    terminal = sys.stderr.isatty()
    try:
        for row in compare(usable, recording, where, dtype):
            rows.append(row)
            if terminal:
                done = f"{len(rows)} of {len(usable) * len(where)}: {row.loss} on {row.place}"
                print(f"\r{done}\033[K", end="", file=sys.stderr, flush=True)
    finally:
        if terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    return rows


def _verdict(rows: Sequence[Row]) -> str:
    wrong = sum(row.problem is not None for row in rows)
    if wrong:
        return f"{wrong} of {len(rows)} rows DISAGREE with NumPy in float64."
    return (
        f"All {len(rows)} rows agree with NumPy in float64, as far as rounding allows. A "
        "difference is relative to the largest entry; the time is that of value and gradient."
    )
