"""Signals, colours, and standard streams that are closed or cannot be written."""

import os
import signal
import subprocess
import sys

import pytest

from spikeloss_xp._interruption import show_in_one_line
from spikeloss_xp.cli import _compare, _terminal, main

COMPARE = "compare --backend numpy --loss SparsityEnforcer"
UNIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals and shells")


@pytest.fixture
def handlers():
    """Set the handlers of the signals back after the test."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def interrupted_by(monkeypatch, handlers):
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
    signal.signal(signal.SIGINT, signal.default_int_handler)
    result = command(COMPARE)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert result == (128 + number, "", "spikeloss-xp: interrupted\n")


@UNIX
def test_ignored_signal_stays_ignored(command, interrupted_by):
    interrupted_by(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start jobs in the background
    assert command(COMPARE)[0] == 0


def test_interruption_of_the_imports_or_the_exit_prints_no_traceback(monkeypatch, capsys, handlers):
    monkeypatch.setattr(sys, "argv", ["spikeloss-xp", "--version"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in a background job it is ignored
    assert main() == 0
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # ends the process at once
    monkeypatch.setitem(sys.modules, "spikeloss_xp.cli._terminal", Interrupted())
    monkeypatch.delattr("spikeloss_xp.cli._terminal")
    assert main(["--version"]) == 130
    assert capsys.readouterr().err == "spikeloss-xp: interrupted\n"


@pytest.mark.compiles
@pytest.mark.parametrize("error", ["KeyboardInterrupt", "ValueError"])  # the first is Ctrl-C
@pytest.mark.parametrize("command", ["-m spikeloss_xp", "spikeloss-xp", "spikeloss-xp.exe", "-c"])
def test_interruption_while_the_package_is_imported_is_one_line(tmp_path, command, error):
    (tmp_path / "array_api_compat.py").write_text(f"raise {error}")
    program = "import spikeloss_xp"
    if command.startswith("spikeloss"):
        (tmp_path / command).write_text(f"from spikeloss_xp.cli import main\n{program}")
        command = str(tmp_path / command)
    arguments = [sys.executable, *command.split(" "), program if command == "-c" else "compare"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    variables = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(arguments, env=variables, capture_output=True, text=True)
    assert done.returncode != 0
    if command == "-c" or error == "ValueError":  # a program that imports the library, or a bug
        assert done.stderr.startswith("Traceback")
    else:
        assert done.stderr == "spikeloss-xp: interrupted\n"


def test_importing_the_library_installs_no_handler(monkeypatch):
    hook = sys.excepthook
    for arguments in (["program.py"], ["-m"], [""], []):
        monkeypatch.setattr(sys, "argv", arguments)
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pytest"])
        show_in_one_line()
        assert sys.excepthook is hook


class Interrupted:
    """A module whose use is interrupted."""

    def __getattr__(self, name):
        raise KeyboardInterrupt


FULL = "standard output cannot be written: [Errno 28] No space left on device\n"
CLOSED_PIPE = "standard output cannot be written: [Errno 32] Broken pipe\n"


@pytest.mark.compiles
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a full device")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (f"{COMPARE} > /dev/full", 2, FULL),
        ("compare --help > /dev/full", 2, FULL),
        ("--version | true", 2, CLOSED_PIPE),
        ("--version >&-", 0, ""),
        ("compare no-such-file 2> /dev/full", 2, ""),
        ("compare no-such-file 2>&-", 2, ""),
        (f"{COMPARE} <&- >&- 2>&-", 0, ""),
    ],
)
def test_stream_that_cannot_be_written_prints_no_traceback(arguments, status, message):
    command = ["bash", "-c", f"set -o pipefail; {sys.executable} -m spikeloss_xp {arguments}"]
    buffered = {name: x for name, x in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, capture_output=True, text=True, env=buffered)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == (message and f"spikeloss-xp: error: {message}")


def test_terminal_shows_colour_and_progress(command, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    right = _compare.reference
    monkeypatch.setattr(_compare, "reference", lambda *a: (2 * right(*a)[0], right(*a)[1]))
    status, out, err = command(COMPARE)
    assert status == 1
    assert "1 of 1: SparsityEnforcer on numpy" in err
    assert "\033[31mDISAGREES\033[0m" in out
    assert "\033[1mSparsityEnforcer" in out
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert "\033" not in command(COMPARE)[1]
    monkeypatch.setenv("NO_COLOR", "")  # https://no-color.org: empty is not set
    assert _terminal.has_colour(sys.stdout)
