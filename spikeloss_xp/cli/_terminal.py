"""What the command shows on a terminal, and how it prints what may not print."""

import contextlib
import sys
from collections.abc import Callable, Iterator


def printable(text: str) -> str:
    """Escape what does not print, which names in a file and of files may have in them."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


@contextlib.contextmanager
def status_line() -> Iterator[Callable[[str], None]]:
    """Give a function that shows a line in place of the last one; on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        yield lambda text: print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
