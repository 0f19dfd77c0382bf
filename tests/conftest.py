"""Options of the test run, and the fixture `backend`, which runs a test on every array library."""

from collections.abc import Iterator

import pytest

from _support.root import check_one_root

check_one_root()  # before anything imports the library
pytest.register_assert_rewrite("_support")

from _support.backends import MISSING, TESTED, Backend, on


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked as slow")


def pytest_report_header() -> list[str]:
    return [f"{name} is not tested: {reason}" for name, reason in MISSING.items()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests, unless they are asked for or are all that was asked for."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    if not config.getoption("--slow") and len(slow) < len(items):
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)


@pytest.fixture(params=TESTED)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with on(request.param) as found:
        yield found
