"""SpikeLatency: the squared error between the times of first spikes and target times."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading
from spikeloss_xp._input.targets import CLASS_INDICES, Numbers, Target
from spikeloss_xp._typing import Array, ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss

TARGET_TIMES = Numbers("target times", "finite and at least 0", 0)


@dataclass(frozen=True)
class SpikeLatency(ClassLoss):
    r"""Squared error between the time of each neuron's first spike and its target time.

    .. math::
        L = \frac{1}{B C} \sum_{b, c} \max(|T_1 - \hat T|_{b, c} - \delta, 0)^2, \qquad
        T_1 = \sum_t \prod_{k \le t} (1 - s_k)

    The latency :math:`T_1` of a binary train is the time step of its first spike, counted from 0.
    If the train has no spike, the latency is the number of time steps. The latency is a linear
    function of each spike :math:`s_k`. The derivative with respect to a spike is therefore exactly
    the change in the latency if the spike is added. If `tolerance` is 0, the loss is proportional
    to the error of SpikeProp [1]_.

    Parameters
    ----------
    true_time : float, default 0
        The target time of the labelled class, in time steps (at least 0).
    false_time : float, optional
        The target time of every other class, in time steps (at least 0). The default is the number
        of time steps of the sample, which is the latency of a silent neuron.
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has shape
        ``[batch, class]``.
    num_classes : int, optional
        The number of classes. The neurons are divided into `num_classes` groups of neighbouring
        neurons. Each group represents one class, and the loss averages over the neurons of the
        group. By default, each neuron represents one class.
    ignore_index : int, default -100
        Samples with this class index as their label are ignored.
    tolerance : float, default 0
        The tolerance :math:`\delta`, in time steps (at least 0). If a latency differs from its
        target time by at most :math:`\delta`, its term is 0.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    spikeloss_xp.times.SpikeLatency : The same loss for lists of spike times.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The spatial axes are flattened into one class axis.
    `target` holds either class indices or target times. Class indices are integers of shape
    ``[batch]``. Target times are floats of shape ``[batch, class]`` that are finite and at least 0.
    An invalid target raises an error if the target is on the CPU. On a GPU and in traced functions,
    an invalid target makes the loss NaN. If `target` holds class indices, all terms of a sample
    have the class weight of the labelled class. If `target` holds target times, each term has the
    weight of its own class.

    Values of `input` between 0 and 1 are treated as spike probabilities, from which the loss
    computes the expected latency. A whole number above 1 is treated as 1 and has gradient 0.
    Negative values, and fractions above 1, raise an error if `input` is on the CPU. On a GPU and in
    traced functions, negative values make the loss NaN.

    Latencies do not count masked steps. The latency of a silent neuron is the number of unmasked
    steps in its sample. If the neurons of a sample have different numbers of unmasked steps, the
    largest of these numbers is the latency of every silent neuron in the sample.

    References
    ----------
    .. [1] S. M. Bohte, J. N. Kok and H. La Poutré, "Error-backpropagation in temporally encoded
       networks of spiking neurons", Neurocomputing 48, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> # [time, batch, class]
    >>> spikes = np.asarray([[[0, 0]], [[1, 0]], [[0, 1]], [[1, 0]]])
    >>> # target times 0 and 4
    >>> sx.SpikeLatency(reduction="none", time_axis=0)(spikes, [0])
    array([[1., 4.]])
    """

    true_time: float = _checks.option(0.0, _checks.not_negative)
    false_time: float | None = _checks.option(None, _checks.optional(_checks.not_negative))
    _: KW_ONLY
    tolerance: float = _checks.option(0.0, _checks.not_negative)

    moving_window: ClassVar[None] = None  # type: ignore[misc]
    readout: ClassVar[str] = "latency"  # type: ignore[misc]
    targets: ClassVar[tuple[Target, ...]] = (CLASS_INDICES, TARGET_TIMES)
    _shields_masked: ClassVar[bool] = False

    def score(self, reading: Reading) -> Array:
        """Return a score for each class. An earlier first spike gives a higher score.

        If ``true_time > false_time``, a later first spike gives a higher score.
        """
        return score_of_times(reading, self.true_time, self.false_time)

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the squared differences between the latencies and their target times."""
        return compare_times(reading, labels, self.true_time, self.false_time, self.tolerance)


def score_of_times(reading: Reading, true_time: float, false_time: float | None) -> Array:
    """Return a score for each class. An earlier first spike gives a higher score.

    If ``true_time > false_time``, a later first spike gives a higher score.
    """
    late = false_time is not None and false_time < true_time
    return reading.u if late else -reading.u


def compare_times(
    reading: Reading, labels: Labels, true_time: float, false_time: float | None, tolerance: float
) -> ValueAndPullback:
    """Return the squared differences between the latencies and the target times.

    A difference of at most `tolerance` is treated as 0.
    """
    target = labels.numbers
    if target is None:
        silent = reading.saturated if false_time is None else false_time
        # Multiplying `silent` by `one` converts an int or a symbolic dimension to an array.
        one, of_label = (reading.adapter.scalar(reading.u, x) for x in (1.0, true_time))
        target = reading.xp.where(labels.one_hot(reading), of_label, one * silent)
    return criteria.outside(reading.adapter, reading.u - target, tolerance)
