"""Compare the losses with lava-dl, SciPy, snnTorch and convolutions.

``python tools/benchmarks/others.py [--write] [PATTERN]`` prints our run time in milliseconds, and
how many times as long the other library takes, for the rows whose names contain the pattern.
Without a pattern, it also prints the memory that `SpikeTime` needs. With ``--write``, it then
writes tests/data/benchmarks.json, tests/data/scaling.json, docs/benchmarks.md and its plots.
"""

import argparse
import contextlib
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import contenders
import numpy as np
import page
from contenders import Run
from timing import forget_peak, in_new_process, machine, peak_bytes, times

import spikeloss_xp as sx

SETUPS = {
    "lava-dl": contenders.lava,
    "snnTorch": contenders.snntorch,
    "lax.conv": contenders.lax_conv,
    "fftconvolve": contenders.fftconvolve,
}
LARGE, SMALL = (32, 256, 1000), (256, 10, 100)  # [batch, class, time]
MEASURE = "import sys, others; others.measure(sys.argv[1])"


def spike_time(length: int) -> sx.SpikeTime:
    return sx.SpikeTime(
        time_constant=contenders.TIME_CONSTANT, length=length, time_axis=-1, reduction="sum"
    )


ROWS = (  # the loss, the shape of the spikes, the library of the arrays, and the other library
    (spike_time(1000), (2, 64, 10_000), "PyTorch", "lava-dl"),
    (spike_time(100), LARGE, "PyTorch", "lava-dl"),
    (spike_time(100), LARGE, "JAX, jit", "lax.conv"),
    (spike_time(100), LARGE, "NumPy, value", "fftconvolve"),
    (
        sx.SpikeRate(0.2, 0.03, moving_window=100, time_axis=-1, reduction="sum"),
        LARGE,
        "PyTorch",
        "lava-dl",
    ),
    (sx.SpikeRate(0.2, 0.03, time_axis=-1, reduction="sum"), SMALL, "PyTorch", "snnTorch"),
    (sx.SpikeMax(time_axis=-1, reduction="sum"), SMALL, "PyTorch", "snnTorch"),
)
CURVES = {  # the setup and the library of each curve in the plot
    "spikeloss_xp": (contenders.ours, "PyTorch"),
    "spikeloss_xp, JAX": (contenders.ours, "JAX"),
    "no filter": (contenders.floor, "PyTorch"),
    "lava-dl": (contenders.lava, "PyTorch"),
    "conv1d": (contenders.conv1d, "PyTorch"),
    "lax.conv": (contenders.lax_conv, "JAX"),
}
SWEEPS: dict[str, tuple[list[int], Callable[[int], tuple[tuple[int, ...], int]]]] = {
    "steps": ([100, 1000, 10_000, 100_000], lambda n: ((1, 64, n), 100)),
    "length of the filter": ([10, 32, 100, 316, 1000, 3162], lambda n: ((2, 64, 10_000), n)),
    "neurons": ([1, 10, 100, 1000, 10_000], lambda n: ((1, n, 1000), 100)),
}


def name_of(loss: Any, shape: tuple[int, ...], library: str, other: str) -> str:
    """Return the name of a row in the record."""
    extra = f", L {loss.length}" if isinstance(loss, sx.SpikeTime) else ""
    if getattr(loss, "moving_window", None):
        extra = f", W {loss.moving_window}"
    return f"{type(loss).__name__} {list(shape)}{extra}: {library}"


def runs(loss: Any, shape: tuple[int, ...], library: str, other: str) -> dict[str, Run]:
    """Return the runs of our loss and of the other library."""
    setups = {"ours": contenders.ours, other: SETUPS[other]}
    return {name: setup(library, loss, shape) for name, setup in setups.items()}


def measure(name: str) -> None:
    """Print the record of a row as JSON. Each row is measured in its own process."""
    warnings.filterwarnings("ignore")
    np.empty(32_000_000, np.uint8)  # glibc then keeps freed memory of up to about twice its size
    with contextlib.redirect_stdout(sys.stderr):  # lava-dl prints when it is imported
        found = times(next(runs(*row) for row in ROWS if name_of(*row) == name))
    print(json.dumps({"work": name, **found}))


def peak_memory() -> float:
    """Return the peak memory for value and gradient, as a multiple of the size of both inputs.

    The inputs themselves are not included in the peak.
    """
    shape = (32, 256, 4000)
    run = contenders.ours("PyTorch", spike_time(100), shape)
    contenders.ours("PyTorch", spike_time(100), (2, 2, 200))()  # imports and small buffers
    forget_peak()
    before = peak_bytes()
    run()
    return (peak_bytes() - before) / (2 * 4 * math.prod(shape))


def measure_scaling() -> dict[str, dict[str, Any]]:
    """Return the run time of each curve in milliseconds, as a function of each size."""
    return {
        name: {
            "sizes": sizes,
            "milliseconds": {x: curve(*CURVES[x], map(settings, sizes)) for x in CURVES},
        }
        for name, (sizes, settings) in SWEEPS.items()
    }


def curve(
    setup: Callable[..., Run], library: str, settings: Iterable[tuple[tuple[int, ...], int]]
) -> list[float]:
    """Return the milliseconds with two digits, up to the first run that exceeds two seconds."""
    found: list[float] = []
    for shape, length in settings:
        if not found or found[-1] <= 2000:
            milliseconds = times({"ours": setup(library, spike_time(length), shape)})[
                "milliseconds"
            ]
            found.append(float(f"{milliseconds:.2g}"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="", help="only rows whose names contain this")
    parser.add_argument("--write", action="store_true", help="also write the records and the page")
    options = parser.parse_args()
    rows = []
    for name in (name_of(*row) for row in ROWS):
        if options.pattern in name:  # in a new process, which has no memory freed by other rows
            rows += in_new_process("-c", MEASURE, name)
            ratios = (f"{other}: {ratio:.3g}" for other, ratio in rows[-1]["ratios"].items())
            print(f"{name:50} {rows[-1]['milliseconds']:9.3f} ms ", *ratios, flush=True)
    if not options.pattern:
        (memory,) = in_new_process("-c", "import others; print(others.peak_memory())")
        print(f"memory: {memory:.3g}")
        if options.write:
            record = {"machine": machine(), "rows": rows, "memory": memory}
            page.RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
            page.SCALING.write_text(json.dumps(measure_scaling()) + "\n", encoding="utf-8")
            page.write()


if __name__ == "__main__":
    main()
