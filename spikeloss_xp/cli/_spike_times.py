"""Spike times on disk, binned in batches of samples."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp.binning import Bins, add_spikes, check_indices, epsilon_of
from spikeloss_xp.cli._files import Rows, check_memory
from spikeloss_xp.cli._terminal import UsageError, usage_errors

COLUMNS = ("times", "neuron", "sample")  # one entry for each spike; `sample` may be missing
NUMBERS = ("neurons", "steps", "samples", "time_step", "start")  # on the command line as well
READ_SPIKES = 1 << 17  # spikes that are read at a time


class BinnedRows:
    """Counts ``[samples, neurons, steps]`` of spikes that are in the order of their samples.

    The spikes are read in blocks, so memory holds a block and the counts of a batch.
    """

    def __init__(self, columns: Mapping[str, Rows], bins: Bins, neurons: int, samples: int) -> None:
        self._columns, self._bins = columns, bins
        self.shape: tuple[int, ...] = (samples, neurons, bins.steps)
        self.chunk: tuple[int, ...] = (1, neurons, bins.steps)
        self.dtype: np.dtype = np.dtype(np.float32)
        self._spikes = columns["times"].shape[0]
        chunk = max(rows.chunk[0] for rows in columns.values())
        self._read_length = max(READ_SPIKES - READ_SPIKES % chunk, chunk)
        self._next = 0  # the first spike that has not been read
        self._last = 0  # the sample of the one before
        self._sample, self._entry = np.empty(0, np.int64), np.empty(0, np.int64)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the samples in the half-open range from `start` to `stop`."""
        _, neurons, steps = self.shape
        counts = np.zeros((stop - start) * neurons * steps, self.dtype)
        while True:
            first, end = np.searchsorted(self._sample, (start, stop))
            offset = (self._sample[first:end] - start) * (neurons * steps)
            add_spikes(counts, offset + self._entry[first:end])
            self._sample, self._entry = self._sample[end:], self._entry[end:]
            if self._sample.size or self._next == self._spikes:
                return counts.reshape(stop - start, neurons, steps)
            self._read_spikes()

    def _read_spikes(self) -> None:
        """Read the next spikes: their samples, and their entries in the counts of a sample."""
        start, stop = self._next, min(self._next + self._read_length, self._spikes)
        block = {name: rows.read(start, stop) for name, rows in self._columns.items()}
        samples, neurons, steps = self.shape
        times, sample = block["times"], block.get("sample", np.zeros(stop - start, np.int64))
        with usage_errors():
            neuron = check_indices(block["neuron"], neurons, "`neuron`", start)
            self._sample = check_indices(sample, samples, "`sample`", start)
            self._entry = neuron * steps + self._bins.index(
                times, epsilon_of(times), "`times`", start
            )
        falls = np.flatnonzero(np.diff(self._sample, prepend=self._last) < 0)
        if falls.size:
            rule = f"must not decrease, and `sample`[{start + falls[0]}] does"
            remedy = "sort the spikes by numpy.argsort(sample, kind='stable')"
            raise UsageError(f"`sample` {rule}: {remedy}")
        self._next, self._last = stop, int(self._sample[-1])


def binned(arrays: Mapping[str, Rows], options: Mapping[str, Any]) -> dict[str, Rows]:
    """Return the arrays of a file of spike times with `input` in their place.

    The numbers in `options` come before those of the file.
    """
    columns = {name: arrays[name] for name in COLUMNS if name in arrays}
    if "neuron" not in columns:
        missing = "an array `neuron` with the neuron of each spike"
        raise UsageError(f"beside `times` it must hold {missing}")
    for name, rows in columns.items():
        if len(rows.shape) != 1 or rows.shape != columns["times"].shape:
            shapes = ", ".join(f"`{n}` {list(rows.shape)}" for n, rows in columns.items())
            raise UsageError(f"its spikes must have one axis, the same in each array; got {shapes}")
        check_memory(f"`{name}` is too large (save it in smaller chunks)", rows.chunk[0])
    others = {n: rows for n, rows in arrays.items() if n not in COLUMNS + NUMBERS}
    counts = [rows.shape[0] for rows in others.values() if rows.shape]  # one label for each sample
    counts = counts if "sample" in columns else [1]
    numbers: dict[str, Any] = {"samples": counts[0]} if counts else {}
    numbers |= {name: _number(arrays[name], name) for name in NUMBERS if name in arrays}
    numbers |= options
    for name in ("neurons", "steps", "samples"):
        if name not in numbers:
            remedy = f"save it as `{name}`, or pass --{name}"
            raise UsageError(f"spike times need the number of {name}: {remedy}")
    neurons, samples = numbers.pop("neurons"), numbers.pop("samples")
    if "sample" not in columns and samples != 1:
        raise UsageError(f"{samples} samples need an array `sample` with the sample of each spike")
    with usage_errors():
        bins = Bins(**numbers)
        sizes = _checks.count(neurons, "neurons"), _checks.count(samples, "samples")
    return {"input": BinnedRows(columns, bins, *sizes), **others}


def _number(rows: Rows, name: str) -> float:
    """Return the number that an array of no axis or one entry holds."""
    if rows.shape not in ((), (1,)):
        raise UsageError(f"`{name}` must be a number; got an array of shape {rows.shape}")
    number: float = rows.read(0, 1).reshape(()).item()
    return number
