"""Timing side by side: every round runs each contender, so that a busy machine slows all alike.

In each round a contender runs once before it is timed, because its first run after another
contender depends on how much freed memory the other has left to it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

MIN_ROUNDS, MIN_SECONDS, MAX_ROUNDS = 7, 2.0, 200
MIN_SAMPLE_SECONDS = 2e-3  # shorter runs are repeated until a sample takes about this long
Clock = Callable[[Callable[[], Any], int], float]


def wall_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Return the seconds of one run, as the mean over `repeats` runs."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def measure_seconds(
    runs: dict[str, Callable[[], Any]],
    clock: Clock = wall_seconds,
    *,
    min_rounds: int = MIN_ROUNDS,
    min_seconds: float = MIN_SECONDS,
) -> dict[str, list[float]]:
    """Return the seconds of one run, for each contender and round."""
    repeats = {}
    for name, run in runs.items():
        run()  # compiles, fills caches
        once = clock(run, 1)
        repeats[name] = max(1, round(MIN_SAMPLE_SECONDS / once))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    while True:
        for name, run in runs.items():
            run()
            seconds[name].append(clock(run, repeats[name]))
        rounds = len(seconds[name])
        if rounds >= MAX_ROUNDS:
            return seconds
        if rounds >= min_rounds and time.perf_counter() - start > min_seconds:
            return seconds


def time_ratio(seconds: dict[str, list[float]], name: str, reference: str) -> float:
    """Return the median over the rounds of the time of `name` divided by that of `reference`."""
    pairs = zip(seconds[name], seconds[reference], strict=True)
    return statistics.median(numerator / denominator for numerator, denominator in pairs)
