"""Losses on disk, one for each sample, and a record of how many samples are done.

The losses are in an .npy file. It has its full size from the start, and holds NaN for samples that
are not done. It is written without a memory map, so that a full disk raises an error and does not
kill the process. The record is a JSON file beside it. It is replaced atomically, after the losses
that it counts are on the disk, so it is true however the process ends. A file without a record was
not written by this command, and is never overwritten. The caller holds the output (`held`).
"""

import contextlib
import io
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from spikeloss_xp.cli._files import replace
from spikeloss_xp.cli._recording import UsageError

COMMAND = "spikeloss-xp evaluate"
DTYPE = np.dtype("<f8")
SECONDS = 1.0  # the least time between two records, because writing one waits for the disk
BLOCK_LOSSES = 1 << 16  # the number of losses that are read or written at a time
LARGEST_RECORD = 1 << 16  # bytes
COUNTS = ("done", "right", "labels")  # of samples, of predicted labels and of labels in the record


@dataclass(frozen=True)
class Summary:
    """The mean of the finite losses, NaN if there are none, and how many are NaN or infinite.

    The accuracy is that of all labels, or None without labels.
    """

    mean: float
    accuracy: float | None
    nan: int
    infinite: int


class Results:
    """The losses of `samples` samples, in a file that may already hold the first of them.

    `settings` holds everything that the losses depend on. If the record beside the file has other
    settings or is damaged, the constructor raises a `UsageError`. With `restart`, it only requires
    that this command wrote the record, and starts from the first sample.
    """

    def __init__(
        self, path: Path, samples: int, settings: dict[str, Any], *, restart: bool
    ) -> None:
        self.path, self.samples = path, samples
        self._settings = {"command": COMMAND, **settings, "samples": samples}
        self._record = path.with_name(f"{path.name}.json")
        self._file: IO[bytes] | None = None
        self._recorded = time.monotonic()
        self.right, self.labels = 0, 0  # of the samples that are done
        with _os_errors(path):
            self.done = self._count_done(restart=restart)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with _os_errors(self.path), self._file:
                self._write_record()

    def write(self, losses: np.ndarray, right: int = 0, labels: int = 0) -> None:
        """Append the losses of the next samples, and add up the counts of their labels."""
        with _os_errors(self.path):
            if self._file is None:
                self._file = self._open_file()
            self._file.seek(_offset(self.samples) + DTYPE.itemsize * self.done)
            self._file.write(losses.astype(DTYPE).tobytes())
            self.done += len(losses)
            self.right += right
            self.labels += labels
            if time.monotonic() - self._recorded >= SECONDS:
                self._write_record()

    def summary(self) -> Summary:
        """Return the summary of all losses, read from the file in blocks."""
        sums, finite, nan = [], 0, 0
        with _os_errors(self.path), self.path.open("rb") as file:
            file.seek(_offset(self.samples))
            while (block := np.fromfile(file, DTYPE, BLOCK_LOSSES)).size:
                finite_losses = block[np.isfinite(block)]
                with np.errstate(over="ignore"):
                    sums.append(float(finite_losses.sum()))
                finite += finite_losses.size
                nan += int(np.isnan(block).sum())
        mean = sum(sums) / finite if finite else math.nan
        accuracy = self.right / self.labels if self.labels else None
        return Summary(mean, accuracy, nan, self.samples - finite - nan)

    def _count_done(self, *, restart: bool) -> int:
        """Return how many samples are done according to the record, after checking both files."""
        if not self._record.exists():
            if self.path.exists():
                raise UsageError(
                    f"{self.path} exists, and there is no record {self._record.name} which says "
                    "that this command wrote it: move it away, or name another --output"
                )
            return 0
        record = _load_record(self._record)
        if restart:
            return 0
        counts = [record.pop(name, None) for name in COUNTS]
        if record != self._settings:
            raise UsageError(
                f"{self.path} was begun with other settings: "
                f"{_differences(record, self._settings)}. "
                "Name another --output, or begin anew with --restart"
            )
        done, right, labels = counts
        if not all(type(count) is int for count in counts) or not (
            0 <= done <= self.samples and 0 <= right <= labels
        ):
            raise UsageError(
                f"{self._record} is damaged: it says that {done} samples are done, and that "
                f"{right} of {labels} labels are predicted. Begin anew with --restart"
            )
        if done and not self._has_expected_layout():
            raise UsageError(
                f"{self.path} is not the file of {self.samples} losses that its record describes. "
                "Begin anew with --restart"
            )
        self.right, self.labels = right, labels
        return int(done)

    def _has_expected_layout(self) -> bool:
        try:
            with self.path.open("rb") as file:
                header = file.read(_offset(self.samples))
        except FileNotFoundError:
            return False
        size = _offset(self.samples) + DTYPE.itemsize * self.samples
        return header == _header(self.samples) and self.path.stat().st_size == size

    def _open_file(self) -> IO[bytes]:
        if not self.done:
            self._write_record()  # before the file, so that a file of losses always has a record
            needed = DTYPE.itemsize * self.samples
            if needed > (free := shutil.disk_usage(self.path.parent).free):
                raise UsageError(
                    f"{self.path}: {self.samples} losses take {needed} bytes, and the disk has "
                    f"{free} free"
                )
            replace(self.path, self._write_nan)
        return self.path.open("r+b")

    def _write_nan(self, file: IO[bytes]) -> None:
        file.write(_header(self.samples))
        for start in range(0, self.samples, BLOCK_LOSSES):
            count = min(BLOCK_LOSSES, self.samples - start)
            file.write(np.full(count, math.nan, DTYPE).tobytes())

    def _write_record(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        counts = dict(zip(COUNTS, (self.done, self.right, self.labels), strict=True))
        record = json.dumps({**self._settings, **counts}, indent=2) + "\n"
        replace(self._record, lambda file: file.write(record.encode("ascii")))
        self._recorded = time.monotonic()


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` into a `UsageError` that begins with the path."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error}") from None


def _header(samples: int) -> bytes:
    """Return the header of an .npy file of this many losses."""
    stream = io.BytesIO()
    fields = {"descr": DTYPE.str, "fortran_order": False, "shape": (samples,)}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def _offset(samples: int) -> int:
    return len(_header(samples))


def _load_record(path: Path) -> dict[str, Any]:
    """Return the record in a file. Raise a `UsageError` if this command did not write it."""
    try:
        with path.open("rb") as file:
            record = json.loads(file.read(LARGEST_RECORD))
        if record["command"] == COMMAND:
            return dict(record)
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UsageError(
        f"{path} is not a record of this command: move it away, or name another --output"
    )


def _differences(recorded: dict[str, Any], current: dict[str, Any]) -> str:
    changes = [
        f"{key} was {recorded.get(key)} and is {value}"
        for key, value in current.items()
        if recorded.get(key) != value
    ]
    return "; ".join(changes) or f"it also has {', '.join(recorded.keys() - current.keys())}"
