"""Errors of numbers: of the difference between readings and targets, for regression."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._typing import ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class SquaredError(ClassLoss):
    r"""Squared difference between the readings of spikes or potentials and target numbers.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} (u_{b, c} - \hat u_{b, c})^2

    with the reading :math:`u`, by default the rate. With a moving window there is a term at each
    step, and the target may be a signal.

    Parameters
    ----------
    time_axis : int
        The axis of `input` that is time: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. Targets and terms with a time axis have it there too.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The reading of a neuron: its rate, its number of spikes, or the largest or the last value
        of a membrane potential.
    moving_window : int, optional
        Length of a moving window, in time steps, for rates and counts. A window of 1 compares each
        step, such as the membrane potentials of a readout layer with a signal. By default the
        reading is over the whole duration.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        Return the mean of the terms, their sum, their sum divided by the number of samples, or the
        terms: ``[batch, class]``, or ``[batch, class, time]`` with a window.
    num_classes : int, optional
        The number of readings. Each is the mean of a group of neighbouring neurons. By default each
        neuron has one.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The space axes are flattened to one axis. `target`
    holds finite floats of shape ``[batch, class]`` or, with a window, also
    ``[batch, class, time]``, in the unit of the reading; without a time axis it holds at each step.
    `weight` has a weight for each reading.

    `SpikeTime` with ``filter_target=False`` compares filtered spikes with a signal.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # rates of 0.75 and 0.25
    >>> float(sx.SquaredError(time_axis=-1)(spikes, [[0.5, 0.25]]))
    0.03125
    """

    ignore_index: ClassVar[None] = None  # type: ignore[misc]
    targets: ClassVar[tuple[str, ...]] = ("target readings",)

    expects_spikes: ClassVar[bool] = False  # type: ignore[misc]

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared differences."""
        return criteria.squared(reading.u - labels.numbers)


@dataclass(frozen=True)
class AbsoluteError(SquaredError):
    r"""Absolute difference between the readings of spikes or potentials and target numbers.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} |u_{b, c} - \hat u_{b, c}|

    A large difference counts less than in `SquaredError`, and is lessened as fast as a small one.

    Parameters
    ----------
    time_axis : int
        As for `SquaredError`, as the options below.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The reading.
    moving_window : int, optional
        The length of a moving window.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        What becomes of the terms.
    num_classes : int, optional
        The number of readings.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    Input, target and weights are those of `SquaredError`. The derivative at a difference of 0 is 0.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # rates of 0.75 and 0.25
    >>> float(sx.AbsoluteError(time_axis=-1)(spikes, [[0.5, 0.25]]))
    0.125
    """

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the absolute differences."""
        return criteria.absolute(reading.adapter, reading.u - labels.numbers)


@dataclass(frozen=True)
class HuberError(SquaredError):
    r"""Half the squared difference between readings and target numbers; far off it is linear.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} h(u_{b, c} - \hat u_{b, c}), \qquad
        h(d) = \begin{cases} d^2 / 2 & |d| \le \delta \\
            \delta (|d| - \delta / 2) & |d| > \delta \end{cases}

    Parameters
    ----------
    time_axis : int
        As for `SquaredError`, as the options below.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The reading.
    moving_window : int, optional
        The length of a moving window.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        What becomes of the terms.
    num_classes : int, optional
        The number of readings.
    delta : float, default 1
        The difference :math:`\delta` beyond which a term is linear, in the unit of the reading;
        above 0.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    Input, target and weights are those of `SquaredError`. The function is that of [1]_.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", The Annals of Mathematical
       Statistics 35(1), 1964.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # counts of 3 and 1
    >>> loss = sx.HuberError(readout="count", reduction="none", time_axis=-1)
    >>> loss(spikes, [[0.0, 0.5]])
    array([[2.5  , 0.125]])
    """

    _: KW_ONLY
    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, delta=_checks.scale)

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the differences by the function of Huber."""
        return criteria.huber(reading.adapter, reading.u - labels.numbers, self.delta)
