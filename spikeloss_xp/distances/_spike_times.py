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
    has_unit,
    host,
)
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, SupportsArray
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
    `jax.jit`, JAX compiles each anti-diagonal of the table of costs separately, which is slower.

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
    size = max(_tuning.EDITS_CHUNK // (columns.shape[2] * rows.shape[0]), 1)
    excess = []
    for start in range(0, rows.shape[1], size):
        stop = min(start + size, rows.shape[1])
        excess.append(fill_table(adapter, rows[:, start:stop, :], columns, price))
    return xp.concat(excess, axis=0) + added


def filled(
    adapter: Adapter, x: SpikeTimes, y: SpikeTimes, surplus: Array, far: float
) -> tuple[Array, Array, Array]:
    """Return spike times, filled up with a time that no spike matches, for `fill_table`.

    The times that fill up match each other at no cost, and those left over are deleted or inserted.
    The last result takes that off again. `surplus` is the number of spikes of `x` less that of `y`.
    """
    xp = adapter.xp
    finite_x, finite_y = xp.isfinite(x.times), xp.isfinite(y.times)
    latest = xp.maximum(
        xp.max(xp.where(finite_x, xp.abs(x.times), 0.0)),
        xp.max(xp.where(finite_y, xp.abs(y.times), 0.0)),
    )
    limit = adapter.constant(latest, float(xp.finfo(latest.dtype).max))
    beyond = 2 * xp.minimum(latest, (limit - far) / 2) + far  # twice, because of rounding
    longer = x.times.shape[-1] - y.times.shape[-1]
    added = abs(longer) - xp.abs(longer - surplus)
    return xp.where(finite_x, x.times, beyond), xp.where(finite_y, y.times, beyond), added


def apart(adapter: Adapter, a: Array, b: Array) -> Array:
    """Return ``abs(a - b)``, with the derivative 0 at 0, where those of `abs` differ."""
    return adapter.xp.maximum(a - b, b - a)


def fill_table(
    adapter: Adapter,
    x: Array,
    y: Array,
    price: Callable[[Array, Array], Array],
) -> Array:
    """Return the smallest cost of all edits, less the difference of the lengths of `x` and `y`.

    Both have spikes along axis 0, and broadcast along the others. Entry ``(i, j)`` is the cost of
    the first `i` spikes of one train and `j` of the other, less ``i - j``, or ``j - i`` if `y` is
    longer. So an edit costs 0 if it is one of the difference, and 2 else, and a small distance
    keeps its digits beside a long train. An anti-diagonal has the entries with ``i + j = d``, of
    which `first` is the smallest `i`.
    """
    xp = adapter.xp
    n, m = x.shape[0], y.shape[0]
    deletion, insertion = (0, 2) if n >= m else (2, 0)
    y = xp.flip(y, axis=0)
    zero = xp.zeros_like(xp.broadcast_arrays(x[:1, ...], y[:1, ...])[0])

    # The first entries: for d = 0 and d = 1.
    before, last = zero, xp.concat([zero + insertion, zero + deletion], axis=0)
    first_before, first_last = 0, 0
    for d in range(2, n + m + 1):
        low, high = max(1, d - m), min(n, d - 1)  # entries that are no edge
        inserted = last[low - first_last : high + 1 - first_last, ...]
        deleted = last[low - 1 - first_last : high - first_last, ...]
        if insertion:
            inserted = inserted + insertion
        else:
            deleted = deleted + deletion
        matched = before[low - 1 - first_before : high - first_before, ...]
        matched = matched + price(x[low - 1 : high, ...], y[m - d + low : m - d + high + 1, ...])
        entries = [xp.minimum(matched, xp.minimum(inserted, deleted))]
        if d <= m:
            entries.insert(0, zero + insertion * d)
        if d <= n:
            entries.append(zero + deletion * d)
        before, first_before = last, first_last
        last = entries[0] if len(entries) == 1 else xp.concat(entries, axis=0)
        first_last = max(0, d - m)
    return last[0, ...]
