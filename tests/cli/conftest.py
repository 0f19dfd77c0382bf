"""The fixture `command`, which runs the command in an empty folder."""

from pathlib import Path

import pytest

from _support.terminal import Command


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(capsys)
