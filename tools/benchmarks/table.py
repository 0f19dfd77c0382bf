"""Print the table of the benchmark: ``python tools/benchmarks/table.py [--write] [PATTERN]``.

With ``--write``, the program also writes tests/data/benchmarks.json, tests/data/scaling.json,
docs/benchmarks.md and the plots on that page. The other implementations use lava-dl, SciPy and
snnTorch. If one of these packages is not installed, a message says what is skipped.

``python tools/benchmarks/table.py PATTERN --tune NAME VALUE [VALUE ...]`` prints the run time of
each row with other values of a number in `spikeloss_xp/_tuning.py`, relative to its present value.
The values take turns.
"""

import argparse
import contextlib
import json
import math
import sys
import warnings
from typing import Any

import contenders
import numpy as np
import page
from rows import PROCESSES, ROWS, Row, spike_time
from timing import forget_peak, in_new_process, machine, peak_bytes, times

from spikeloss_xp import _tuning
from spikeloss_xp.primitives import kernels

MEASURE = "import sys, table; table.measure(sys.argv[1])"


def measure(work: str) -> None:
    """Print the record of a row as JSON. Each row is measured in its own process."""
    warnings.filterwarnings("ignore")
    np.empty(32_000_000, np.uint8)  # glibc then keeps freed memory of up to about twice its size
    (row,), runs = (row for row in ROWS if row.work == work), {}
    with contextlib.redirect_stdout(sys.stderr):  # lava-dl prints when it is imported
        for name, setup in row.contenders().items():
            try:
                runs[name] = setup()
            except ModuleNotFoundError as error:
                print(f"{work}: {name} is not installed ({error.name})")
        timed = times(runs)
    wanted = {name: target for name, (_, target) in row.others.items() if target and name in runs}
    print(json.dumps({"work": work, **timed, "wanted": wanted}))


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


def tuned(row: Row, name: str, value: Any) -> contenders.Run:
    """Return the run of a row that sets a tuned number to this value."""

    def run_with_value() -> Any:
        if getattr(_tuning, name) != value:
            setattr(_tuning, name, value)
            kernels.block_matrices.cache_clear()  # the matrices depend on the tuned numbers
        return run()

    setattr(_tuning, name, value)
    run = row.contenders()["ours"]()
    run_with_value()  # compiles, with this value
    return run_with_value


def tune(rows: list[Row], name: str, *values: str) -> None:
    present = getattr(_tuning, name)
    print(f"{name} = {present}: run time relative to this value")
    for row in rows:
        runs = {value: tuned(row, name, int(value)) for value in values}
        ratios = times({"ours": tuned(row, name, present), **runs})["ratios"]
        cells = (f"{value}: {ratio:.2f}" for value, ratio in ratios.items())
        print(f"{row.work:60} {', '.join(cells)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="", help="only rows whose names contain this")
    parser.add_argument("--write", action="store_true", help="also write the page and the plots")
    parser.add_argument("--tune", nargs="+", metavar=("NAME", "VALUE"), help="try other values")
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.pattern in row.work]
    if arguments.tune:
        tune(rows, *arguments.tune)
        return 0
    measured = []
    for row in rows:  # each in a new process, which cannot reuse memory freed by other rows
        measured += in_new_process("-c", MEASURE, row.work, **PROCESSES[row.process])
        for line in page.cells(measured[-1]):
            print("|", " | ".join(line), "|", flush=True)
    if not arguments.pattern:
        (memory,) = in_new_process("-c", "import table; print(table.peak_memory())")
        record = {"machine": machine(), "rows": measured, "memory": memory}
        print(f"memory: {memory:.3g}")
        if arguments.write:
            page.RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
            scaling = page.measure_scaling()
            page.SCALING.write_text(json.dumps(scaling) + "\n", encoding="utf-8")
            page.write()
            page.draw_scaling(scaling, page.PICTURES / "scaling.png")
    return bool(page.missed(measured))


if __name__ == "__main__":
    sys.exit(main())
