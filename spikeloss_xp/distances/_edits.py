"""The smallest cost of editing one list of spike times into another, for all pairs at once.

To delete or to insert a spike costs 1; what it costs to match a spike of one train with a spike of
the other is the caller's. The table of costs is filled along its anti-diagonals, because no entry
of an anti-diagonal depends on another one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from spikeloss_xp._arrays import Library
from spikeloss_xp._typing import Array

BLOCK = 1 << 16  # entries of an anti-diagonal that are computed at a time, to stay in a cache


class SpikeTimes(NamedTuple):
    """Sorted spike times ``[train, spike]``, infinite after the last one, and their numbers."""

    times: Array
    number: Array


def sort_times(library: Library, times: Array) -> SpikeTimes:
    xp = library.xp
    if times.shape[1] == 0:  # no train has a spike
        times = xp.full(
            (times.shape[0], 1), math.inf, dtype=times.dtype, device=library.device(times)
        )
    spike = xp.isfinite(times)
    number = xp.sum(xp.astype(spike, times.dtype), axis=-1)
    return SpikeTimes(xp.sort(xp.where(spike, times, math.inf), axis=-1), number)


def magnitude(library: Library, x: Array) -> Array:
    """Return ``abs(x)`` with the derivative 0 at 0, where those of libraries differ."""
    return library.xp.where(x == 0, 0.0, library.xp.abs(x))


def edit_costs(
    library: Library,
    x: SpikeTimes,
    y: SpikeTimes,
    apart: float,
    price: Callable[[Array, Array], Array],
) -> Array:
    """Return the smallest costs of editing trains of `x` into trains of `y`.

    `price` is the cost of matching two spike times, and above 2 if they are `apart` or more.
    """
    xp = library.xp
    finite_x, finite_y = xp.isfinite(x.times), xp.isfinite(y.times)
    latest = xp.maximum(
        xp.max(xp.where(finite_x, xp.abs(x.times), 0.0)),
        xp.max(xp.where(finite_y, xp.abs(y.times), 0.0)),
    )
    # Rows are filled up with a time that no spike matches. The times that fill up match each other
    # at no cost, and those left over are deleted or inserted: that is taken off again.
    beyond = 2 * latest + apart
    rows = xp.matrix_transpose(xp.where(finite_x, x.times, beyond))[:, :, None]
    columns = xp.matrix_transpose(xp.where(finite_y, y.times, beyond))[:, None, :]
    columns = xp.flip(columns, axis=0)
    spikes_x, spikes_y = rows.shape[0], columns.shape[0]
    left_over = xp.abs((spikes_x - x.number)[:, None] - (spikes_y - y.number)[None, :])
    number = rows.shape[1]
    size = max(BLOCK // (columns.shape[2] * spikes_x), 1)
    blocks = [
        _fill_table(library, rows[:, start : min(start + size, number), :], columns, price)
        for start in range(0, number, size)
    ]
    costs = blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=0)
    return costs - left_over


def _fill_table(
    library: Library, x: Array, y: Array, price: Callable[[Array, Array], Array]
) -> Array:
    """Return the last entry of the table of edit costs, for all pairs.

    `x` has axes ``[spike, train, 1]``, and `y`, whose spikes are in reverse, ``[spike, 1, train]``.
    Entry ``(i, j)`` is the cost of the first `i` spikes of one train and `j` of the other. An
    anti-diagonal has the entries with ``i + j = d``, of which `first` is the smallest `i`.
    """
    xp = library.xp
    n, m = x.shape[0], y.shape[0]
    shape = (1, x.shape[1], y.shape[2])

    def edge(d: int) -> Array:  # d spikes of one train and none of the other
        return xp.full(shape, float(d), dtype=x.dtype, device=library.device(x))

    before, last = edge(0), xp.concat([edge(1), edge(1)], axis=0)  # for d = 0 and d = 1
    first_before, first_last = 0, 0
    for d in range(2, n + m + 1):
        low, high = max(1, d - m), min(n, d - 1)  # entries that are no edge
        inserted = last[low - first_last : high + 1 - first_last, ...]
        deleted = last[low - 1 - first_last : high - first_last, ...]
        matched = before[low - 1 - first_before : high - first_before, ...]
        matched = matched + price(x[low - 1 : high, ...], y[m - d + low : m - d + high + 1, ...])
        entries = [xp.minimum(matched, xp.minimum(inserted, deleted) + 1)]
        if d <= m:
            entries.insert(0, edge(d))
        if d <= n:
            entries.append(edge(d))
        before, first_before = last, first_last
        last = entries[0] if len(entries) == 1 else xp.concat(entries, axis=0)
        first_last = max(0, d - m)
    return last[0, ...]
