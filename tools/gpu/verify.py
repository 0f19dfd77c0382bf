"""Check this machine's GPU: ``python tools/gpu/verify.py [--dry-run] [--out FOLDER]``.

Says which of CuPy, PyTorch and JAX see the GPU, runs their tests on it, and times the benchmark.
Writes gpu.json and gpu.md to FOLDER, build/gpu by default, after the tests and after the benchmark
of each library. The exit status is 0 if every test passed, 1 if one failed or did not run in time,
and 2 if there was nothing to run. A dry run has the stand-in of the tests as CuPy.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processes import GRACE, ROOT, TESTS, Kit

sys.path.insert(0, str(TESTS))

from _support import gpu

TESTS_SHARE = 0.55  # of the time; the benchmark has the rest
PATHS = ("backends", "cli", "contract", "losses", "transforms")
DRY_RUN_PATHS = ("test_classifiers.py", "test_golden.py", "transforms/test_torch.py")
NEEDED = ("numpy", "array_api_compat", "pytest")


def see(kit: Kit) -> dict[str, dict[str, Any]]:
    """Return what each library sees."""
    names = {name: gpu.STAND_IN[name][0] if kit.dry_run else name for name in gpu.BACKEND}
    started = {n: kit.start(f"cards-{n}", "cards.py", library) for n, library in names.items()}
    found = {}
    for name, process in started.items():
        status = kit.wait(process, 90)
        text = kit.log(f"cards-{name}").strip().splitlines() or [""]
        if status == 0:
            found[name] = json.loads(text[-1])
            if kit.dry_run and found[name]["version"]:
                found[name] |= {"card": "the CPU", "problem": None}
        else:
            problem = "no answer" if status is None else text[-1]
            found[name] = {"version": None, "packages": [], "problem": problem}
    return found


def run_tests(kit: Kit, libraries: list[str]) -> dict[str, dict[str, Any]]:
    """Run the tests of each library, side by side, and return what came of them."""
    seconds = TESTS_SHARE * kit.left
    paths = (
        DRY_RUN_PATHS if kit.dry_run else (*PATHS, *sorted(p.name for p in TESTS.glob("test_*.py")))
    )
    started = {}
    for library in libraries:
        backend = gpu.STAND_IN[library][1] if kit.dry_run else gpu.BACKEND[library]
        # JAX compiles each case, in one thread.
        parts = min(4, max((os.cpu_count() or 1) // 4, 1)) if library == "jax" else 1
        for part in range(parts):
            name = f"tests-{library}-{part}"
            out = kit.scratch / f"{name}.jsonl"
            started[library, name] = kit.start(
                name, "run_tests.py", backend, seconds, out, part, parts, *paths,
                SPIKELOSS_XP_REQUIRED_BACKENDS=backend,
            )  # fmt: skip
    end = time.monotonic() + seconds + GRACE
    found: dict[str, dict[str, Any]] = {}
    for (library, name), process in started.items():
        status = kit.wait(process, max(end - time.monotonic(), 0.1))
        ran = found.setdefault(library, no_results())
        count(kit.lines(name), ran)
        if status not in (0, 1, 2, 5):  # pytest's statuses of a run that came to its end
            last = (kit.log(name).strip().splitlines() or [""])[-1]
            message = "was ended after the time limit" if status is None else last
            ran["failures"].append({"test": f"status {status}", "message": message})
            ran["counts"]["failed"] += 1
            print(kit.log(name)[-4000:])
    return found


def no_results() -> dict[str, Any]:
    return {"counts": dict(vars(gpu.Counts())), "functions": {}, "failures": []}


def count(lines: list[dict[str, Any]], ran: dict[str, Any]) -> None:
    """Add the results of a process to those of its backend."""
    outcomes: dict[str, tuple[str, str]] = {}
    for line in lines:
        ran["counts"]["selected"] += line.get("selected", 0)
        if "test" in line and outcomes.get(line["test"], ("",))[0] != "failed":
            outcomes[line["test"]] = line["outcome"], line["message"]
    for test, (outcome, message) in outcomes.items():
        function = test.removeprefix("tests/").partition("[")[0]
        none = dict.fromkeys(("passed", "failed", "skipped"), 0)
        counts = ran["functions"].setdefault(function, none)
        counts[outcome] += 1
        ran["counts"][outcome] += 1
        if outcome == "failed":
            ran["failures"].append({"test": test, "message": message})


def measure(kit: Kit, library: str, seconds: float) -> tuple[list[dict[str, Any]], str]:
    """Time the benchmark on one library; return its rows, and a sentence on those left out."""
    name = gpu.STAND_IN[library][0] if kit.dry_run else library
    out = kit.scratch / f"measure-{name}.jsonl"
    options = ["--dry-run"] if kit.dry_run else []
    process = kit.start(f"measure-{name}", "measure.py", name, seconds, out, *options)
    status = kit.wait(process, seconds + GRACE)
    lines = kit.lines(f"measure-{name}")
    rows = [line | {"library": library} for line in lines if "work" in line]
    left = [line["left"] for line in lines if "left" in line]
    if not left:
        print(kit.log(f"measure-{name}")[-4000:])
        ended = "was ended after the time limit" if status is None else f"ended with {status}"
        return rows, f"the benchmark {ended}, after {len(lines)} rows"
    return rows, f"{left[0]} rows of the benchmark were left at the time limit" * bool(left[0])


@functools.cache
def machine() -> str:
    """Return the system, the versions of Python and NumPy, and the driver of the GPU."""
    import numpy as np

    text = f"{platform.system()}, Python {platform.python_version()}, NumPy {np.__version__}"
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # there is none, or it hangs
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        text += "".join(f", NVIDIA driver {version}" for version in answer.stdout.split()[:1])
    return text


def commit() -> str:
    """Return the commit of the checkout, or nothing where git does not know it."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def record(
    libraries: dict[str, dict[str, Any]],
    tests: dict[str, dict[str, Any]],
    benchmarks: list[dict[str, Any]],
    missing: dict[str, str],
    *,
    dry_run: bool,
) -> dict[str, Any]:
    """Return what is written to gpu.json."""
    wrong = {row["library"] for row in benchmarks if gpu.wrong(row)}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": _version(),
        "commit": commit(),
        "dry_run": dry_run,
        "machine": machine(),
        "libraries": libraries,
        "claims": gpu.claims(tests, libraries, wrong),
        "tests": {
            name: {"counts": ran["counts"], "failures": ran["failures"]}
            for name, ran in tests.items()
        },
        "benchmarks": benchmarks,
        "missing": missing,
    }


