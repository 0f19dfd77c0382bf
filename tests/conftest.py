"""Command-line options, and the fixture `backend`, which runs a test on every array library."""

import gc
import itertools
import secrets
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.register_assert_rewrite("_support")

from _support.compilers import configure
from _support.root import check_one_root

check_one_root()  # before anything imports the library
configure()  # before anything imports JAX

from _support import budget
from _support.backends import BACKENDS, JAX, MISSING, TESTED, Backend, on, parameters


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked as slow")
    parser.addoption(
        "--only-slow", action="store_true", help="run only the cases that a quick run leaves out"
    )
    parser.addoption(
        "--backend", choices=tuple(BACKENDS), help="run only the cases on this array library"
    )
    parser.addoption("--seed", type=int, help="run the tests of random calls with this seed only")
    parser.addoption(
        "--new-seeds",
        type=float,
        metavar="SECONDS",
        help="let each test of random calls draw new seeds for this long",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(budget)
    config.option.slow |= config.option.only_slow


def pytest_report_header() -> list[str]:
    return [f"{name} is not tested: {reason}" for name, reason in MISSING.items()]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow cases, unless `--slow` is given or all selected cases are slow.

    With `--only-slow`, deselect all other cases instead. Tests that use the fixtures `seeds` or
    `pytestconfig` are kept, because they may do more in a slow run.

    With `--backend`, first deselect all cases that do not have the library as a parameter.
    """
    if name := config.getoption("--backend"):
        _deselect(config, items, {item for item in items if name not in parameters(item)})
    if config.getoption("--only-slow"):
        longer = {
            i for i in items if {"seeds", "pytestconfig"} & set(getattr(i, "fixturenames", ()))
        }
        _deselect(config, items, set(items) - _slow_cases(items) - longer)
    if config.getoption("--slow"):
        return
    slow = _slow_cases(items)
    if len(slow) < len(items):
        _deselect(config, items, slow)


def pytest_collection_finish() -> None:
    gc.freeze()  # so that garbage collections do not traverse the tests and the libraries


def _deselect(config: pytest.Config, items: list[pytest.Item], out: set[pytest.Item]) -> None:
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=list(out))


def _slow_cases(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return the cases marked as slow, and all but one of each test's cases on JAX.

    A marker ``slow(but=n)`` exempts `n` of a test's cases. JAX compiles every case, which takes
    longer than running the case on all other libraries. Which case on JAX remains depends on the
    name of the file, so that it does not change when a test is renamed.
    """
    marked: dict[tuple[Path, str], list[pytest.Item]] = {}
    on_jax: dict[tuple[Path, str], list[pytest.Item]] = {}
    for item in items:
        test = item.path, item.originalname
        if item.get_closest_marker("slow"):
            marked.setdefault(test, []).append(item)
        elif not parameters(item).isdisjoint(JAX):
            on_jax.setdefault(test, []).append(item)
    quick: set[pytest.Item] = set()
    for cases in marked.values():
        number = max(mark.kwargs.get("but", 0) for mark in cases[0].iter_markers("slow"))
        quick.update(cases[(2 * i + 1) * len(cases) // (2 * number)] for i in range(number))
    for (path, _), cases in on_jax.items():  # 32-bit in half of the files, 64-bit in the others
        half = zlib.crc32(path.name.encode()) % 2
        quick.add(cases[(1 + 2 * half) * len(cases) // 4])
    found = itertools.chain.from_iterable((*marked.values(), *on_jax.values()))
    return set(found) - quick


@pytest.fixture(params=TESTED)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with on(request.param) as found:
        yield found


@pytest.fixture(params=["host", "device"])
def readable(request: pytest.FixtureRequest, backend: Backend) -> Callable[..., Any]:
    """Return a function that makes arrays whose values the library reads without waiting."""
    if request.param == "host":
        return np.asarray
    if not backend.reads_values:
        pytest.skip(f"{backend.name} does not read the values of its arrays")
    return backend.asarray


@pytest.fixture
def no_compute() -> Iterator[None]:
    """Fail the test if Dask computes anything with its default scheduler."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("Dask computed something before `compute` was called")

    with pytest.importorskip("dask").config.set(scheduler=refuse):
        yield


SLOW_SEEDS = 2
"""The factor by which the slow run has more seeds than the quick run."""


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Callable[..., Iterable[int]]:
    """Return a function that returns the seeds for a test of random calls.

    The function takes the number of seeds in the quick run and the factor for the slow run. Two
    runs with the same options have the same seeds, unless the option is `--new-seeds`.
    """
    option = request.config.getoption
    if (seed := option("--seed")) is not None:
        return lambda number, slow=0: [seed]
    if (seconds := option("--new-seeds")) is not None:
        return lambda number, slow=0: _new_seeds(seconds)
    return lambda number, slow=SLOW_SEEDS: range(number * slow if option("--slow") else number)


def _new_seeds(seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield secrets.randbits(32)
