"""Entry point and argument parser of the command ``spikeloss-xp``."""

import argparse
import sys
from collections.abc import Sequence

import spikeloss_xp
from spikeloss_xp._consistency import MACHINE_EPSILON
from spikeloss_xp.cli import _compare, _evaluate
from spikeloss_xp.cli._hyper import LOSSES
from spikeloss_xp.cli._recording import SHIPPED, UsageError
from spikeloss_xp.cli._terminal import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments and return its exit status.

    The status is 0 on success, 1 if a comparison found a difference, 2 after an error in the
    arguments or files, 130 after an interruption, and 143 after SIGTERM.

    By default, the arguments are those of the process.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except UsageError as error:
        message = str(error)
    except MemoryError:
        message = f"{options.file or SHIPPED}: there is not enough memory to evaluate the losses"
    except KeyboardInterrupt:
        print("spikeloss-xp: interrupted", file=sys.stderr)
        return _evaluate.INTERRUPTED
    print(f"spikeloss-xp: error: {printable(message)}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spikeloss-xp", description=spikeloss_xp.__doc__)
    version = f"spikeloss-xp {spikeloss_xp.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_evaluate(commands)
    return parser


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="evaluate the losses on every backend and compare",
        description="Evaluate the losses and their gradients on every array library found here, "
        "and compare them with NumPy in float64. The exit status is 0 if all agree, 1 if some do "
        "not, and 2 if what was asked for cannot be done.",
    )
    compare.set_defaults(run=_compare.run)
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
        "--dtype",
        choices=MACHINE_EPSILON,
        default="float32",
        help="of the spikes (default: %(default)s)",
    )
    compare.add_argument(
        "--device",
        metavar="NAME",
        help="only devices of this name or kind, such as cpu, cuda or cuda:1",
    )
    compare.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate a loss of each sample of a file",
        description="Evaluate a loss of each sample of a file, which may be larger than the "
        "memory, and write the losses beside it. If it is interrupted, the same command goes on. "
        "The exit status is 0 if all is done, 2 if what was asked for cannot be done, 130 after an "
        "interruption from the keyboard, and 143 after SIGTERM.",
    )
    evaluate.set_defaults(run=_evaluate.run)
    evaluate.add_argument(
        "file",
        metavar="FILE",
        help="spikes `input` [batch, *space, time], with `target` (spike trains of that shape) or "
        "`label` (class indices or multi-hot), or both, and perhaps `lengths` [batch]; or spike "
        "times, see below: an .npz file, a folder of .npy files, or a folder of Zarr arrays (which "
        "needs zarr)",
    )
    evaluate.add_argument("--loss", required=True, choices=LOSSES, help="the loss to evaluate")
    evaluate.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the loss, such as moving_window=50 or true_rate=0.2,0.5 (may be "
        "repeated)",
    )
    _add_spike_time_options(evaluate)
    _add_backend_options(evaluate)
    _add_output_options(evaluate)


def _add_spike_time_options(evaluate: argparse.ArgumentParser) -> None:
    times = evaluate.add_argument_group(
        "spike times",
        "In place of `input`, a file may hold `times`, `neuron` and, for several samples, "
        "`sample`, with one entry for each spike, in the order of the samples. They are binned to "
        "[sample, neuron, step]. Numbers that the file holds, by the names of these options, need "
        "not be given.",
    )
    times.add_argument("--neurons", type=_positive_integer, metavar="N", help="how many neurons")
    times.add_argument("--steps", type=_positive_integer, metavar="N", help="how many time steps")
    times.add_argument(
        "--samples",
        type=_positive_integer,
        metavar="N",
        help="how many samples (default: one for each label, or 1 without `sample`)",
    )
    times.add_argument(
        "--time-step",
        type=float,
        metavar="X",
        help="length of a step, in the unit of `times` (default: 1)",
    )
    times.add_argument(
        "--start", type=float, metavar="X", help="time at which the first step begins (default: 0)"
    )


def _add_backend_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--backend",
        default="numpy",
        metavar="NAME",
        help="the array library, by its import name (default: %(default)s)",
    )
    evaluate.add_argument(
        "--device",
        metavar="NAME",
        help="a device of this name or kind, such as cpu, cuda or cuda:1 (default: the library's)",
    )
    evaluate.add_argument(
        "--dtype",
        choices=("float32", "float64"),
        default="float32",
        help="of the spikes (default: %(default)s)",
    )


def _add_output_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--batch",
        type=_positive_integer,
        metavar="N",
        help="how many samples to read and evaluate at a time (default: those of some 4 million "
        "entries)",
    )
    evaluate.add_argument(
        "--output",
        metavar="FILE.npy",
        help="where to write the losses, float64 [batch]; a record of them goes to FILE.npy.json "
        "(default: beside FILE, by its name and that of the loss)",
    )
    evaluate.add_argument(
        "--restart", action="store_true", help="begin anew, whatever was done before"
    )
    evaluate.add_argument(
        "--json", action="store_true", help="print JSON instead of text when all is done"
    )


def _positive_integer(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a number from 1 upwards; got {text!r}")
    return int(text)
