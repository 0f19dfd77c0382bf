"""Run commands on a pseudo-terminal."""

import os
import subprocess
from typing import Any


def run_on_terminal(
    command: list[Any], *, status: int, only_errors: bool = False, **options: Any
) -> bytes:
    """Run a command on a pseudo-terminal and return its output there.

    The terminal receives standard error, and standard output too unless `only_errors` is true.
    """
    import pty  # not available on Windows

    parent_end, child_end = pty.openpty()
    output = subprocess.DEVNULL if only_errors else child_end
    process = subprocess.Popen(command, stdout=output, stderr=child_end, **options)
    os.close(child_end)
    parts = []
    while True:
        try:
            part = os.read(parent_end, 4096)
        except OSError:  # Linux raises it once the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(parent_end)
    assert process.wait() == status
    return b"".join(parts)
