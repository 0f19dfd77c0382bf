"""The mean event rate of each layer of a network, computed over a batch or a part of a batch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter, adapter_of, asarray_like, at_least_one
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._typing import Array, Pullback
from spikeloss_xp.readouts import ReadResult


def arrays_in(input: Any, name: str = "input") -> list[Any]:
    """Return all arrays in `input`, which may be a nested structure of sequences and mappings."""
    if not isinstance(input, Mapping | list | tuple):
        return [input]
    items = input.items() if isinstance(input, Mapping) else enumerate(input)
    arrays = [x for key, held in items for x in arrays_in(held, f"{name}[{key!r}]")]
    if not arrays:
        raise ValueError(f"{name} must hold at least one array; got none")
    return arrays


def arrays_of_one_library(input: Any) -> tuple[Adapter, list[Any]]:
    """Return the adapter for the arrays in `input`, and a list of these arrays."""
    arrays = arrays_in(input)
    adapter, *others = dict.fromkeys(map(adapter_of, arrays))
    if others:
        libraries = sorted(each.library for each in (adapter, *others))
        raise TypeError(f"input must hold arrays of one library; got {' and '.join(libraries)}")
    return adapter, arrays


def sums_elsewhere(prepared: Trains, others: Any, per: str) -> list[Array]:
    """Check `others` and convert it to two arrays of floats.

    `others` holds the number of events and the number of entries in the rest of the batch.
    """
    if per.startswith("sample"):
        raise ValueError(f"others needs per='all' or 'neuron'; got per={per!r}: omit others")
    if isinstance(others, str) or not hasattr(others, "__len__"):
        raise TypeError(f"others must be a pair of events and entries; got {others!r}")
    if len(others) != 2:
        raise ValueError(f"others must be a pair of events and entries; got {len(others)} items")
    values, sums = prepared.values, []
    shape: tuple[int, ...] = (prepared.layout.neurons,) if per == "neuron" else ()
    expected = {"[neuron]" if per == "neuron" else "a scalar": shape}
    for name, given in zip(("events", "entries"), others, strict=True):
        total = asarray_like(prepared.adapter, values, given, "others")
        _checks.check_shape(total, "others", name, expected)
        sums.append(prepared.adapter.xp.astype(total, values.dtype, copy=False))
    return sums


def sum_magnitude(
    adapter: Adapter,
    x: Array,
    mask: Array | None = None,
    *,
    axes: tuple[int, ...],
    at_silence: Any = True,
) -> tuple[Array, Any, Pullback]:
    """Return the sum of ``|x|``, the number of unmasked entries, and the pullback of the sum.

    The derivative of ``|x|`` at ``x = 0`` is defined as 1 where `at_silence` is True, and as 0
    where `at_silence` is False.
    """
    xp = adapter.xp

    def spread(y: Array) -> Array:
        for axis in axes:
            y = xp.expand_dims(y, axis=axis)
        return y

    def times_sign(y: Array) -> Array:
        if plain:
            for axis in axes:
                y = adapter.spread(axis, y, x.shape[axis])
            return y
        other = y
        if at_silence is not True:
            slope = 0.0 if at_silence is False else spread(xp.astype(at_silence, x.dtype))
            other = xp.where(x > 0, y, y * slope)
        return xp.where(x < 0, -y, other)

    # If `plain` is True, no value is negative, so ``|x|`` is `x` itself.
    plain = at_silence is True and adapter.are_within(x, 0, math.inf)
    if mask is None:
        entries: Any = math.prod([x.shape[axis] for axis in axes])
    else:
        repeated = math.prod([x.shape[i] for i in axes if mask.shape[i] != x.shape[i]])
        entries = _total(adapter, xp.astype(mask, x.dtype), axes) * repeated
    size = x
    if not plain:  # the library's derivative of `abs` at 0 may differ from `at_silence`
        size = abs(x) if adapter.in_place(x) else times_sign(x)
    return _total(adapter, size, axes), entries, lambda cotangent: times_sign(spread(cotangent))


def _total(adapter: Adapter, x: Array, axes: tuple[int, ...]) -> Array:
    """Return the sum of `x` over `axes`."""
    if len(axes) == x.ndim:
        return adapter.sum_all(x)
    for axis in reversed(axes):
        x = adapter.xp.sum(x, axis=axis)
    return x


def mean_magnitude(
    adapter: Adapter,
    x: Array,
    mask: Array | None = None,
    *,
    axes: tuple[int, ...],
    at_silence: Any = True,
    others: Sequence[Array] | None = None,
) -> ReadResult:
    """Return the mean of ``|x|`` over `axes` as a `Reading`, and the pullback of the mean.

    If `others` is given, the mean is taken over a whole batch: `x` is one part of the batch, and
    `others` holds the sum and the number of entries of the rest.
    """
    events, entries, to_x = sum_magnitude(adapter, x, mask, axes=axes, at_silence=at_silence)
    if others is not None:
        events, entries = events + others[0], others[1] + entries
    known = mask is None and others is None  # if `known` is False, the number of entries may be 0
    number = entries if known else at_least_one(adapter, entries)
    rate, unmasked = events / number, None
    if not known:
        unmasked = adapter.xp.broadcast_to(entries > 0, rate.shape)
    neurons = adapter.axes[max(rate.ndim - 1, 0)]
    reading = Reading(rate, neurons, adapter, adapter.xp, mask=unmasked)
    return reading, lambda cotangent: to_x(cotangent / number)
