"""Output files: replaced atomically, and written by one run at a time."""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from spikeloss_xp.cli._recording import UsageError

MARK = "a run of spikeloss-xp evaluate: process "
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # a system without it has no symbolic links to follow


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file atomically: readers find the complete old file or the complete new one.

    The temporary file has a random name and is created exclusively, so no other file is
    overwritten and no link is followed.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    number = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(number, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold an output until the run ends, by a lock on a file beside it.

    Raise a `UsageError` if another run holds it. The system releases the lock of a process that
    ends, however it ends, so a lock file that is left behind does no harm.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}")
    lock = path.with_name(f"{path.name}.lock")
    try:
        number = _locked(path, lock)
    except OSError as error:
        raise UsageError(f"{lock}: cannot be written: {error}") from None
    try:
        os.ftruncate(number, 0)
        os.write(number, f"{MARK}{os.getpid()}\n".encode("ascii"))
        yield
    finally:
        if os.name != "nt":  # Windows removes no file that is open
            lock.unlink(missing_ok=True)
        os.close(number)


def _locked(path: Path, lock: Path) -> int:
    """Return the descriptor of a lock file that this process has locked."""
    while True:
        created = True
        try:
            number = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            created = False
            try:
                number = os.open(lock, os.O_RDWR | NO_LINK)
            except FileNotFoundError:
                continue  # the run that held it has ended
        content = os.pread(number, 1000, 0) if hasattr(os, "pread") else b""
        if not _try_to_lock(number):
            os.close(number)
            holder = content.decode("ascii", "replace").removeprefix(MARK).strip()
            raise UsageError(
                f"{path}: another run writes to it"
                f"{f', process {holder}' if holder else ''}: wait for it, or name another --output"
            )
        if not created and not content.startswith(MARK.encode("ascii")):
            os.close(number)
            raise UsageError(
                f"{lock} was not written by this command: move it away, or name another --output"
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(lock, follow_symlinks=False), os.fstat(number)):
                return number
        os.close(number)  # the run that held it has removed it


def _try_to_lock(number: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        lock: Any = msvcrt
        try:
            lock.locking(number, lock.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
