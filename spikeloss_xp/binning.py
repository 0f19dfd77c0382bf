"""Convert spike times to spike trains, by counting the spikes in each time bin."""

from typing import Any, Literal, NamedTuple

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    find_adapter,
    first_array,
    floating,
    on_device_of,
    read_values,
)
from spikeloss_xp._checks import has_unit
from spikeloss_xp._typing import Array, ArrayLike, Times, TimesT

EPSILON = float(np.finfo(np.float64).eps)
PADDING = -1  # the neuron index or bin index of an entry that is not a spike


@on_device_of("times")
def bin_spikes(
    times: Times[TimesT],
    neuron: ArrayLike | None = None,
    *,
    neurons: int,
    steps: int,
    time_step: float = 1.0,
    start: float = 0.0,
    binary: bool = False,
    outside: Literal["raise", "drop"] = "raise",
) -> TimesT:
    """Return the number of spikes of each neuron in each time bin.

    Bin `k` contains the times from ``start + k * time_step`` up to, but not including,
    ``start + (k + 1) * time_step``. If rounding may have moved a time below the edge of a bin, the
    time is counted in the bin that begins at this edge. This rule applies only to times that are
    closer to the edge than a tenth of a bin. For example, with bins of 0.1, the time 0.3 is in bin
    3, although ``0.3 / 0.1`` is less than 3 in floating-point arithmetic.

    Parameters
    ----------
    times : array, or sequence of array or list
        The spike times, in any order and in the unit of `time_step`. Pass the times of all neurons
        as one array of shape ``[spike]``, together with `neuron`. Alternatively, pass a separate
        train for each neuron, as a sequence of arrays or lists, or as one array of shape
        ``[neuron, spike]``. NaN and infinite times are padding. Times with a unit, such as a neo
        spike train, are converted to the unit of `time_step`. If the times have a unit, `time_step`
        must have a unit too.
    neuron : array or sequence of int, optional
        The index of the neuron that fired each spike, of shape ``[spike]``. An index of -1 marks
        padding. This argument is required if `times` is an array with one axis, and not allowed
        otherwise.
    neurons, steps : int
        The number of neurons and the number of bins, which must both be at least 1.
    time_step : float, default 1.0
        The length of a bin, which must be above 0.
    start : float, default 0.0
        The time at which the first bin begins.
    binary : bool, default False
        Whether to return True for each bin that contains a spike, instead of the number of spikes.
    outside : {"raise", "drop"}, default "raise"
        What to do with a time outside the bins: raise an error, or drop the spike.

    Returns
    -------
    array
        An array of shape ``[neurons, steps]``, from the same library and on the same device as
        `times`. If all trains are lists, the result is a NumPy array. Counts have the library's
        default floating-point dtype. If `binary` is True, the dtype is bool. There is no gradient
        with respect to `times`.

    Raises
    ------
    ValueError
        If a time is outside the bins, if an entry of `neuron` is not the index of a neuron, if the
        lengths of the arguments do not match, or if the dtype of `times` is too coarse for
        `time_step`.
    TypeError
        If an argument has the wrong type, if the values of an argument cannot be read because it is
        traced (in ``jit`` or ``vmap``), or if only one of `times` and `time_step` has a unit.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times = np.asarray([0.3, 0.05, 0.32])
    >>> sx.bin_spikes(times, [1, 0, 1], neurons=2, steps=5, time_step=0.1)
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
    # `np.add.at` is faster on an array with one axis than on an array with two axes.
    np.add.at(counts.reshape(-1), entry, counts.dtype.type(1))
    made: TimesT = adapter.to_device_of(adapter.from_host_like(counts, like), like)
    return made if binary else floating(adapter, made)


def _without_units(times: Any, start: Any, time_step: Any) -> tuple[Any, Any, Any]:
    """Convert arguments that have a unit to multiples of `time_step`."""
    if not any(map(has_unit, (times, start, time_step))):
        return times, start, time_step
    times = _in_steps(times, "times", time_step)
    if has_unit(start) or start != 0:  # 0 is the same in every unit
        start = _in_steps(start, "start", time_step)
    return times, start, 1.0


def _in_steps(values: Any, argument: str, time_step: Any) -> Any:
    """Convert times with a unit, or a sequence of such times, to multiples of `time_step`."""
    if isinstance(values, list | tuple):
        return [_in_steps(each, f"{argument}[{i}]", time_step) for i, each in enumerate(values)]
    if not (has_unit(values) and has_unit(time_step)):
        names = (argument, "time_step") if has_unit(values) else ("time_step", argument)
        raise TypeError(
            f"{names[0]} has a unit but {names[1]} does not: give both of them a unit, or neither"
        )
    if hasattr(values, "magnitude"):  # a neo spike train also holds data other than times
        values = values.magnitude * values.units
    ratio = values / time_step
    for simpler in ("simplified", "to_base_units", "decompose"):
        if hasattr(ratio, simpler):
            found = getattr(ratio, simpler)
            ratio = found() if callable(found) else found
    try:
        ratio + 1.0  # the sum raises an error if the ratio has a unit
    except Exception as error:  # each library raises its own error
        raise TypeError(
            f"{argument} must have a unit that converts to the unit of time_step={time_step}: "
            f"{error}"
        ) from error
    numbers = np.asarray(getattr(ratio, "magnitude", ratio), np.float64)
    return numbers if numbers.ndim else float(numbers)


class Bins(NamedTuple):
    """A sequence of `steps` time bins of length `time_step`. The first bin begins at `start`."""

    steps: int
    time_step: float
    start: float
    outside: str

    def of(
        self, times: np.ndarray, epsilon: float, argument: str, padding: Any = False
    ) -> np.ndarray:
        """Return the bin index of each time, or raise a `ValueError` if a time is outside the bins.

        `epsilon` is the machine epsilon of the dtype to which the times were rounded, or 0 for
        integers. The index is `PADDING` for padding, for infinite and NaN times, and for times that
        are dropped.
        """
        shape, padding = times.shape, padding | ~np.isfinite(times)
        if len(shape) != 1:
            raise ValueError(f"{argument} must have one axis, [spike]; got shape {shape}")
        if times.dtype.kind not in "iuf":
            raise TypeError(f"{argument} must be real floating-point or integer; got {times.dtype}")
        times = times.astype(np.float64)
        end = self.start + self.steps * self.time_step
        with np.errstate(all="ignore"):
            # Each time may contain two rounding errors, for example if a rounded time step was
            # multiplied by an index. The computation below adds four rounding errors in float64.
            rounding = (epsilon + EPSILON) * (np.abs(times) + abs(self.start))
            coarse = rounding > self.time_step / 2
            # `coarse` is set to False for infinite times, and for times that are outside the bins
            # by more than their rounding error.
            coarse &= (times + rounding >= self.start) & (times - rounding <= end)
            after = times - self.start
            after += np.minimum(2 * rounding, self.time_step / 10)
            index: np.ndarray = np.floor(after / self.time_step)
            outside = ~((index >= 0) & (index < self.steps)) & ~padding
        if coarse.any():
            at = int(np.argmax(coarse))
            raise ValueError(
                f"{argument} are too coarse for bins of {self.time_step:g}: rounding may have "
                f"moved {argument}[{at}], {times[at]!s}, by {rounding[at]:.2g}. Keep the times in "
                "float64, or subtract the time at which they begin before they are rounded"
            )
        if self.outside == "raise":
            edges = f"at least {self.start:g} and below {end:g}"
            rule = f"{edges} ({self.steps} bins of length {self.time_step:g})"
            _refuse(
                outside, times, argument, rule, ': to leave out such spikes, use outside="drop"'
            )
        index[outside | padding] = PADDING
        return index.astype(np.int64)


def _refuse(
    outside: np.ndarray, values: np.ndarray, argument: str, rule: str, remedy: str = ""
) -> None:
    """Raise an error if `outside` is True for any value. The message names the first such value."""
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"{argument} must be {rule}; {argument}[{at}] is {values[at]!s} (values outside: "
            f"{int(outside.sum())} of {outside.size}){remedy}"
        )


def _places(
    times: Any, neuron: Any, neurons: int, bins: Bins
) -> tuple[Adapter, Array, np.ndarray, np.ndarray]:
    """Return the adapter, an array `like`, and the neuron index and bin index of each spike.

    The binned spikes are created in the library and on the device of the array `like`.
    """
    fields = getattr(getattr(times, "dtype", None), "names", None)
    if fields:
        time, of_neuron = (y if y in fields else x for x, y in zip(fields, "tx", strict=False))
        raise TypeError(
            f"times must hold numbers; got a structured array with the fields {fields}: pass its "
            f"fields, as in bin_spikes(events[{time!r}], events[{of_neuron!r}], ...)"
        )
    if isinstance(times, list | tuple) or getattr(times, "ndim", 1) > 1:
        return _of_each_neuron(times, neuron, neurons, bins)
    adapter = adapter_of(times, "times")
    if neuron is None:
        raise TypeError(
            "neuron is missing: pass the neuron of each spike, or pass times as a list with one "
            "array for each neuron"
        )
    host, row = read_values(adapter, times, "times"), read_values(adapter, neuron, "neuron")
    if row.shape != host.shape:
        raise ValueError(
            f"times and neuron must have the same length; got shapes {host.shape} and {row.shape}"
        )
    padding = row == PADDING
    column = bins.of(host, epsilon_of(times), "times", padding)
    if row.size and row.dtype.kind not in "iu":
        raise TypeError(f"neuron must hold integer indices; got {row.dtype}")
    outside = ((row < 0) | (row >= neurons)) & ~padding
    _refuse(outside, row, "neuron", f"between 0 and {neurons - 1}")
    return adapter, times, row.astype(np.int64), column


def _of_each_neuron(
    times: Any, neuron: Any, neurons: int, bins: Bins
) -> tuple[Adapter, Array, np.ndarray, np.ndarray]:
    """Return the results of `_places` if `times` holds a separate train for each neuron."""
    if neuron is not None:
        raise TypeError(
            "times must be one array of shape [spike] if neuron is given; got a "
            f"{type(times).__name__}, which holds the times of each neuron: leave neuron out, or "
            "convert a list of numbers to an array"
        )
    if not isinstance(times, list | tuple):
        times = [times[i, ...] for i in range(times.shape[0])]
    if len(times) != neurons:
        raise ValueError(
            f"times must hold one array for each of the {neurons} neurons; got {len(times)}"
        )
    for i, own in enumerate(times):
        _checks.check_train(own, f"times[{i}]")
    like, columns = first_array(times, "times"), []
    adapter = adapter_of(like)
    for i, own in enumerate(times):
        host = read_values(adapter, own, f"times[{i}]")
        columns.append(bins.of(host, epsilon_of(own), f"times[{i}]"))
    row = np.repeat(np.arange(neurons), [column.size for column in columns])
    return adapter, like, row, np.concatenate(columns)


def epsilon_of(times: Any) -> float:
    """Return the machine epsilon of the dtype of the times, or 0 if the times are integers."""
    adapter = find_adapter(times)
    if adapter is not None:  # on the host, a bfloat16 array would be float32
        floats = adapter.xp.isdtype(times.dtype, "real floating")
        return float(adapter.xp.finfo(times.dtype).eps) if floats else 0.0
    return EPSILON if np.asarray(times).dtype.kind == "f" else 0.0
