"""The Victor-Purpura distance and the coincidence factor, which are based on edits of spike times.

Both measures use the lowest cost of edits that turn one train into another train. Deleting or
inserting a spike costs 1. The two measures define the cost of matching two spikes differently.
"""

import itertools
import math
from typing import Any

from spikeloss_xp import _checks, _tuning
from spikeloss_xp._arrays import Adapter, adapter_of, on_device_of
from spikeloss_xp._spike_pairs import (
    UNMATCHED,
    EditTable,
    Price,
    SortedTimes,
    absolute_difference,
    pad_unmatched,
    symmetric,
)
from spikeloss_xp._typing import Array, ArrayLike, Times, TimesT
from spikeloss_xp.binning import epsilon_of
from spikeloss_xp.distances._trains import padded_sets
from spikeloss_xp.primitives import slices


@on_device_of("input")
def victor_purpura(input: Times[TimesT], other: ArrayLike | None = None, *, cost: float) -> TimesT:
    r"""Return the Victor-Purpura distance between all pairs of lists of spike times.

    The distance is the lowest total cost of edits that turn one train into another train. Deleting
    or inserting a spike costs 1. Moving a spike by :math:`\Delta t` costs :math:`q \, |\Delta t|`.

    Parameters
    ----------
    input : sequence of array, or array
        The spike times of each train, in any order. Pass a sequence of one-dimensional arrays, or
        one array of shape ``[train, spike]`` that is padded with NaN or infinity.
    other : sequence of array, or array, optional
        The spike times of other trains. By default, the trains of `input` are compared with
        each other.
    cost : float
        The cost :math:`q` of moving a spike by one unit of time, which is 0 or at least 1e-6.

    Returns
    -------
    array
        An array with a row for each train of `input` and a column for each train of `other`. The
        array has the library and dtype of `input`. If the spike times are integers, the dtype is
        the library's default floating-point dtype. If the spike times are float16 or bfloat16, the
        dtype is float32.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, has the wrong shape or dtype, or comes neither from NumPy
        nor from the library of `input`.

    See Also
    --------
    spikeloss_xp.times.VictorPurpura : A loss that compares each train with its own target.

    Notes
    -----
    In libraries with automatic differentiation, the distance is differentiable with respect to the
    spike times, except where several sets of edits are equally cheap.

    Memory use grows with the number of pairs of trains. For each pair, the run time is proportional
    to the product of the largest spike counts in `input` and `other`.

    In JAX, call the function inside `jax.jit`. Without `jax.jit`, JAX traces the function again on
    every call. In PyTorch, call the function outside `torch.compile`, because compiling the
    function takes minutes for trains of 30 spikes.

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
        _checks.scale(cost, "cost")
    adapter, x, y = _sorted_sets(input, other)

    def price(a: Array, b: Array) -> Array:
        return absolute_difference(adapter, a, b) * cost

    distance: TimesT
    if cost == 0:
        distance = adapter.xp.abs(x.number[:, None] - y.number[None, :])
    else:
        distance = _edit_costs(adapter, x, y, UNMATCHED / cost, price)
    return symmetric(adapter, distance) if other is None else distance


@on_device_of("input")
def coincidence_factor(
    input: Times[TimesT], other: ArrayLike | None = None, *, precision: float, duration: float
) -> TimesT:
    r"""Return the coincidence factor for all pairs of lists of spike times.

    .. math::
        \Gamma = \frac{N_\text{coinc} - 2 \nu \Delta N_\text{data}}
        {\frac12 (N_\text{model} + N_\text{data})} \, \frac{1}{1 - 2 \nu \Delta},
        \qquad \nu = \frac{N_\text{model}}{T}

    The model is a train of `input`, and the data is a train of `other`. The factor measures how
    well the model predicts the data. The factor is 1 for equal trains. If the model is replaced by
    a Poisson train with the same rate, the factor is 0 on average. :math:`N_\text{model}` and
    :math:`N_\text{data}` are the spike counts of the two trains. :math:`N_\text{coinc}` is the
    largest number of pairs of spikes that are at most :math:`\Delta` apart, where each spike
    belongs to at most one pair. The factor has no gradient.

    Parameters
    ----------
    input : sequence of array, or array
        The spike times of the model, in a format that `victor_purpura` accepts.
    other : sequence of array, or array, optional
        The spike times of the data. By default, the trains of `input` are compared with
        each other.
    precision : float
        The largest distance :math:`\Delta` between coincident spikes, which must be above 0.
    duration : float
        The duration :math:`T` of each train, which must be above 0.

    Returns
    -------
    array
        An array with a row for each train of `input` and a column for each train of `other`, from
        the library of `input`. The factor is 0 if one of the two trains is silent. The factor is
        NaN if :math:`2 \nu \Delta \ge 1`, because all spikes would then coincide by chance.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, has the wrong shape or dtype, or comes neither from NumPy
        nor from the library of `input`.

    Notes
    -----
    Two spikes also coincide if their distance exceeds `precision` only by a rounding error.

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
    adapter, x, y = _sorted_sets(input, other)
    xp = adapter.xp
    epsilon = max(float(xp.finfo(x.times.dtype).eps), _largest_epsilon(input, other))

    def price(a: Array, b: Array) -> Array:  # 0 if the spikes coincide, else UNMATCHED
        rounding = 4 * epsilon * xp.maximum(xp.abs(a), xp.abs(b))
        too_far = absolute_difference(adapter, a, b) > precision + rounding
        return xp.astype(too_far, a.dtype) * UNMATCHED

    costs = _edit_costs(adapter, x, y, 2 * precision + 1, price)
    model, data = x.number[:, None], y.number[None, :]
    coincidences, mean = (model + data - costs) / 2, (model + data) / 2
    by_chance = 2 * precision / duration * model
    rest = xp.where(by_chance < 1, 1 - by_chance, math.nan)
    factor: TimesT = (coincidences - by_chance * data) / (xp.where(mean > 0, mean, 1.0) * rest)
    factor = xp.where((model > 0) & (data > 0), factor, 0.0)
    return factor


