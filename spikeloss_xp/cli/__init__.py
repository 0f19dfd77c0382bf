"""Entry point of the command ``spikeloss-xp``.

Everything is imported inside of functions, so that an interruption of the imports is handled too.
"""

import sys
from collections.abc import Sequence
from typing import Any

from spikeloss_xp._interruption import INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments and return its exit status.

    The status is 0 on success, 1 if a comparison found a difference, 2 after an error, 130 after an
    interruption from the keyboard, and 143 after SIGTERM.

    By default, the arguments are those of the process, which is expected to end after the call.
    """
    try:
        from spikeloss_xp.cli import _terminal

        return _terminal.guarded(lambda: _run(arguments), process_ends=arguments is None)
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from spikeloss_xp import __version__
    from spikeloss_xp.cli import _compare, _terminal

    texts: dict[str, Any] = {"description": _compare.DESCRIPTION, "epilog": _compare.EXAMPLES}
    parser = _terminal.Parser(prog="spikeloss-xp", **texts)
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    _compare.add_options(commands.add_parser("compare", help=_compare.HELP, **texts))
    options = parser.parse_args(arguments)
    if options.version:
        _terminal.write(f"spikeloss-xp {__version__}\n")
        return 0
    if options.command is None:
        parser.error("name a COMMAND: compare")
    try:
        return _compare.run(options)
    except MemoryError:
        name = options.file or _compare.SHIPPED
        message = f"{name}: there is not enough memory to evaluate the losses"
        raise _terminal.UsageError(message) from None
