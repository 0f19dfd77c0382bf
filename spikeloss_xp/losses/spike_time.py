"""SpikeTime: the distance between filtered spike trains."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _checks, _masks, _targets, criteria, readouts
from spikeloss_xp._kernels import Exponential
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.filters import exponential_kernel
from spikeloss_xp.losses import _reduction
from spikeloss_xp.losses._loss import Loss
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class SpikeTime(Loss):
    r"""Squared difference between the causally filtered spike trains and the desired ones.

    .. math::
        L = \sum_{b, c, t} \Bigl( \sum_{k < L} h_k \, (s - \hat s)_{b, c, t - k} \Bigr)^2,
        \qquad h_k = \binom{k + n - 1}{n - 1} e^{-k / \tau}

    a discrete van Rossum distance, between all spikes rather than first spikes. There is no
    factor 1/2 or 1/T.

    Parameters
    ----------
    time_constant : float, default 5
        Time constant :math:`\tau` of the filter, in time steps; above 0.
    length : int, default 100
        Length of the filter, in time steps.
    filter_order : int, default 1
        Order :math:`n`: how many exponentials are convolved to make the filter.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Add the terms; average them; divide their sum by the number of samples; or return them, in
        the shape of the input.
    time_axis : int, default -1
        The axis of `input` that is time.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``; `target`, the desired spike trains, has the same.
    Where entries are masked, the trains count as equal before the filter.

    References
    ----------
    .. [1] Mark van Rossum, "A novel spike distance", Neural Computation 13(4), 2001.
    .. [2] S. B. Shrestha and G. Orchard, "SLAYER: Spike layer error reassignment in time",
       NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes, desired = np.zeros((2, 1, 1, 4))
    >>> spikes[0, 0, 1] = 1  # a spike where none is wanted
    >>> float(sx.SpikeTime(time_constant=5)(spikes, desired).round(3))
    2.12
    """

    time_constant: float = 5
    length: int = 100
    filter_order: int = 1
    reduction: str = "sum"
    _: KW_ONLY
    time_axis: int = -1

    _smallest_rank = 2

    def __post_init__(self) -> None:
        self._check(
            time_constant=_checks.positive, length=_checks.count, filter_order=_checks.count
        )
        exponential_kernel(self.time_constant, self.length, self.filter_order)  # checks its size

    def _prepare(
        self,
        xp: Namespace,
        layout: Layout,
        spikes: Array,
        kept: Array | None,
        target: Any,
        weight: Any,
    ) -> tuple[Array, Array, Array | None, Pullback]:
        if weight is not None:
            raise TypeError("SpikeTime takes no weight: it has no classes")
        desired = _targets.desired_trains(xp, layout, spikes, target)
        return spikes, desired, kept, lambda cotangent: cotangent

    @property
    def _reads_every_step(self) -> bool:
        return True

    def _independent_axes(self, layout: Layout) -> tuple[int, ...]:
        batch = layout.batch_axis
        if self.reduction == "batchmean":
            return (batch,)
        others = {batch, layout.time_axis}
        return (batch, *(axis for axis in range(len(layout.shape)) if axis not in others))

    def _readout(
        self, xp: Namespace, signal: Array, kept: Array | None, wanted: Array
    ) -> tuple[Reading, Pullback]:
        # The filter is linear: filtering the difference once does for filtering both trains.
        difference, to_signal = signal - wanted, lambda cotangent: cotangent
        if kept is not None:  # a selection, of which NaN is not left over either
            difference, to_signal = _masks.silenced(xp, difference, kept)
        reading, to_difference = readouts.trace(
            xp, difference, self._kernel(), self.time_axis, kept
        )
        return reading, _reduction.reverse(to_signal, to_difference)

    def _held(self) -> tuple[Any, ...]:
        return (self._kernel(),)

    def _kernel(self) -> Any:
        return Exponential(self.time_constant, self.length, self.filter_order)

    def _criterion(self, xp: Namespace, reading: Reading, wanted: Array) -> tuple[Array, Pullback]:
        return criteria.squared(xp, reading.u)
