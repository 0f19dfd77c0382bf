"""Run the command in this process, and commands on a pseudo-terminal."""

import os
import re
import subprocess
from typing import Any

from spikeloss_xp.cli import main


def run(capsys: Any, *arguments: Any) -> tuple[int, str, str]:
    """Run the command and return exit status, standard output and standard error."""
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


def error_of(result: tuple[int, str, str], path: Any = "") -> str | None:
    """Return the error of a run of the command, which must be one short line, or None."""
    status, out, err = result
    if status == 0:
        assert err == ""
        return None
    assert (status, out) == (2, "")
    assert re.fullmatch(r"spikeloss-xp: error: .*\n", err), err  # one line
    assert len(err) < len(str(path)) + 600
    assert not err.endswith(": \n")  # some exceptions have no message
    return err


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
