"""The surroundings of the command: standard streams, signals, the terminal and the help."""

import argparse
import contextlib
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Any, NoReturn, TextIO


class UsageError(Exception):
    """An error in the arguments or files; the message is printed for the user."""


@contextlib.contextmanager
def usage_errors(subject: str = "") -> Iterator[None]:
    """Turn errors that the library raises for its arguments into a `UsageError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(f"{subject}{error}") from None


class Interruption(KeyboardInterrupt):
    """SIGINT or SIGTERM asked the process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def guarded(run: Callable[[], int], *, process_ends: bool) -> int:
    """Return the exit status of a function, whose errors and interruptions become messages."""
    _open_closed_streams()
    with _interruptions(process_ends=process_ends):
        message = ""
        try:
            return run()
        except UsageError as error:
            message, status = f"spikeloss-xp: error: {printable(str(error))}\n", 2
        except KeyboardInterrupt as interruption:
            number = getattr(interruption, "number", signal.SIGINT)
            message, status = "spikeloss-xp: interrupted\n", 128 + number  # as shells report it
        finally:
            _write_to(sys.stderr, message)
        return status


def _open_closed_streams() -> None:
    """Open the null device in place of standard streams that are closed, as in some services.

    The next file would otherwise get the number of such a stream, and messages that a library
    writes to the stream would get into that file.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextlib.contextmanager
def _interruptions(*, process_ends: bool) -> Iterator[None]:
    """Make SIGINT and SIGTERM raise an `Interruption`, once, so that nothing disturbs cleaning up.

    A signal that the process ignores stays ignored, as in the background of a shell. If the process
    ends afterwards, a signal then ends it at once, without the traceback that Python prints.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Interruption(number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {
        n: handler for n, handler in handlers.items() if handler not in (signal.SIG_IGN, None)
    }
    if threading.current_thread() is not threading.main_thread():
        before = {}  # only the main thread may handle signals
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if process_ends else handler)


def write(text: str) -> None:
    """Write a text to standard output, or raise a `UsageError`."""
    error = _write_to(sys.stdout, text)
    if error is not None:
        raise UsageError(f"standard output cannot be written: {error}")


def _write_to(stream: TextIO, text: str) -> OSError | None:
    """Write a text to a stream and return the error, if there is one.

    After an error the stream leads to the null device. Python would try again when it exits, print
    a traceback and change the exit status.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return error
    return None


def printable(text: str) -> str:
    """Return text with escapes for characters that are unprintable or that stdout cannot encode.

    Names of files and arrays may contain such characters.
    """
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def has_colour(stream: TextIO) -> bool:
    """Return whether to write colours: to a terminal that shows them, unless NO_COLOR is set."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Yield a function that replaces the current line on stderr, and clear that line at the end.

    The function does nothing if stderr is not a terminal.
    """

    def show(text: str) -> None:
        if sys.stderr.isatty():
            _write_to(sys.stderr, f"\r{text}\033[K")

    try:
        yield show
    finally:
        show("")


class Parser(argparse.ArgumentParser):
    """A parser that raises an error if its help cannot be written."""

    def print_help(self, file: Any = None) -> None:
        """Print the help to standard output."""
        write(self.format_help())


class Help(argparse.HelpFormatter):
    """Wrap the texts of a command, but keep the lines of its examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = (
            paragraph
            if paragraph.startswith("examples:")
            else textwrap.fill(" ".join(paragraph.split()), width)
            for paragraph in text.split("\n\n")
        )
        return textwrap.indent("\n\n".join(paragraphs), indent)


def examples(*purposes_and_commands: tuple[str, str]) -> str:
    """Return examples as the last paragraph of a help."""
    lines = (f"  # {purpose}\n  {command}" for purpose, command in purposes_and_commands)
    return "\n".join(["examples:", *lines])


def add_shared_options(parser: argparse.ArgumentParser, dtypes: Collection[str]) -> None:
    """Add the options that both commands have, beside `--backend`."""
    device_help = "a device of this name or kind, such as cpu, cuda or cuda:1"
    parser.add_argument("--device", metavar="NAME", help=device_help)
    dtype_help = "the dtype of the spikes (default: %(default)s)"
    parser.add_argument("--dtype", choices=dtypes, default="float32", help=dtype_help)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
