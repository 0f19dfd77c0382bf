"""Entry point of the command ``spikeloss-xp``.

Everything is imported inside of functions, so that an interruption of the imports is handled too.
"""

from collections.abc import Sequence


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
        return 130


def _run(arguments: Sequence[str] | None) -> int:
    from spikeloss_xp.cli import _compare, _evaluate, _terminal

    parser = _terminal.Parser(
        prog="spikeloss-xp",
        description="Evaluate spike-train losses on files, and compare array libraries.",
        epilog=f"examples:\n{_compare.EXAMPLES}\n{_evaluate.EXAMPLES}",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, command in (("compare", _compare), ("evaluate", _evaluate)):
        texts = {"help": command.HELP, "description": command.DESCRIPTION}
        added = commands.add_parser(name, **texts, epilog=f"examples:\n{command.EXAMPLES}")
        added.set_defaults(run=command.run)
        command.add_options(added)
    options = parser.parse_args(arguments)
    if options.version:
        from importlib import metadata  # imports 50 modules

        _terminal.write(f"spikeloss-xp {metadata.version('spikeloss-xp')}\n")
        return 0
    if "run" not in options:
        parser.error("name a COMMAND: compare or evaluate")
    try:
        return int(options.run(options))
    except MemoryError:
        name = options.file or _compare.SHIPPED
        message = f"{name}: there is not enough memory to evaluate the losses"
        raise _terminal.UsageError(message) from None
