"""Kernels for pairs of spike times, and the lowest cost of turning one spike train into another."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp import _tuning
from spikeloss_xp._arrays import Adapter
from spikeloss_xp._typing import Array, ValueAndPullback

# A function that takes two spike times, and returns the cost of matching them.
Price = Callable[[Array, Array], Array]

# Two spikes with this matching cost are never matched, because deleting one spike and inserting the
# other costs only 2.
UNMATCHED = 3.0


def absolute_difference(adapter: Adapter, a: Array, b: Array) -> Array:
    """Return ``abs(a - b)``, with a derivative of 0 where `a` equals `b`.

    Libraries define the derivative of the absolute value at 0 differently.
    """
    difference = a - b
    return difference * adapter.sign(difference)


def replace_padding(adapter: Adapter, times: Array, value: float) -> Array:
    """Return spike times with the padding (NaN or infinity) replaced by a value."""
    return adapter.xp.where(adapter.isfinite(times), times, adapter.operand(times, value))


def kernels(adapter: Adapter, a: Array, b: Array, time_constant: float) -> Array:
    """Return ``exp(-|t - u| / tau)`` for pairs of spikes, or 0 if either spike is padding.

    Padding must be infinity in `a` and minus infinity in `b`.
    """
    return adapter.xp.exp(absolute_difference(adapter, a, b) / -time_constant)


def symmetric(adapter: Adapter, pairs: Array) -> Array:
    """Return the average of a matrix and its transpose, which is exactly symmetric.

    The matrix must already be symmetric, except for rounding errors.
    """
    return (pairs + adapter.xp.matrix_transpose(pairs)) / 2


class SortedTimes(NamedTuple):
    """Spike trains, as an array of sorted spike times and an array of spike counts.

    `times` has shape ``[train, spike]`` and is padded with infinity. `number` has shape
    ``[train]``.
    """

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
    """Replace the padding of two trains, and return both trains and a correction.

    The new padding is so far from all spikes that it is never matched with a spike. An `EditTable`
    treats padding like spikes. The sum of an excess cost from the table and the correction is the
    total cost of edits without the padding. `surplus` is the spike count of `x` minus the spike
    count of `y`.
    """
    xp, both = adapter.xp, [(times < math.inf, times) for times in (x.times, y.times)]
    zero = adapter.operand(x.times, 0.0)
    latest = xp.maximum(*(xp.max(xp.abs(xp.where(*spikes, zero))) for spikes in both))
    most = adapter.scalar(latest, (float(xp.finfo(latest.dtype).max) - far) / 2)
    # A time of `latest + far` would be far enough from all spikes, but it may be rounded down to
    # `latest`. The padding is therefore `2 * latest + far`.
    beyond = 2 * xp.minimum(latest, most) + far
    longer = x.times.shape[-1] - y.times.shape[-1]
    added = abs(longer) - xp.abs(longer - surplus)
    times_x, times_y = (xp.where(*spikes, beyond) for spikes in both)
    return times_x, times_y, added


class EditTable(NamedTuple):
    """A table that gives the lowest cost of edits that turn the train `x` into the train `y`.

    The entry ``(i, j)`` is for the first `i` spikes of `x` and the first `j` spikes of `y`. Each
    entry is an excess cost: the lowest cost of edits, minus ``i - j`` or, if `y` is longer than
    `x`, minus ``j - i``. An excess cost is precise even if one train is much longer than the other.

    The table is filled one anti-diagonal at a time. The array `last` is the previous anti-diagonal.
    The array `corner` holds entries of the anti-diagonal before `last`.

    The arrays `x` and `y` have at least one spike along axis 0, and their other axes must
    broadcast. The method `cheapest_and_pullback` requires the shape ``[spike, pair]``.
    """

    adapter: Adapter
    x: Array
    y: Array
    price: Price

    def cheapest(self) -> Array:
        """Return the last entry of the table, which is the excess cost for all spikes."""

        def advance(carry: Any, entry: Any) -> Any:
            return self._advance(carry, entry)[0], None

        (_, last), _ = self.adapter.scan(advance, *self._start_and_steps())
        return last[-1, ...]

    def cheapest_and_pullback(self) -> ValueAndPullback:
        """Return the last entry of the table, and its pullback to the prices of all matches.

        The gradient with respect to the prices has shape ``[x spike, y spike, pair]``. If several
        edits are equally cheap, they share the gradient.
        """
        adapter, xp = self.adapter, self.adapter.xp
        start, steps = self._start_and_steps()
        carry, kept = adapter.scan(self._advance, start, self._evaluated(self.price, steps))

        def pullback(cotangent: Array) -> Array:
            corner, last = map(xp.zeros_like, carry)
            start = xp.concat([last[1:, ...], cotangent[None, ...]], axis=0), corner
            entries = self._evaluated(self._shares, kept)
            _, matched = adapter.scan(self._pull_back, start, entries, reverse=True)
            return self._as_matrix(matched)

        return carry[1][-1, ...], pullback

    def _with_costs(self, left: Array, above: Array) -> tuple[Array, Array]:
        """Return the excess costs after an insertion and after a deletion.

        `left` is the excess cost before the insertion, and `above` is the excess cost before the
        deletion.
        """
        if self.x.shape[0] >= self.y.shape[0]:
            return left + 2, above
        return left, above + 2

    def _advance(self, carry: Any, entry: Any) -> Any:
        """Return the next pair of `corner` and `last`, and the arguments of `_shares`.

        `entry` is a `Step` or, if the library compiles loops, an array of spikes of `y`.
        """
        xp, (corner, last) = self.adapter.xp, carry
        step = entry if isinstance(entry, Step) else Step((self.x, entry))
        matched, (in_row, in_column) = corner + step.of(self.price), self._with_costs(last, last)
        lowest = xp.minimum(matched, xp.minimum(in_row[1:, ...], in_column[:-1, ...]))
        edges = [in_row[:1, ...]] * (not step.shrinks), [in_column[-1:, ...]] * step.grows
        corner = last[int(step.shrinks) : last.shape[0] - (not step.grows), ...]
        carry = corner, self._joined([*edges[0], lowest, *edges[1]])
        edits = matched, last[1:, ...], last[:-1, ...]
        return carry, entry._replace(values=edits) if isinstance(entry, Step) else edits

    def _pull_back(self, carry: Any, entry: Any) -> Any:
        """Return the gradients with respect to `last`, `corner` and the prices.

        `entry` is a `Step` or, if the library compiles loops, a tuple with the arguments of
        `_shares`. The costs at the edges of the table are constant, so their gradients are dropped.
        """
        step = entry if isinstance(entry, Step) else Step(entry)
        own, of_corner = (x[int(not step.shrinks) : x.shape[0] - step.grows, ...] for x in carry)
        matched, inserted, deleted = self.adapter.unstack(own[None, ...] * step.of(self._shares), 0)
        if self.adapter.on_host:  # a view would keep `inserted` and `deleted` in memory
            matched = self.adapter.xp.asarray(matched, copy=True)
        of_last = [deleted[:1, ...], inserted[:-1, ...] + deleted[1:, ...] + of_corner]
        return (self._joined([*of_last, inserted[-1:, ...]]), matched), matched

    def _evaluated(self, function: Callable[..., Array], steps: Any) -> Any:
        """Return the steps, after evaluating `function` for all steps at once if this is faster."""
        large = self.x.shape[0] * self.x.shape[1] > _tuning.EDITS_AT_ONCE
        if self.adapter.compiles_loops or (self.adapter.on_host and large):
            return steps
        values = function(*map(self._joined, zip(*(step.values for step in steps), strict=True)))
        evaluated, stop = [], 0
        for step in steps:
            start, stop = stop, stop + step.values[0].shape[0]
            evaluated.append(step._replace(values=values[..., start:stop, :]))
        return evaluated

    def _joined(self, parts: Sequence[Array]) -> Array:
        return self.adapter.xp.concat(parts, axis=0) if len(parts) > 1 else parts[0]

    def _shares(self, matched: Array, left: Array, above: Array) -> Array:
        """Return how the gradient of a cost is split between the three edits that lead to it.

        The fractions for a match, an insertion and a deletion are stacked along axis 0. `matched`
        is the cost after a match, `left` is the cost before an insertion, and `above` is the cost
        before a deletion.
        """
        xp, (inserted, deleted) = self.adapter.xp, self._with_costs(left, above)
        match = _share(xp, matched, xp.minimum(inserted, deleted))
        rest = 1 - match
        insertion = rest * _share(xp, inserted, deleted)
        return xp.stack([match, insertion, rest - insertion], axis=0)

    def _as_matrix(self, matched: Any) -> Array:
        """Return the values of all matches as an array ``[x spike, y spike, pair]``.

        `matched` holds the values of one anti-diagonal after the other.
        """
        adapter, xp = self.adapter, self.adapter.xp
        n, m = self.x.shape[0], self.y.shape[0]
        rows, columns = adapter.arange(n * n + n, self.x), adapter.arange(m * n, self.x)
        place = xp.reshape(rows[:: n + 1, None] + columns[None, ::n], (-1,))
        if adapter.compiles_loops:
            matched = xp.reshape(matched, (-1, matched.shape[2]))
        else:  # `matched` has no entries outside the table
            matched, place = self._joined(matched), xp.argsort(xp.argsort(place))
        return xp.reshape(xp.take(matched, place, axis=0), (n, m, matched.shape[1]))

    def _start_and_steps(self) -> tuple[tuple[Array, Array], Any]:
        """Return the initial `corner` and `last`, and all steps.

        If the library compiles loops, the arrays have the same shape at every step. They therefore
        also have entries outside the table, which are infinite or never used.
        """
        adapter, xp = self.adapter, self.adapter.xp
        n, m = self.x.shape[0], self.y.shape[0]
        corner = xp.zeros_like(xp.broadcast_arrays(self.x[:1, ...], self.y[:1, ...])[0])
        last = self._joined(self._with_costs(corner, corner))
        y = xp.flip(self.y, axis=0)
        if not adapter.compiles_loops:
            steps = []
            for d in range(2, n + m + 1):
                low, high = max(0, d - m - 1), min(n, d - 1)
                pairs = self.x[low:high, ...], y[m + 1 - d + low : m + 1 - d + high, ...]
                steps.append(Step(pairs, d <= n, d > m))
            return (corner, last), steps
        never, no_spike = [corner + math.inf] * (n - 1), [xp.zeros_like(y[:1, ...])] * (n - 1)
        y, steps = xp.concat([*no_spike, y, *no_spike], axis=0), n + m - 1
        spike = xp.flip(adapter.arange(steps, y))[:, None] + adapter.arange(n, y)[None, :]
        windows = xp.reshape(xp.take(y, xp.reshape(spike, (-1,)), axis=0), (steps, n, *y.shape[1:]))
        return (xp.concat([corner, *never], axis=0), xp.concat([last, *never], axis=0)), windows


class Step(NamedTuple):
    """A step from one anti-diagonal of an `EditTable` to the next anti-diagonal.

    Before a function is evaluated, `values` is a tuple with the arguments of the function.
    Afterwards, `values` is an array with the values of the function. `grows` is True if the next
    anti-diagonal has an additional entry at its end. `shrinks` is True if the next anti-diagonal
    lacks the first entry of the current anti-diagonal.
    """

    values: Any
    grows: bool = False
    shrinks: bool = False

    def of(self, function: Callable[..., Array]) -> Array:
        """Return the values of `function`, and evaluate `function` first if necessary."""
        return function(*self.values) if isinstance(self.values, tuple) else self.values


def _share(xp: Any, cost: Array, other: Array) -> Array:
    """Return the fraction of the gradient that an edit with the cost `cost` receives.

    `other` is the cost of an alternative edit. If both costs are equal, the fraction is 1/2.
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
