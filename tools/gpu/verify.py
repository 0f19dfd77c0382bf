"""Check this machine's GPU: ``python tools/gpu/verify.py [--dry-run] [--out FOLDER]``.

The program reports which of CuPy, PyTorch and JAX see the GPU, runs their tests there and times the
benchmark. It writes gpu.json to FOLDER, by default build/gpu. The exit status is 0 if all tests
passed, 1 if a test failed or did not finish in time, and 2 if there was nothing to run. In a dry
run, everything runs on the CPU, and the tests' stand-in for CuPy replaces CuPy.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS, BENCHMARKS = ROOT / "tests", ROOT / "tools" / "benchmarks"
STAND_INS = TESTS / "_support" / "stand_ins"
sys.path.insert(0, str(TESTS))

from _support import gpu
from _support.gpu import LIBRARIES, Ran

BACKENDS = {"cupy": "cupy", "torch": "torch-cuda", "jax": "jax-cuda"}
ON_CPU = {"cupy": "cupy", "torch": "torch", "jax": "jax-x64"}
"""The backends in a dry run, in which `cupy` is the tests' stand-in for CuPy."""
SECONDS = 560.0
"""The time limit of a run. A dry run takes a minute, or several minutes on a busy machine."""
GRACE = 20.0  # seconds that a process may take beyond its time limit
TOO_SLOW = "was ended after the time limit"
TESTS_SHARE = 0.55  # of the time; the rest is for the benchmark
FOLDERS = ("backends", "contract", "losses", "transforms")
DRY_RUN_PATHS = ("test_predictions.py", "test_golden.py", "transforms/test_torch.py")
# These options replace `addopts` in pyproject.toml, so that skipped tests are not listed.
PYTEST = (
    *("-P", "-m", "pytest", "-v", "-rfE", "-p", "no:cacheprovider", "--rootdir", str(ROOT)),
    *("-c", str(ROOT / "pyproject.toml"), "-o", "addopts=--strict-markers"),
    "--continue-on-collection-errors",
)
TEST = r"\S*tests/(\S+\.py(?:::.*?)?)"
REQUIRED = "SPIKELOSS_XP_REQUIRED_BACKENDS"
NEEDED = ("numpy", "array_api_compat", "pytest")
Record = dict[str, Any]


SEE = """
import json, sys
from spikeloss_xp.backends._available import describe
print(json.dumps(vars(describe(sys.argv[1]))))
"""


class Kit:
    """A run of this program, with its scratch folder, environment and remaining time."""

    def __init__(self, scratch: Path, *, dry_run: bool) -> None:
        self.scratch, self.dry_run = scratch, dry_run
        self.end = time.monotonic() + SECONDS
        package = self._linked_package()
        path = [package, TESTS, HERE, BENCHMARKS, os.environ.get("PYTHONPATH", "")]
        path[:0] = [STAND_INS] * dry_run  # this folder contains `cupy`
        self._environment = dict(os.environ) | {
            "PYTHONPATH": os.pathsep.join(str(entry) for entry in path if str(entry)),
            # Several processes share the GPU, so none may reserve most of its memory.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "PYTHONUNBUFFERED": "1",  # otherwise a killed process loses its last lines
            "COLUMNS": "300",
        }
        self._environment.pop("SPIKELOSS_XP_STAND_INS", None)
        if dry_run:
            self._environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        else:  # compile as for users; otherwise the tests disable most optimizations
            self._environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}

    def _linked_package(self) -> Path:
        """Link both folders of the package into one, so that it need not be installed."""
        package = self.scratch / "package" / "spikeloss_xp"
        package.mkdir(parents=True)
        for entry in (ROOT / "spikeloss_xp").iterdir():
            if entry.name != "__pycache__":
                (package / entry.name).symlink_to(entry)
        (package / "backends").symlink_to(ROOT / "backends")
        return package.parent

    @property
    def left(self) -> float:
        return max(self.end - time.monotonic(), 1.0)

    def run(self, name: str, seconds: float, *command: str, **environment: str) -> tuple[str, str]:
        """Run Python with these arguments; return its output and, if it failed, the reason.

        The output is written to a file called `name`, so that it is kept if the process is killed.
        """
        file, problem = self.scratch / name, TOO_SLOW
        with file.open("wb") as log, contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                [sys.executable, *command], stdout=log, stderr=log, timeout=max(seconds, 0.1),
                env=self._environment | environment, cwd=self.scratch,
            )  # fmt: skip
            problem = f"ended with status {done.returncode}: " if done.returncode else ""
        text = file.read_text(encoding="utf-8", errors="replace").strip()
        last = text.rpartition("\n")[2]
        return text, problem + last * problem.endswith(": ")


