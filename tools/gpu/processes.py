"""Processes of the kit, with the package on their path, and what they printed."""

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

    def start(self, name: str, program: str, **arguments: Any) -> subprocess.Popen[bytes]:
        """Start a program of this folder; what it prints goes to a file of that name."""
        command = [sys.executable, str(HERE / program), json.dumps(arguments)]
        with (self.scratch / name).open("wb") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd=self.scratch
            )

    def wait(self, process: subprocess.Popen[bytes], seconds: float) -> str:
        """Wait for a process; return "" if it came to its end, or a sentence on how it ended."""
        try:
            status = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "was ended after the time limit"
        return "" if status in (0, 1, 2, 5) else f"ended with status {status}"  # as those of pytest

    def log(self, name: str) -> str:
        return (self.scratch / name).read_text(encoding="utf-8", errors="replace")

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of JSON that a program printed, the last of which may be cut."""
        lines = [line for line in self.log(name).splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines if line.endswith("}")]
