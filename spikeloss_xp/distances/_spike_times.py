"""Comparisons of spike times: the Victor-Purpura distance and the coincidence factor.

Both follow from the smallest cost of editing one train into the other, with another price of
matching two spikes.
"""

import math
from collections.abc import Sequence
from typing import Any, overload

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Library, asarray_like, find_library, floating, host, library_of
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, FloatArray, HostArray
from spikeloss_xp.distances._edits import SpikeTimes, edit_costs, magnitude, sort_times

UNMATCHED = 3.0  # more than the 2 of deleting a spike and inserting another one


@overload
def victor_purpura(
    times: HostArray | Sequence[HostArray | Sequence[float]],
    other: ArrayLike | None = None,
    *,
    cost: float,
) -> FloatArray: ...
@overload
def victor_purpura(
    times: ArrayT | Sequence[ArrayT | Sequence[float]],
    other: ArrayLike | None = None,
    *,
    cost: float,
) -> ArrayT: ...
def victor_purpura(times: Any, other: Any = None, *, cost: float) -> Array:
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
        The cost :math:`q` of moving a spike by one unit of time: 0, or at least 1e-6.

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
    cost = _checks.not_negative(cost, "cost")
    if cost != 0:
        cost = _checks.scale(cost, "cost")
    library, x, y = _both(times, other)
    xp = library.xp
    if cost == 0:
        return xp.abs(x.number[:, None] - y.number[None, :])

    # Two times that fill up cost nothing to match, and are too far from spikes to match them.
    return edit_costs(
        library, x, y, UNMATCHED / cost, lambda a, b: magnitude(library, a - b) * cost
    )


@overload
def coincidence_factor(
    times: HostArray | Sequence[HostArray | Sequence[float]],
    other: ArrayLike | None = None,
    *,
    precision: float,
    duration: float,
) -> FloatArray: ...
@overload
def coincidence_factor(
    times: ArrayT | Sequence[ArrayT | Sequence[float]],
    other: ArrayLike | None = None,
    *,
    precision: float,
    duration: float,
) -> ArrayT: ...
def coincidence_factor(
    times: Any, other: Any = None, *, precision: float, duration: float
) -> Array:
    r"""Return the coincidence factor of all pairs of lists of spike times.

    .. math::
        \Gamma = \frac{N_\text{coinc} - 2 \nu \Delta N_\text{data}}
        {\frac12 (N_\text{model} + N_\text{data})} \, \frac{1}{1 - 2 \nu \Delta},
        \qquad \nu = \frac{N_\text{model}}{T}

    It measures how well the first train, the model, predicts the spikes of the second, the data,
    corrected for chance. :math:`N_\text{coinc}` is the largest number of pairs of spikes that are
    at most :math:`\Delta` apart, with each spike in at most one pair. The factor is 1 for equal
    trains, and 0 on average for a Poisson train with the rate of the model. It has no gradient.

    Parameters
    ----------
    times : sequence of array, or array
        The spike times of the model, as for `victor_purpura`.
    other : sequence of array, or array, optional
        The spike times of the data. By default `times` are compared with themselves.
    precision : float
        The largest distance :math:`\Delta` of two spikes that coincide; above 0.
    duration : float
        The duration :math:`T` of each train, in the unit of the times; above 0.

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
    precision = _checks.positive(precision, "precision")
    duration = _checks.positive(duration, "duration")
    library, x, y = _both(times, other)
    xp = library.xp
    rounding = 4 * float(xp.finfo(x.times.dtype).eps)

    def price(a: Array, b: Array) -> Array:
        scale = xp.maximum(magnitude(library, a), magnitude(library, b))
        apart = magnitude(library, a - b) > precision + rounding * scale
        return xp.astype(apart, a.dtype) * UNMATCHED

    costs = edit_costs(library, x, y, 2 * precision + 1, price)
    model, data = x.number[:, None], y.number[None, :]
    coincidences = (model + data - costs) / 2
    by_chance = 2 * precision / duration * model
    mean = (model + data) / 2
    rest = xp.where(by_chance < 1, 1 - by_chance, math.nan)
    factor = (coincidences - by_chance * data) / (xp.where(mean > 0, mean, 1.0) * rest)
    return xp.where((model > 0) & (data > 0), factor, 0.0)


def _both(times: Any, other: Any) -> tuple[Library, SpikeTimes, SpikeTimes]:
    library, padded = _padded(times, "times", None)
    x = sort_times(library, padded)
    if other is None:
        return library, x, x
    _, padded = _padded(other, "other", padded)
    return library, x, sort_times(library, padded)


def _padded(times: Any, argument: str, like: Array | None) -> tuple[Library, Array]:
    """Return spike times as one array ``[train, spike]``, in the dtype of `like` if given."""
    if isinstance(times, list | tuple):
        library, array = _stacked(times, argument, like)
    else:
        library = library_of(times if like is None else like, argument)
        array = times if like is None else asarray_like(library, like, times, argument)
    array = floating(library, array, argument)
    if array.ndim != 2 or array.shape[0] == 0:
        raise ValueError(
            f"{argument} must be a sequence of arrays [spike], or one array [train, spike]; "
            f"got shape {tuple(array.shape)}"
        )
    dtype = array.dtype if like is None else like.dtype
    return library, library.xp.astype(array, dtype, copy=False)


def _stacked(
    trains: list[Any] | tuple[Any, ...], argument: str, like: Array | None
) -> tuple[Library, Array]:
    """Return the spike times of each train as a row, filled up with infinity."""
    if not trains:
        raise ValueError(f"{argument} has no trains: got an empty {type(trains).__name__}")
    names = [f"{argument}[{i}]" for i in range(len(trains))]
    arrays = [
        host(train, name) if find_library(train) is None else train
        for train, name in zip(trains, names, strict=True)
    ]
    if like is None:  # an array of the library of the given arrays, if any was given
        like = next((a for a, t in zip(arrays, trains, strict=True) if a is t), arrays[0])
    library = library_of(like, argument)
    xp = library.xp
    arrays = [asarray_like(library, like, a, n) for a, n in zip(arrays, names, strict=True)]
    for array, name in zip(arrays, names, strict=True):
        if array.ndim != 1:
            raise ValueError(f"{name} must have shape [spike]; got {tuple(array.shape)}")
    arrays = [floating(library, a, n) for a, n in zip(arrays, names, strict=True)]

    dtype, longest = xp.result_type(*arrays), max(a.shape[0] for a in arrays)
    rows = []
    for array in arrays:
        row = xp.astype(array, dtype, copy=False)
        missing = longest - array.shape[0]
        rest = xp.full((missing,), math.inf, dtype=dtype, device=library.device(like))
        rows.append(xp.concat([row, rest]) if missing else row)
    return library, xp.stack(rows)