def json_lines(text: str) -> list[dict[str, Any]]:
    """Return the JSON lines that a process printed, without a last line that was cut off."""
    lines = (line for line in text.splitlines() if line.startswith("{") and line.endswith("}"))
    return [json.loads(line) for line in lines]


def see(kit: Kit) -> dict[str, Record]:
    """Return the version, packages and GPU of each library, or why the library sees no GPU."""
    installed = sorted({x.name.lower() for x in metadata.distributions() if x.name})
    card, _ = card_and_driver()

    def seen(library: str) -> Record:
        text, problem = kit.run(f"see-{library}", 90, "-c", SEE, library)
        found = {"version": None, "devices": (), "problem": problem}
        for line in json_lines(text):
            found |= line
        devices, problem = found["devices"], found["problem"]
        if not problem and not any(name.startswith(("cuda", "gpu")) for name in devices):
            problem = f"no GPU: {', '.join(devices)} only"
        if kit.dry_run and found["version"]:
            problem = None
        packages = [name for name in installed if name.startswith(library)]
        place = {} if problem else {"card": "the CPU" if kit.dry_run else card or "a GPU"}
        return {"version": found["version"], "packages": packages, "problem": problem} | place

    with ThreadPoolExecutor() as pool:
        return dict(zip(LIBRARIES, pool.map(seen, LIBRARIES), strict=True))


