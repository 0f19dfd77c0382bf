"""Pairs of spike times: kernels, and the smallest costs of editing one train into another.

Both the distances of all pairs of trains and the losses on spike times follow from them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from spikeloss_xp._arrays import Adapter, sign
from spikeloss_xp._typing import Array, ValueAndPullback

UNMATCHED = 3.0  # more than the 2 of deleting a spike and inserting another one


def absolute_difference(adapter: Adapter, a: Array, b: Array) -> Array:
    """Return ``abs(a - b)``, with the derivative 0 at 0, where libraries disagree on it."""
    difference = a - b
    return difference * sign(adapter, difference)


def replace_padding(adapter: Adapter, times: Array, value: float) -> Array:
    """Return spike times with a value in place of NaN and infinity, which are padding."""
    return adapter.xp.where(adapter.xp.isfinite(times), times, value)


def kernels(adapter: Adapter, a: Array, b: Array, time_constant: float) -> Array:
    """Return ``exp(-|t - u| / tau)`` of pairs of spikes, 0 if one of them is padding.

    The padding of `a` is infinity, and that of `b` is minus infinity: both are far from all others.
    """
    return adapter.xp.exp(-absolute_difference(adapter, a, b) / time_constant)


def symmetric(adapter: Adapter, pairs: Array) -> Array:
    """Return the mean of a matrix and its transpose: sums in another order differ by rounding."""
    return (pairs + adapter.xp.matrix_transpose(pairs)) / 2


class SortedTimes(NamedTuple):
    """Sorted spike times ``[train, spike]``, infinite after the last one, and their numbers."""

    times: Array
    number: Array

    @classmethod
    def of(cls, adapter: Adapter, padded: Array) -> "SortedTimes":
        """Return spike times whose padding is NaN or infinity."""
        xp, trains = adapter.xp, padded.shape[0]
        if padded.shape[1] == 0:  # no train has a spike
            like = {"dtype": padded.dtype, "device": adapter.device(padded)}
            padded = xp.full((trains, 1), math.inf, **like)
        spike = xp.isfinite(padded)
        number = xp.sum(xp.astype(spike, padded.dtype), axis=-1)
        return cls(xp.sort(xp.where(spike, padded, math.inf), axis=-1), number)


def pad_unmatched(
    adapter: Adapter, x: SortedTimes, y: SortedTimes, surplus: Array, far: float
) -> tuple[Array, Array, Array]:
    """Return the times padded with a time that no spike matches, for an `EditTable`.

    Padding matches padding at no cost. If a train has more of it, the table deletes or inserts the
    rest; the last result, added to the costs of the table, takes that off again. `surplus` is the
    number of spikes of `x` less that of `y`.
    """
    xp = adapter.xp
    finite_x, finite_y = xp.isfinite(x.times), xp.isfinite(y.times)
    latest = xp.maximum(
        xp.max(xp.where(finite_x, xp.abs(x.times), 0.0)),
        xp.max(xp.where(finite_y, xp.abs(y.times), 0.0)),
    )
    limit = adapter.scalar(latest, float(xp.finfo(latest.dtype).max))
    beyond = 2 * xp.minimum(latest, (limit - far) / 2) + far  # twice, because of rounding
    longer = x.times.shape[-1] - y.times.shape[-1]
    added = abs(longer) - xp.abs(longer - surplus)
    return xp.where(finite_x, x.times, beyond), xp.where(finite_y, y.times, beyond), added


class EditTable(NamedTuple):
    """The table of the smallest costs of edits, less the difference of the lengths of two trains.

    Entry ``(i, j)`` is the cost of the first `i` spikes of `x` and `j` of `y`, less ``i - j``, or
    ``j - i`` if `y` is longer. So an edit costs 0 if it is one of the difference, and 2 else, and a
    small distance keeps its digits beside a long train. A step fills an anti-diagonal: from `last`,
    the one before it, and from `corner`, the entries that are a match away.

    Attributes
    ----------
    adapter : Adapter
        That of the library of the times.
    x, y : array
        Spike times along axis 0, at least one each; they broadcast along the others.
    price : callable
        The cost of matching two spike times.
    slope : callable, optional
        Its derivative in the first time. With it all anti-diagonals are kept, for a pullback.
    """

    adapter: Adapter
    x: Array
    y: Array
    price: Callable[[Array, Array], Array]
    slope: Callable[[Array, Array], Array] | None = None

    def cheapest(self) -> ValueAndPullback:
        """Return the last entry, and the pullback to `x`.

        Of several cheapest edits each has an equal share of the gradient.
        """
        adapter, xp = self.adapter, self.adapter.xp
        carry, kept = adapter.scan(self._step, *self._start_and_places())

        def pullback(cotangent: Array) -> Array:
            corner, last = map(xp.zeros_like, carry)
            now = xp.concat([last[1:, ...], cotangent[None, ...]], axis=0)
            of_all = now, corner, xp.zeros_like(self.x)
            (_, _, gradient), _ = adapter.scan(self._step_back, of_all, kept, reverse=True)
            return gradient

        return carry[1][-1, ...], pullback

    @property
    def _costs(self) -> tuple[int, int]:
        """The costs of an insertion and of a deletion."""
        return (2, 0) if self.x.shape[0] >= self.y.shape[0] else (0, 2)

    def _edits(self, carry: tuple[Array, Array], place: "Place") -> tuple[Array, Array, Array]:
        """Return the costs after matching, inserting and deleting, of entries that are no edge."""
        (corner, last), (insertion, deletion) = carry, self._costs
        inserted, deleted = last[1:, ...], last[:-1, ...]
        if insertion:
            inserted = inserted + insertion
        else:
            deleted = deleted + deletion
        return corner + self.price(place.of(self.x), place.window), inserted, deleted

    def _step(self, carry: Any, entry: Any) -> Any:
        xp, place, last = self.adapter.xp, Place.at(entry), carry[1]
        matched, inserted, deleted = self._edits(carry, place)
        parts = [xp.minimum(matched, xp.minimum(inserted, deleted))]
        if not place.shrinks:
            parts.insert(0, last[:1, ...] + self._costs[0])
        if place.grows:
            parts.append(last[-1:, ...] + self._costs[1])
        corner = last[int(place.shrinks) : last.shape[0] - (not place.grows), ...]
        return (corner, xp.concat(parts, axis=0)), None if self.slope is None else (carry, entry)

    def _step_back(self, carry: Any, kept: tuple[Any, Any]) -> Any:
        xp, (now, of_corner, gradient), place = self.adapter.xp, carry, Place.at(kept[1])
        shrinks, grows, edge = place.shrinks, place.grows, xp.zeros_like(now[:1, ...])
        matched, inserted, deleted = self._edits(kept[0], place)
        own = now[int(not shrinks) : now.shape[0] - grows, ...]
        of_match = own * _share(xp, matched, xp.minimum(inserted, deleted))
        of_insertion = (own - of_match) * _share(xp, inserted, deleted)
        of_last = xp.concat([edge, of_insertion], axis=0)  # the costs of edges are constants
        of_last = of_last + xp.concat([own - of_match - of_insertion, edge], axis=0)
        of_last = of_last + xp.concat([*[edge] * shrinks, of_corner, *[edge] * (not grows)], axis=0)
        moved = of_match * self.slope(place.of(self.x), place.window)  # type: ignore[misc]
        return (of_last, of_match, gradient + place.placed(xp, moved, self.x)), None

    def _start_and_places(self) -> tuple[tuple[Array, Array], Any]:
        """Return the first two anti-diagonals, the first without its last entry, and all places.

        A library that compiles a step once has steps of one shape: entries that do not exist are
        infinite, or no other one follows from them.
        """
        adapter, xp, n, m = self.adapter, self.adapter.xp, self.x.shape[0], self.y.shape[0]
        corner = xp.zeros_like(xp.broadcast_arrays(self.x[:1, ...], self.y[:1, ...])[0])
        last = xp.concat([corner + cost for cost in self._costs], axis=0)
        y = xp.flip(self.y, axis=0)
        if not adapter.compiles_loops:
            bounds = ((d, max(1, d - m), min(n, d - 1)) for d in range(2, n + m + 1))
            return (corner, last), [
                Place(y[m - d + low : m - d + high + 1, ...], low - 1, d <= n, d > m)
                for d, low, high in bounds
            ]
        never, no_spike = [corner + math.inf] * (n - 1), [xp.zeros_like(y[:1, ...])] * (n - 1)
        y, steps = xp.concat([*no_spike, y, *no_spike], axis=0), n + m - 1
        spike = xp.flip(adapter.arange(steps, y))[:, None] + adapter.arange(n, y)[None, :]
        windows = xp.reshape(xp.take(y, xp.reshape(spike, (-1,)), axis=0), (steps, n, *y.shape[1:]))
        return (xp.concat([corner, *never], axis=0), xp.concat([last, *never], axis=0)), windows


class Place(NamedTuple):
    """The spikes that are matched at a step, and how the anti-diagonal changes.

    Attributes
    ----------
    window : array
        The spikes of `y`.
    first : int
        The first spike of `x`.
    grows, shrinks : bool
        Whether the next anti-diagonal has one more entry at its end, one less at its beginning.
    """

    window: Array
    first: int = 0
    grows: bool = False
    shrinks: bool = False

    @classmethod
    def at(cls, entry: Any) -> "Place":
        """Return the place of a step, which may be given by its window."""
        return entry if isinstance(entry, cls) else cls(entry)

    def of(self, x: Array) -> Array:
        return x[self.first : self.first + self.window.shape[0], ...]

    def placed(self, xp: Any, moved: Array, like: Array) -> Array:
        """Return an array like another one, 0 but for the spikes of `x`."""
        rest, stop = xp.zeros_like(like), self.first + self.window.shape[0]
        return xp.concat([rest[: self.first, ...], moved, rest[stop:, ...]], axis=0)


def _share(xp: Any, cost: Array, other: Array) -> Array:
    """Return the share of an edit in the smaller of two costs."""
    return (xp.astype(cost < other, cost.dtype) + xp.astype(cost <= other, cost.dtype)) / 2
