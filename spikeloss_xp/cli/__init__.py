"""Entry point and argument parser of the command ``spikeloss-xp``."""

import argparse
import sys
import textwrap
from collections.abc import Sequence

import spikeloss_xp
from spikeloss_xp._consistency import MACHINE_EPSILON
from spikeloss_xp.cli import _compare, _evaluate
from spikeloss_xp.cli._hyper import LOSSES
from spikeloss_xp.cli._recording import SHIPPED, UsageError
from spikeloss_xp.cli._terminal import printable

EXAMPLES = {  # by command, in the order that --help prints them
    "compare": (
        ("compare every library on the recording that comes with this one", "spikeloss-xp compare"),
        (
            "compare one loss in double precision, on spikes of your own",
            "spikeloss-xp compare recording.npz --loss SpikeTime --dtype float64",
        ),
    ),
    "evaluate": (
        (
            "write the loss of each sample to test.SpikeMax.npy",
            "spikeloss-xp evaluate test.npz --loss SpikeMax",
        ),
        (
            "one loss a step, from the rates in a window of 20 steps",
            "spikeloss-xp evaluate test.npz --loss SpikeMax --option moving_window=20",
        ),
    ),
}


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


class _Help(argparse.HelpFormatter):
    """Wrap the texts of a command, but keep the lines of its examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (
            paragraph
            if paragraph.startswith("examples:")
            else textwrap.fill(" ".join(paragraph.split()), width)
            for paragraph in text.split("\n\n")
        )
        return textwrap.indent("\n\n".join(paragraphs), indent)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spikeloss-xp",
        description="Evaluate spike-train losses on files, and compare array libraries.",
        epilog=_examples(*EXAMPLES),
        formatter_class=_Help,
    )
    version = f"spikeloss-xp {spikeloss_xp.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_compare(commands)
    _add_evaluate(commands)
    return parser


def _examples(*commands: str) -> str:
    """Return the examples of commands as the last paragraph of their help."""
    lines = [
        f"  # {purpose}\n  {command}" for name in commands for purpose, command in EXAMPLES[name]
    ]
    return "\n".join(["examples:", *lines])


def _add_compare(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser(
        "compare",
        help="evaluate the losses on every array library and compare the results",
        description="Evaluate the losses and their gradients on every array library of this "
        "machine, and compare them with NumPy in float64. The exit status is 0 if all results "
        "agree, 1 if some do not, and 2 after an error in the arguments or the file.",
        epilog=_examples("compare"),
        formatter_class=_Help,
    )
    compare.set_defaults(run=_compare.run)
    _add_compare_options(compare)


def _add_compare_options(compare: argparse.ArgumentParser) -> None:
    compare.add_argument(
        "file",
        nargs="?",
        metavar="FILE.npz",
        help="a file with spikes `input` [batch, *space, time], and `target` (spike trains of that "
        "shape) or `label` (class indices or multi-hot labels), or both; by default a recording of "
        "a grasshopper's auditory receptor, which comes with the library",
    )
    compare.add_argument(
        "--loss",
        action="append",
        choices=LOSSES,
        metavar="LOSS",
        help=f"compare only this loss, one of {', '.join(LOSSES)} (may be repeated)",
    )
    compare.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="compare only this array library, by its import name (may be repeated)",
    )
    compare.add_argument(
        "--dtype",
        choices=MACHINE_EPSILON,
        default="float32",
        help="the dtype of the spikes (default: %(default)s)",
    )
    compare.add_argument(
        "--device",
        metavar="NAME",
        help="use only devices of this name or kind, such as cpu, cuda or cuda:1",
    )
    compare.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate a loss of each sample of a file",
        description="Evaluate a loss of each sample of a file and write the losses beside the "
        "file, which may be larger than the memory. If the labels are class indices, the summary "
        "has the accuracy too. After an interruption, run the same command again to go on. The "
        "exit status is 0 if all samples are done, 2 after an error in the arguments or the file, "
        "130 after an interruption from the keyboard, and 143 after SIGTERM.",
        epilog=_examples("evaluate"),
        formatter_class=_Help,
    )
    evaluate.set_defaults(run=_evaluate.run)
    evaluate.add_argument(
        "file",
        metavar="FILE",
        help="an .npz file, a folder of .npy files, or a folder of Zarr arrays (which needs zarr). "
        "It holds spikes `input` [batch, *space, time], or spike times as described below; with "
        "them `target` (spike trains of that shape) or `label` (class indices or multi-hot "
        "labels), or both; and optionally `lengths` [batch]",
    )
    evaluate.add_argument(
        "--loss",
        required=True,
        choices=LOSSES,
        metavar="LOSS",
        help=f"the loss to evaluate: {', '.join(LOSSES)}",
    )
    evaluate.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the loss, such as true_rate=0.2,0.5 or moving_window=50 (may be "
        "repeated). A moving window of any length takes 6 to 30 times as long as rates over all "
        "time, and memory for three more arrays of the size of a batch",
    )
    _add_spike_time_options(evaluate)
    _add_backend_options(evaluate)
    _add_output_options(evaluate)


def _add_spike_time_options(evaluate: argparse.ArgumentParser) -> None:
    times = evaluate.add_argument_group(
        "spike times",
        "In place of `input`, a file may hold `times`, `neuron` and, for several samples, "
        "`sample`, with one entry for each spike, sorted by sample. They are binned to "
        "[sample, neuron, step]. The file may also hold the numbers below, under the names of the "
        "options; an option comes before the number in the file.",
    )
    times.add_argument("--neurons", type=_positive_integer, metavar="N", help="number of neurons")
    times.add_argument("--steps", type=_positive_integer, metavar="N", help="number of time steps")
    times.add_argument(
        "--samples",
        type=_positive_integer,
        metavar="N",
        help="number of samples (default: one for each label, or 1 without `sample`)",
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
        help="the dtype of the spikes (default: %(default)s)",
    )


def _add_output_options(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--batch",
        type=_positive_integer,
        metavar="N",
        help="number of samples to read and evaluate at a time (default: about 4 million entries "
        "of `input`)",
    )
    evaluate.add_argument(
        "--output",
        metavar="FILE.npy",
        help="where to write the losses, float64 [batch]; a record of the run goes to "
        "FILE.npy.json (default: beside FILE, named after FILE and the loss)",
    )
    evaluate.add_argument(
        "--restart", action="store_true", help="begin anew and discard the losses of earlier runs"
    )
    evaluate.add_argument(
        "--json", action="store_true", help="print the summary as JSON instead of text"
    )


def _positive_integer(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1; got {text!r}")
    return int(text)
