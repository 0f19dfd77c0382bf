"""Comparisons of spike times: the Victor-Purpura distance and the coincidence factor.

Both follow from the smallest cost of editing one train into the other, for all pairs at once. To
delete or to insert a spike costs 1; each has its own price of matching a spike of one train with a
spike of the other. The table of costs is filled along its anti-diagonals, because no entry of an
anti-diagonal depends on another one.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from spikeloss_xp import _checks, _tuning
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    find_adapter,
    floating,
    host,
    on_device_of,
    sign,
)
from spikeloss_xp._checks import has_unit
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, SupportsArray, ValueAndPullback
from spikeloss_xp.spike_times import epsilon_of, in_unit, without_units

if TYPE_CHECKING:  # lists of numbers alone have no array type, and `Never` would be inferred
    from typing_extensions import TypeVar

    TimesT = TypeVar("TimesT", bound=SupportsArray, default=Any)
else:
    TimesT = ArrayT
Lists: TypeAlias = TimesT | Sequence[TimesT | Sequence[float]]
NAMES = ("times", "other")
UNMATCHED = 3.0  # more than the 2 of deleting a spike and inserting another one


class SpikeTimes(NamedTuple):
    """Sorted spike times ``[train, spike]``, infinite after the last one, and their numbers."""

    times: Array
    number: Array


@on_device_of("times")
def victor_purpura(times: Lists[TimesT], other: ArrayLike | None = None, *, cost: float) -> TimesT:
    r"""Return the Victor-Purpura distance between all pairs of lists of spike times.

    The distance is the smallest cost of the edits that change one train into the other. Deleting or
    inserting a spike costs 1, and moving it by :math:`\Delta t` costs :math:`q \, |\Delta t|`.

    Parameters
    ----------
    times : sequence of array, or array
        The spike times of each train, in any order: a sequence of arrays ``[spike]``, or one
        array ``[train, spike]``, padded with NaN or infinity.
    other : sequence of array, or array, optional
        The spike times of other trains. By default `times` are compared with themselves.
    cost : float
        The cost :math:`q` of moving a spike by one unit of time: 0, or at least 1e-6. If the times
        have a unit, as those of neo, it needs one of 1/time.

    Returns
    -------
    array
        ``[train, other train]``, of the library and in the dtype of `times`; for integers in the
        library's default floating dtype, and for float16 and bfloat16 in float32.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, library or range.

    Notes
    -----
    Libraries with automatic differentiation can differentiate it with respect to the spike times,
    except for pairs with several cheapest edits. Memory grows with the number of pairs, not with
    the number of spikes. Time grows with the product of the largest numbers of spikes. Outside of
    `jax.jit`, JAX traces the table of costs at each call. PyTorch compiles each of its steps by
    itself, for minutes with 30 spikes: call it outside of a compiled function.

    References
    ----------
    .. [1] J. D. Victor and K. P. Purpura, "Nature and precision of temporal coding in visual
       cortex: a metric-space analysis", Journal of Neurophysiology 76(2), 1996.

    Examples
    --------
    >>> import spikeloss_xp as sx
    >>> sx.distances.victor_purpura([[1.0, 5.0], [1.5], []], cost=0.5)
    array([[0.  , 1.25, 2.  ],
           [1.25, 0.  , 1.  ],
           [2.  , 1.  , 0.  ]])
    """
    unit = 1 / cost if has_unit(cost) else cost
    times, other, cost = without_units(times, other, unit, "1 / cost", NAMES)
    cost = _checks.not_negative(cost, "cost")
    if cost != 0:
        cost = _checks.scale(cost, "cost")
    adapter, x, y = _both(times, other)
    distance: TimesT
    if cost == 0:
        distance = adapter.xp.abs(x.number[:, None] - y.number[None, :])
        return distance

    distance = edit_costs(adapter, x, y, UNMATCHED / cost, lambda a, b: apart(adapter, a, b) * cost)
    return distance


@on_device_of("times")
def coincidence_factor(
    times: Lists[TimesT], other: ArrayLike | None = None, *, precision: float, duration: float
) -> TimesT:
    r"""Return the coincidence factor of all pairs of lists of spike times.

    .. math::
        \Gamma = \frac{N_\text{coinc} - 2 \nu \Delta N_\text{data}}
        {\frac12 (N_\text{model} + N_\text{data})} \, \frac{1}{1 - 2 \nu \Delta},
        \qquad \nu = \frac{N_\text{model}}{T}

    How well the first train, the model, predicts the second, the data: 1 for equal trains, and 0 on
    average for a Poisson train with the rate of the model. :math:`N_\text{coinc}` is the largest
    number of pairs at most :math:`\Delta` apart, each spike in one. There is no gradient.

    Parameters
    ----------
    times : sequence of array, or array
        The spike times of the model, as for `victor_purpura`.
    other : sequence of array, or array, optional
        The spike times of the data. By default `times` are compared with themselves.
    precision : float
        The largest distance :math:`\Delta` of two spikes that coincide; above 0.
    duration : float
        The duration :math:`T` of each train; above 0. It has a unit if the times have one.

    Returns
    -------
    array
        ``[train, other train]``, of the library of `times`. It is 0 if a train is silent, and NaN
        if :math:`2 \nu \Delta \ge 1`, because then all spikes would coincide by chance.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, library or range.

    Notes
    -----
    A pair of spikes whose distance exceeds the precision only by rounding is a coincidence.

    References
    ----------
    .. [1] W. M. Kistler, W. Gerstner and J. L. van Hemmen, "Reduction of the Hodgkin-Huxley
       equations to a single-variable threshold model", Neural Computation 9(5), 1997.
    .. [2] R. Jolivet, A. Rauch, H.-R. Luescher and W. Gerstner, "Predicting spike timing of
       neocortical pyramidal neurons by simple threshold models", Journal of Computational
       Neuroscience 21(1), 2006.

    Examples
    --------
    >>> import spikeloss_xp as sx
    >>> model, data = [[10.0, 20.0, 30.0]], [[11.0, 20.5, 50.0], [10.0, 20.0, 30.0]]
    >>> sx.distances.coincidence_factor(model, data, precision=2, duration=100).round(3)
    array([[0.621, 1.   ]])
    """
    if has_unit(duration) or has_unit(precision):
        duration = in_unit(duration, "duration", precision, "precision")
    times, other, precision = without_units(times, other, precision, "precision", NAMES)
    precision = _checks.positive(precision, "precision")
    duration = _checks.positive(duration, "duration")
    adapter, x, y = _both(times, other)
    xp, coarsest = (
        adapter.xp,
        max(float(adapter.xp.finfo(x.times.dtype).eps), _coarsest(times, other)),
    )
    costs = _costs_of_coincidence(adapter, x, y, precision, 4 * coarsest)
    model, data = x.number[:, None], y.number[None, :]
    coincidences, mean = (model + data - costs) / 2, (model + data) / 2
    by_chance = 2 * precision / duration * model
    rest = xp.where(by_chance < 1, 1 - by_chance, math.nan)
    factor: TimesT = (coincidences - by_chance * data) / (xp.where(mean > 0, mean, 1.0) * rest)
    factor = xp.where((model > 0) & (data > 0), factor, 0.0)
    return factor


def _costs_of_coincidence(
    adapter: Adapter, x: SpikeTimes, y: SpikeTimes, precision: float, rounding: float
) -> Array:
    """Return the costs of editing where spikes match at no cost if they coincide, and else never.

    The precision may be exceeded by `rounding`, relative to the times.
    """
    xp = adapter.xp

    def price(a: Array, b: Array) -> Array:
        scale = xp.maximum(xp.abs(a), xp.abs(b))
        too_far = apart(adapter, a, b) > precision + rounding * scale
        return xp.astype(too_far, a.dtype) * UNMATCHED

    return edit_costs(adapter, x, y, 2 * precision + 1, price)


def _both(times: Any, other: Any) -> tuple[Adapter, SpikeTimes, SpikeTimes]:
    """Return the library and the spike times of both arguments; without `other`, the same twice."""
    padded = padded_times(times, "times", None)
    adapter = adapter_of(padded)
    x = y = sort_times(adapter, padded)
    if other is not None:
        y = sort_times(adapter, padded_times(other, "other", padded))
    return adapter, x, y


def _coarsest(*given: Any) -> float:
    """Return the largest epsilon of the dtypes of arrays, and of arrays in sequences."""
    each = (x if isinstance(x, list | tuple) else [x] for x in given if x is not None)
    return max(map(epsilon_of, itertools.chain(*each)), default=0.0)


def padded_times(times: Any, argument: str, like: Array | None) -> Array:
    """Return spike times as one array ``[train, spike]``, in the dtype of `like` if given."""
    if isinstance(times, list | tuple):
        times = _stacked(times, argument, like)
    elif like is not None:
        times = asarray_like(adapter_of(like), like, times, argument)
    adapter = adapter_of(times, argument)
    array = floating(adapter, times, argument)
    if array.ndim != 2 or array.shape[0] == 0:
        raise ValueError(
            f"{argument} must be a sequence of arrays [spike], or one array [train, spike]; "
            f"got shape {tuple(array.shape)}"
        )
    dtype = array.dtype if like is None else like.dtype
    return adapter.xp.astype(array, dtype, copy=False)


def _stacked(trains: list[Any] | tuple[Any, ...], argument: str, like: Array | None) -> Array:
    """Return the spike times of each train as a row, filled up with infinity."""
    if not trains:
        raise ValueError(f"{argument} has no trains: got an empty {type(trains).__name__}")
    if like is None:  # an array of the library of the given arrays, if any was given
        arrays = (train for train in trains if find_adapter(train) is not None)
        like = next(arrays, None)
    if like is None:
        like = host(trains[0], f"{argument}[0]")
    adapter, given = adapter_of(like, argument), []
    for i, train in enumerate(trains):
        array = asarray_like(adapter, like, train, f"{argument}[{i}]")
        if array.ndim != 1:
            raise ValueError(f"{argument}[{i}] must have shape [spike]; got {tuple(array.shape)}")
        given.append(floating(adapter, array, f"{argument}[{i}]"))

    xp = adapter.xp
    dtype, longest = xp.result_type(*given), max(array.shape[0] for array in given)
    rest = xp.full((longest,), math.inf, dtype=dtype, device=adapter.device(like))
    rows = [xp.concat([xp.astype(a, dtype, copy=False), rest[a.shape[0] :]]) for a in given]
    return xp.stack(rows)


def sort_times(adapter: Adapter, times: Array) -> SpikeTimes:
    xp = adapter.xp
    if times.shape[1] == 0:  # no train has a spike
        times = xp.full(
            (times.shape[0], 1), math.inf, dtype=times.dtype, device=adapter.device(times)
        )
    spike = xp.isfinite(times)
    number = xp.sum(xp.astype(spike, times.dtype), axis=-1)
    return SpikeTimes(xp.sort(xp.where(spike, times, math.inf), axis=-1), number)


def edit_costs(
    adapter: Adapter,
    x: SpikeTimes,
    y: SpikeTimes,
    far: float,
    price: Callable[[Array, Array], Array],
) -> Array:
    """Return the smallest costs of editing trains of `x` into trains of `y`, for all pairs.

    `price` is the cost of matching two spike times, and above 2 if they are `far` apart.
    """
    xp = adapter.xp
    times_x, times_y, added = filled(adapter, x, y, x.number[:, None] - y.number[None, :], far)
    rows = xp.matrix_transpose(times_x)[:, :, None]
    columns = xp.matrix_transpose(times_y)[:, None, :]
    excess = []
    entries = columns.shape[2] * rows.shape[0]
    for chunk in train_chunks(rows.shape[1], entries, _tuning.EDITS_CHUNK):
        shorter, longer = sorted((rows[:, chunk, :], columns), key=lambda x: x.shape[0])
        excess.append(EditTable(adapter, shorter, longer, price).cheapest()[0])
    return xp.concat(excess, axis=0) + added


def train_chunks(trains: int, entries: int, most: int) -> list[slice]:
    """Return the trains that are compared at a time: so many that they have at most `most` entries.

    Each train has so many `entries`. A chunk has at least one train.
    """
    size = max(most // max(entries, 1), 1)
    return [slice(start, min(start + size, trains)) for start in range(0, trains, size)]


def filled(
    adapter: Adapter, x: SpikeTimes, y: SpikeTimes, surplus: Array, far: float
) -> tuple[Array, Array, Array]:
    """Return spike times, filled up with a time that no spike matches, for an `EditTable`.

    The times that fill up match each other at no cost, and those left over are deleted or inserted.
    The last result takes that off again. `surplus` is the number of spikes of `x` less that of `y`.
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


def apart(adapter: Adapter, a: Array, b: Array) -> Array:
    """Return ``abs(a - b)``, with the derivative 0 at 0, where those of `abs` differ."""
    difference = a - b
    return difference * sign(adapter, difference)


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
