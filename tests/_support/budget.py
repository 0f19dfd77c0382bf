"""A plugin of the test run: its processor time, its memory, and a limit on each unit test.

Processor time counts, because the clock depends on what else the machine does.
"""

import ctypes
import gc
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from _support.backends import JAX, ON_GPU, parameters

try:
    import resource
except ImportError:  # on Windows
    resource = None

UNIT_TEST = 5.0
"""Seconds of processor time that a test may take if nothing is compiled for it."""
MANY_PROGRAMS = 0.9
"""GB of a process from which on the programs of a file are freed after it."""
BUDGET = os.environ.get("SPIKELOSS_XP_TEST_BUDGET", "")
"""Seconds of processor time and GB of a process that make a run fail, as "450 2.5"."""


BEFORE = sum(os.times()[2:4])
"""Seconds of processes that have ended: a shell that becomes this process has had some."""


def processor_time() -> float:
    """Return the seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4]) - BEFORE


def largest_process(*, of_children: bool = True) -> float:
    """Return the most memory that this process, or one that it started, has had, in GB."""
    if resource is None:
        return math.nan
    which = (resource.RUSAGE_SELF, *([resource.RUSAGE_CHILDREN] if of_children else []))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in which) / 1e9


def _has_compiler(item: pytest.Item) -> bool:
    # dpnp compiles a kernel when it is used first.
    by_backend = not parameters(item).isdisjoint((*JAX, *ON_GPU, "dpnp"))
    return by_backend or item.get_closest_marker("compiles") is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    many_seeds = item.config.getoption("--slow") or item.config.getoption("--new-seeds")
    if many_seeds or _has_compiler(item):
        return (yield)
    before = processor_time()
    result = yield
    took = processor_time() - before
    assert took < UNIT_TEST, f"{took:.1f} s of processor time, and the limit is {UNIT_TEST:.0f} s"
    return result


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After a file, free the programs that JAX has compiled, if they have become many."""
    last = nextitem is None or nextitem.path != item.path
    if last and "jax" in sys.modules and largest_process(of_children=False) > MANY_PROGRAMS:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if sys.platform == "linux":  # otherwise, glibc keeps what has been freed
            ctypes.CDLL(None).malloc_trim(0)


def _is_over() -> bool:
    seconds, memory = map(float, BUDGET.split()) if BUDGET else (math.inf, math.inf)
    return processor_time() > seconds or largest_process() > memory


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ and _is_over():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    used = f"{processor_time():.0f} s of processor time, {largest_process():.1f} GB in a process"
    limit = f": over the budget of {' s and '.join(BUDGET.split())} GB" if _is_over() else ""
    terminalreporter.line(used + limit, red=bool(limit))
