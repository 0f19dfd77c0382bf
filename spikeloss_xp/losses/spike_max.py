"""SpikeMax: the negative log-likelihood of the label, from the firing rates."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, get_args

from spikeloss_xp import _checks, criteria
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._typing import Array, MaxMode, Numerics, Reduction, ValueAndPullback
from spikeloss_xp.losses.classes import NUMERICS, ReadsClasses
from spikeloss_xp.readouts import Reading

MODES = get_args(MaxMode)


@dataclass(frozen=True)
class SpikeMax(ReadsClasses):
    r"""Negative log-likelihood of the label, with class probabilities from the rates.

    .. math::
        L = -\sum_b \log p_{b, y_b}, \qquad
        p_c = \frac{r_c}{\sum_{c'} r_{c'} + 10^{-6}} \quad \text{or} \quad
        p_c = \frac{e^{r_c}}{\sum_{c'} e^{r_{c'}}}

    with the rates :math:`r` of `SpikeRate`. With a moving window the sum is over the steps too.
    `CrossEntropy` has other readouts, temperatures, class probabilities and label smoothing.

    Parameters
    ----------
    moving_window : int, optional
        Length of the moving window, in time steps. By default the rate is over the whole duration.
        ``SpikeMax(10)`` has a window of 10 steps; the number of classes is that of the neurons.
    mode : {"probability", "softmax"}, default "probability"
        The probabilities are the normalised rates, or the softmax of the rates.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Return the sum of the terms, their mean, their sum divided by the number of samples, or the
        terms: ``[batch]``, or ``[batch, time]`` with a window.
    pseudo_count : float, default 0.5
        The spike count :math:`a` of the labelled neuron below which the tangent replaces the
        logarithm; above 0. It has no effect in the softmax mode.
    numerics : {"stable", "lava"}, default "stable"
        ``"lava"`` returns the published value, infinity, if the labelled neuron is silent.
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

    In the probability mode :math:`-\log r_y` is infinite if the labelled neuron is silent. Below
    the rate :math:`r_0 = a / T` its tangent is used instead. With `C` classes and the missing rate
    :math:`d = r_0 - r_y` the term is
    :math:`-\log r_0 + d / r_0 + \log(\sum r + 10^{-6} + C d)`.
    With a window :math:`r_0 = a / W`. With `num_classes` it is divided by the number of neurons of
    the class that are not masked: at the step with a window, else the largest of all steps. With
    the default `pseudo_count` only a silent labelled neuron is below :math:`r_0`, if trains are
    binary, so all other values are the published ones. The gradient is finite everywhere, and
    negative at a silent labelled neuron.

    References
    ----------
    .. [1] S. B. Shrestha, L. Zhu and P. Sun, "Spikemax: Spike-based loss methods for
       classification", IJCNN 2022.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # one sample, two classes, four steps
    >>> float(sx.SpikeMax()(spikes, [0]).round(3))  # -log(3 / 4)
    0.288
    """

    moving_window: int | None = None
    mode: MaxMode = "probability"
    reduction: Reduction = "sum"
    _: KW_ONLY
    pseudo_count: float = 0.5
    numerics: Numerics = "stable"
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    readout: ClassVar[str] = "rate"  # type: ignore[misc]
    classes_compete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(
            self,
            pseudo_count=_checks.scale,
            mode=_checks.one_of(MODES),
            numerics=_checks.one_of(NUMERICS),
        )

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the negative log-probabilities of the labels."""
        classes, u, class_mask = reading.classes, reading.u, reading.class_mask
        if self.mode == "softmax":
            return criteria.cross_entropy_of_logits(classes, u, labels.indices, class_mask)
        one_hot = labels.one_hot(reading)
        if self.numerics == "lava":
            return criteria.cross_entropy_of_rates_as_published(classes, u, one_hot, class_mask)
        few = self.pseudo_count / reading.per_unit
        # Counts are compared: whether n / T or a / T is larger may depend on rounding if n is a.
        counts: Array = reading.counts
        short = counts < self.pseudo_count
        # A finite difference may step slightly below silence.
        lowest = _checks.lowest_below(reading.adapter.concrete_or_none(counts), -0.5)
        if lowest is not None:
            raise ValueError(
                "input must have no rate below 0 with mode='probability'; membrane potentials need "
                f"CrossEntropy with a readout for them. Got a sum of spikes of {lowest:g}"
            )
        return criteria.cross_entropy_of_rates(classes, u, one_hot, few, short, class_mask)
