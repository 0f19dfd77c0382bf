"""SpikeRate: the distance from wanted firing rates."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from spikeloss_xp import _arrays, _checks, criteria, readouts
from spikeloss_xp._layout import Layout
from spikeloss_xp._targets import Labels
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses._rate_loss import RateLoss
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class SpikeRate(RateLoss):
    r"""Squared difference between firing rates and the rates wanted of them.

    .. math::
        L = \sum_{b, c} (r_{b, c} - \hat r_{b, c})^2, \qquad
        \hat r_{b, c} = \begin{cases}
            r_\text{true} & c = y_b \\ r_\text{false} & \text{otherwise}
        \end{cases}

    with :math:`r = \frac{1}{T} \sum_t s_t`, or at every step of time, summed over it,
    :math:`r_t = \frac{1}{W} \sum_{k < W} s_{t - k}`. There is no factor 1/2.

    Parameters
    ----------
    true_rate : float or sequence of float
        The rate wanted of the labelled class, in spikes per time step, between 0 and 1: one for
        all classes, or one for each.
    false_rate : float or sequence of float
        The rate wanted of a class that is not the labelled one, likewise.
    moving_window : int, optional
        Length :math:`W` of the moving window, in time steps. Without one the rate is over all of
        time.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Add the terms; average them; divide their sum by the number of samples; or return them:
        ``[batch, class]``, or ``[batch, class, time]`` with a window.
    readout : {"rate", "count", "max", "last"}, default "rate"
        What is read of a neuron: its rate; its number of spikes, which is compared with the wanted
        rate times the number of steps; or of a membrane potential the largest or the last, over
        all of time. With these two, and with a window of 1, what is wanted may be any numbers.
    num_classes : int, optional
        The number of classes, each a group of as many neighbouring neurons, which it is the mean
        of. Without it each neuron is a class.
    ignore_index : int, default -100
        The class index of a sample, or step, that is left out.
    time_axis : int, default -1
        The axis of `input` that is time. Labels and terms that have time have it there too.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong kind.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``, where space is collapsed into one class axis.
    `target` holds class indices: integers of shape ``[batch]`` or, with a window,
    ``[batch, time]``. An index that is no class raises where values can be read for free, and
    makes the loss NaN elsewhere (on a GPU, in a traced function).

    References
    ----------
    .. [1] S. B. Shrestha and G. Orchard, "SLAYER: Spike layer error reassignment in time",
       NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # one sample, two classes, four steps
    >>> float(sx.SpikeRate(true_rate=0.5, false_rate=0.0)(spikes, [0]))
    0.125
    """

    true_rate: float | tuple[float, ...]
    false_rate: float | tuple[float, ...]
    moving_window: int | None = None
    reduction: str = "sum"
    _: KW_ONLY
    readout: str = "rate"
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    def __post_init__(self) -> None:
        # What is read of one step, or is the largest or the last, may be a membrane potential.
        potentials = self.readout in readouts.WHOLE or self.moving_window == 1
        wanted = _checks.one_or_more(_checks.number if potentials else _checks.rate)
        self._check(true_rate=wanted, false_rate=wanted, ignore_index=_checks.integer)

    def _target(
        self, xp: Namespace, layout: Layout, spikes: Array, kept: Array | None, target: Any
    ) -> Labels:
        classes = layout.classes(self.num_classes)
        for name in ("true_rate", "false_rate"):
            rates = getattr(self, name)
            if isinstance(rates, tuple) and len(rates) != classes:
                raise ValueError(
                    f"{name} must be one number, or {classes}, one for each class; got "
                    f"{len(rates)}{layout.elsewhere((len(rates),))}"
                )
        return self._class_labels(xp, layout, spikes, kept, target)

    def _wanted(self, xp: Namespace, reading: Reading, labels: Labels) -> Array:
        """Return what is to be read of each class."""
        true, false = (
            self._rates(xp, reading, rates) for rates in (self.true_rate, self.false_rate)
        )
        if labels.valid is not None:
            nan = _arrays.constant(xp, reading.u, math.nan)
            false = xp.where(labels.valid, false, nan)
        return xp.where(labels.hot, true, false)

    @staticmethod
    def _rates(xp: Namespace, reading: Reading, rates: float | tuple[float, ...]) -> Array:
        """Return rates in the units of the reading, with a class axis if they differ."""
        if isinstance(rates, float) and isinstance(reading.most, float | int):
            return _arrays.constant(xp, reading.u, rates * reading.most)
        each = _arrays.constant(xp, reading.u, rates)
        if each.ndim:
            each = xp.reshape(each, (1, -1, 1)[: reading.u.ndim])
        return each * reading.most

    def _criterion(self, xp: Namespace, reading: Reading, wanted: Labels) -> tuple[Array, Pullback]:
        difference = reading.u - self._wanted(xp, reading, wanted)
        return criteria.weighted(*criteria.squared(xp, difference), wanted.amount)
