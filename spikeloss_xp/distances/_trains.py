"""Functions that check and convert the spike trains that are passed to a metric."""

import math
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import Adapter, adapter_of, asarray_like, first_array, floating
from spikeloss_xp._checks import check_train
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import Trains, mask_of
from spikeloss_xp._spike_pairs import check_not_trains
from spikeloss_xp._typing import Array


class BinnedTrains(NamedTuple):
    """Binned spike trains that are stored in the dtype of the input.

    The method `steps` converts one chunk of the trains at a time to `dtype`, the dtype used for
    computation.
    """

    prepared: Trains
    dtype: Any

    def steps(self, steps: slice) -> Array:
        """Return the selected steps as an array ``[train, unit, time]``.

        The array has the dtype `dtype`, and its masked entries are 0.
        """
        trains, adapter, axis = self.prepared, self.prepared.adapter, self.prepared.layout.time
        index = (*[slice(None)] * axis, steps, ...)
        chunk = trains.marked(adapter.xp.astype(trains.values[index], self.dtype, copy=False))
        if trains.mask is not None:
            same = trains.mask.shape[axis] == 1
            chunk = adapter.masked(chunk, trains.mask if same else trains.mask[index])
        return adapter.moveaxis(chunk, axis, -1)


def binned_sets(
    input: Array,
    other: Any,
    time_axis: int,
    where: Any,
    lengths: Any,
    other_where: Any,
    other_lengths: Any,
) -> list[BinnedTrains]:
    """Return the binned trains of `input` and, if given, the binned trains of `other`."""
    if isinstance(input, list | tuple):
        raise TypeError(
            f"input must be one array of binned trains; got a {type(input).__name__}: if it holds "
            "the spike times of each train, pass times=True"
        )
    adapter = adapter_of(input)
    trains = _binned(adapter, input, where, lengths, time_axis)
    if other is None:
        if other_where is not None or other_lengths is not None:
            raise ValueError("other_where and other_lengths are masks of other: pass other too")
        return [trains]

    other = asarray_like(adapter, input, other, "other")
    others = _binned(adapter, other, other_where, other_lengths, time_axis, "other_")
    first, second = trains.prepared.layout, others.prepared.layout
    same = (first.neurons, first.steps) == (second.neurons, second.steps)
    if not same or other.ndim != input.ndim:
        raise ValueError(
            "other must have the same shape as input, except for the number of trains; got "
            f"{tuple(other.shape)}, but input has shape {tuple(input.shape)}"
        )
    return [trains, others._replace(dtype=trains.dtype)]


def _binned(
    adapter: Adapter, x: Array, where: Any, lengths: Any, time_axis: int, prefix: str = ""
) -> BinnedTrains:
    """Return the trains of one argument, and their mask.

    If `prefix` is ``"other_"``, error messages name the argument `other` instead of `input`.
    """
    name = "other" if prefix else "input"
    adapter.check_dense(x, name)
    shape = tuple(x.shape)
    if len(shape) not in (2, 3):
        one = f" (for a single train, pass {name}[None])" if len(shape) == 1 else ""
        raise ValueError(
            f"{name} must have the axes [train, time] or [train, unit, time], with time at "
            f"time_axis; got shape {shape}{one}"
        )
    layout = Layout.of(shape, time_axis, name)
    if where is None and lengths is None:
        _check_finite(adapter, x, name)

    spikes = layout.collapsed(adapter, x)
    first = floating(adapter, spikes[:1, :1, :1], name)
    names = (f"{prefix}where", f"{prefix}lengths")
    mask, invalid = mask_of(adapter, layout, first, where, lengths, names)
    if mask is not None:
        mask = layout.collapsed(adapter, mask)
    prepared = Trains(adapter, spikes, mask, layout, x.dtype, invalid)
    return BinnedTrains(prepared, first.dtype)


def _check_finite(adapter: Adapter, x: Array, argument: str) -> None:
    """Raise an error if binned trains contain infinity, which is common in padded spike times.

    Trains on a GPU and trains in traced functions are not checked.
    """
    known = adapter.concrete_or_none(x)
    if known is not None and np.isinf(known).any():
        raise ValueError(
            f"{argument} must hold binned trains, but holds infinity: if it holds spike times with "
            "padding, pass times=True"
        )


def padded_sets(input: Any, other: Any) -> list[Array]:
    """Return the spike times of `input` and, if given, of `other`, as arrays ``[train, spike]``."""
    first = _padded(input, "input", None)
    return [first] if other is None else [first, _padded(other, "other", first)]


def _padded(times: Any, argument: str, like: Array | None) -> Array:
    """Return spike times as one array ``[train, spike]``.

    If `like` is an array, the result has the dtype of `like`.
    """
    if isinstance(times, list | tuple):
        times = _stacked(times, argument, like)
    elif like is not None:
        times = asarray_like(adapter_of(like), like, times, argument)
    adapter = adapter_of(times, argument)
    array = floating(adapter, times, argument)
    if array.ndim != 2 or array.shape[0] == 0:
        raise ValueError(
            f"{argument} must be a sequence of arrays [spike], or one array [train, spike]; "
            f"got shape {tuple(array.shape)}{_as_list(argument, array.ndim == 1)}"
        )
    check_not_trains(adapter, array[None, ...], argument, "use van_rossum with times=False")
    return array if like is None else adapter.xp.astype(array, like.dtype, copy=False)


def _as_list(argument: str, single: bool) -> str:
    """Return a hint on how to pass a single train if `single` is True, otherwise ""."""
    return f": pass a single train in a list, [{argument}]" if single else ""


def _stacked(trains: list[Any] | tuple[Any, ...], argument: str, like: Array | None) -> Array:
    """Return an array whose rows are the spike times of the trains, padded with infinity."""
    if not trains:
        raise ValueError(f"{argument} has no trains: got an empty {type(trains).__name__}")
    for i, train in enumerate(trains):
        check_train(train, f"{argument}[{i}]")
    like = first_array(trains, argument) if like is None else like
    adapter, given = adapter_of(like, argument), []
    for i, train in enumerate(trains):
        array = asarray_like(adapter, like, train, f"{argument}[{i}]")
        if array.ndim != 1:
            hint = _as_list(argument, array.ndim == 0)
            raise ValueError(
                f"{argument}[{i}] must have shape [spike]; got {tuple(array.shape)}{hint}"
            )
        given.append(floating(adapter, array, f"{argument}[{i}]"))

    xp = adapter.xp
    dtype, longest = xp.result_type(*given), max(array.shape[0] for array in given)
    rest = xp.full((longest,), math.inf, dtype=dtype, device=adapter.device(like))
    rows = [xp.concat([xp.astype(a, dtype, copy=False), rest[a.shape[0] :]]) for a in given]
    return xp.stack(rows)
