"""The command ``spikeloss-xp``."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from spikeloss_xp import __version__
from spikeloss_xp.cli import _compare


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0 on success, 1 if a comparison finds a difference, 2 after an error, and 130
    after Ctrl-C. By default, the arguments of the process are used.
    """
    options = _parser().parse_args(arguments)
    try:
        return _compare.run(options)
    except _compare.UsageError as error:
        print(f"spikeloss-xp: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the program that reads the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed when Python exits
        return 2
    except KeyboardInterrupt:
        print("spikeloss-xp: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    texts: dict[str, Any] = {
        "description": _compare.DESCRIPTION,
        "epilog": _compare.EXAMPLES,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = argparse.ArgumentParser(prog="spikeloss-xp", **texts)
    parser.add_argument("--version", action="version", version=f"spikeloss-xp {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    compare = commands.add_parser("compare", help=_compare.HELP, **texts)
    _compare.add_options(compare)
    return parser
