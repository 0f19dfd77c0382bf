"""Measure the rows of the benchmark on one library's GPU: value and gradient.

``python tools/gpu/verify.py`` runs this in a process of its own, which writes a line of JSON per
row. Every contender that computes the loss is compared with NumPy before it is timed.
"""

import argparse
import contextlib
import functools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contenders as c
import numpy as np
import own_means as own
import rows
from contenders import Run
from timing import Clock, measure_seconds, time_ratio, wall_seconds

import spikeloss_xp as sx
from _support.gpu import COMPILED, COPY, DIFFERS, LARGE, OURS, PLAIN
from spikeloss_xp.backends._available import adapter

TOLERANCE = 1e-4
"""Of ours, relative to the value and to the largest gradient: float32 sums of 8e6 terms."""
TOLERANCE_OF_OTHERS = 5e-3
"""Of the others: by default, PyTorch and JAX convolve with factors of 11 bits on a GPU."""
WALL = "wall time, with `block_until_ready`"
EVENTS = "CUDA events"
CPU = "`time.perf_counter` on the CPU"


@dataclass(frozen=True)
class Measured:
    """How one library is measured: its clock, where it prepares arrays, and its contenders."""

    clock: Clock
    clock_name: str
    place: contextlib.AbstractContextManager[Any]
    contenders: Callable[[Any, tuple[int, ...]], dict[str, Callable[..., Run]]]


def torch_event_seconds(run: Run, repeats: int) -> float:
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def cupy_event_seconds(run: Run, repeats: int) -> float:
    import cupy

    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3 / repeats


def _torch_contenders(loss: Any, shape: tuple[int, ...]) -> dict[str, Callable[..., Run]]:
    others, first = {"its own means": own.torch_own}, loss.time_axis == 0
    compiled = {OURS + COMPILED: c.torch_compiled} if (loss, shape) in _compiled() else {}
    if isinstance(loss, sx.SpikeTime):
        others = {"time moved last": c.torch_moveaxis} if first else {"conv1d": c.conv1d}
    if isinstance(loss, sx.CrossEntropy):
        others = {PLAIN: own.torch_plain}
        compiled |= {PLAIN + COMPILED: own.torch_plain_compiled} if compiled else {}
    return {OURS: c.torch_eager, COPY: own.torch_copy, **others, **compiled}


def _jax_contenders(loss: Any, shape: tuple[int, ...]) -> dict[str, Callable[..., Run]]:
    others, first = {"its own means": own.jax_own}, loss.time_axis == 0
    if isinstance(loss, sx.SpikeTime):
        others = {"time moved last": c.jax_moveaxis} if first else {"lax.conv": c.lax_conv}
    if isinstance(loss, sx.CrossEntropy):
        others = {PLAIN: own.jax_plain}
    return {OURS: c.jax_jit, COPY: own.jax_copy, **others}


def _cupy_contenders(loss: Any, shape: tuple[int, ...]) -> dict[str, Callable[..., Run]]:
    others = {"its own means": own.cupy_own}
    if isinstance(loss, sx.SpikeTime):
        others = {"correlate1d": own.cupy_correlate}
    if isinstance(loss, sx.CrossEntropy):
        others = {PLAIN: own.cupy_plain}
    return {OURS: own.cupy_ours, COPY: own.cupy_copy, **others}


def measured(library: str, *, dry_run: bool) -> Measured:
    """Return how a library is measured, on the GPU or in a dry run on the CPU."""
    if library == "torch":
        import torch

        place = torch.device("cpu" if dry_run else "cuda:0")
        clock = wall_seconds if dry_run else torch_event_seconds
        return Measured(clock, CPU if dry_run else EVENTS, place, _torch_contenders)
    if library == "jax":
        name = CPU if dry_run else WALL
        return Measured(wall_seconds, name, contextlib.nullcontext(), _jax_contenders)
    name = CPU if dry_run else EVENTS  # those of the stand-in are times on the CPU
    return Measured(cupy_event_seconds, name, contextlib.nullcontext(), _cupy_contenders)


ENTROPY = sx.CrossEntropy(time_axis=-1)
HEADLINE = [(loss, LARGE) for loss in (sx.SpikeMax(), rows.spike_time(100), ENTROPY)]


