"""Timing side by side: every round runs each contender, so that a busy machine hits all.

Once before the clock starts, as in a loop of its own: the first run after another contender finds
the memory that it needs given back to the system, or does not, by how much the other used.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

LEAST_ROUNDS, LEAST_SECONDS, MOST_ROUNDS = 7, 2.0, 200
SHORTEST = 2e-3  # a sample is at least this long, in seconds, of repeated runs


def seconds(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Return how long one run took, for each contender, in each of the rounds."""
    repeats = {}
    for name, run in runs.items():
        run()  # compiles, fills caches
        once = _timed(run, 1)
        repeats[name] = max(1, round(SHORTEST / once))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while True:
        for name, run in runs.items():
            run()
            taken[name].append(_timed(run, repeats[name]))
        rounds = len(taken[name])
        if rounds >= MOST_ROUNDS:
            return taken
        if rounds >= LEAST_ROUNDS and time.perf_counter() - start > LEAST_SECONDS:
            return taken


def _timed(run: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def times_as_long(taken: dict[str, list[float]], name: str, ours: str) -> float:
    """Return how many times as long as ours another takes: the median over the rounds."""
    pairs = zip(taken[name], taken[ours], strict=True)
    return statistics.median(theirs / own for theirs, own in pairs)
