"""Regression losses, which are functions of the difference between readings and targets."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading
from spikeloss_xp._input.targets import Numbers, Target
from spikeloss_xp._typing import ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss


@dataclass(frozen=True)
class SquaredError(ClassLoss):
    r"""Squared error between target numbers and values computed from spikes or potentials.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} (u_{b, c} - \hat u_{b, c})^2

    where :math:`u` is the reading (by default the firing rate) and :math:`\hat u` is the target.
    With a moving window, there is a term at each step, and the target may be a signal.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. Targets and terms with a time axis use the same order of axes as
        `input`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron: its firing rate, its spike count, or the
        maximum or last value of its membrane potential.
    moving_window : int, optional
        The length of the moving window for rates and counts, in time steps. With a window of 1, the
        input itself is compared with the target at each step. The input may then be the membrane
        potentials of a readout layer, for example. By default, the quantity is computed over the
        whole duration.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms are reduced: to their mean, to their sum, to their sum divided by the number
        of samples, or not at all. Without reduction, the terms have shape ``[batch, class]`` or,
        with a window, ``[batch, class, time]``.
    num_classes : int, optional
        The number of readings per sample. The neurons are divided into this number of groups of
        neighbouring neurons, and each reading is computed from the mean of a group. By default,
        each neuron has its own reading.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    AbsoluteError, HuberError : Errors that outliers affect less.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The spatial axes are flattened into one axis.
    `target` holds finite floats, in the unit of the reading. Its shape is ``[batch, class]`` or,
    with a window, also ``[batch, class, time]``. A target without a time axis applies to every
    step. `weight` holds one weight for each class.

    To compare filtered spikes with a signal, use `SpikeTime` with ``filter_target=False``.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> # rates of 0.75 and 0.25
    >>> spikes = np.asarray([[[1, 0]], [[0, 0]], [[1, 1]], [[1, 0]]])
    >>> float(sx.SquaredError(time_axis=0)(spikes, [[0.5, 0.25]]))
    0.03125
    """

    ignore_index: ClassVar[None] = None  # type: ignore[misc]
    targets: ClassVar[tuple[Target, ...]] = (Numbers(),)

    _shields_masked: ClassVar[bool] = False

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared differences."""
        return criteria.squared(reading.u - labels.numbers)


@dataclass(frozen=True)
class AbsoluteError(SquaredError):
    r"""Absolute error between target numbers and values computed from spikes or potentials.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} |u_{b, c} - \hat u_{b, c}|

    Large differences have less influence on training than with `SquaredError`, because the gradient
    has the same size for large and small differences.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`. This option and the options below are the same as for
        `SquaredError`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron.
    moving_window : int, optional
        The length of the moving window, in time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms are reduced.
    num_classes : int, optional
        The number of readings.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input`, `target` and `weight` are the same as for `SquaredError`. Where the difference is 0,
    the derivative is defined as 0.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> # rates of 0.75 and 0.25
    >>> spikes = np.asarray([[[1, 0]], [[0, 0]], [[1, 1]], [[1, 0]]])
    >>> float(sx.AbsoluteError(time_axis=0)(spikes, [[0.5, 0.25]]))
    0.125
    """

    _shields_masked: ClassVar[bool] = False

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the absolute differences."""
        return criteria.absolute(reading.adapter, reading.u - labels.numbers)


@dataclass(frozen=True)
class HuberError(SquaredError):
    r"""Huber loss of readings and target numbers, quadratic near the target and linear far away.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} h(u_{b, c} - \hat u_{b, c}), \qquad
        h(d) = \begin{cases} d^2 / 2 & |d| \le \delta \\
            \delta (|d| - \delta / 2) & |d| > \delta \end{cases}

    Parameters
    ----------
    time_axis : int
        The time axis of `input`. This option and the options below, except `delta`, are the same as
        for `SquaredError`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron.
    moving_window : int, optional
        The length of the moving window, in time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms are reduced.
    num_classes : int, optional
        The number of readings.
    delta : float, default 1
        The absolute difference :math:`\delta` above which a term is linear, in the unit of the
        reading; from 1e-6 to 1e18.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input`, `target` and `weight` are the same as for `SquaredError`. The Huber function was
    introduced in [1]_.

    References
    ----------
    .. [1] P. J. Huber, "Robust estimation of a location parameter", The Annals of Mathematical
       Statistics 35(1), 1964.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> # counts of 3 and 1
    >>> spikes = np.asarray([[[1, 0]], [[0, 0]], [[1, 1]], [[1, 0]]])
    >>> loss = sx.HuberError(readout="count", reduction="none", time_axis=0)
    >>> loss(spikes, [[0.0, 0.5]])
    array([[2.5  , 0.125]])
    """

    _: KW_ONLY
    delta: float = _checks.option(1.0, _checks.scale)

    _shields_masked: ClassVar[bool] = False

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the Huber loss of each difference."""
        return criteria.huber(reading.adapter, reading.u - labels.numbers, self.delta)
