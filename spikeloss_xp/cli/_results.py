"""Losses on disk, one for each sample, and a record of how many are done.

The losses are an .npy file, of its full size from the start and NaN where nothing is done. They
are written, not mapped: a disk that is full is then an error, and not the end of the process. The
record is a JSON file beside it, replaced as a whole, after the losses that it counts are on the
disk. Whatever stops the process, what the record says is true. A file that has no record was not
written here, and is never written over.
"""

import contextlib
import io
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from spikeloss_xp.cli._recording import UsageError

COMMAND = "spikeloss-xp evaluate"
DTYPE = np.dtype("<f8")
SECONDS = 1.0  # from one record to the next, because each waits for the disk
PIECE = 1 << 16  # losses that are read or filled in at a time


@dataclass(frozen=True)
class Summary:
    """How many losses are NaN and infinite, and the mean of the others; NaN if there are none."""

    mean: float
    nan: int
    infinite: int


class Results:
    """The losses of so many samples, in a file that may hold the first of them already.

    `about` is what they depend on. If the record there says something else, or cannot be a record,
    that is a `UsageError`, unless it is to `restart`.
    """

    def __init__(self, path: Path, samples: int, about: dict[str, Any], *, restart: bool) -> None:
        self.path, self.samples = path, samples
        self._about = {"command": COMMAND, **about, "samples": samples}
        self._record = path.with_name(f"{path.name}.json")
        self._file: IO[bytes] | None = None
        self._recorded = time.monotonic()
        with _writing(path):
            self.done = self._found(restart=restart)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with _writing(self.path), self._file:
                self._write_record()

    def write(self, losses: np.ndarray) -> None:
        """Add the losses of the next samples."""
        with _writing(self.path):
            if self._file is None:
                self._file = self._opened()
            self._file.seek(_offset(self.samples) + DTYPE.itemsize * self.done)
            self._file.write(losses.astype(DTYPE).tobytes())
            self.done += len(losses)
            if time.monotonic() - self._recorded >= SECONDS:
                self._write_record()

    def summary(self) -> Summary:
        """Read what is done, a piece at a time, and sum it up."""
        sums, finite, nan = [], 0, 0
        with _writing(self.path), self.path.open("rb") as file:
            file.seek(_offset(self.samples))
            while (piece := np.fromfile(file, DTYPE, PIECE)).size:
                kept = piece[np.isfinite(piece)]
                with np.errstate(over="ignore"):
                    sums.append(float(kept.sum()))
                finite += kept.size
                nan += int(np.isnan(piece).sum())
        mean = sum(sums) / finite if finite else math.nan
        return Summary(mean, nan, self.samples - finite - nan)

    def _found(self, *, restart: bool) -> int:
        """Return how many samples are done, by the record."""
        if not self.path.parent.is_dir():
            raise UsageError(f"{self.path}: there is no folder {self.path.parent}")
        if not self._record.exists():
            if self.path.exists():
                raise UsageError(
                    f"{self.path} exists, and has no record {self._record.name} that says that "
                    "this command wrote it: move it away, or name another --output"
                )
            return 0
        record = _loaded(self._record)
        if restart:
            return 0
        done = record.pop("done", None)
        if record != self._about:
            raise UsageError(
                f"{self.path} was begun otherwise: {_differences(record, self._about)}. Name "
                "another --output, or --restart"
            )
        if type(done) is not int or not 0 <= done <= self.samples:
            raise UsageError(f"{self._record} is damaged: it says that {done} are done. --restart")
        if done and not self._is_whole():
            raise UsageError(
                f"{self.path} is not the file of {self.samples} losses that its record is of. "
                "--restart"
            )
        return done

    def _is_whole(self) -> bool:
        try:
            with self.path.open("rb") as file:
                header = file.read(_offset(self.samples))
        except FileNotFoundError:
            return False
        size = _offset(self.samples) + DTYPE.itemsize * self.samples
        return header == _header(self.samples) and self.path.stat().st_size == size

    def _opened(self) -> IO[bytes]:
        if not self.done:
            self._write_record()  # first, so that a file of losses always has one
            needed = DTYPE.itemsize * self.samples
            if needed > (free := shutil.disk_usage(self.path.parent).free):
                raise UsageError(
                    f"{self.path}: {self.samples} losses take {needed} bytes, and {free} are free"
                )
            _replace(self.path, self._write_nan)
        return self.path.open("r+b")

    def _write_nan(self, file: IO[bytes]) -> None:
        file.write(_header(self.samples))
        for start in range(0, self.samples, PIECE):
            count = min(PIECE, self.samples - start)
            file.write(np.full(count, math.nan, DTYPE).tobytes())

    def _write_record(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        record = json.dumps({**self._about, "done": self.done}, indent=2) + "\n"
        _replace(self._record, lambda file: file.write(record.encode("ascii")))
        self._recorded = time.monotonic()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error}") from None


def _header(samples: int) -> bytes:
    """Return what an .npy file of this many losses begins with."""
    stream = io.BytesIO()
    about = {"descr": DTYPE.str, "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(stream, about)
    return stream.getvalue()


def _offset(samples: int) -> int:
    return len(_header(samples))


def _replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that at any time there is the old one, or the new one as a whole."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _loaded(path: Path) -> dict[str, Any]:
    """Return a record, after making sure that it is one."""
    try:
        with path.open("rb") as file:
            record = json.loads(file.read(PIECE))
        if record["command"] == COMMAND:
            return dict(record)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UsageError(f"{path} is not a record of this command: move it, or name another --output")


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    found = [
        f"{key} {there.get(key)} there and {value} here"
        for key, value in here.items()
        if there.get(key) != value
    ]
    return "; ".join(found) or f"it knows of {', '.join(there.keys() - here.keys())}"
