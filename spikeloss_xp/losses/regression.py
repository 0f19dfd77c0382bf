"""Regression losses, which compare numbers computed from spikes with target numbers."""

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

    where :math:`u` is the quantity that `readout` names (by default the firing rate), and
    :math:`\hat u` is the target. With a moving window, the loss has a term for each time step, and
    the target may have a time axis.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. If the target or the array of terms has a time axis, its axes have
        the same order as the axes of `input`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron: its firing rate, its spike count, or the
        maximum or last value of its membrane potential.
    moving_window : int, optional
        The length of the moving window for rates and counts, in time steps. With a window of 1, the
        input at each time step is compared with the target, so `input` may hold the membrane
        potentials of a readout layer, for example. Without a window, rates and counts are computed
        over all time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has shape
        ``[batch, class]``, or ``[batch, class, time]`` if there is a window.
    num_classes : int, optional
        The number of values that are computed for each sample. The neurons are divided into
        `num_classes` groups of neighbouring neurons. One value is computed from the mean over the
        neurons of each group. By default, one value is computed for each neuron.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    AbsoluteError, HuberError : Losses that are less sensitive to outliers than `SquaredError`.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The spatial axes are flattened into one axis.
    `target` holds finite floats, in the unit of the quantity that `readout` names. The target has
    shape ``[batch, class]``. If the loss has a window, the target may also have shape
    ``[batch, class, time]``. A target without a time axis applies to every time step. `weight`
    holds one weight for each class.

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
        """Return the squared differences between ``reading.u`` and the target."""
        return criteria.squared(reading.u - labels.numbers)


@dataclass(frozen=True)
class AbsoluteError(SquaredError):
    r"""Absolute error between target numbers and values computed from spikes or potentials.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} |u_{b, c} - \hat u_{b, c}|

    Outliers have less influence than with `SquaredError`, because the derivative of a term has the
    same absolute value for large and small differences.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`. All options have the same meaning as for `SquaredError`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron.
    moving_window : int, optional
        The length of the moving window, in time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result.
    num_classes : int, optional
        The number of values that are computed for each sample.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input`, `target` and `weight` have the same form as for `SquaredError`. The derivative of
    :math:`|u - \hat u|` is defined as 0 where the difference is 0.

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
        """Return the absolute differences between ``reading.u`` and the target."""
        return criteria.absolute(reading.adapter, reading.u - labels.numbers)


@dataclass(frozen=True)
class HuberError(SquaredError):
    r"""Huber loss between target numbers and values computed from spikes or potentials.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} h(u_{b, c} - \hat u_{b, c}), \qquad
        h(d) = \begin{cases} d^2 / 2 & |d| \le \delta \\
            \delta (|d| - \delta / 2) & |d| > \delta \end{cases}

    Parameters
    ----------
    time_axis : int
        The time axis of `input`. All options except `delta` have the same meaning as for
        `SquaredError`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron.
    moving_window : int, optional
        The length of the moving window, in time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result.
    num_classes : int, optional
        The number of values that are computed for each sample.
    delta : float, default 1
        The number :math:`\delta`, from 1e-6 to 1e18. A term is a quadratic function of a difference
        :math:`d` if :math:`|d| \le \delta`, and a linear function of :math:`|d|` if
        :math:`|d| > \delta`.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input`, `target` and `weight` have the same form as for `SquaredError`. The Huber function was
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
        """Return the Huber loss of the differences between ``reading.u`` and the target."""
        return criteria.huber(reading.adapter, reading.u - labels.numbers, self.delta)
