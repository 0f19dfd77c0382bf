"""SpikeMax: the negative log-likelihood of the label, from the firing rates."""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, get_args

from spikeloss_xp import _checks, criteria, readouts
from spikeloss_xp._arrays import Adapter
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._typing import (
    Array,
    MaxMode,
    MaxReadout,
    Numerics,
    Reduction,
    ValueAndPullback,
)
from spikeloss_xp.losses.classes import NUMERICS, RateLoss
from spikeloss_xp.readouts import Reading

MODES = get_args(MaxMode)


@dataclass(frozen=True)
class SpikeMax(RateLoss):
    r"""Negative log-likelihood of the label, with class probabilities from the rates.

    .. math::
        L = -\sum_b \log p_{b, y_b}, \qquad
        p_c = \frac{r_c}{\sum_{c'} r_{c'} + 10^{-6}} \quad \text{or} \quad
        p_c = \frac{e^{r_c / \rho}}{\sum_{c'} e^{r_{c'} / \rho}}

    with the rates :math:`r` of `SpikeRate` and the temperature :math:`\rho`. With a moving window
    the sum is over the steps too.

    Parameters
    ----------
    moving_window : int, optional
        Length of the moving window, in time steps. By default the rate is over the whole duration.
    mode : {"probability", "softmax"}, default "probability"
        The probabilities are the normalised rates, or the softmax of the rates.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Return the sum of the terms, their mean, their sum divided by the number of samples, or the
        terms: ``[batch]``, or ``[batch, time]`` with a window.
    readout : {"rate", "count", "max", "last", "latency", "softmax_sum"}, default "rate"
        The reading of a neuron: its rate; its number of spikes; the largest or the last value of a
        membrane potential; the latency of its first spike, in steps, where the earliest class has
        the largest probability; or the sum over time of the probability of its class in a softmax
        of the potentials at each step [2]_. All but the first two need ``mode="softmax"``, where
        they are the logits.
    temperature : float, default 1
        The divisor :math:`\rho` of the logits of the softmax mode, in the unit of the reading;
        above 0. For latencies, a tenth of the number of steps is a good first value. In the
        probability mode it must be 1.
    label_smoothing : float, default 0
        The fraction of a label that is spread evenly over all classes; at least 0 and below 1.
        It must be 0 with ``numerics="lava"``.
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
    With a window :math:`r_0 = a / W`, for counts :math:`r_0 = a`, and with `num_classes` it is
    divided by the number of neurons of a class. With the default `pseudo_count` only a silent
    labelled neuron is below :math:`r_0`, if trains are binary, so all other values are the
    published ones. The gradient is finite everywhere, and negative at a silent labelled neuron.

    References
    ----------
    .. [1] S. B. Shrestha, L. Zhu and P. Sun, "Spikemax: Spike-based loss methods for
       classification", IJCNN 2022.
    .. [2] I. Hammouamri, I. Khalfaoui-Hassani and T. Masquelier, "Learning delays in spiking neural
       networks using dilated convolutions with learnable spacings", ICLR 2024.

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
    readout: MaxReadout = "rate"
    temperature: float = 1.0
    label_smoothing: float = 0.0
    pseudo_count: float = 0.5
    numerics: Numerics = "stable"
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    _classes_compete: ClassVar[bool] = True
    _readouts: ClassVar[tuple[str, ...]] = (*RateLoss._readouts, "latency")

    def __post_init__(self) -> None:
        self._check(
            temperature=_checks.scale,
            label_smoothing=_checks.fraction,
            pseudo_count=_checks.scale,
            mode=_checks.one_of(MODES),
            numerics=_checks.one_of(NUMERICS),
        )
        for name, is_rate in (
            ("readout", self.readout in readouts.WINDOWED),
            ("temperature", self.temperature == 1),
        ):
            if self.mode == "probability" and not is_rate:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is for logits, and mode='probability' takes "
                    f"rates: it needs mode='softmax'"
                )
        self._check_published("label_smoothing", 0)

    @property
    def _criterion_has_weights(self) -> bool:  # type: ignore[override]
        return self.label_smoothing != 0  # the term of each class has its own weight then

    def _criterion(self, adapter: Adapter, reading: Reading, labels: Labels) -> ValueAndPullback:
        u, one_hot, class_mask = reading.u, labels.target, reading.class_mask
        if self.mode == "softmax":
            return self._softmax(adapter, reading, labels)
        if self.numerics == "lava":
            return criteria.cross_entropy_of_rates_as_published(adapter, u, one_hot, class_mask)
        few = self.pseudo_count * reading.per_spike
        # Compared as counts: whether n / T or a / T is larger may depend on rounding if n is a.
        counts: Array = reading.counts
        short = counts < self.pseudo_count
        known = adapter.concrete_or_none(counts)
        # A finite difference from silence is no error, and a process of several may have no sample.
        if known is not None and known.size and known.min() < -0.5:
            raise ValueError(
                "input must have no rate below 0 with mode='probability'; membrane potentials need "
                f"mode='softmax'. Got a sum of spikes of {known.min():g}"
            )
        if self.label_smoothing:
            weight = self._smoothed(adapter, reading, labels)
            return criteria.smooth_cross_entropy_of_rates(
                adapter, u, weight, few, short, class_mask
            )
        return criteria.cross_entropy_of_rates(adapter, u, one_hot, few, short, class_mask)

    def _softmax(self, adapter: Adapter, reading: Reading, labels: Labels) -> ValueAndPullback:
        entropy, label = criteria.cross_entropy_of_logits, labels.target
        if self.label_smoothing:
            entropy = criteria.smooth_cross_entropy_of_logits
            label = self._smoothed(adapter, reading, labels)
        # The earliest class is the most probable one.
        divisor = -self.temperature if self.readout == "latency" else self.temperature
        if divisor == 1:
            return entropy(adapter, reading.u, label, reading.class_mask)
        logit = reading.u / divisor
        terms, to_logit = entropy(adapter, logit, label, reading.class_mask)
        return terms, lambda cotangent: to_logit(cotangent) / divisor

    def _smoothed(self, adapter: Adapter, reading: Reading, labels: Labels) -> Array:
        """Return the smoothed label, times the class weights: the weight of each class's term."""
        xp, u, class_mask = adapter.xp, reading.u, reading.class_mask
        present = xp.ones_like(u) if class_mask is None else xp.astype(class_mask, u.dtype)
        share = self.label_smoothing / xp.sum(present, axis=CLASS, keepdims=True)
        weight = (1 - self.label_smoothing) * xp.astype(labels.target, u.dtype) + share
        weight = present * weight
        return weight if labels.class_weight is None else weight * labels.class_weight