def _version() -> str:
    text = (ROOT / "spikeloss_xp" / "__init__.py").read_text(encoding="utf-8")
    return next(line.split('"')[1] for line in text.splitlines() if line.startswith("__version__"))


def verdict(record: dict[str, Any]) -> tuple[int, str]:
    """Return the exit status and the last line."""
    where = "dry run on the CPU" if record["dry_run"] else "GPU"
    failed = [
        f"{gpu.LIBRARIES[name]}: {failure['test']}"
        for name, ran in record["tests"].items()
        for failure in ran["failures"]
    ]
    failed += [
        f"{gpu.LIBRARIES[row['library']]}, {row['work']}: ours {row['problems'][gpu.OURS]}"
        for row in record["benchmarks"]
        if gpu.OURS in row["problems"]
    ]
    if failed:
        return 1, f"FAILED ({where}): {len(failed)} problems, the first: {failed[0]}"
    left = [
        f"{gpu.LIBRARIES[name]}: {counts}"
        for name, ran in record["tests"].items()
        if (counts := gpu.Counts(**ran["counts"])).result != "verified"
    ]
    left += [f"{gpu.LIBRARIES[name]}: {text}" for name, text in record["missing"].items()]
    if left:
        return 1, f"NOT FINISHED ({where}): {'; '.join(left)}"
    passed = (f"{gpu.LIBRARIES[n]} {gpu.Counts(**r['counts'])}" for n, r in record["tests"].items())
    return 0, f"PASSED ({where}): {'; '.join(passed)}; {len(record['benchmarks'])} rows measured"


def write(made: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    (folder / "gpu.json").write_text(text, encoding="utf-8")
    (folder / "gpu.md").write_text(gpu.markdown(made) + "\n", encoding="utf-8")


def for_the_docs(made: dict[str, Any], folder: Path) -> str:
    """Return what to do with the results."""
    if made["dry_run"]:
        return f"Written to {folder}: gpu.json, gpu.md. A dry run is not for the docs."
    cells = [f"  {claim.what}: {gpu.cell(claim.what, of=made)}" for claim in gpu.CLAIMS]
    lines = [
        f"For docs/support.md, docs/install.md, docs/gpu.md and the README: copy {folder}/gpu.json",
        f"to {gpu.RECORD.relative_to(ROOT)} and run `python tools/write_pages.py`. It writes:",
        *cells,
        "For docs/benchmarks.md:",
        gpu.headline(made),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="all steps, small, on the CPU")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", metavar="FOLDER")
    arguments = parser.parse_args()
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"NOTHING RAN: {sys.executable} lacks {', '.join(lacking)}")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        kit = Kit(Path(scratch), dry_run=arguments.dry_run)
        libraries = see(kit)
        for name, seen in libraries.items():
            version = f"{gpu.LIBRARIES[name]} {seen['version'] or ''}".strip()
            print(f"{version}: {seen['problem'] or seen['card']}", flush=True)
        if all(seen["problem"] for seen in libraries.values()):
            print("NOTHING RAN: no library sees a GPU. `--dry-run` runs all steps on the CPU")
            return 2
        seeing = [name for name, seen in libraries.items() if not seen["problem"]]
        tests = run_tests(kit, seeing)
        for name, ran in tests.items():
            print(f"{gpu.LIBRARIES[name]}: tests: {gpu.Counts(**ran['counts'])}", flush=True)
        rows: list[dict[str, Any]] = []
        missing = dict.fromkeys(seeing, "the benchmark has not run")
        made = record(libraries, tests, rows, missing, dry_run=kit.dry_run)
        write(made, arguments.out)
        for number, name in enumerate(seeing):
            seconds = max((kit.left - GRACE) / (len(seeing) - number), 1.0)
            found, missing[name] = measure(kit, name, seconds)
            rows += found
            left = {name: text for name, text in missing.items() if text}
            made = record(libraries, tests, rows, left, dry_run=kit.dry_run)
            write(made, arguments.out)
    status, last = verdict(made)
    print(f"\n{gpu.markdown(made)}\n\n{for_the_docs(made, arguments.out)}\n{last}")
    return status


if __name__ == "__main__":
    sys.exit(main())
