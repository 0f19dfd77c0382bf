"""The surroundings of the command: standard streams, signals, the terminal and the help."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from spikeloss_xp._interruption import INTERRUPTED


class UsageError(Exception):
    """An error in the arguments or files; the message is printed for the user."""


@contextlib.contextmanager
def usage_errors(subject: str = "") -> Iterator[None]:
    """Turn the errors of the library into a `UsageError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise UsageError(f"{subject}{error}") from None


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
            number, *_ = interruption.args or (signal.SIGINT,)
            message, status = INTERRUPTED, 128 + number  # as shells report it
        finally:
            show_status("")
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
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


@contextlib.contextmanager
def _interruptions(*, process_ends: bool) -> Iterator[None]:
    """Make SIGINT and SIGTERM raise an error, once, so that nothing disturbs cleaning up.

    A signal that the process ignores stays ignored, as in the background of a shell. If the process
    ends afterwards, a signal then ends it at once, without the traceback that Python prints.
    """

    def interrupt(number: int, frame: Any) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    main = threading.current_thread() is threading.main_thread()  # only it may handle signals
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM) if main}
    before = {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if process_ends else handler)


def write(text: str) -> None:
    """Write a text to standard output, or raise a `UsageError`."""
    show_status("")
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


def show_status(text: str) -> None:
    """Replace the current line on stderr if it is a terminal."""
    if sys.stderr.isatty():
        _write_to(sys.stderr, f"\r{text}\033[K")


class Parser(argparse.ArgumentParser):
    """A parser that keeps the lines of its texts, and raises an error if it cannot write its help.

    Sub-parsers are of the same class.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def print_help(self, file: Any = None) -> None:
        """Print the help to standard output."""
        write(self.format_help())
