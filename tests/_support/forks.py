"""Run the command many times, each in a fork of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROGRAM = """
import json, os, signal, sys
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

def interrupt(frame, event, called):
    global imports
    imports -= event == "call" and frame.f_code.co_name == "_find_spec"
    if imports == 0:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)

cases, folder = json.loads(sys.argv[1]), sys.argv[2]
if not any(case["interrupted_at_import"] for case in cases):
    from spikeloss_xp.cli import _compare
    _compare.select_places(["numpy"], "float32", None)  # imports the rest
    _compare.MAX_CALLS = 2  # of each loss, to time it
results = []
for case in cases:
    out, err = (open(f"{folder}/{name}", "w+") for name in ("out", "err"))
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
        for number, where in {"1": out.name, "2": err.name, **case["streams"]}.items():
            lead(int(number), where)
        sys.argv[1:] = case["arguments"].split()
        if imports := case["interrupted_at_import"]:
            sys.setprofile(interrupt)
        sys.exit(main())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    results.append((status, out.read(), err.read()))
    for file in (out, err):
        file.close()
        os.unlink(file.name)
print(json.dumps(results))
"""


def run_in_forks(folder: Path, cases: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Return status, standard output and standard error of the command in each case.

    A case has `arguments`, and may have `streams`, which leads a stream by its number to a path,
    "closed" or "pipe without a reader", and `interrupted_at_import`, the number of the import
    before which SIGINT arrives.
    """
    filled = [{"streams": {}, "interrupted_at_import": 0, **case} for case in cases]
    command = [sys.executable, "-c", PROGRAM, json.dumps(filled), str(folder)]
    environment = os.environ.copy()
    environment.pop("PYTHONUNBUFFERED", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [tuple(result) for result in json.loads(done.stdout)]
