"""Time contenders in turn: every round runs each of them, so that a busy machine slows them alike.

In each round, a contender runs once before it is timed, because its first run depends on how much
freed memory the previous contender has left behind.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("numpy", "torch", "jax", "optax", "scipy", "lava-dl", "snntorch")
MAX_ROUNDS = 200
MIN_SAMPLE_SECONDS = 2e-3  # shorter runs are repeated until a sample takes about this long


def medians(
    runs: dict[str, Callable[[], Any]],
    reference: str = "ours",
    *,
    min_rounds: int = 7,
    min_seconds: float = 2.0,
    wait: Callable[[], Any] = lambda: None,
) -> dict[str, tuple[float, float]]:
    """Return the run time of each contender in milliseconds, and its ratio to the reference.

    Both are medians over the rounds. `wait` must block until the device has finished all work.
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
        run()  # compiles functions and fills caches
        repeats[name] = max(1, round(MIN_SAMPLE_SECONDS / clock(run, 1)))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    start = time.perf_counter()
    for number in range(1, MAX_ROUNDS + 1):
        for name, run in runs.items():
            run()
            seconds[name].append(clock(run, repeats[name]))
        if number >= min_rounds and time.perf_counter() - start > min_seconds:
            break
    return {
        name: (1e3 * float(np.median(own)), float(np.median(np.divide(own, seconds[reference]))))
        for name, own in seconds.items()
    }


def times(runs: dict[str, Callable[[], Any]], **options: Any) -> dict[str, Any]:
    """Return the milliseconds of the contender "ours", and the other contenders' ratios to it."""
    found = medians(runs, **options)
    milliseconds, _ = found.pop("ours")
    return {"milliseconds": milliseconds, "ratios": {name: x for name, (_, x) in found.items()}}


def forget_peak() -> None:
    """Reset the peak memory of this process to its current memory. This works only on Linux."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def in_new_process(*command: str, **environment: str) -> list[Any]:
    """Run Python in this folder with these arguments, and return the JSON lines that it prints."""
    options = {"env": os.environ | environment, "cwd": Path(__file__).parent}
    printed = subprocess.check_output([sys.executable, *command], text=True, **options)
    return [json.loads(line) for line in printed.splitlines()]


def machine() -> str:
    """Return a description of the processor, the system and the library versions."""
    installed = {x.name.lower(): x.version for x in importlib.metadata.distributions() if x.name}
    versions = ", ".join(f"{name} {installed[name]}" for name in LIBRARIES if name in installed)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next(line.partition(": ")[2] for line in lines if "model name" in line)
    system, python = platform.system(), platform.python_version()
    return f"{cpu}, {os.cpu_count()} cores; {system}, Python {python}, {versions}"
