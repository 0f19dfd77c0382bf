"""Terminal output: colour, a status line, and escapes for unprintable characters."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import TextIO


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
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield lambda text: print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
