"""Run the command many times, each in a fork of one process, and faults at one of its calls."""

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
from _support.forks import at_call
from spikeloss_xp.cli import main

def lead(number, where):
    if where == "closed":
        os.close(number)
        setattr(sys, ["stdin", "stdout", "stderr"][number], None)  # as Python does when it starts
    elif where == "pipe without a reader":
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, number)
    else:
        os.dup2(os.open(where, os.O_RDWR | os.O_CREAT), number)

cases, folder = json.loads(sys.argv[1]), sys.argv[2]
if not any(case["at"][0] == "import" for case in cases):
    from spikeloss_xp.cli import _compare, _evaluate
    _evaluate.select_places(["numpy"], "float32", None)  # imports the rest
results = []
for case in cases:
    out, err = (open(f"{folder}/{name}", "w+") for name in ("out", "err"))
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
        for number, where in {"1": out.name, "2": err.name, **case["streams"]}.items():
            lead(int(number), where)
        sys.argv[1:] = case["arguments"].split()
        kind, count, number = case["at"]
        sys.setprofile(at_call(kind, count, lambda: os.kill(os.getpid(), number)))
        sys.exit(main())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append((status, out.read(), err.read()))
    for file in (out, err):
        file.close()
        os.unlink(file.name)
print(json.dumps(results))
"""
WRITES = ("open", "write", "flush", "fsync", "close", "replace")


def at_call(kind: str, number: int, fault: Callable[[], None]) -> Callable[..., None]:
    """Return a function for `sys.setprofile`, which calls `fault` before the call of this number.

    Counted are imports if `kind` is "import", or calls of `WRITES` if it is "write": those that
    open and close files to read too, but not those that print.
    """
    count = 0

    def profile(frame: FrameType, event: str, called: Any) -> None:
        nonlocal count
        code = frame.f_code
        if kind == "import":
            found = event == "call" and code.co_name == "_find_spec"
        else:
            file = event == "c_call" and not isinstance(called.__self__, str)  # not `str.replace`
            found = file and called.__name__ in WRITES and "_terminal.py" not in code.co_filename
        count += found
        if found and count == number:
            fault()

    return profile


def run_in_forks(folder: Path, cases: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Return status, standard output and standard error of the command in each case.

    A case has `arguments`, and may have `streams`, which leads a stream by its number to a path,
    "closed" or "pipe without a reader", and `at`: the kind and the number of a call, as for
    `at_call`, and the signal that the process gets before it.
    """
    filled = [{"streams": {}, "at": ("write", 0, 0), **case} for case in cases]
    command = [sys.executable, "-c", PROGRAM, json.dumps(filled), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [tuple(result) for result in json.loads(done.stdout)]
