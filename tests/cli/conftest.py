"""The fixture `command`, which runs the command in this process, in an empty folder."""

import itertools
import re
from typing import Any

import pytest

from spikeloss_xp.cli import _compare, main


class Command:
    """The command. Its arguments are words, or texts of several words."""

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


@pytest.fixture
def command(capsys, monkeypatch, tmp_path) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_compare, "MAX_CALLS", 2)  # of each loss, to time it
    return Command(capsys)
