"""Spike times as spike trains: counts in bins of time."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter, adapter_of, find_adapter, floating, on_device_of, read
from spikeloss_xp._checks import has_unit
from spikeloss_xp._typing import Array, ArrayLike, ArrayT

EPSILON = float(np.finfo(np.float64).eps)
PADDING = -1  # the neuron of an entry that is no spike


@on_device_of("times")
def bin_spikes(
    times: ArrayT | Sequence[ArrayT],
    neuron: ArrayLike | None = None,
    *,
    neurons: int,
    steps: int,
    time_step: float = 1.0,
    start: float = 0.0,
    binary: bool = False,
    outside: Literal["raise", "drop"] = "raise",
) -> ArrayT:
    """Return the number of spikes of each neuron in each bin of time.

    Bin `k` holds the times from ``start + k * time_step`` to before ``start + (k + 1) *
    time_step``. A time that differs from an edge only by rounding, and by at most a tenth of a bin,
    belongs to the bin that begins there: with bins of 0.1, the time 0.3 is in bin 3, although
    ``0.3 / 0.1`` is below 3.

    Parameters
    ----------
    times : array or sequence of array
        The times of all spikes, ``[spike]``, together with `neuron`; or those of each neuron, as a
        list or tuple of arrays, or as one array ``[neuron, spike]``. In any order, in the unit of
        `time_step`. A time that is NaN or infinite is padding, and no spike. Times with a unit, as
        those of neo, are converted to that of `time_step`, which then needs one too.
    neuron : array or sequence of int, optional
        The neuron of each spike, ``[spike]``; -1 is padding. Needed if `times` has one axis, and
        only then.
    neurons, steps : int
        The number of neurons and of bins; at least 1.
    time_step : float, default 1.0
        The length of a bin; above 0.
    start : float, default 0.0
        The time at which the first bin begins.
    binary : bool, default False
        Whether to return True for bins with a spike, instead of the number of spikes.
    outside : {"raise", "drop"}, default "raise"
        What to do with a time outside the bins: raise an error, or leave the spike out.

    Returns
    -------
    array
        ``[neurons, steps]``, of the library and on the device of `times`. Counts are in the
        library's default floating dtype; with `binary` the dtype is bool. There is no gradient with
        respect to `times`.

    Raises
    ------
    ValueError
        If a time is outside the bins, an index is not that of a neuron, lengths differ, or the
        dtype of `times` is too coarse for `time_step`.
    TypeError
        If an argument is of the wrong type or has no values, as under ``jit`` and ``vmap``, or if
        only one of `times` and `time_step` has a unit.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.bin_spikes(np.asarray([0.3, 0.05, 0.32]), [1, 0, 1], neurons=2, steps=5, time_step=0.1)
    array([[1., 0., 0., 0., 0.],
           [0., 0., 0., 2., 0.]])
    """
    neurons, binary = _checks.count(neurons, "neurons"), _checks.flag(binary, "binary")
    times, start, time_step = _without_units(times, start, time_step)
    time_step, start = _checks.positive(time_step, "time_step"), _checks.number(start, "start")
    rule = _checks.one_of(("raise", "drop"))(outside, "outside")
    bins = Bins(_checks.count(steps, "steps"), time_step, start, rule)
    adapter, like, row, column = _places(times, neuron, neurons, bins)

    counts = np.zeros((neurons, bins.steps), bool if binary else np.int32)
    entry = (row * bins.steps + column)[(row != PADDING) & (column != PADDING)]
    np.add.at(counts.reshape(-1), entry, counts.dtype.type(1))  # 20 times as fast as on two axes
    made: ArrayT = adapter.to_device_of(adapter.from_host_like(counts, like), like)
    return made if binary else floating(adapter, made)


def _without_units(times: Any, start: Any, time_step: Any) -> tuple[Any, Any, Any]:
    """Return the arguments as plain numbers, if any has a unit as multiples of `time_step`."""
    if not any(map(has_unit, (times, start, time_step))):
        return times, start, time_step
    times = _in_steps(times, "times", time_step)
    if has_unit(start) or start != 0:  # 0 is the same in each unit
        start = _in_steps(start, "start", time_step)
    return times, start, 1.0


def _in_steps(values: Any, argument: str, time_step: Any) -> Any:
    """Return times with units, or sequences of them, as multiples of `time_step`.

    Raise a `TypeError` if only one of them has a unit, or if they measure different things.
    """
    if isinstance(values, list | tuple):
        return [_in_steps(each, f"{argument}[{i}]", time_step) for i, each in enumerate(values)]
    if not (has_unit(values) and has_unit(time_step)):
        names = (argument, "time_step") if has_unit(values) else ("time_step", argument)
        raise TypeError(f"{names[0]} has a unit and {names[1]} has none: give both a unit, or none")
    if hasattr(values, "magnitude"):  # a train of neo is more than its times
        values = values.magnitude * values.units
    ratio = values / time_step
    for simpler in ("simplified", "to_base_units", "decompose"):  # 1 s / ms is 1000
        if hasattr(ratio, simpler):
            found = getattr(ratio, simpler)
            ratio = found() if callable(found) else found
    try:
        ratio + 1.0  # which a number with a dimension refuses
    except Exception as error:  # each library raises one of its own
        raise TypeError(
            f"{argument} must be in a unit of time_step, {time_step}: {error}"
        ) from error
    numbers = np.asarray(getattr(ratio, "magnitude", ratio), np.float64)
    return numbers if numbers.ndim else float(numbers)


class Bins(NamedTuple):
    """Bins of time: `steps` of them, each `time_step` long, from `start` onwards."""

    steps: int
    time_step: float
    start: float
    outside: str

    def of(
        self, times: np.ndarray, epsilon: float, argument: str, padding: Any = False
    ) -> np.ndarray:
        """Return the bin of each time, or raise a `ValueError` that says which has none.

        `epsilon` is that of the dtype in which the times were rounded, 0 for integers. The bin is
        `PADDING` where a time is `padding` or not finite, and where it is outside and to be
        dropped.
        """
        shape, padding = times.shape, padding | ~np.isfinite(times)
        if len(shape) != 1:
            raise ValueError(f"{argument} must have one axis, that of spikes; got shape {shape}")
        if times.dtype.kind not in "iuf":
            raise TypeError(f"{argument} must be real floating or integer; got {times.dtype}")
        times = times.astype(np.float64)
        end = self.start + self.steps * self.time_step
        with np.errstate(all="ignore"):
            # Two roundings made `times`: of a step and a product, or of a start and a sum. In
            # float64, one more each of `start`, `time_step`, the difference and the quotient.
            rounding = (epsilon + EPSILON) * (np.abs(times) + abs(self.start))
            coarse = rounding > self.time_step / 2
            coarse &= (times + rounding >= self.start) & (times - rounding <= end)  # no infinity
            after = times - self.start
            after += np.minimum(2 * rounding, self.time_step / 10)
            index: np.ndarray = np.floor(after / self.time_step)
            outside = ~((index >= 0) & (index < self.steps)) & ~padding
        if coarse.any():
            at = int(np.argmax(coarse))
            raise ValueError(
                f"{argument} are too coarse for bins of {self.time_step:g}: rounding may have "
                f"moved {argument}[{at}], {times[at]!s}, by {rounding[at]:.2g}. Keep them in "
                "float64, or subtract the time of the beginning before they are rounded"
            )
        if self.outside == "raise":
            edges = f"from {self.start:g} to before {end:g}"
            rule = f"{edges}, in {self.steps} bins of {self.time_step:g}"
            _refuse(outside, times, argument, rule)
        index[outside | padding] = PADDING
        return index.astype(np.int64)


def _refuse(outside: np.ndarray, values: np.ndarray, argument: str, rule: str) -> None:
    """Raise an error that names the first of the values that are outside, if any is."""
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"{argument} must be {rule}; {argument}[{at}] is {values[at]!s}, and "
            f"{int(outside.sum())} of {outside.size} are outside"
        )


def _places(
    times: Any, neuron: Any, neurons: int, bins: Bins
) -> tuple[Adapter, Array, np.ndarray, np.ndarray]:
    """Return the library, an array of it, and row and column of each spike."""
    if isinstance(times, list | tuple) or getattr(times, "ndim", 1) > 1:
        return _of_each_neuron(times, neuron, neurons, bins)
    adapter = adapter_of(times, "times")
    if neuron is None:
        raise TypeError(
            "neuron is missing: pass the neuron of each spike, or times as a list of one array for "
            "each neuron"
        )
    host, row = read(adapter, times, "times"), read(adapter, neuron, "neuron")
    if row.shape != host.shape:
        raise ValueError(
            f"times and neuron must have the same length; got shapes {host.shape} and {row.shape}"
        )
    padding = row == PADDING
    column = bins.of(host, epsilon_of(times), "times", padding)
    if row.size and row.dtype.kind not in "iu":
        raise TypeError(f"neuron must hold integers, indices; got {row.dtype}")
    outside = ((row < 0) | (row >= neurons)) & ~padding
    _refuse(outside, row, "neuron", f"between 0 and {neurons - 1}")
    return adapter, times, row.astype(np.int64), column


def _of_each_neuron(
    times: Any, neuron: Any, neurons: int, bins: Bins
) -> tuple[Adapter, Array, np.ndarray, np.ndarray]:
    """Return the same for the times of each neuron, in a sequence or in the rows of an array."""
    if neuron is not None:
        raise TypeError(
            "times must be one array if neuron is given, of shape [spike]; got the times of each "
            f"neuron in a {type(times).__name__}"
        )
    if not isinstance(times, list | tuple):
        times = [times[i, ...] for i in range(times.shape[0])]
    if len(times) != neurons:
        raise ValueError(
            f"times must have one array for each neuron: {neurons}, of neurons; got {len(times)}"
        )
    like = next((own for own in times if find_adapter(own) is not None), times[0])
    adapter = adapter_of(like, "times[0]")
    columns = []
    for i, own in enumerate(times):
        host = read(adapter, own, f"times[{i}]")
        columns.append(bins.of(host, epsilon_of(own), f"times[{i}]"))
    row = np.repeat(np.arange(neurons), [column.size for column in columns])
    return adapter, like, row, np.concatenate(columns)


def epsilon_of(times: Any) -> float:
    """Return the epsilon of the dtype that numbers were rounded in; 0 for integers."""
    adapter = find_adapter(times)
    if adapter is not None:  # bfloat16 is float32 on the host
        floats = adapter.xp.isdtype(times.dtype, "real floating")
        return float(adapter.xp.finfo(times.dtype).eps) if floats else 0.0
    return EPSILON if np.asarray(times).dtype.kind == "f" else 0.0
