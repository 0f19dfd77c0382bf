"""Losses that compare the times of all spikes of a class with the target times of the class."""

import math
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from spikeloss_xp import _checks, _tuning
from spikeloss_xp._arrays import Adapter, asarray_like, concrete_or_none, floating
from spikeloss_xp._input.labels import Filled, Labels
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._input.targets import Given, Target
from spikeloss_xp._spike_pairs import (
    UNMATCHED,
    EditTable,
    SortedTimes,
    absolute_difference,
    check_not_trains,
    kernels,
    pad_unmatched,
    replace_padding,
)
from spikeloss_xp._typing import Array, Reduction, ValueAndPullback
from spikeloss_xp.primitives import slices
from spikeloss_xp.readouts import ReadResult
from spikeloss_xp.times.first_spike import TimesLoss, prepare_times


class TrainsOfTimes(Target):
    """A target that holds one or more target times for each class."""

    name = "spike times"
    rank = 3

    def read(self, given: Given) -> Labels:
        """Return the target times as an array of shape ``[batch, class, spike]``."""
        adapter, values = given.prepared.adapter, given.prepared.values
        trains = asarray_like(adapter, values, given.target, "target")
        shape, pairs = tuple(trains.shape), tuple(values.shape[:2])
        if shape[:2] != pairs or len(shape) > 3 or 0 in shape:
            raise ValueError(
                f"target must hold spike times [batch, class] of shape {pairs}, or with a third "
                f"axis [batch, class, spike] that is padded with NaN or infinity; got {shape}"
            )
        if adapter.xp.isdtype(trains.dtype, "bool"):
            raise TypeError(f"target must hold spike times; got {trains.dtype}")
        check_not_trains(adapter, trains, "target")
        _checks.check_overflow(adapter.xp, values.dtype, concrete_or_none(given.target), "target")
        trains = adapter.xp.reshape(trains, (*pairs, -1))
        trains = floating(adapter, trains, "target")
        return Filled(numbers=adapter.xp.astype(trains, values.dtype, copy=False))


