"""Run the command in this process, and commands on a pseudo-terminal."""

import itertools
import os
import re
import subprocess
from typing import Any

from spikeloss_xp.cli import main


class Command:
    """The command, run in this process. Its arguments are words, or texts of several words."""

    def __init__(self, capsys: Any) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: Any) -> tuple[int, str, str]:
        """Run the command and return exit status, standard output and standard error."""
        parts = (x.split() if isinstance(x, str) else [str(x)] for x in arguments)
        return main(list(itertools.chain(*parts))), *self._capsys.readouterr()

    def error(self, *arguments: Any) -> str | None:
        """Return the error of the command, which must be one short line, or None."""
        status, out, err = self(*arguments)
        if status == 0:
            assert err == ""
            return None
        assert (status, out) == (2, "")
        assert re.fullmatch(r"spikeloss-xp: error: .*\n", err), err  # one line
        assert len(err) < sum(len(str(x)) for x in arguments) + 600
        assert not err.endswith(": \n")  # some exceptions have no message
        return err


def run_on_terminal(command: list[Any], *, status: int, **options: Any) -> bytes:
    """Run a command on a pseudo-terminal and return its output, but for redirected streams."""
    import pty  # not available on Windows

    parent_end, child_end = pty.openpty()
    streams = {"stdout": child_end, "stderr": child_end, **options}
    process = subprocess.Popen(command, **streams)
    os.close(child_end)
    parts = []
    try:
        while part := os.read(parent_end, 4096):
            parts.append(part)
    except OSError:  # Linux raises it once the other end is closed
        pass
    os.close(parent_end)
    assert process.wait() == status
    return b"".join(parts)
