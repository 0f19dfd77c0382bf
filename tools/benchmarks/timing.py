"""Timing side by side: every round runs each contender, so that a busy machine slows all alike.

In each round a contender runs once before it is timed, because its first run after another
contender depends on how much freed memory the other has left to it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIN_ROUNDS, MIN_SECONDS, MAX_ROUNDS = 7, 2.0, 200
MIN_SAMPLE_SECONDS = 2e-3  # shorter runs are repeated until a sample takes about this long


def measure_seconds(
    runs: dict[str, Callable[[], Any]],
    *,
    min_rounds: int = MIN_ROUNDS,
    min_seconds: float = MIN_SECONDS,
    wait: Callable[[], Any] = lambda: None,
) -> dict[str, list[float]]:
    """Return the seconds of one run, for each contender and round.

    `wait` returns when the device of the runs has finished them.
    """

    def clock(run: Callable[[], Any], repeats: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        wait()
        return (time.perf_counter() - start) / repeats

    repeats = {}
    for name, run in runs.items():
        run()  # compiles, fills caches
        repeats[name] = max(1, round(MIN_SAMPLE_SECONDS / clock(run, 1)))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for number in range(1, MAX_ROUNDS + 1):
        for name, run in runs.items():
            run()
            seconds[name].append(clock(run, repeats[name]))
        if number >= min_rounds and time.perf_counter() - start > min_seconds:
            break
    return seconds


def median_milliseconds(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds)


def time_ratio(seconds: dict[str, list[float]], name: str, reference: str) -> float:
    """Return the median over the rounds of the time of `name` divided by that of `reference`."""
    pairs = zip(seconds[name], seconds[reference], strict=True)
    return statistics.median(numerator / denominator for numerator, denominator in pairs)


def times(runs: dict[str, Callable[[], Any]], **options: Any) -> dict[str, Any]:
    """Return the milliseconds of the contender "ours", and the ratios of the others to it."""
    seconds = measure_seconds(runs, **options)
    ratios = {name: time_ratio(seconds, name, "ours") for name in runs if name != "ours"}
    return {"milliseconds": median_milliseconds(seconds["ours"]), "ratios": ratios}


def in_new_process(*command: str, **environment: str) -> list[Any]:
    """Run Python in this folder with these arguments; return the lines of JSON that it prints."""
    ran = subprocess.run(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True,
        env=os.environ | environment, cwd=Path(__file__).parent,
    )  # fmt: skip
    return [json.loads(line) for line in ran.stdout.splitlines()]
