"""Print the table of the benchmark: ``python tests/benchmarks/table.py [--write] [PATTERN]``.

With ``--write`` it goes to docs/benchmarks.md too, and the plot to docs/images. What is not
installed is left out, and said so: lava-dl, SciPy and snnTorch are what others would use.
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
from rows import Row, rows, time
from timing import seconds, times_as_long

DOCS = Path(__file__).parent.parent.parent / "docs"
LIBRARIES = ("numpy", "torch", "jax", "scipy", "lava-dl", "snntorch")
HEADER = "| work, value and gradient | time | against | times as long as ours | wanted |\n"
HEADER += "|---|---|---|---|---|\n"


# What is freed goes back to the system above these sizes, in bytes: as glibc has it.
KEPT = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 34))

PEAK = """
from pathlib import Path
import contenders, rows

def kilobytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what)))

shape = (32, 256, 4000)
run = contenders.torch_eager(rows.time(100), shape)
contenders.torch_eager(rows.time(100), (2, 2, 200))()  # imports and small buffers
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = kilobytes("VmRSS")
run()
print((kilobytes("VmHWM") - before) * 1024 / (2 * 4 * 32 * 256 * 4000))
"""


def lines_of(row: Row) -> tuple[list[str], bool]:
    """Measure a row; return its lines of the table, and whether all is as wanted."""
    runs, missing = {"ours": row.ours(row.loss, row.shape)}, []
    for name, (setup, _) in row.others.items():
        try:
            runs[name] = setup(row.loss, row.shape)
        except ModuleNotFoundError as error:
            missing.append(f"{name} is not installed ({error.name})")
    taken = seconds(runs)
    lines, work, good = [], row.work, True
    shown = f"{statistics.median(taken['ours']) * 1e3:.3g} ms"
    for name in list(runs)[1:] or [""]:
        ratio = times_as_long(taken, name, "ours") if name else float("nan")
        wanted = row.others[name][1] if name else 0
        good &= not wanted or ratio >= wanted
        cells = f"{ratio:.3g}" if ratio >= 1 else f"1 / {1 / ratio:.3g}"
        aim = "" if not wanted else f"{wanted:g}" if wanted >= 1 else f"1 / {1 / wanted:.3g}"
        mark = "" if not wanted or ratio >= wanted else " **missed**"
        lines.append(f"| {work} | {shown} | {name} | {cells if name else ''} | {aim}{mark} |")
        work = shown = ""
    for what in missing:
        print(f"{row.work}: {what}", file=sys.stderr)
    return lines, good


def have_memory_at_hand() -> None:
    """Let the allocator keep what is freed, up to about twice the size of a block freed here."""
    np.empty(32_000_000, np.uint8)


def measured(number: int) -> tuple[list[str], bool]:
    """Do that in a process of its own: what ran before decides whether memory is at hand."""
    program = f"""
import json, warnings
warnings.filterwarnings("ignore")
import rows, table
table.have_memory_at_hand()
print(json.dumps(table.lines_of(rows.rows()[{number}])))
"""
    environment = {**os.environ, **(KEPT if rows()[number].kept else {})}
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True,
        cwd=Path(__file__).parent, env=environment,
    )  # fmt: skip
    lines, good = json.loads(done.stdout.splitlines()[-1])
    return lines, good


def machine() -> str:
    """Return what the numbers come from, in words."""
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
    """Return what value and gradient take on top of the two trains, as a multiple of those.

    As Linux tells it.
    """
    done = subprocess.run(
        [sys.executable, "-c", PEAK], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    return f"{float(done.stdout):.3g}"


def flatness() -> str:
    """Return the longest time per step of all durations, as a multiple of the shortest."""
    have_memory_at_hand()
    entries = 2**22
    runs = {
        str(steps): contenders.torch_eager(time(100), (1, entries // steps, steps))
        for steps in (1024, 2**13, 2**17, 2**20)
    }
    medians = [statistics.median(taken) for taken in seconds(runs).values()]
    return f"{max(medians) / min(medians):.3g}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="", help="only rows whose name has this")
    parser.add_argument("--write", action="store_true", help="write the page and the plot too")
    arguments = parser.parse_args()
    lines, good = [], True
    print(HEADER, end="")
    for number, row in enumerate(rows()):
        if arguments.pattern in row.work:
            found, as_wanted = measured(number)
            print("\n".join(found), flush=True)
            lines += found
            good &= as_wanted
    if arguments.pattern:
        return not good
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
        page.write(DOCS, machine(), HEADER + "\n".join(lines), "\n".join(others))
    return not good


if __name__ == "__main__":
    sys.exit(main())
