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
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
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

    def start(self, name: str, program: str, **arguments: Any) -> None:
        """Start a program of this folder; what it prints goes to a file of that name."""
        command = [sys.executable, str(HERE / program), json.dumps(arguments)]
        with (self.scratch / name).open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment, cwd=self.scratch
            )

    def finish(self, name: str, seconds: float) -> tuple[list[dict[str, Any]], str]:
        """Return the lines of JSON that a program printed, and how it failed if it did.

        It is killed if it takes longer, so that the last line may be cut.
        """
        process = self._processes[name]
        try:
            status = process.wait(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            status = None
        text = (self.scratch / name).read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line]
        found = [json.loads(line) for line in lines if line[0] == "{" and line[-1] == "}"]
        if status == 0:
            return found, ""
        print(text[-4000:])
        if status is None:
            return found, "was ended after the time limit"
        return found, f"ended with status {status}: {lines[-1] if lines else ''}"
