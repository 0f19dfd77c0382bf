"""Commands of CONTRIBUTING.md find their tests, and a run of tests has a budget."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each starts a run


def _pytest(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    outside = {name: x for name, x in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=outside | environment
    )


def test_tests_that_contributing_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = map(shlex.split, re.findall(r"`python -m pytest ([^`]+)`", text))
    named = [word for words in commands for word in words if word.startswith("tests/")]
    assert any("::" in name for name in named)
    found = _pytest("--collect-only", "--slow", *named)
    assert not found.returncode, found.stdout + found.stderr


@pytest.mark.parametrize(("budget", "status"), [("900 90", 0), ("0.1 90", 1), ("900 0.1", 1)])
def test_run_over_the_budget_fails(budget, status):
    done = _pytest("tests/contract/test_layout.py", SPIKELOSS_XP_TEST_BUDGET=budget)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("over the budget" in done.stdout) == bool(status)
