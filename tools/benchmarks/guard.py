"""Fail if a loss has become slower, relative to the plain line that a user would write instead.

``python tools/benchmarks/guard.py`` measures our run time (value and gradient, float32) divided by
the run time of the plain line, and compares each row with tests/data/speed.json. A row that looks
slower is measured again in new processes, then in turn with the commit in which the record was last
written. It fails if the best of its ratios is still more than `FACTOR` times the ratio before. If
you mean to make a row slower or faster, write the record with ``--write``, and commit it together
with the code. The program requires Linux, PyTorch, JAX and optax.

Both are called in turn on one core, and the time is processor time: other programs then change the
ratios least. A loss that waits, or that no longer uses a second core, is therefore not noticed.

The record is valid only for the machine and the library versions that it names. If they differ, all
rows are compared with the commit of the record; ``--base REVISION`` compares them with any commit
that has this program. Each commit is measured with its own tools, so the arguments and the output
of ``--measure`` should not change.
"""

import argparse
import contextlib
import functools
import importlib
import importlib.metadata
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import daily
import masked
import numpy as np
import plain
from plain import LINE
from timing import in_new_process

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests" / "data" / "speed.json"
TOOL = "tools/benchmarks/guard.py"
LIBRARIES = "PyTorch", "JAX", "NumPy"
SIZES = (20, 100, 10), (100, 256, 20), (250, 64, 35)  # [time, batch, class]
OF_POTENTIALS = (20, 100, 10), (100, 64, 200), (250, 64, 35)
KINDS = (  # the name of the loss in plain.py, and its mask
    ("counts", None),
    ("each step", None),
    ("window 20", None),
    ("SpikeTime", None),
    ("counts", "lengths"),
    ("each step", "lengths"),
    ("log rates", "where"),
)
# In 21 runs on two cores with a load of 6 to 11, the ratios were 0.94 to 1.34 times their records;
# one row, which is limited by memory, was 1.41 times its record and its commit was as slow.
FACTOR = 1.35
REPEATS = 2  # of the rows that look slower, each time in a new process
PROCESSES = 3  # for the record, which holds their medians
PASSES, SECONDS, CALLS = 6, 0.08, 3  # in each pass, a row gets so many seconds and so many calls
LONGER = 4  # times as many passes, shared by the rows that are measured again
QUANTILE = 0.05  # of the times, because other programs only ever make a call slower
VERSIONS = "numpy", "torch", "jax", "optax"

Measure = Callable[[list[str] | None], dict[str, float]]  # of the rows with these names, or of all
Rows = dict[str, tuple[list[float], list[float]]]  # the ratios before and now


