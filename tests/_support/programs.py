"""Programs that the tests run in an interpreter of their own."""

import os
import subprocess
import sys
from pathlib import Path


def run_python(program: str, *options: str, path: Path | None = None) -> str:
    """Run a program in a new interpreter in which every warning is an error; return its output.

    `path` is a folder to import from. The option -P keeps the current folder off the path, so that
    the program imports the same copy of the library as this process.
    """
    command = [sys.executable, "-P", "-W", "error", *options, "-c", program]
    environment = os.environ | ({} if path is None else {"PYTHONPATH": str(path)})
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
