"""SpikeMax: the negative log-likelihood of the label, with probabilities from firing rates."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, get_args

from spikeloss_xp import _checks, criteria, softmax
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading
from spikeloss_xp._typing import Array, MaxMode, ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss

MODES = get_args(MaxMode)


@dataclass(frozen=True)
class SpikeMax(ClassLoss):
    r"""Negative log-likelihood of the label, with class probabilities computed from firing rates.

    .. math::
        L = -\sum_b \log p_{b, y_b}, \qquad
        p_c = \frac{r_c}{\sum_{c'} r_{c'} + 10^{-6}} \quad \text{or} \quad
        p_c = \frac{e^{r_c}}{\sum_{c'} e^{r_{c'}}}

    where :math:`r` are the firing rates of `SpikeRate`, and :math:`y` is the label. With a moving
    window, the loss has a term for each time step. The formula shows the sum of the terms, which is
    the result with ``reduction="sum"``. By default, the loss is the mean of the terms.
    `CrossEntropy` has options that `SpikeMax` lacks: other readouts, a temperature, class
    probabilities as targets, and label smoothing.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, and -1 for
        ``[batch, class, time]``. If the target or the array of terms has a time axis, its axes have
        the same order as the axes of `input`.
    moving_window : int, optional
        The length of the moving window, in time steps. Without a window, rates are computed over
        all time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has shape
        ``[batch]``, or ``[batch, time]`` if there is a window.
    num_classes : int, optional
        The number of classes. The neurons are divided into `num_classes` groups of neighbouring
        neurons. Each group represents one class, and the loss averages over the neurons of the
        group. By default, each neuron represents one class.
    ignore_index : int, default -100
        Samples and time steps with this class index as their label are ignored.
    mode : {"probability", "softmax"}, default "probability"
        How class probabilities are computed from the rates. With ``"probability"``, each rate is
        divided by the sum of the rates of all classes. With ``"softmax"``, the probabilities are
        the softmax of the rates.
    pseudo_count : float, default 0.5
        A spike count :math:`a` between 1e-6 and 1e18. If the labelled neuron has fewer than
        :math:`a` spikes, the logarithm of its rate is replaced by a tangent, which is finite for a
        rate of 0. `pseudo_count` has an effect only with ``mode="probability"``.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    CrossEntropy : A softmax cross entropy with more readouts and options than `SpikeMax`.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``. The spatial axes are flattened into one class axis.
    `target` holds class indices, which are integers of shape ``[batch]``. If the loss has a window,
    the shape may also be ``[batch, time]``. An invalid index raises an error if the indices are on
    the CPU. On a GPU and in traced functions, an invalid index makes the loss NaN.

    With ``mode="probability"``, :math:`-\log r_y` would be infinite if the labelled neuron is
    silent. If :math:`r_y` is below :math:`r_0 = a / T`, where :math:`T` is the number of time
    steps, the logarithm is therefore replaced by its tangent at :math:`r_0`. With
    :math:`d = r_0 - r_y` and :math:`C` classes, the term is then
    :math:`-\log r_0 + d / r_0 + \log(\sum r + 10^{-6} + C d)`.

    With a window of :math:`W` steps, :math:`r_0 = a / W`. With `num_classes`, :math:`r_0` is also
    divided by the number of unmasked neurons of the class. With a window, the term at each step
    uses the number of unmasked neurons at this step. Without a window, the term uses the largest
    number of unmasked neurons at any step.

    For binary trains and the default `pseudo_count`, :math:`r_y` is below :math:`r_0` only if the
    labelled neuron is silent. If the labelled neuron fires, the term is therefore the same as in
    lava-dl. The gradient is finite everywhere. The gradient is negative for a silent labelled
    neuron, so training increases the rate of this neuron.

    References
    ----------
    .. [1] S. B. Shrestha, L. Zhu and P. Sun, "Spikemax: Spike-based loss methods for
       classification", IJCNN 2022.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # [batch, class, time]
    >>> float(sx.SpikeMax(time_axis=-1)(spikes, [0]).round(3))  # -log(3 / 4)
    0.288
    """

    _: KW_ONLY
    mode: MaxMode = _checks.option("probability", _checks.one_of(MODES))
    pseudo_count: float = _checks.option(0.5, _checks.scale)

    readout: ClassVar[str] = "rate"  # type: ignore[misc]
    classes_compete: ClassVar[bool] = True

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the negative logarithm of the probability of each label."""
        classes, u, class_mask = reading.classes, reading.u, reading.class_mask
        if self.mode == "softmax":
            return softmax.cross_entropy_of_logits(classes, u, labels.indices, class_mask)
        one_hot = labels.one_hot(reading)
        few = self.pseudo_count / reading.per_unit
        # Counts are compared instead of rates, because counts are exact and rates are rounded.
        counts: Array = reading.counts
        short = counts < self.pseudo_count
        # Counts slightly below 0 are allowed, because finite-difference checks of the gradient need
        # them.
        lowest = _checks.lowest_below(reading.adapter.concrete_or_none(counts), -0.5)
        if lowest is not None:
            raise ValueError(
                "input must not have negative spike counts with mode='probability'; got "
                f"{lowest:g}. For membrane potentials, use CrossEntropy with readout='max' or "
                "'last'"
            )
        return criteria.cross_entropy_of_rates(classes, u, one_hot, few, short, class_mask)
