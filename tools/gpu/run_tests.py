"""Run the tests of one backend within a time limit; print a line of JSON for each test.

``python tools/gpu/verify.py`` runs this in processes of their own, so that a crash or a test that
hangs loses no result but its own. It needs pytest and none of its plugins.
"""

import json
import os
import sys
import time

import pytest

from processes import ROOT, TESTS

STDOUT = os.dup(1)  # pytest redirects 1 while a test runs


def write(**fields: object) -> None:
    os.write(STDOUT, f"\n{json.dumps(fields)}\n".encode())


def message(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return the first lines of the message of the error."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[:4])[:300]


class Results:
    """A plugin that writes what came of each test, and ends the run after a time limit."""

    def __init__(self, seconds: float, part: int, parts: int) -> None:
        self.deadline, self.share = time.monotonic() + seconds, slice(part, None, parts)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = items[self.share]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        write(selected=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            write(test=report.nodeid, outcome="failed", message=message(report))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            # An error after the test is a line of its own: the test is then counted as failed.
            text = message(report) if report.failed else ""
            write(test=report.nodeid, outcome=report.outcome, message=text)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        result = yield
        if time.monotonic() > self.deadline:
            item.session.shouldstop = "the time limit"
        return result


def main(backend: str, paths: list[str], **limits: float) -> int:
    os.environ["SPIKELOSS_XP_REQUIRED_BACKENDS"] = backend
    # Not the options of pyproject.toml, one of which needs pytest-benchmark.
    options = f"-q -p no:cacheprovider --continue-on-collection-errors --backend {backend}".split()
    options += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    options += ["-o", "addopts=--strict-markers", *(str(TESTS / path) for path in paths)]
    status = int(pytest.main(options, plugins=[Results(**limits)]))
    return 0 if status in (0, 1, 2, 5) else status  # those of a run that came to its end


if __name__ == "__main__":
    sys.exit(main(**json.loads(sys.argv[1])))