def run_tests(kit: Kit, libraries: list[str]) -> dict[str, Ran]:
    """Run the tests of all libraries in parallel, and return their outcomes."""
    seconds = TESTS_SHARE * kit.left
    paths = [*(f"{folder}/test_*.py" for folder in FOLDERS), "test_*.py"]
    paths = DRY_RUN_PATHS if kit.dry_run else paths
    files = [str(path) for pattern in paths for path in sorted(TESTS.glob(pattern))]
    # JAX compiles every case, on a single thread, so its tests run in several processes.
    several = min(4, max((os.cpu_count() or 1) // 4, 1))
    parts = {library: several if library == "jax" else 1 for library in libraries}
    started = {}
    with ThreadPoolExecutor() as pool:
        for library, part in ((x, part) for x in libraries for part in range(parts[x])):
            backend = (ON_CPU if kit.dry_run else BACKENDS)[library]
            options = [*PYTEST, "--backend", backend, *files[part :: parts[library]]]
            name, required = f"tests-{library}-{part}", {REQUIRED: backend}
            started[library, name] = pool.submit(kit.run, name, seconds, *options, **required)
    found = {library: Ran(0, {}) for library in libraries}
    for (library, name), process in started.items():
        text, problem = process.result()
        count(text, found[library])
        if problem and not re.search(r"status [125]:", problem):  # it crashed or was cut short
            print(text[-4000:])
            if problem != TOO_SLOW:
                found[library].outcomes[name] = "failed", problem
    return found


def count(text: str, ran: Ran) -> None:
    """Add the outcomes that pytest printed to the outcomes of a library."""
    if collected := re.search(r"collected (\d+) items?(?:.* (\d+) selected)?", text):
        ran.selected += int(collected[2] or collected[1])
    for test, word in re.findall(rf"^{TEST} (PASSED|SKIPPED|XFAIL|FAILED|ERROR)\b", text, re.M):
        outcome = {"PASSED": "passed", "FAILED": "failed", "ERROR": "failed"}.get(word, "skipped")
        if ran.outcomes.get(test, ("",))[0] != "failed":  # an error in teardown may follow
            ran.outcomes[test] = outcome, ""
    for test, message in re.findall(rf"^(?:FAILED|ERROR) {TEST} - (.*)", text, re.M):
        ran.outcomes[test] = "failed", message


def measure(kit: Kit, library: str, seconds: float) -> tuple[list[Record], str]:
    """Run the benchmark for one library; return its rows, and a sentence about missing rows."""
    options = ["--dry-run"] if kit.dry_run else []
    command = [str(HERE / "benchmark.py"), library, str(seconds), *options]
    text, problem = kit.run(f"benchmark-{library}", seconds + GRACE, *command)
    rows = json_lines(text)
    left = rows.pop()["left"] if rows and "left" in rows[-1] else 0
    if problem:
        print(text[-4000:])
        return rows, f"the benchmark {problem}, after {len(rows)} rows"
    return rows, f"{left} rows of the benchmark were left at the time limit" * bool(left)


def card_and_driver() -> tuple[str, str]:
    """Return the name of the first GPU and its driver's version, or empty strings without a GPU."""
    listed = output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    card, _, driver = listed.partition("\n")[0].partition(", ")
    return card, driver


def output(*command: str) -> str:
    """Return what a program prints, or an empty string if it is missing, fails or hangs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        options = {"capture_output": True, "text": True, "timeout": 20, "check": True}
        return subprocess.run(command, **options).stdout.strip()
    return ""


def record(
    libraries: Record, tests: dict[str, Ran], benchmarks: list, missing: Record, *, dry_run: bool
) -> Record:
    """Return the record for gpu.json."""
    source = (ROOT / "spikeloss_xp" / "__init__.py").read_text(encoding="utf-8")
    unfinished = {name: str(ran) for name, ran in tests.items() if ran.result == "not finished"}
    numpy, python = metadata.version("numpy"), platform.python_version()
    _, driver = card_and_driver()
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "version": re.search(r'^__version__ = "(.*)"', source, re.MULTILINE)[1],
        "commit": output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"),
        "dry_run": dry_run,
        "machine": f"{platform.system()}, Python {python}, NumPy {numpy}"
        + f", NVIDIA driver {driver}" * bool(driver),
        "libraries": libraries,
        "claims": gpu.claims(tests, libraries, benchmarks),
        "tests": {name: str(ran) for name, ran in tests.items()},
        "failures": {
            name: {test: text for test, (word, text) in ran.outcomes.items() if word == "failed"}
            for name, ran in tests.items()
        },
        "benchmarks": benchmarks,
        "missing": unfinished | {name: text for name, text in missing.items() if text},
    }


def verdict(record: Record) -> tuple[int, str]:
    """Return the exit status and the last line to print."""
    where = "dry run on the CPU" if record["dry_run"] else "GPU"
    failed = [line for line, is_failure in gpu.problems(record) if is_failure]
    if failed:
        return 1, f"FAILED ({where}): {len(failed)} problems, the first: {failed[0]}"
    if left := [f"{LIBRARIES[name]}: {text}" for name, text in record["missing"].items()]:
        return 1, f"NOT FINISHED ({where}): {'; '.join(left)}"
    passed = "; ".join(f"{LIBRARIES[name]} {counts}" for name, counts in record["tests"].items())
    return 0, f"PASSED ({where}): {passed}; {len(record['benchmarks'])} rows measured"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="run small steps on the CPU")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gpu", metavar="FOLDER")
    arguments = parser.parse_args()
    if lacking := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"NOTHING RAN: {sys.executable} lacks {', '.join(lacking)}")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        kit = Kit(Path(scratch), dry_run=arguments.dry_run)
        libraries = see(kit)
        for name, seen in libraries.items():
            version = f"{LIBRARIES[name]} {seen['version'] or ''}".strip()
            print(f"{version}: {seen['problem'] or seen['card']}", flush=True)
        seeing = [name for name, seen in libraries.items() if not seen["problem"]]
        if not seeing:
            print("NOTHING RAN: no library sees a GPU. `--dry-run` runs all steps on the CPU")
            return 2
        tests = run_tests(kit, seeing)
        for name, ran in tests.items():
            print(f"{LIBRARIES[name]}: tests: {ran}", flush=True)
        rows: list[Record] = []
        missing: dict[str, str] = {}
        for number, name in enumerate(seeing):
            seconds = max((kit.left - GRACE) / (len(seeing) - number), 1.0)
            found, missing[name] = measure(kit, name, seconds)
            rows += found
    made = record(libraries, tests, rows, missing, dry_run=kit.dry_run)
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
    (arguments.out / "gpu.json").write_text(text, encoding="utf-8")
    status, last = verdict(made)
    todo = "A dry run is not for the docs."
    if not kit.dry_run:
        todo = f"Copy gpu.json to {gpu.RECORD} and run `python tools/write_pages.py`."
    print(f"\n{gpu.markdown(made)}\n\nWritten to {arguments.out}: gpu.json. {todo}\n{last}")
    return status


if __name__ == "__main__":
    sys.exit(main())
