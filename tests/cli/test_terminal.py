"""Signals, and standard streams that are closed or cannot be written."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from spikeloss_xp.cli import _compare

COMPARE = "compare --backend numpy --loss SparsityEnforcer"
HELP = ("--version", "compare --help")
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals, no forks")


@contextlib.contextmanager
def sigint(handler):
    before = signal.signal(signal.SIGINT, handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def interrupted_by(monkeypatch):
    """Return a function that has the process get these signals while a loss is evaluated."""

    def patch(*numbers):
        reference = _compare.reference

        def interrupt(*arguments):
            try:
                os.kill(os.getpid(), numbers[0])
            finally:  # more signals while the command ends
                for number in numbers[1:]:
                    os.kill(os.getpid(), number)
            return reference(*arguments)

        monkeypatch.setattr(_compare, "reference", interrupt)

    return patch


@UNIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_once(command, interrupted_by, number):
    interrupted_by(number, signal.SIGTERM, signal.SIGINT)
    with sigint(signal.default_int_handler):
        result = command(COMPARE)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert result == (128 + number, "", "spikeloss-xp: interrupted\n")


@UNIX
def test_ignored_signal_stays_ignored(command, interrupted_by):
    interrupted_by(signal.SIGINT)
    with sigint(signal.SIG_IGN):  # as shells start jobs in the background
        assert command(COMPARE)[0] == 0


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


def run_in_forks(folder, cases):
    """Return status, standard output and standard error of the command in each case.

    Each runs in a fork of one process. A case has `arguments`, and may have `streams`, which leads
    a stream by its number to a path, "closed" or "pipe without a reader", and
    `interrupted_at_import`, the number of the import before which SIGINT arrives.
    """
    filled = [{"streams": {}, "interrupted_at_import": 0, **case} for case in cases]
    command = [sys.executable, "-c", PROGRAM, json.dumps(filled), str(folder)]
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return json.loads(subprocess.check_output(command, env=environment))


@UNIX
def test_streams_that_cannot_be_written_never_print_a_traceback(tmp_path):
    broken = {"pipe without a reader": "[Errno 32] Broken pipe"}
    if os.path.exists("/dev/full"):
        broken["/dev/full"] = "[Errno 28] No space left"
    cases = [(COMPARE, {1: where}, 2, broken[where]) for where in broken]
    cases += [(words, {1: where}, 2, broken[where]) for words in HELP for where in broken]
    cases += [(words, {1: "closed"}, 0, "") for words in HELP]
    for where in (*broken, "closed"):
        cases += [("compare --loss x", {2: where}, 2, ""), ("compare x.npz", {2: where}, 2, "")]
    cases.append((COMPARE, {2: "closed"}, 0, ""))
    cases.append((COMPARE, dict.fromkeys(range(3), "closed"), 0, ""))
    given = [{"arguments": words, "streams": streams} for words, streams, *_ in cases]
    for case, (status, _, err) in zip(cases, run_in_forks(tmp_path, given), strict=True):
        *_, expected, message = case
        assert status == expected, (case, err)
        assert (f"standard output cannot be written: {message}" if message else "") in err
        assert err.count("\n") == bool(message)


@UNIX
def test_interruption_of_the_imports_prints_no_traceback(tmp_path):
    cases = [{"arguments": COMPARE, "interrupted_at_import": 4**i} for i in range(4)]
    for status, out, err in run_in_forks(tmp_path, cases):
        assert (status, out) == (130, "")
        assert err in ("", "spikeloss-xp: interrupted\n")
