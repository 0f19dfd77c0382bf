"""The fixture `command`, which runs the command in this process, in an empty folder."""

import re
from typing import Any

import pytest

from spikeloss_xp.cli import _compare, main


class Command:
    """The command; call it with a command line."""

    def __init__(self, capsys: Any) -> None:
        self._capsys = capsys

    def __call__(self, line: str) -> tuple[int, str, str]:
        """Run the command and return exit status, standard output and standard error."""
        return main(line.split()), *self._capsys.readouterr()

    def error(self, line: str) -> str:
        """Run the command, which must fail, and return its error, which must be one line."""
        status, out, err = self(line)
        assert (status, out) == (2, "")
        assert re.fullmatch(r"spikeloss-xp: error: .*\n", err), err
        return err


@pytest.fixture
def command(capsys, monkeypatch, tmp_path) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_compare, "MAX_CALLS", 2)  # to time each loss
    return Command(capsys)
