"""The fixture `command`, which runs the command in an empty folder."""

from pathlib import Path

import pytest

from _support.terminal import Command
from spikeloss_xp.cli import _compare


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_compare, "MAX_CALLS", 2)  # of each loss, to time it
    return Command(capsys)
