"""Run the tests of one backend within a time limit; write a line of JSON for each test.

``python tools/gpu/verify.py`` runs this in processes of their own, so that a crash or a test that
hangs loses no result but its own. It needs pytest and none of its plugins.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Results:
    """A plugin that writes what came of each test, and ends the run after a time limit."""

    def __init__(self, out: Path, seconds: float, part: int, parts: int) -> None:
        self._lines = out.open("w", encoding="utf-8")
        self._deadline = time.monotonic() + seconds
        self._part, self._parts = part, parts

    def _write(self, **fields: object) -> None:
        self._lines.write(json.dumps(fields) + "\n")
        self._lines.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list) -> None:
        items[:] = items[self._part :: self._parts]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(selected=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(test=report.nodeid, outcome="failed", message=_message(report))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            # An error after the test is a line of its own: the test is then counted as failed.
            message = _message(report) if report.failed else ""
            self._write(test=report.nodeid, outcome=report.outcome, message=message)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        result = yield
        if time.monotonic() > self._deadline:
            item.session.shouldstop = "the time limit"
        return result


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the first lines of the message of the error."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[:4])[:300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backend")
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("part", type=int)
    parser.add_argument("parts", type=int)
    parser.add_argument("paths", nargs="+", help="relative to tests/")
    chosen = parser.parse_args()
    results = Results(chosen.out, chosen.seconds, chosen.part, chosen.parts)
    # Not the options of pyproject.toml, one of which needs pytest-benchmark.
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(ROOT),
        "-o",
        "addopts=--strict-markers",
    ]
    options += ["-c", str(ROOT / "pyproject.toml"), "--continue-on-collection-errors"]
    paths = [str(ROOT / "tests" / path) for path in chosen.paths]
    return int(pytest.main([*options, "--backend", chosen.backend, *paths], plugins=[results]))


if __name__ == "__main__":
    sys.exit(main())
