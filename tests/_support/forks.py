"""Run the command many times, each in a fork of one process, which has imported the library."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

PROGRAM = """
import json, os, signal, sys
from _support.forks import at_write
from spikeloss_xp.cli import main

class Interrupting:  # a finder of modules that finds none
    def __init__(self, at):
        self.at, self.count = at, 0
    def find_spec(self, *arguments):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGINT)

def lead(number, where):
    name = {1: "stdout", 2: "stderr"}.get(number)
    if where == "closed":
        os.close(number)
        if name:
            setattr(sys, name, None)  # as Python does when it starts
    elif where == "pipe without a reader":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, number)
    else:
        os.dup2(os.open(where, os.O_RDWR | os.O_CREAT), number)

cases, folder = json.loads(sys.argv[1]), sys.argv[2]
if not any(case["interrupt"] for case in cases):
    from spikeloss_xp.cli import _compare, _evaluate
    _evaluate.select_places(["numpy"], "float32", None)  # imports the rest
results = []
for case in cases:
    out, err = (open(f"{folder}/{name}", "w+") for name in ("out", "err"))
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
        finder = Interrupting(case["interrupt"])
        for number, where in {"1": out.name, "2": err.name, **case["streams"]}.items():
            lead(int(number), where)
        sys.argv[1:] = case["arguments"]
        sys.meta_path.insert(0, finder)
        if case["kill"]:
            kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
            sys.setprofile(at_write(case["kill"], kill))
        status = main()
        if case["interrupt"] == "count":
            os._exit(min(finder.count, 255))
        sys.exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append((status, out.read(), err.read()))
    for file in (out, err):
        file.close()
        os.unlink(file.name)
print(json.dumps(results))
"""
WRITES = ("open", "write", "flush", "fsync", "close", "replace")


def at_write(number: int, fault: Callable[[], None]) -> Callable[..., None]:
    """Return a function for `sys.setprofile`, which calls `fault` before one call of `WRITES`.

    Those that open and close files to read count too, and those that print do not.
    """
    count = 0

    def profile(frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        text = isinstance(getattr(called, "__self__", None), str)  # `str.replace`
        prints = frame.f_code.co_filename.endswith("_terminal.py")
        if event == "c_call" and called.__name__ in WRITES and not text and not prints:
            count += 1
            if count == number:
                fault()

    return profile


def run_in_forks(folder: Path, cases: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Return status, standard output and standard error of the command in each case.

    A case has `arguments`, and may have `streams`, which leads a stream by its number to a path,
    "closed" or "pipe without a reader", and `interrupt`, the number of the import which SIGINT
    interrupts. With "count" the status is the number of imports. A case with `kill` is killed
    before this call of `WRITES`.
    """
    filled = [{"streams": {}, "interrupt": None, "kill": None, **case} for case in cases]
    command = [sys.executable, "-c", PROGRAM, json.dumps(filled, default=str), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [tuple(result) for result in json.loads(done.stdout)]
