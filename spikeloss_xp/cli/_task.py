"""Evaluate a loss for each sample of a file on one backend and device."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spikeloss_xp._consistency import Place
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli._accuracy import count_right, ignored_label, loss_classifier
from spikeloss_xp.cli._recording import UsageError, check_memory, file_errors, one_line
from spikeloss_xp.cli._rows import Rows
from spikeloss_xp.cli._source import Source
from spikeloss_xp.cli._spike_times import BinnedRows
from spikeloss_xp.losses import SparsityEnforcer, SpikeMoid, SpikeTime

SHORTER = "cut the recording into shorter ones, or evaluate it in Python as an array in chunks"
ENTRIES = 1 << 22  # the entries of `input` in a batch, unless a batch size is given


@dataclass(frozen=True)
class Evaluated:
    """The losses of a batch in float64, how many labels are predicted, and how many there are."""

    losses: np.ndarray
    right: int = 0
    labels: int = 0


@dataclass(frozen=True)
class Task:
    """A loss and the arrays it reads.

    `make_task` creates it, after the checks that need no array data.
    """

    source: Source
    loss: Any
    place: Place
    dtype: str
    spikes: Rows
    target: Rows | None
    lengths: Rows | None

    @property
    def samples(self) -> int:
        """The number of samples, and so of losses."""
        return self.spikes.shape[0]

    def batch_size(self, requested: int | None) -> int:
        """Return the batch size. Raise a `UsageError` if such a batch exceeds the memory.

        By default, a batch has some `ENTRIES` entries and consists of complete chunks.
        """
        entries, chunk = math.prod(self.spikes.shape[1:]), self.spikes.chunk[0]
        limit = max(ENTRIES // entries, 1)
        size = requested or (limit - limit % chunk if limit >= chunk else chunk)
        size = min(size, self.samples)
        arrays = [rows for rows in (self.spikes, self.target, self.lengths) if rows is not None]
        largest = max(size * entries, *(math.prod(rows.chunk) for rows in arrays), 0)
        subject = (
            f"{self.source.path}: `input` of shape {self.spikes.shape}, {size} samples at once"
        )
        remedy = SHORTER if size == 1 else "choose a smaller --batch"
        if largest > size * entries:
            remedy = "save it in smaller chunks"
        check_memory(f"{subject}, is too large ({remedy})", largest)
        return size

    @property
    def has_classes(self) -> bool:
        """Whether the targets are class indices, so that there is an accuracy."""
        target = self.target
        return (
            not isinstance(self.loss, SpikeTime)
            and target is not None
            and target.dtype.kind in "iu"
            and len(target.shape) <= 2
        )

    def evaluate(self, start: int, stop: int) -> Evaluated:
        """Return the losses of the samples in the range from `start` to `stop`."""
        with file_errors(self.source.path):
            spikes, target, lengths = (
                None if rows is None else _to_native_byte_order(rows.read(start, stop))
                for rows in (self.spikes, self.target, self.lengths)
            )
        name = f"{self.source.path}: {type(self.loss).__name__}"
        batch = f"samples {start} to {stop - 1}"
        try:
            losses = self._sample_losses(spikes, target, lengths)
            if not self.has_classes:
                return Evaluated(losses)
            return Evaluated(losses, *self._count_right(spikes, target, lengths, losses))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name} refuses {batch}: {one_line(error)}") from None
        except MemoryError:
            remedy = "choose a smaller --batch" if stop - start > 1 else SHORTER
            raise UsageError(
                f"{name}: there is not enough memory for {batch} at once: {remedy}"
            ) from None
        except Exception as error:  # a library may raise exceptions of any type
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(f"{name} of {batch} failed on {self.place}: {reason}") from None

    def _sample_losses(self, spikes: Any, target: Any, lengths: Any) -> np.ndarray:
        """Return the loss of each sample of a batch in float64.

        A sum over terms takes one call for the whole batch, with reduction "none". A mean, and
        `SparsityEnforcer`, which has no such reduction, take one call for each sample.
        """
        if isinstance(self.loss, SpikeMoid) and target.dtype.kind in "iu":
            target = _to_multi_hot(self.loss, spikes.shape, target, lengths)
        if isinstance(self.loss, SpikeTime):
            target = self._narrow(target)
        arguments = [values for values in (self._narrow(spikes), target) if values is not None]
        found = adapter(self.place.library)

        def terms(loss: Any, samples: slice) -> np.ndarray:
            spikes, *target = (values[samples] for values in arguments)
            masks = {} if lengths is None else {"lengths": lengths[samples]}
            result = loss(self.place.put(spikes, self.dtype), *target, **masks)
            return found.to_host(result).astype(np.float64)

        with found.scope(self.dtype), np.errstate(all="ignore"):  # the summary counts overflows
            if isinstance(self.loss, SparsityEnforcer) or self.loss.reduction == "mean":
                losses = [terms(self.loss, slice(i, i + 1)) for i in range(len(spikes))]
                return np.stack(losses)
            all_terms = terms(replace(self.loss, reduction="none"), slice(None))
            return np.asarray(all_terms.reshape(len(spikes), -1).sum(axis=1))

    def _count_right(
        self, spikes: Any, label: Any, lengths: Any, losses: np.ndarray
    ) -> tuple[int, int]:
        """Return how many labels of a batch are predicted, and how many there are."""
        found = adapter(self.place.library)
        with found.scope(self.dtype), np.errstate(all="ignore"):
            device_spikes = self.place.put(self._narrow(spikes), self.dtype)
            classifier = loss_classifier(self.loss, per_step=label.ndim > 1)
            predicted = classifier.predict(device_spikes, lengths=lengths)
            predicted = found.to_host(predicted)
        return count_right(predicted, label, lengths, losses, ignored_label(self.loss))

    def _narrow(self, values: np.ndarray) -> np.ndarray:
        """Return values, cast to the dtype of the task if theirs is wider.

        JAX would otherwise truncate 64-bit values to 32 bits.
        """
        dtype = np.dtype(self.dtype)
        with np.errstate(over="ignore"):
            return values.astype(dtype) if values.itemsize > dtype.itemsize else values


def make_task(source: Source, loss: Any, place: Place, dtype: str) -> Task:
    """Return the task of a loss: choose its target, and check options and shapes.

    Raise a `UsageError` if the arrays or options do not fit.
    """
    spikes, path = source.arrays["input"], source.path
    shape = spikes.shape
    if len(shape) < 2 or 0 in shape:
        raise UsageError(
            f"{path}: `input` must have the axes [batch, class or *space, time], and elements; "
            f"got shape {shape}"
        )
    if loss.time_axis in (0, -len(shape)):
        raise UsageError(
            f"{path}: time_axis={loss.time_axis} is the first axis of `input`, but the command "
            "needs the batch there, because it reads sample after sample: choose another axis"
        )
    if isinstance(spikes, BinnedRows) and loss.time_axis not in (-1, 2):
        raise UsageError(
            f"{path}: spike times are binned to [batch, neuron, time], so time_axis must be -1 or "
            f"2; got {loss.time_axis}"
        )
    if not isinstance(loss, SparsityEnforcer) and loss.reduction == "none":
        raise UsageError(
            "reduction='none' gives no loss of a sample: choose 'sum' or 'mean' of its terms"
        )
    target = None if isinstance(loss, SparsityEnforcer) else _target(source, loss)
    lengths = source.arrays.get("lengths")
    for name, rows in source.arrays.items():
        fits = rows.shape == shape[:1] if rows is lengths else rows.shape[:1] == shape[:1]
        if rows in (target, lengths) and not (fits and math.prod(rows.shape) <= math.prod(shape)):
            raise UsageError(
                f"{path}: `{name}` of shape {rows.shape} does not fit an `input` of shape {shape}"
            )
    return Task(source, loss, place, dtype, spikes, target, lengths)


def _target(source: Source, loss: Any) -> Rows:
    names = ("target",) if isinstance(loss, SpikeTime) else ("label", "target")
    for name in names:
        if name in source.arrays:
            return source.arrays[name]
    needed, present = (" or ".join(names), ", ".join(source.arrays))
    raise UsageError(
        f"{source.path}: {type(loss).__name__} needs {needed}; the file holds {present}"
    )


def _to_native_byte_order(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _to_multi_hot(
    loss: SpikeMoid, shape: tuple[int, ...], labels: np.ndarray, lengths: np.ndarray | None
) -> np.ndarray:
    """Return class indices, one for each sample or time step, as multi-hot labels."""
    if labels.ndim > 2:
        return labels  # the loss rejects them
    neurons = math.prod(shape) // (shape[0] * shape[loss.time_axis])
    classes = loss.num_classes or neurons
    flat = labels.reshape(len(labels), -1)
    unmasked = flat if lengths is None else flat[np.arange(flat.shape[1]) < lengths[:, None]]
    if unmasked.size and not 0 <= unmasked.min() <= unmasked.max() < classes:
        raise ValueError(
            f"labels must be classes, from 0 to {classes - 1}; got values from {unmasked.min()} to "
            f"{unmasked.max()}"
        )
    one_hot = labels[..., None] == np.arange(classes)
    time_first = len(shape) > 2 and loss.time_axis in (1, 1 - len(shape))
    return one_hot if time_first else np.moveaxis(one_hot, -1, 1)
