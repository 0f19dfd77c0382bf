"""SpikeRate: the distance from target firing rates."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import numpy as np

from spikeloss_xp import _checks, criteria, readouts
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._typing import Array, PerClass, Readout, Reduction, ValueAndPullback
from spikeloss_xp.losses.classes import ReadsClasses
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class SpikeRate(ReadsClasses):
    r"""Squared difference between firing rates and target rates.

    .. math::
        L = \sum_{b, c} (r_{b, c} - \hat r_{b, c})^2, \qquad
        \hat r_{b, c} = \begin{cases}
            r_\text{true} & c = y_b \\ r_\text{false} & \text{otherwise}
        \end{cases}

    with the rate :math:`r = \frac{1}{T} \sum_t s_t`. With a moving window the rate is
    :math:`r_t = \frac{1}{W} \sum_{k < W} s_{t - k}`, and the sum is over the steps too. There is no
    factor 1/2.

    Parameters
    ----------
    true_rate : float or sequence of float
        The target rate of the labelled class, in spikes per time step, between 0 and 1: a number
        for all classes, or a sequence of one for each.
    false_rate : float or sequence of float
        The target rate of the other classes, in the same form.
    moving_window : int, optional
        Length :math:`W` of the moving window, in time steps. By default the rate is over the whole
        duration.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Return the sum of the terms, their mean, their sum divided by the number of samples, or the
        terms: ``[batch, class]``, or ``[batch, class, time]`` with a window.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The reading of a neuron: its rate; its number of spikes, which is compared with the target
        rate times the number of steps; or the largest or the last value of a membrane potential.
        With ``"max"``, ``"last"`` and a window of 1 the target rates may be any numbers.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    ignore_index : int, default -100
        The class index of samples or steps that have no terms.
    time_axis : int, default -1
        The axis of `input` that is time. Targets and terms with a time axis have it there too.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The space axes are flattened to one class axis.
    `target` holds class indices: integers of shape ``[batch]`` or, with a window,
    ``[batch, time]``. An index that is no class raises an error where values can be read for free;
    on a GPU and in a traced function it makes the loss NaN.

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

    true_rate: PerClass
    false_rate: PerClass
    moving_window: int | None = None
    reduction: Reduction = "sum"
    _: KW_ONLY
    readout: Readout = "rate"
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    _by_class: ClassVar[tuple[str, ...]] = ("true_rate", "false_rate")

    def __post_init__(self) -> None:
        super().__post_init__()
        # The values at a single step, the largest and the last ones may be membrane potentials.
        potentials = self.readout in readouts.OVER_ALL_TIME or self.moving_window == 1
        rates = _checks.one_or_more(_checks.number if potentials else _checks.rate)
        _checks.check_fields(self, true_rate=rates, false_rate=rates)

    def score(self, reading: Reading) -> Array:
        """Return by how much the loss is larger if a class is not the label."""
        true = self._in_units_of(reading, self.true_rate)
        false = self._in_units_of(reading, self.false_rate)
        return (true - false) * (2 * reading.u - true - false)

    def _in_units_of(self, reading: Reading, rates: PerClass) -> Array:
        """Return rates in the units of the reading, with a class axis if the classes differ."""
        largest = reading.saturated
        if isinstance(rates, float) and isinstance(largest, float | int):
            return reading.adapter.scalar(reading.u, rates * largest)
        return reading.per_class(rates) * largest

    def findings(self, input: Any) -> Iterator[tuple[str, str]]:
        """Yield a finding if a label should have a lower rate than the other classes."""
        if np.any(np.asarray(self.true_rate) < np.asarray(self.false_rate)):
            seen = f"true_rate={self.true_rate} and false_rate={self.false_rate}"
            yield "reversed-rates", seen

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared differences between the rates and their targets."""
        true = self._in_units_of(reading, self.true_rate)
        false = self._in_units_of(reading, self.false_rate)
        target = reading.xp.where(labels.one_hot(reading), true, false)
        return criteria.squared(reading.u - target)
