"""Print the table of the benchmark: ``python tools/benchmarks/table.py [--write] [PATTERN]``.

With ``--write``, also write docs/benchmarks.md, its pictures and tests/data/scaling.json. The other
implementations use lava-dl, SciPy and snnTorch; those that are not installed are skipped with a
message.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import contenders
import numpy as np
import page
from rows import Row, rows, spike_time
from timing import measure_seconds, time_ratio

LIBRARIES = ("numpy", "torch", "jax", "scipy", "lava-dl", "snntorch")
HEADER = "| work, value and gradient | time | against | times as long as ours | wanted |\n"
HEADER += "|---|---|---|---|---|\n"

# glibc returns freed memory to the system only above these sizes, in bytes.
KEEP_FREED_MEMORY = dict.fromkeys(
    ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 34)
)

PEAK_MEMORY_PROGRAM = """
from pathlib import Path
import contenders, rows

def kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))

shape = (32, 256, 4000)
run = contenders.torch_eager(rows.spike_time(100), shape)
contenders.torch_eager(rows.spike_time(100), (2, 2, 200))()  # imports and small buffers
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = kilobytes("VmRSS")
run()
print((kilobytes("VmHWM") - before) * 1024 / (2 * 4 * 32 * 256 * 4000))
"""


def measure_row(row: Row) -> tuple[list[str], bool]:
    """Measure a row; return its lines of the table, and whether it meets all its targets."""
    runs, missing = {"ours": row.ours(row.loss, row.shape)}, []
    for name, (setup, _) in row.others.items():
        try:
            runs[name] = setup(row.loss, row.shape)
        except ModuleNotFoundError as error:
            missing.append(f"{name} is not installed ({error.name})")
    seconds = measure_seconds(runs)
    lines, work, targets_met = [], row.work, True
    time_cell = f"{statistics.median(seconds['ours']) * 1e3:.3g} ms"
    for name in list(runs)[1:] or [""]:
        ratio = time_ratio(seconds, name, "ours") if name else float("nan")
        target = row.others[name][1] if name else 0
        targets_met &= not target or ratio >= target
        ratio_cell = f"{ratio:.3g}" if ratio >= 1 else f"1 / {1 / ratio:.3g}"
        target_cell = (
            "" if not target else f"{target:g}" if target >= 1 else f"1 / {1 / target:.3g}"
        )
        mark = "" if not target or ratio >= target else " **missed**"
        cells = (work, time_cell, name, ratio_cell if name else "", f"{target_cell}{mark}")
        lines.append(f"| {' | '.join(cells)} |")
        work = time_cell = ""
    for message in missing:
        print(f"{row.work}: {message}", file=sys.stderr)
    return lines, targets_met


def warm_up_allocator() -> None:
    """Free a large block: glibc then keeps freed memory of up to about twice its size."""
    np.empty(32_000_000, np.uint8)


def measure_in_subprocess(number: int) -> tuple[list[str], bool]:
    """Measure row `number` in a new process, so that it reuses no memory freed by earlier rows."""
    program = f"""
import json, warnings
warnings.filterwarnings("ignore")
import rows, table
table.warm_up_allocator()
print(json.dumps(table.measure_row(rows.rows()[{number}])))
"""
    row, environment = rows()[number], dict(os.environ)
    if row.memory_kept:
        environment |= KEEP_FREED_MEMORY
    if row.one_thread:
        environment["OMP_NUM_THREADS"] = "1"
    completed = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True,
        cwd=Path(__file__).parent, env=environment,
    )  # fmt: skip
    lines, targets_met = json.loads(completed.stdout.splitlines()[-1])
    return lines, targets_met


def machine() -> str:
    """Return a description of the processor, the system and the library versions."""
    versions = []
    for library in LIBRARIES:
        try:
            versions.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        cpu = next(line.partition(": ")[2] for line in text.splitlines() if "model name" in line)
    except (OSError, StopIteration):
        pass
    return (
        f"{cpu}, {os.cpu_count()} cores; {platform.system()}, Python "
        f"{platform.python_version()}, {', '.join(versions)}"
    )


def memory() -> str:
    """Return the peak memory of value and gradient, as a multiple of the two input arrays.

    The inputs themselves do not count. The numbers come from Linux's /proc/self/status.
    """
    completed = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY_PROGRAM], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return f"{float(completed.stdout):.3g}"


def flatness() -> str:
    """Return the ratio of the longest to the shortest time per entry over several durations."""
    warm_up_allocator()
    entries = 2**22
    runs = {
        str(steps): contenders.torch_eager(spike_time(100), (1, entries // steps, steps))
        for steps in (1024, 2**13, 2**17, 2**20)
    }
    medians = [statistics.median(seconds) for seconds in measure_seconds(runs).values()]
    return f"{max(medians) / min(medians):.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="", help="only rows whose name has this")
    parser.add_argument("--write", action="store_true", help="write the page and the plot too")
    arguments = parser.parse_args()
    lines, targets_met = [], True
    print(HEADER, end="")
    for number, row in enumerate(rows()):
        if arguments.pattern in row.work:
            row_lines, row_targets_met = measure_in_subprocess(number)
            print("\n".join(row_lines), flush=True)
            lines += row_lines
            targets_met &= row_targets_met
    if arguments.pattern:
        return not targets_met
    others = [
        "| | measured | at most |",
        "|---|---|---|",
        f"| peak memory of value and gradient on top of two trains, in sizes of these: SpikeTime "
        f"[32, 256, 4000], L 100, PyTorch | {memory()} | 3 |",
        f"| time per step, longest over shortest, 1024 to 1048576 steps, 4194304 entries: "
        f"SpikeTime, L 100, PyTorch | {flatness()} | 1.5 |",
    ]
    print("\n".join(others))
    if arguments.write:
        page.write(machine(), HEADER + "\n".join(lines), "\n".join(others), measure=True)
    return not targets_met


if __name__ == "__main__":
    sys.exit(main())
