"""Processes of the kit, with the package on their path, and what they printed."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS, BENCHMARKS = ROOT / "tests", ROOT / "tools" / "benchmarks"
STAND_INS = TESTS / "_support" / "stand_ins"

SECONDS = 560.0
"""The time of a run. A dry run needs a minute, or several on a busy machine."""
GRACE = 20.0  # seconds after a time limit until a process is ended
TOO_SLOW = "was ended after the time limit"


class Kit:
    """A run: its scratch folder, its processes, and the time that is left."""

    def __init__(self, scratch: Path, *, dry_run: bool) -> None:
        self.scratch, self.dry_run = scratch, dry_run
        self.end = time.monotonic() + SECONDS
        package = self._linked_package()
        path = [package, TESTS, HERE, BENCHMARKS, os.environ.get("PYTHONPATH", "")]
        path[:0] = [STAND_INS] * dry_run  # `cupy` is there
        self._environment = dict(os.environ) | {
            "PYTHONPATH": os.pathsep.join(str(entry) for entry in path if str(entry)),
            # Several processes share the GPU, so none may take most of its memory at once.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "PYTHONUNBUFFERED": "1",  # a process that is killed has printed what it had to say
            "COLUMNS": "300",
        }
        self._environment.pop("SPIKELOSS_XP_STAND_INS", None)
        if dry_run:
            self._environment |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
        else:  # compile as for users: the tests would ask for few optimizations
            self._environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}

    def _linked_package(self) -> Path:
        """Join the two folders of the package by links, so that it need not be installed."""
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
        """Run Python with these arguments; return what it printed, and how it failed if it did.

        It prints to a file of that name, which also keeps what a process printed that was killed.
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
    """Return the lines of JSON that a process printed, the last of which may be cut."""
    lines = (line for line in text.splitlines() if line.startswith("{") and line.endswith("}"))
    return [json.loads(line) for line in lines]
