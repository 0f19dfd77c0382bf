"""Kernels for pairs of spike times, and the lowest cost of editing one train into another.

The distances between pairs of trains and the losses on spike times both use this module.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import Adapter
from spikeloss_xp._typing import Array, ValueAndPullback

Price = Callable[[Array, Array], Array]  # the cost of matching two spike times

# If matching two spikes costs this much, they are never matched, because deleting one spike and
# inserting the other costs only 2.
UNMATCHED = 3.0


def absolute_difference(adapter: Adapter, a: Array, b: Array) -> Array:
    """Return ``abs(a - b)``. The derivative at 0, which differs between libraries, is set to 0."""
    difference = a - b
    return difference * adapter.sign(difference)


def replace_padding(adapter: Adapter, times: Array, value: float | Array) -> Array:
    """Return spike times with the padding (NaN or infinity) replaced by a value."""
    padding = adapter.operand(times, value) if isinstance(value, float) else value
    return adapter.xp.where(adapter.isfinite(times), times, padding)


def kernels(adapter: Adapter, a: Array, b: Array, time_constant: float) -> Array:
    """Return ``exp(-|t - u| / tau)`` for pairs of spikes, or 0 if either spike is padding.

    The padding must be infinity in `a` and minus infinity in `b`, so that it is far from all spikes
    and from the padding of the other array.
    """
    return adapter.xp.exp(absolute_difference(adapter, a, b) / -time_constant)


def symmetric(adapter: Adapter, pairs: Array) -> Array:
    """Return the average of a matrix with its transpose.

    The matrix must already be symmetric up to rounding. The average is exactly symmetric.
    """
    return (pairs + adapter.xp.matrix_transpose(pairs)) / 2


class SortedTimes(NamedTuple):
    """Sorted spike times ``[train, spike]``, padded with infinity, and the spike counts."""

    times: Array
    number: Array

    @classmethod
    def of(cls, adapter: Adapter, padded: Array) -> "SortedTimes":
        """Return the sorted times of an array that is padded with NaN or infinity."""
        xp = adapter.xp
        if padded.shape[1] == 0:  # no train has a spike
            padded = xp.broadcast_to(adapter.scalar(padded, math.inf), (padded.shape[0], 1))
        spike = adapter.isfinite(padded)
        number = xp.squeeze(adapter.number(spike, padded.dtype, 1), axis=1)
        inf = adapter.operand(padded, math.inf)
        return cls(xp.sort(xp.where(spike, padded, inf), axis=-1), number)


def pad_unmatched(
    adapter: Adapter, x: SortedTimes, y: SortedTimes, surplus: Array, far: float
) -> tuple[Array, Array, Array]:
    """Return the times of `x` and `y` with new padding, and a correction to the costs of editing.

    The new padding is a time that matches no spike. In an `EditTable`, padding matches padding at
    no cost. If one train has more padding than the other, the table also deletes or inserts the
    extra padding. The correction must be added to the costs from the table. The correction removes
    the cost of editing the padding. The correction also adds the difference in length, because the
    table subtracts that difference from the costs. `surplus` is the spike count of `x` minus the
    spike count of `y`.
    """
    xp, both = adapter.xp, (x.times, y.times)
    latest = xp.maximum(*(xp.max(xp.abs(replace_padding(adapter, times, 0.0))) for times in both))
    limit = adapter.scalar(latest, float(xp.finfo(latest.dtype).max))
    # Without rounding, `latest + far` would be far enough from all spikes.
    beyond = 2 * xp.minimum(latest, (limit - far) / 2) + far
    longer = x.times.shape[-1] - y.times.shape[-1]
    added = abs(longer) - xp.abs(longer - surplus)
    times_x, times_y = (replace_padding(adapter, times, beyond) for times in both)
    return times_x, times_y, added


class EditTable(NamedTuple):
    """The table of the excess costs of editing one train into another.

    The excess cost in entry ``(i, j)`` is the lowest cost of editing the first `i` spikes of `x`
    into the first `j` spikes of `y`, minus ``i - j`` (or minus ``j - i`` if `y` is longer than
    `x`). An insertion or a deletion therefore costs 0 if it reduces the difference in length, and 2
    otherwise. The subtraction preserves the precision of small costs if one train is much longer
    than the other.

    Each step fills an anti-diagonal from two arrays, `last` and `corner`. The array `last` is the
    previous anti-diagonal. An insertion or a deletion starts from an entry of `last`. The array
    `corner` holds entries of the anti-diagonal before `last`. A match starts from an entry of
    `corner`.

    Attributes
    ----------
    adapter : Adapter
        The adapter for the library of the times.
    x, y : array
        Arrays with one or more spike times along axis 0. The other axes broadcast.
    price : callable
        The cost of matching two spike times.
    slope : callable, optional
        The derivative of `price` with respect to its first argument. If `slope` is given, all
        anti-diagonals are kept for a pullback.
    """

    adapter: Adapter
    x: Array
    y: Array
    price: Price
    slope: Price | None = None

    def cheapest(self) -> ValueAndPullback:
        """Return the last entry of the table, and the pullback from that entry to `x`.

        If several edits are equally cheap, they share the gradient.
        """
        adapter, xp = self.adapter, self.adapter.xp
        carry, kept = adapter.scan(self._advance, *self._start_and_steps())

        def pullback(cotangent: Array) -> Array:
            corner, last = map(xp.zeros_like, carry)
            now = xp.concat([last[1:, ...], cotangent[None, ...]], axis=0)
            of_all = now, corner, xp.zeros_like(self.x)
            (_, _, gradient), _ = adapter.scan(self._pull_back, of_all, kept, reverse=True)
            return gradient

        return carry[1][-1, ...], pullback

    @property
    def _costs(self) -> tuple[int, int]:
        """The costs of an insertion and of a deletion."""
        return (2, 0) if self.x.shape[0] >= self.y.shape[0] else (0, 2)

    def _edits(self, carry: tuple[Array, Array], step: "Step") -> tuple[Array, Array, Array]:
        """Return three arrays of costs: after a match, after an insertion and after a deletion.

        The arrays have no entries for the edges of the table.
        """
        (corner, last), (insertion, deletion) = carry, self._costs
        inserted, deleted = last[1:, ...], last[:-1, ...]
        if insertion:
            inserted = inserted + insertion
        else:
            deleted = deleted + deletion
        return corner + self.price(step.matched(self.x), step.window), inserted, deleted

    def _advance(self, carry: Any, entry: Any) -> Any:
        xp, step, last = self.adapter.xp, Step.of(entry), carry[1]
        matched, inserted, deleted = self._edits(carry, step)
        parts = [xp.minimum(matched, xp.minimum(inserted, deleted))]
        if not step.shrinks:
            parts.insert(0, last[:1, ...] + self._costs[0])
        if step.grows:
            parts.append(last[-1:, ...] + self._costs[1])
        corner = last[int(step.shrinks) : last.shape[0] - (not step.grows), ...]
        return (corner, xp.concat(parts, axis=0)), None if self.slope is None else (carry, entry)

    def _pull_back(self, carry: Any, kept: tuple[Any, Any]) -> Any:
        xp, (now, of_corner, gradient), step = self.adapter.xp, carry, Step.of(kept[1])
        shrinks, grows, edge = step.shrinks, step.grows, xp.zeros_like(now[:1, ...])
        matched, inserted, deleted = self._edits(kept[0], step)
        own = now[int(not shrinks) : now.shape[0] - grows, ...]
        of_match = own * _share(xp, matched, xp.minimum(inserted, deleted))
        of_insertion = (own - of_match) * _share(xp, inserted, deleted)
        of_last = xp.concat([edge, of_insertion], axis=0)  # the costs at the edges are constant
        of_last = of_last + xp.concat([own - of_match - of_insertion, edge], axis=0)
        of_last = of_last + xp.concat([*[edge] * shrinks, of_corner, *[edge] * (not grows)], axis=0)
        moved = of_match * self.slope(step.matched(self.x), step.window)  # type: ignore[misc]
        return (of_last, of_match, gradient + step.scattered(xp, moved, self.x)), None

    def _start_and_steps(self) -> tuple[tuple[Array, Array], Any]:
        """Return the initial `corner` and `last`, and all steps.

        If the library compiles a single step function, the arrays have the same shape at every
        step. Entries outside the table are then either infinite or never used.
        """
        adapter, xp, n, m = self.adapter, self.adapter.xp, self.x.shape[0], self.y.shape[0]
        corner = xp.zeros_like(xp.broadcast_arrays(self.x[:1, ...], self.y[:1, ...])[0])
        last = xp.concat([corner + cost for cost in self._costs], axis=0)
        y = xp.flip(self.y, axis=0)
        if not adapter.compiles_loops:
            bounds = ((d, max(1, d - m), min(n, d - 1)) for d in range(2, n + m + 1))
            return (corner, last), [
                Step(y[m - d + low : m - d + high + 1, ...], low - 1, d <= n, d > m)
                for d, low, high in bounds
            ]
        never, no_spike = [corner + math.inf] * (n - 1), [xp.zeros_like(y[:1, ...])] * (n - 1)
        y, steps = xp.concat([*no_spike, y, *no_spike], axis=0), n + m - 1
        spike = xp.flip(adapter.arange(steps, y))[:, None] + adapter.arange(n, y)[None, :]
        windows = xp.reshape(xp.take(y, xp.reshape(spike, (-1,)), axis=0), (steps, n, *y.shape[1:]))
        return (xp.concat([corner, *never], axis=0), xp.concat([last, *never], axis=0)), windows


class Step(NamedTuple):
    """A step from one anti-diagonal of an `EditTable` to the next anti-diagonal.

    A step says which spikes are matched, and how the length of the anti-diagonal changes.

    Attributes
    ----------
    window : array
        The spikes of `y`.
    first : int
        The index of the first matched spike of `x`.
    grows, shrinks : bool
        Whether the next anti-diagonal gains an entry at its end, and whether it loses one at its
        beginning.
    """

    window: Array
    first: int = 0
    grows: bool = False
    shrinks: bool = False

    @classmethod
    def of(cls, entry: Any) -> "Step":
        """Return `entry` if it is a step. Otherwise, return a step with the window `entry`."""
        return entry if isinstance(entry, cls) else cls(entry)

    def matched(self, x: Array) -> Array:
        """Return the spikes of `x` that the step matches."""
        return x[self.first : self.first + self.window.shape[0], ...]

    def scattered(self, xp: Any, values: Array, like: Array) -> Array:
        """Return an array like `like`, with `values` for the matched spikes and 0 elsewhere."""
        rest, stop = xp.zeros_like(like), self.first + self.window.shape[0]
        return xp.concat([rest[: self.first, ...], values, rest[stop:, ...]], axis=0)


def _share(xp: Any, cost: Array, other: Array) -> Array:
    """Return the share of the gradient that an edit with the cost `cost` receives.

    `other` is the cost of another edit. The share is 1 if `cost` is lower than `other`, 0 if `cost`
    is higher, and 1/2 if both costs are equal.
    """
    return (xp.astype(cost < other, cost.dtype) + xp.astype(cost <= other, cost.dtype)) / 2


def check_not_trains(
    adapter: Adapter,
    times: Array,
    argument: str,
    remedy: str = "use the loss of the same name without sx.times",
) -> None:
    """Raise an error if spike times ``[batch, class, spike]`` look like binned spikes.

    Spike times look like binned spikes if all finite times are 0 or 1 and a train contains at least
    three equal times.
    """
    known = adapter.concrete_or_none(times)
    if known is None or known.ndim < 3 or not _only_0_and_1(known[:1]) or not _only_0_and_1(known):
        return
    if max((known == value).sum(axis=-1).max(initial=0) for value in (0, 1)) > 2:
        raise ValueError(
            f"{argument} must hold spike times; got only 0 and 1 in an array of shape "
            f"{known.shape}, as in binned spikes: {remedy}, or convert the spikes to spike times"
        )


def _only_0_and_1(known: np.ndarray) -> bool:
    return bool(((known == 0) | (known == 1) | ~np.isfinite(known)).all())
