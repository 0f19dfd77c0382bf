"""Losses that compare all spikes of a class with target times of that class."""

import math
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _checks, _tuning
from spikeloss_xp._arrays import Adapter, asarray_like, concrete_or_none, floating, sign
from spikeloss_xp._input.labels import Labels, TargetTrains
from spikeloss_xp._input.prepared import Prepared, check_not_trains, prepare_times
from spikeloss_xp._spike_pairs import (
    UNMATCHED,
    EditTable,
    SortedTimes,
    absolute_difference,
    kernels,
    pad_unmatched,
    replace_padding,
)
from spikeloss_xp._typing import Array, Reduction, ValueAndPullback
from spikeloss_xp.primitives.chunks import slices
from spikeloss_xp.readouts import Reading, ReadResult
from spikeloss_xp.times.first_spike import TimesLoss


class PairedLoss(TimesLoss):
    """The base class of the losses with a distance of each train from its target train."""

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        return prepare_times(input, where, lengths, None)

    def _chunk_axes(self, prepared: Prepared) -> tuple[int, ...]:
        return ()

    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        adapter, values = prepared.adapter, prepared.values
        trains = asarray_like(adapter, values, target, "target")
        shape, pairs = tuple(trains.shape), tuple(values.shape[:2])
        if shape[:2] != pairs or len(shape) > 3 or 0 in shape:
            raise ValueError(
                f"target must hold spike times of shape {pairs}, [batch, class], or {pairs} and "
                f"the largest number of spikes, padded with NaN or infinity; got {shape}"
            )
        if adapter.xp.isdtype(trains.dtype, "bool"):
            raise TypeError(f"target must hold spike times; got {trains.dtype}")
        check_not_trains(adapter, trains, "target")
        _checks.check_overflow(adapter.xp, values.dtype, concrete_or_none(target), "target")
        trains = adapter.xp.reshape(trains, (*pairs, -1))
        trains = floating(adapter, trains, "target")
        return TargetTrains(None, adapter.xp.astype(trains, values.dtype, copy=False))

    def _read(
        self, prepared: Prepared, values: Array, mask: Array | None, labels: Labels
    ) -> ReadResult:
        adapter, xp, target = prepared.adapter, prepared.adapter.xp, labels.numbers
        x, y = (xp.reshape(trains, (-1, trains.shape[2])) for trains in (values, target))
        entries = values.shape[2] * (values.shape[2] + target.shape[2])
        chunks = slices(x.shape[0], _tuning.PAIRS_CHUNK // entries)
        each = [self._distances(adapter, x[rows, ...], y[rows, ...]) for rows in chunks]
        u = xp.reshape(xp.concat([distance for distance, _ in each]), (*values.shape[:2], 1))

        def pullback(cotangent: Array) -> Array:
            of_pair = xp.reshape(xp.broadcast_to(cotangent, u.shape), (-1,))
            parts = [to_x(of_pair[rows]) for rows, (_, to_x) in zip(chunks, each, strict=True)]
            return xp.reshape(xp.concat(parts), values.shape)

        return Reading(u, adapter.axes[1], mask=mask), pullback

    @abstractmethod
    def _distances(self, adapter: Adapter, x: Array, y: Array) -> ValueAndPullback:
        """Return the distances of pairs of trains, ``[pair, spike]``, and the pullback to `x`."""

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the distances, which the readings are already."""
        return reading.u, lambda cotangent: cotangent


@dataclass(frozen=True, repr=False)
class SpikeTime(PairedLoss):
    r"""Squared van Rossum distance of the spikes of a class from target times of that class.

    .. math::
        d^2(x, y) = \sum_{i, j} k(x_i, x_j) - 2 \sum_{i, j} k(x_i, y_j) + \sum_{i, j} k(y_i, y_j),
        \qquad k(t, u) = e^{-|t - u| / \tau}

    with the spike times :math:`x` and the target times :math:`y`. One spike against none is 1, and
    two spikes that are far apart are 2 [1]_.

    Parameters
    ----------
    time_constant : float
        Time constant :math:`\tau`, in the unit of the times; at least 1e-6.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        Return the mean of the terms, their sum, their sum divided by the number of samples, or the
        terms: ``[batch, class]``.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    See Also
    --------
    spikeloss_xp.distances.van_rossum : The distances of all pairs of trains.

    Notes
    -----
    `input` holds spike times, floats or integers of shape ``[batch, class]`` or
    ``[batch, class, spike]``, in any order; NaN and infinity are padding. So does `target`, with a
    number of spikes of its own. A call takes a mask `where` of shape ``[batch]``. The gradient has
    jumps where two spikes coincide, and is 0 for two that do. It vanishes for spikes that are many
    time constants away from all others, and adds no spike.

    References
    ----------
    .. [1] M. C. W. van Rossum, "A novel spike distance", Neural Computation 13(4), 2001.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times, target = np.asarray([[[3.0, 9.0], [5.0, np.inf]]]), np.asarray([[4.0, np.inf]])
    >>> sx.times.SpikeTime(time_constant=2.0, reduction="none")(times, target).round(3)
    array([[1.722, 1.   ]])
    """

    _: KW_ONLY
    time_constant: float
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, time_constant=_checks.scale)

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
            slope = xp.sum(of_x * sign(adapter, own - rows), axis=-1)
            slope = slope - xp.sum(across * sign(adapter, other - rows), axis=-1)
            return 2 / tau * cotangent[:, None] * slope

        return xx - 2 * xy + yy, pullback


@dataclass(frozen=True, repr=False)
class VictorPurpura(PairedLoss):
    r"""Victor-Purpura distance of the spikes of a class from target times of that class.

    The smallest cost of the edits that change one train into the other. Deleting or inserting a
    spike costs 1, and moving it by :math:`\Delta t` costs :math:`q \, |\Delta t|` [1]_.

    Parameters
    ----------
    cost : float
        The cost :math:`q` of moving a spike by one unit of time; at least 1e-6.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        Return the mean of the terms, their sum, their sum divided by the number of samples, or the
        terms: ``[batch, class]``.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    See Also
    --------
    spikeloss_xp.distances.victor_purpura : The distances of all pairs of trains.

    Notes
    -----
    `input`, `target` and `where` are those of `SpikeTime`. A spike that is moved has the gradient
    :math:`\pm q`, and one that is deleted has none: two spikes further apart than :math:`2 / q` are
    never matched. Where several edits are cheapest, as with equal spike times, they share the
    gradient. Time and memory grow with the product of the largest numbers of spikes. PyTorch
    compiles each step of the table by itself, for minutes with 30 spikes: call the loss outside of
    a compiled function.

    References
    ----------
    .. [1] J. D. Victor and K. P. Purpura, "Nature and precision of temporal coding in visual
       cortex: a metric-space analysis", Journal of Neurophysiology 76(2), 1996.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> times, target = np.asarray([[[3.0, 9.0], [5.0, np.inf]]]), np.asarray([[4.0, np.inf]])
    >>> sx.times.VictorPurpura(cost=0.5, reduction="none")(times, target)
    array([[1.5, 1. ]])
    """

    _: KW_ONLY
    cost: float
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, cost=_checks.scale)

    def _distances(self, adapter: Adapter, x: Array, y: Array) -> ValueAndPullback:
        xp, cost = adapter.xp, self.cost
        sorted_x, sorted_y = SortedTimes.of(adapter, x), SortedTimes.of(adapter, y)
        surplus = sorted_x.number - sorted_y.number
        far = UNMATCHED / cost
        times_x, times_y, added = pad_unmatched(adapter, sorted_x, sorted_y, surplus, far)
        columns = xp.matrix_transpose(times_x), xp.matrix_transpose(times_y)
        table = EditTable(
            adapter,
            *columns,
            price=lambda a, b: absolute_difference(adapter, a, b) * cost,
            slope=lambda a, b: sign(adapter, a - b) * cost,
        )
        excess, to_columns = table.cheapest()

        def pullback(cotangent: Array) -> Array:
            moved = xp.matrix_transpose(to_columns(cotangent))
            place = xp.argsort(xp.argsort(xp.where(xp.isfinite(x), x, math.inf), axis=-1), axis=-1)
            at = place[..., None] == adapter.arange(x.shape[1], x)[None, None, :]
            return xp.sum(xp.where(at, moved[:, None, :], 0.0), axis=-1)

        return excess + added, pullback
