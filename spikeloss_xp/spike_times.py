"""Spike times as spike trains: counts in bins of time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter, adapter_of, find_adapter, floating, read
from spikeloss_xp._typing import Array, ArrayLike, ArrayT

EPSILON = float(np.finfo(np.float64).eps)


def bin_spikes(
    times: ArrayT | Sequence[ArrayT],
    neuron: ArrayLike | None = None,
    *,
    neurons: int,
    steps: int,
    time_step: float = 1.0,
    start: float = 0.0,
    binary: bool = False,
) -> ArrayT:
    """Return the number of spikes of each neuron in each bin of time.

    Bin `k` holds the times from ``start + k * time_step`` to before ``start + (k + 1) *
    time_step``. A time that differs from an edge only by rounding belongs to the bin that begins
    there: with bins of 0.1, the time 0.3 is in bin 3, although ``0.3 / 0.1`` is below 3.

    Parameters
    ----------
    times : array or sequence of array
        The times of all spikes, ``[spikes]``, together with `neuron`; or a list or tuple with one
        array for each neuron. In any order, in the unit of `time_step`.
    neuron : array or sequence of int, optional
        The neuron of each spike, ``[spikes]``. Needed if `times` is one array, and only then.
    neurons, steps : int
        The number of neurons and of bins; at least 1.
    time_step : float, default 1.0
        The length of a bin; above 0.
    start : float, default 0.0
        The time at which the first bin begins.
    binary : bool, default False
        Whether to return True for bins with a spike, instead of the number of spikes.

    Returns
    -------
    array
        ``[neurons, steps]``, of the library and on the device of `times`. Counts are in the
        library's default floating dtype; with `binary` the dtype is bool. There is no gradient with
        respect to `times`.

    Raises
    ------
    ValueError
        If a time is outside the bins or NaN, if an index is not that of a neuron, if lengths
        differ, or if the dtype of `times` is too coarse for `time_step`.
    TypeError
        If an argument is of the wrong type, or has no values, as under ``jit`` and ``vmap``.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.bin_spikes(np.asarray([0.3, 0.05, 0.32]), [1, 0, 1], neurons=2, steps=5, time_step=0.1)
    array([[1., 0., 0., 0., 0.],
           [0., 0., 0., 2., 0.]])
    """
    neurons = _checks.count(neurons, "neurons")
    bins = Bins(steps, time_step, start)
    binary = _checks.flag(binary, "binary")
    find = _of_each_neuron if isinstance(times, list | tuple) else _of_all_neurons
    adapter, like, row, column = find(times, neuron, neurons, bins)

    counts = np.zeros((neurons, bins.steps), bool if binary else np.int32)
    add_spikes(counts.reshape(-1), row * bins.steps + column)
    made: ArrayT = adapter.to_device_of(adapter.from_host_like(counts, like), like)
    return made if binary else floating(adapter, made)


@dataclass(frozen=True)
class Bins:
    """Bins of time: `steps` of them, each `time_step` long, from `start` onwards."""

    steps: int
    time_step: float = 1.0
    start: float = 0.0

    def __post_init__(self) -> None:
        _checks.check_fields(
            self, steps=_checks.count, time_step=_checks.positive, start=_checks.number
        )

    def index(self, times: np.ndarray, epsilon: float, argument: str, first: int = 0) -> np.ndarray:
        """Return the bin of each time, or raise a `ValueError` that says which has none.

        `epsilon` is that of the dtype in which the times were rounded, 0 for integers. `first` is
        the index of the first of them in error messages.
        """
        if times.dtype.kind not in "iuf":
            raise TypeError(f"{argument} must be real floating or integer; got {times.dtype}")
        times = times.astype(np.float64)
        with np.errstate(all="ignore"):
            # Two roundings made `times`: of a step and a product, or of a start and a sum. In
            # float64, one more each of `start`, `time_step`, the difference and the quotient.
            rounding = 2 * (epsilon + EPSILON) * (np.abs(times) + abs(self.start))
            index: np.ndarray = np.floor((times - self.start + rounding) / self.time_step)
            outside = ~((index >= 0) & (index < self.steps))  # NaN too
            coarse = (rounding > self.time_step / 2) & (index >= -1) & (index <= self.steps)
        if coarse.any():
            at = int(np.argmax(coarse))
            raise ValueError(
                f"{argument} are too coarse for bins of {self.time_step:g}: rounding may have "
                f"moved {argument}[{first + at}], {times[at]!s}, by {rounding[at]:.2g}. Keep them "
                "in float64, or subtract the time of the beginning before they are rounded"
            )
        end = self.start + self.steps * self.time_step
        rule = f"from {self.start:g} to before {end:g}, in {self.steps} bins of {self.time_step:g}"
        _refuse(outside, times, argument, rule, first)
        return index.astype(np.int64)


def add_spikes(counts: np.ndarray, entry: np.ndarray) -> None:
    """Add spikes to counts of one axis, in place; in bools, set them."""
    if counts.dtype == np.bool_:
        counts[entry] = True
    else:
        np.add.at(counts, entry, counts.dtype.type(1))  # 20 times as fast as along two axes


def check_indices(index: np.ndarray, count: int, argument: str, first: int = 0) -> np.ndarray:
    """Return indices from 0 to before `count` as int64, or raise an error that says which is none.

    `first` is the index of the first of them in error messages.
    """
    if index.size and index.dtype.kind not in "iu":
        raise TypeError(f"{argument} must hold integers, indices; got {index.dtype}")
    outside = (index < 0) | (index >= count)
    _refuse(outside, index, argument, f"between 0 and {count - 1}", first)
    return index.astype(np.int64)


def _refuse(outside: np.ndarray, values: np.ndarray, argument: str, rule: str, first: int) -> None:
    """Raise an error that names the first of the values that are outside, if any is."""
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"{argument} must be {rule}; {argument}[{first + at}] is {values[at]!s}, and "
            f"{int(outside.sum())} of {outside.size} are outside"
        )


def _of_all_neurons(
    times: Array, neuron: Any, neurons: int, bins: Bins
) -> tuple[Adapter, Array, np.ndarray, np.ndarray]:
    """Return the library, an array of it, and row and column of each spike: of one array."""
    adapter = adapter_of(times, "times")
    if neuron is None:
        raise TypeError(
            "neuron is missing: pass the neuron of each spike, or times as a list of one array for "
            "each neuron"
        )
    column, row = _column(adapter, times, "times", bins), read(adapter, neuron, "neuron")
    if row.shape != column.shape:
        raise ValueError(
            f"times and neuron must have the same length; got shapes {column.shape} and {row.shape}"
        )
    return adapter, times, check_indices(row, neurons, "neuron"), column


def _of_each_neuron(
    times: Any, neuron: Any, neurons: int, bins: Bins
) -> tuple[Adapter, Array, np.ndarray, np.ndarray]:
    """Return the library, an array of it, and row and column of each spike: of many arrays."""
    if neuron is not None:
        raise TypeError(
            f"times must be one array if neuron is given; got a {type(times).__name__}, which has "
            "the times of one neuron in each of its arrays"
        )
    if len(times) != neurons:
        raise ValueError(
            f"times must have one array for each neuron: {neurons}, of neurons; got {len(times)}"
        )
    like = next((own for own in times if find_adapter(own) is not None), times[0])
    adapter = adapter_of(like, "times[0]")
    columns = [_column(adapter, own, f"times[{i}]", bins) for i, own in enumerate(times)]
    row = np.repeat(np.arange(neurons), [column.size for column in columns])
    return adapter, like, row, np.concatenate(columns)


def _column(adapter: Adapter, times: Any, argument: str, bins: Bins) -> np.ndarray:
    """Return the bin of each time."""
    host, epsilon = read(adapter, times, argument), 0.0
    if host.ndim != 1:
        raise ValueError(f"{argument} must have one axis, that of spikes; got shape {host.shape}")
    if host.dtype.kind == "f":
        own = find_adapter(times) is adapter  # bfloat16 is float32 on the host
        epsilon = float((adapter.xp.finfo(times.dtype) if own else np.finfo(host.dtype)).eps)
    return bins.index(host, epsilon, argument)