def works() -> list[tuple[Any, tuple[int, ...]]]:
    """Return the headline, and each loss and shape of the benchmark page, without latencies.

    Nothing to compare a latency with is written in the means of every library.
    """
    chosen = [row for row in rows.rows() if getattr(row.loss, "readout", "") != "latency"]
    return list(dict.fromkeys((*HEADLINE, *((row.loss, row.shape) for row in chosen))))


@functools.cache
def _compiled() -> set[tuple[Any, tuple[int, ...]]]:
    compiled = {(row.loss, row.shape) for row in rows.rows() if row.ours is c.torch_compiled}
    return compiled | set(HEADLINE)


def small_works() -> list[tuple[Any, tuple[int, ...]]]:
    """Return one small work of each kind, for a dry run."""
    shape, (_, max_window, _) = (2, 5, 300), rows.rate_losses(50)
    time_first = next(work for work in works() if getattr(work[0], "time_axis", -1) == 0)[0]
    losses = (rows.spike_time(100), max_window, *rows.rate_losses(None), ENTROPY)
    return [*((loss, shape) for loss in losses), (time_first, shape[::-1])]


def errors(library: str, got: Any, expected: tuple[Any, np.ndarray]) -> float:
    """Return the larger of the errors of value and gradient, relative to NumPy's."""
    value, gradient = (adapter(library).to_host(x) for x in got)
    expected_value, expected_gradient = expected
    of_value = abs(float(value) - float(expected_value)) / abs(float(expected_value))
    scale = float(np.max(np.abs(expected_gradient)))
    found = max(of_value, float(np.max(np.abs(gradient - expected_gradient))) / scale)
    return found if np.isfinite(found) else float("inf")


def measure(
    library: str, how: Measured, loss: Any, shape: tuple[int, ...], **rounds: Any
) -> dict[str, Any]:
    """Check and time the contenders for one loss on one shape."""
    expected = c.numpy_gradient(loss, shape)()
    runs: dict[str, Run] = {}
    problems: dict[str, str] = {}
    for name, setup in how.contenders(loss, shape).items():
        try:
            with how.place:  # only here: the context slows every operation down
                runs[name] = setup(loss, shape)
            result = runs[name]()
        except Exception as error:  # out of memory, no compiler, or any other
            problems[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
            runs.pop(name, None)
            continue
        error = 0.0 if name == COPY else errors(library, result, expected)
        if error > (TOLERANCE if name.startswith(OURS) else TOLERANCE_OF_OTHERS):
            problems[name] = f"{DIFFERS} by {error:.1e}"
            del runs[name]
    work = rows.Row(loss, shape, c.torch_eager).work.rpartition(": ")[0]
    found: dict[str, Any] = {"library": library, "work": work, "problems": problems}
    if OURS in runs:
        seconds = measure_seconds(runs, how.clock, **rounds)
        found["milliseconds"] = 1e3 * statistics.median(seconds[OURS])
        others = [name for name in runs if name != OURS]
        found["ratios"] = {name: time_ratio(seconds, name, OURS) for name in others}
    return found | {"clock": how.clock_name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("library", choices=("cupy", "torch", "jax"))
    parser.add_argument("seconds", type=float, help="no row begins after this time")
    parser.add_argument("out", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    deadline = time.monotonic() + arguments.seconds
    how = measured(arguments.library, dry_run=arguments.dry_run)
    rounds = {"min_rounds": 3 if arguments.dry_run else 7}
    rounds["min_seconds"] = 0.05 if arguments.dry_run else 0.5
    chosen = small_works() if arguments.dry_run else works()
    with arguments.out.open("w", encoding="utf-8") as lines:
        for number, (loss, shape) in enumerate(chosen):
            if time.monotonic() > deadline:
                found = {"left": len(chosen) - number}
                lines.write(json.dumps(found) + "\n")
                return
            found = measure(arguments.library, how, loss, shape, **rounds)
            lines.write(json.dumps(found) + "\n")
            lines.flush()
        lines.write(json.dumps({"left": 0}) + "\n")


if __name__ == "__main__":
    main()