def _sorted_sets(input: Any, other: Any) -> tuple[Adapter, SortedTimes, SortedTimes]:
    """Return the adapter, and the sorted spike times of `input` and of `other`."""
    sets = padded_sets(input, other)
    adapter = adapter_of(sets[0])
    each = [SortedTimes.of(adapter, padded) for padded in sets]
    return adapter, each[0], each[-1]


def _largest_epsilon(*given: Any) -> float:
    """Return the largest machine epsilon of any dtype in the given arrays and sequences."""
    each = (x if isinstance(x, list | tuple) else [x] for x in given if x is not None)
    return max(map(epsilon_of, itertools.chain(*each)), default=0.0)


def _edit_costs(
    adapter: Adapter, x: SortedTimes, y: SortedTimes, far: float, price: Price
) -> Array:
    """Return the lowest cost of edits that turn a train of `x` into a train of `y`, for all pairs.

    `price` returns the cost of matching two spike times. If the difference between two times
    is at least `far`, the cost of matching them is above 2.
    """
    xp, surplus = adapter.xp, x.number[:, None] - y.number[None, :]
    times_x, times_y, added = pad_unmatched(adapter, x, y, surplus, far)
    rows = xp.matrix_transpose(times_x)[:, :, None]
    columns = xp.matrix_transpose(times_y)[:, None, :]
    excess, entries = [], columns.shape[2] * rows.shape[0]
    for chunk in slices(rows.shape[1], _tuning.EDITS_CHUNK // entries):
        shorter, longer = sorted((rows[:, chunk, :], columns), key=lambda x: x.shape[0])
        excess.append(EditTable(adapter, shorter, longer, price).cheapest())
    return xp.concat(excess, axis=0) + added
