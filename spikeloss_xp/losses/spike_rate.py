"""SpikeRate: the squared error between firing rates and target rates."""

from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading
from spikeloss_xp._typing import Array, PerClass, Readout, ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss, check_readout
from spikeloss_xp.readouts import READOUTS

REAL = _checks.one_or_more(_checks.number)


@dataclass(frozen=True)
class SpikeRate(ClassLoss):
    r"""Squared error between firing rates and target rates.

    .. math::
        L = \sum_{b, c} (r_{b, c} - \hat r_{b, c})^2, \qquad
        \hat r_{b, c} = \begin{cases}
            r_\text{true} & c = y_b \\ r_\text{false} & \text{otherwise}
        \end{cases}

    where :math:`r = \frac{1}{T} \sum_t s_t` is the firing rate and :math:`y` is the label. With a
    moving window, the rate at each step is :math:`r_t = \frac{1}{W} \sum_{k < W} s_{t - k}`, and
    the loss has a term for each time step. The formula shows the sum of the terms, which is the
    result with ``reduction="sum"``. By default, the loss is the mean of the terms. The squared
    error is not multiplied by 1/2. With ``one_sided=True``, the target rates are bounds, and the
    term of a rate that satisfies its bound is 0.

    Parameters
    ----------
    true_rate : float or sequence of float
        The target rate of the labelled class, in spikes per time step (between 0 and 1). Pass one
        number for all classes, or a sequence with one number for each class.
    false_rate : float or sequence of float
        The target rate of every other class, in the same form as `true_rate`. `false_rate` must be
        lower than `true_rate`.
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. If the target or the array of terms has a time axis, its axes have
        the same order as the axes of `input`.
    readout : {"rate", "count", "max", "last"}, default "rate"
        The quantity that is computed for each neuron: its firing rate, its spike count, or the
        maximum or last value of its membrane potential. A spike count is compared with the target
        rate times the number of steps. With ``"max"``, ``"last"`` or a window of 1, the target
        rates can be any real numbers.
    moving_window : int, optional
        The length :math:`W` of the moving window, in time steps. By default, the rates are computed
        over all time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has shape
        ``[batch, class]``, or ``[batch, class, time]`` if there is a window.
    num_classes : int, optional
        The number of classes. The neurons are divided into `num_classes` groups of neighbouring
        neurons. Each group represents one class, and the loss averages over the neurons of the
        group. By default, each neuron represents one class.
    ignore_index : int, default -100
        Samples and time steps with this class index as their label are ignored.
    one_sided : bool, default False
        Whether the target rates are bounds. If True, `true_rate` is the lowest permitted rate of
        the labelled class, and `false_rate` is the highest permitted rate of every other class. The
        term of the labelled class is then :math:`\max(r_\text{true} - r, 0)^2`, and the term of
        each other class is :math:`\max(r - r_\text{false}, 0)^2`. To combine bounds on rates with a
        cross entropy, see the option `rates` of `CrossEntropy`.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The spatial axes are flattened into one class axis.
    `target` holds class indices, which are integers of shape ``[batch]``. If the loss has a window,
    the shape may also be ``[batch, time]``. An invalid index raises an error if the indices are on
    the CPU. On a GPU and in traced functions, an invalid index makes the loss NaN.

    References
    ----------
    .. [1] S. B. Shrestha and G. Orchard, "SLAYER: Spike layer error reassignment in time",
       NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> float(sx.SpikeRate(0.5, 0.0, time_axis=-1, reduction="sum")(spikes, [0]))
    0.125

    In the next example, the target rates are bounds, and both classes are silent. The labelled
    class violates its bound, because its rate of 0 is below 0.5. The other class satisfies its
    bound:

    >>> bounded = sx.SpikeRate(0.5, 0.1, time_axis=-1, one_sided=True, reduction="none")
    >>> bounded(np.asarray([[[0, 0, 0, 0], [0, 0, 0, 0]]]), [0])
    array([[0.25, 0.  ]])
    """

    true_rate: PerClass = field(metadata=_checks.checked_by(REAL))
    false_rate: PerClass = field(metadata=_checks.checked_by(REAL))
    _: KW_ONLY
    readout: Readout = _checks.option("rate", check_readout)
    one_sided: bool = _checks.option(False, _checks.flag)

    _shields_masked: ClassVar[bool] = False
    _per_class: ClassVar[tuple[str, ...]] = ("true_rate", "false_rate")

    def __post_init__(self) -> None:
        super().__post_init__()
        # Target rates are checked only for spikes. Potentials may have any target.
        if READOUTS[self.readout].windowed and self.moving_window != 1:
            for name in self._per_class:
                _checks.one_or_more(_checks.rate)(getattr(self, name), name)
        self._check_order()

    def _check_order(self) -> None:
        """Raise an error unless `true_rate` is above `false_rate` for each class."""
        for true, false in _checks.each_class(self.true_rate, self.false_rate):
            if not true > false:
                raise ValueError(
                    f"true_rate must be above false_rate, which is {false:g}; got {true:g}: the "
                    "labelled neuron should fire more often than the others"
                )

    def score(self, reading: Reading) -> Array:
        """Return a score for each class.

        The class with the highest score is the label for which the loss would be lowest.
        """
        xp, u = reading.xp, reading.u
        true = self._in_units_of(reading, self.true_rate)
        false = self._in_units_of(reading, self.false_rate)
        if not self.one_sided:
            return (true - false) * (2 * u - true - false)
        excess, missing = (xp.where(x < 0, 0.0, x) for x in (u - false, true - u))
        return excess * excess - missing * missing

    def _in_units_of(self, reading: Reading, rates: PerClass) -> Array:
        """Convert target rates to the unit of ``reading.u``.

        The result broadcasts to the shape of ``reading.u``.
        """
        largest = reading.saturated
        if isinstance(rates, float) and isinstance(largest, float | int):
            return reading.adapter.scalar(reading.u, rates * largest)
        return reading.per_class(rates) * largest

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared differences between the rates and their target rates or bounds."""
        xp, label = reading.xp, labels.one_hot(reading)
        true = self._in_units_of(reading, self.true_rate)
        false = self._in_units_of(reading, self.false_rate)
        far = reading.u - xp.where(label, true, false)
        if self.one_sided:
            inside = xp.where(label, far >= 0, far <= 0)
            far = xp.where(inside, reading.adapter.operand(far, 0.0), far)  # NaN stays NaN
        return criteria.squared(far)
