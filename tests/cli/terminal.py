"""What the command shows where its output is a terminal."""

import os
import subprocess
from typing import Any


def shown(command: list[Any], *, status: int, only_errors: bool = False, **options: Any) -> bytes:
    """Run a command on a terminal, and return what it shows there.

    Standard error is on it, and standard output too unless `only_errors`.
    """
    import pty  # which Windows has not

    ours, theirs = pty.openpty()
    output = subprocess.DEVNULL if only_errors else theirs
    process = subprocess.Popen(command, stdout=output, stderr=theirs, **options)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # what Linux answers when the other end has closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    assert process.wait() == status
    return b"".join(parts)
