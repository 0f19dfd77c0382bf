"""What is to be evaluated: a loss of the spikes and the target of a file, in one place."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spikeloss_xp._consistency import Place
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.cli._recording import UsageError, check_memory, reading, shortened
from spikeloss_xp.cli._rows import Rows
from spikeloss_xp.cli._source import Source
from spikeloss_xp.losses import SparsityEnforcer, SpikeMoid, SpikeTime

ENTRIES = 1 << 22  # of `input` that are evaluated at a time, unless it is said how many samples


@dataclass(frozen=True)
class Task:
    """A loss, made by `task`, which checks what can be checked before anything is read."""

    source: Source
    loss: Any
    place: Place
    dtype: str
    spikes: Rows
    target: Rows | None
    lengths: Rows | None

    @property
    def samples(self) -> int:
        """How many losses there will be."""
        return self.spikes.shape[0]

    def batch(self, wanted: int | None) -> int:
        """Return how many samples to evaluate at a time, after making sure that it can be done."""
        entries, chunk = math.prod(self.spikes.shape[1:]), self.spikes.chunk[0]
        together = max(ENTRIES // entries, 1)
        number = wanted or (together - together % chunk if together >= chunk else chunk)
        number = min(number, self.samples)
        used = [rows for rows in (self.spikes, self.target, self.lengths) if rows is not None]
        largest = max(number * entries, *(math.prod(rows.chunk) for rows in used), 0)
        what = f"{self.source.path}: `input` of shape {self.spikes.shape}, {number} samples at once"
        check_memory(f"{what}, is too large", largest)
        return number

    def losses(self, start: int, stop: int) -> np.ndarray:
        """Read the samples from `start` to before `stop`, and return their losses in float64."""
        with reading(self.source.path):
            spikes, target, lengths = (
                None if rows is None else _native(rows.read(start, stop))
                for rows in (self.spikes, self.target, self.lengths)
            )
        name = f"{self.source.path}: {type(self.loss).__name__}"
        where = f"samples {start} to {stop - 1}"
        try:
            return self._evaluated(spikes, target, lengths)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name} does not take {where}: {shortened(error)}") from None
        except MemoryError:
            raise UsageError(
                f"{name}: there is not enough memory for {where} at once: see --batch"
            ) from None
        except Exception as error:  # whatever stops a library is what there is to report
            reason = f"{type(error).__name__}: {shortened(error)}"
            raise UsageError(f"{name} of {where} fails on {self.place}: {reason}") from None

    def _evaluated(self, spikes: Any, target: Any, lengths: Any) -> np.ndarray:
        if isinstance(self.loss, SpikeMoid) and target.dtype.kind in "iu":
            target = _multi_hot(self.loss, spikes.shape, target, lengths)
        if isinstance(self.loss, SpikeTime):
            target = self._narrowed(target)
        given = [values for values in (self._narrowed(spikes), target) if values is not None]
        found = adapter(self.place.library)

        def terms(loss: Any, chosen: slice) -> np.ndarray:
            spikes, *target = (values[chosen] for values in given)
            masks = {} if lengths is None else {"lengths": lengths[chosen]}
            result = loss(self.place.put(spikes, self.dtype), *target, **masks)
            return found.to_host(result).astype(np.float64)

        with found.scope(self.dtype), np.errstate(all="ignore"):  # what overflows is counted
            if isinstance(self.loss, SparsityEnforcer) or self.loss.reduction == "mean":
                one_by_one = [terms(self.loss, slice(i, i + 1)) for i in range(len(spikes))]
                return np.stack(one_by_one)
            all_terms = terms(replace(self.loss, reduction="none"), slice(None))
            return np.asarray(all_terms.reshape(len(spikes), -1).sum(axis=1))

    def _narrowed(self, values: np.ndarray) -> np.ndarray:
        """Return values as they are to be, if they are wider: JAX would cut 64 bits down to 32."""
        dtype = np.dtype(self.dtype)
        with np.errstate(over="ignore"):
            return values.astype(dtype) if values.itemsize > dtype.itemsize else values


def task(source: Source, loss: Any, place: Place, dtype: str) -> Task:
    """Choose the target of a loss, and check that all is of one shape."""
    spikes, path = source.arrays["input"], source.path
    shape = spikes.shape
    if len(shape) < 2 or 0 in shape:
        raise UsageError(
            f"{path}: `input` must have the axes [batch, class or *space, time], and elements; "
            f"got shape {shape}"
        )
    if loss.time_axis in (0, -len(shape)):
        raise UsageError(
            f"{path}: time_axis={loss.time_axis} is the first axis of `input`, which must be the "
            "batch here: samples are read one after the other"
        )
    if not isinstance(loss, SparsityEnforcer) and loss.reduction == "none":
        raise UsageError(
            "reduction='none' is no loss of a sample: 'sum' adds its terms up, 'mean' averages them"
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
    needed, held = (" or ".join(names), ", ".join(source.arrays))
    raise UsageError(f"{source.path}: {type(loss).__name__} needs {needed}; it holds {held}")


def _native(values: np.ndarray) -> np.ndarray:
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _multi_hot(
    loss: SpikeMoid, shape: tuple[int, ...], labels: np.ndarray, lengths: np.ndarray | None
) -> np.ndarray:
    """Return the multi-hot labels that class indices, one a sample or a step, stand for."""
    if labels.ndim > 2:
        return labels  # which the loss will say are none
    neurons = math.prod(shape) // (shape[0] * shape[loss.time_axis])
    classes = loss.num_classes or neurons
    each = labels.reshape(len(labels), -1)
    counted = each if lengths is None else each[np.arange(each.shape[1]) < lengths[:, None]]
    if counted.size and not 0 <= counted.min() <= counted.max() < classes:
        raise ValueError(
            f"labels must be classes, from 0 to {classes - 1}, got values from {counted.min()} to "
            f"{counted.max()}"
        )
    hot = labels[..., None] == np.arange(classes)
    steps_first = len(shape) > 2 and loss.time_axis in (1, 1 - len(shape))
    return hot if steps_first else np.moveaxis(hot, -1, 1)