def rows(library: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the name of each row, and a function that prepares our loss and the plain line."""
    for (loss, mask), size in itertools.product(KINDS, SIZES):
        given: tuple[Any, ...] = daily.losses, library, loss, size, "first"
        if mask:
            given = masked.runs, library, loss, mask, size
        kind = f"{loss}, {mask}" if mask else loss
        yield f"{library}: {kind}: {list(size)}", functools.partial(daily.checked, *given)
    if library == "PyTorch":
        for size in OF_POTENTIALS:
            setup = functools.partial(daily.checked, plain.of_potentials, size)
            yield f"{library}: softmax_sum: {list(size)}", setup
    # This array is so large that it is evaluated in chunks.
    in_chunks = daily.losses, library, "SpikeTime", daily.LARGE, "last"
    yield f"{library}: SpikeTime, large", functools.partial(daily.checked, *in_chunks)


def in_turn(ours: Callable[[], Any], line: Callable[[], Any]) -> Iterator[tuple[float, float]]:
    """Yield the processor times of our loss and of the line, calling both in turn."""
    ours(), line()  # compiles functions and fills caches
    begin = time.process_time()
    for number in itertools.count():
        start = time.process_time()
        if number >= CALLS and start - begin > SECONDS:
            return
        ours()
        middle = time.process_time()
        line()
        yield middle - start, time.process_time() - middle


def measure(tree: str, library: str, *names: str) -> None:
    """Print a line of JSON for each of these rows, or for all: its name and its ratio."""
    for module in ("spikeloss_xp", "spikeloss_xp.backends"):
        file = importlib.import_module(module).__file__ or ""
        if not Path(file).resolve().is_relative_to(tree):
            raise ImportError(f"{module} is imported from {file}, and not from {tree}")
    runs = {name: setup() for name, setup in rows(library) if not names or name in names}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    # The passes are far apart, so that other work on the machine seldom disturbs all of them.
    times = max(1, LONGER // len(names)) if names else 1
    for _, name in itertools.product(range(PASSES * times), runs):
        seconds[name] += in_turn(runs[name]["ours"], runs[name][LINE])
    for name, each in seconds.items():
        own, of_line = np.quantile(each, QUANTILE, axis=0)
        print(json.dumps([name, float(f"{own / of_line:.3g}")]))


def measured(tree: Path, names: list[str] | None) -> dict[str, float]:
    """Measure the library of a tree with the tools of that tree, in a process for each library."""
    environment = daily.ALLOCATION | {"PYTHONPATH": str(tree)}
    found: dict[str, float] = {}
    for library in LIBRARIES:
        own = [name for name in names or () if name.startswith(f"{library}:")]
        if own or names is None:
            command = str(tree / TOOL), "--measure", str(tree), library, *own
            found |= dict(in_new_process(*command, **environment))
    return found


def slowdown(before: list[float], now: list[float]) -> float:
    """Return the best ratio now, relative to the ratio before."""
    return min(now) / statistics.median(before)


def slower(found: Rows) -> list[str]:
    """Return the names of the rows that have become slower."""
    both = {name: ratios for name, ratios in found.items() if all(ratios)}
    return [name for name, ratios in both.items() if slowdown(*ratios) > FACTOR]


def compared(before: Measure, now: Measure, names: list[str] | None = None) -> Rows:
    """Measure these rows, or all of them, and measure again those that look slower."""
    found: Rows = {}
    for _ in range(1 + REPEATS):
        for index, each in enumerate((before, now)):
            for name, number in each(names).items():
                found.setdefault(name, ([], []))[index].append(number)
        names = slower(found)
        if not names:
            break
    return found


def verdict(before: list[float], now: list[float]) -> str:
    """Return what is said about a row."""
    if not before or not now:
        return f"missing {'now' if before else 'before'}"
    change = slowdown(before, now)
    if change > FACTOR:
        return "slower"
    return "ok" if change > 1 / FACTOR else "faster: write the record, to keep it so"


def report(found: Rows) -> bool:
    """Print a table of the rows, and return whether all of them pass."""
    print(f"{'row':44}  before     now")
    passed = True
    for name, (before, now) in found.items():
        judged = verdict(before, now)
        passed &= judged.startswith(("ok", "faster"))
        ratios = statistics.median(before or [np.nan]), min(now, default=np.nan)
        print(f"{name:44}", *(f"{ratio:7.3g}" for ratio in ratios), "", judged)
    return passed


def machine() -> dict[str, Any]:
    """Return what the ratios depend on, besides the code."""
    first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")
    fields = {key.strip(): x.strip() for key, _, x in (y.partition(":") for y in first.split("\n"))}
    processor = (fields.get(key, "") for key in ("model name", "cpu family", "model"))
    return {
        "processor": ", ".join(processor),
        "cores": os.cpu_count(),
        "threads": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in VERSIONS},
    }


def git(*arguments: str) -> str:
    command = "git", "-C", str(ROOT), *arguments
    return subprocess.check_output(command, text=True).strip()


def last_recorded() -> str:
    """Return the commit in which the record was last written."""
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise SystemExit("failed: the clone lacks the commit of the record; git fetch --unshallow")
    found = git("log", "-1", "--format=%H", "--", str(RECORD))
    return found or sys.exit("failed: no commit has a record; pass --base, or use --write")


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Export a revision to a temporary folder from which its package can be imported."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        git("archive", "-o", f"{tree}/tree.tar", revision)
        with tarfile.open(tree / "tree.tar") as archive:
            archive.extractall(tree, filter="data")
        link = tree / "spikeloss_xp" / "backends"
        if not link.exists():  # a revision from before the link was in the repository
            link.symlink_to("../backends")
        yield tree


def write() -> None:
    """Write the record from the medians over several processes."""
    numbers: dict[str, list[float]] = {}
    for _ in range(PROCESSES):
        for name, number in measured(ROOT, None).items():
            numbers.setdefault(name, []).append(number)
    medians = {name: statistics.median(each) for name, each in numbers.items()}
    record = {"machine": machine(), "rows": medians}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {RECORD.relative_to(ROOT)}")


def check(base: str | None) -> bool:
    """Compare this tree with the record, or with a revision, and return whether it passes."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    kept, of_record, here = record["rows"], record["machine"], machine()
    now = functools.partial(measured, ROOT)
    found, names = {}, None
    if of_record != here:
        print(f"The record is for {dict(of_record.items() - here.items())}.")
    elif not base:
        found = compared(lambda names: {name: kept[name] for name in names or kept}, now)
        names = slower(found)
    if names != []:  # other programs may slow our loss down more than the plain line
        base = base or last_recorded()
        print(f"{len(names or kept)} rows are measured in turn with the commit {base[:12]}.")
        with checkout(base) as tree:
            found |= compared(functools.partial(measured, tree), now, names)
    return report(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the record")
    parser.add_argument("--base", metavar="REVISION", help="compare with this revision of git")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # also for the processes started here
    if options.measure:
        return measure(*options.measure)
    if options.write:
        return write()
    if check(options.base):
        return print("passed: no row has become slower")
    name = RECORD.relative_to(ROOT)
    sys.exit(f"failed: if this is intended, run `python {TOOL} --write` and commit {name}")


if __name__ == "__main__":
    main()