class PairedLoss(TimesLoss):
    """Base class for losses that measure the distance between each train and its target."""

    targets: ClassVar[tuple[Target, ...]] = (TrainsOfTimes(),)

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        return prepare_times(input, where, lengths, None)

    def _read(self, trains: Trains, labels: Labels) -> ReadResult:
        adapter, xp = trains.adapter, trains.xp
        values, target = trains.values, labels.numbers
        x, y = (xp.reshape(each, (-1, each.shape[2])) for each in (values, target))
        entries = values.shape[2] * (values.shape[2] + target.shape[2])
        chunks = slices(x.shape[0], _tuning.PAIRS_CHUNK // entries)
        each = [self._distances(adapter, x[rows, ...], y[rows, ...]) for rows in chunks]
        u = xp.reshape(xp.concat([distance for distance, _ in each]), (*values.shape[:2], 1))

        def pullback(cotangent: Array) -> Array:
            of_pair = xp.reshape(xp.broadcast_to(cotangent, u.shape), (-1,))
            parts = [to_x(of_pair[rows]) for rows, (_, to_x) in zip(chunks, each, strict=True)]
            return xp.reshape(xp.concat(parts), values.shape)

        return Reading(u, adapter.axes[1], adapter, xp, mask=trains.mask), pullback

    @abstractmethod
    def _distances(self, adapter: Adapter, x: Array, y: Array) -> ValueAndPullback:
        """Return the distance between each train in `x` and its target in `y`, and the pullback."""

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the distances that `_read` has computed, and the identity as their pullback."""
        return reading.u, lambda cotangent: cotangent


@dataclass(frozen=True, repr=False)
class SpikeTime(PairedLoss):
    r"""Squared van Rossum distance between the spike times and the target times of each class.

    .. math::
        d^2(x, y) = \sum_{i, j} k(x_i, x_j) - 2 \sum_{i, j} k(x_i, y_j) + \sum_{i, j} k(y_i, y_j),
        \qquad k(t, u) = e^{-|t - u| / \tau}

    where :math:`x` are the spike times and :math:`y` are the target times of a class. The squared
    distance between a train with one spike and a silent train is 1. The squared distance between
    two trains with one spike each approaches 2 if the two spikes are far apart [1]_.

    Parameters
    ----------
    time_constant : float
        The time constant :math:`\tau`, in the unit of the times, from 1e-6 to 1e18.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced. ``"batchmean"`` returns the sum of the terms divided
        by the number of samples. With ``"none"``, the result has shape ``[batch, class]``.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    spikeloss_xp.distances.van_rossum : The distances between all pairs of trains.

    Notes
    -----
    `input` is a float or integer array of spike times, with shape ``[batch, class]`` or
    ``[batch, class, spike]``. The spikes may be in any order. NaN and infinity are padding.
    `target` has the same form as `input`, but may have a different number of spikes. The mask
    `where` has shape ``[batch]``, and the class weights in `weight` have shape ``[class]``.

    Two spikes at the same time do not affect each other's gradient. When a spike moves past another
    spike, the gradient jumps. If a spike is many time constants away from all other spikes and from
    all target times, its gradient is close to 0. The gradient can move spikes, but it cannot create
    new spikes.

    References
    ----------
    .. [1] M. C. W. van Rossum, "A novel spike distance", Neural Computation 13(4), 2001.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times = np.asarray([[[3.0, 9.0], [5.0, np.inf]]])
    >>> target = np.asarray([[4.0, np.inf]])
    >>> sx.times.SpikeTime(time_constant=2.0, reduction="none")(times, target).round(3)
    array([[1.722, 1.   ]])
    """

    _: KW_ONLY
    time_constant: float = field(metadata=_checks.checked_by(_checks.scale))
    reduction: Reduction = _checks.option("mean", _checks.reduction)

    def _distances(self, adapter: Adapter, x: Array, y: Array) -> ValueAndPullback:
        xp, tau = adapter.xp, self.time_constant
        rows, columns = replace_padding(adapter, x, math.inf), replace_padding(adapter, y, math.inf)
        rows, columns = rows[..., None], columns[..., None]
        own = replace_padding(adapter, x, -math.inf)[:, None, :]
        other = replace_padding(adapter, y, -math.inf)[:, None, :]
        of_x, across = kernels(adapter, rows, own, tau), kernels(adapter, rows, other, tau)
        of_y = kernels(adapter, columns, other, tau)
        xx, xy, yy = (xp.sum(each, axis=(1, 2)) for each in (of_x, across, of_y))

        def pullback(cotangent: Array) -> Array:
            slope = xp.sum(of_x * adapter.sign(own - rows), axis=-1)
            slope = slope - xp.sum(across * adapter.sign(other - rows), axis=-1)
            return 2 / tau * cotangent[:, None] * slope

        return xx - 2 * xy + yy, pullback


@dataclass(frozen=True, repr=False)
class VictorPurpura(PairedLoss):
    r"""Victor-Purpura distance between the spike times and the target times of each class.

    The distance is the lowest total cost of edits that turn the spike train of a class into its
    target. Deleting or inserting a spike costs 1. Moving a spike by :math:`\Delta t` costs
    :math:`q \, |\Delta t|` [1]_.

    Parameters
    ----------
    cost : float
        The cost :math:`q` of moving a spike by one unit of time, from 1e-6 to 1e18.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced. ``"batchmean"`` returns the sum of the terms divided
        by the number of samples. With ``"none"``, the result has shape ``[batch, class]``.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    spikeloss_xp.distances.victor_purpura : The distances between all pairs of trains.

    Notes
    -----
    `input`, `target` and `where` have the same form as for `SpikeTime`. A spike that is moved has
    gradient :math:`\pm q`. A spike that is deleted has gradient 0. If a spike is more than
    :math:`2 / q` away from every target time, it is deleted instead of moved. If several edits are
    equally cheap, they share the gradient. Moved spikes keep their order. If two spikes at the same
    time are moved, the spike that comes first in `input` is moved to the earlier target time.

    Run time and memory use are proportional to the product of the lengths of the spike axes of
    `input` and `target`. In PyTorch, call the loss outside compiled functions, because compiling
    the loss takes minutes for trains of 30 spikes.

    References
    ----------
    .. [1] J. D. Victor and K. P. Purpura, "Nature and precision of temporal coding in visual
       cortex: a metric-space analysis", Journal of Neurophysiology 76(2), 1996.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times = np.asarray([[[3.0, 9.0], [5.0, np.inf]]])
    >>> target = np.asarray([[4.0, np.inf]])
    >>> sx.times.VictorPurpura(cost=0.5, reduction="none")(times, target)
    array([[1.5, 1. ]])
    """

    _: KW_ONLY
    cost: float = field(metadata=_checks.checked_by(_checks.scale))
    reduction: Reduction = _checks.option("mean", _checks.reduction)

    def _distances(self, adapter: Adapter, x: Array, y: Array) -> ValueAndPullback:
        xp, cost = adapter.xp, self.cost
        sorted_x, sorted_y = SortedTimes.of(adapter, x), SortedTimes.of(adapter, y)
        surplus = sorted_x.number - sorted_y.number
        far = UNMATCHED / cost
        times_x, times_y, added = pad_unmatched(adapter, sorted_x, sorted_y, surplus, far)
        rows, columns = xp.matrix_transpose(times_x), xp.matrix_transpose(times_y)

        def price(a: Array, b: Array) -> Array:
            return absolute_difference(adapter, a, b) * cost

        excess, to_prices = EditTable(adapter, rows, columns, price).cheapest_and_pullback()

        def pullback(cotangent: Array) -> Array:
            slope = adapter.sign(rows[:, None, :] - columns[None, :, :])
            moved = xp.matrix_transpose(xp.sum(to_prices(cotangent * cost) * slope, axis=1))
            place = xp.argsort(xp.argsort(replace_padding(adapter, x, math.inf), axis=-1), axis=-1)
            at = place[..., None] == adapter.arange(x.shape[1], x)[None, None, :]
            return xp.sum(xp.where(at, moved[:, None, :], adapter.operand(x, 0.0)), axis=-1)

        return excess + added, pullback
