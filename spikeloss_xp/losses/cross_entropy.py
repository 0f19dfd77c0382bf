"""CrossEntropy: softmax cross entropy whose logits are computed from spikes or potentials."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from spikeloss_xp import _checks, criteria, softmax
from spikeloss_xp._arrays import or_one
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._input.targets import CLASS_INDICES, PROBABILITIES, Target
from spikeloss_xp._typing import Array, EntropyReadout, ValueAndPullback
from spikeloss_xp.losses.classes import ClassLoss
from spikeloss_xp.readouts import READOUTS


@dataclass(frozen=True)
class CrossEntropy(ClassLoss):
    r"""Softmax cross entropy whose logits are spike counts or other numbers computed from spikes.

    .. math::
        L = \frac{1}{B} \sum_b
            \Bigl( \log \sum_c e^{u_{b, c} / \rho} - \frac{u_{b, y_b}}{\rho} \Bigr)

    where :math:`u` is the quantity that `readout` names (by default the spike count), :math:`y` is
    the label, and :math:`\rho` is the temperature. With a moving window, the loss has a term for
    each time step.

    Parameters
    ----------
    time_axis : int
        The time axis of `input`: 0 for ``[time, batch, class]``, 1 for ``[batch, time, class]``,
        and -1 for ``[batch, class, time]``. If the target or the array of terms has a time axis,
        its axes have the same order as the axes of `input`.
    readout : str, default "count"
        The quantity that is computed for each class:

        - ``"count"``: the spike count :math:`n`;
        - ``"sqrt_count"``: the square root :math:`\sqrt{n + 3/8}`. If :math:`n` has a Poisson
          distribution whose mean is not small, the standard deviation of the square root is about
          1/2 [1]_. The derivative of the square root with respect to :math:`n` is 0.82 for a class
          without spikes and 0.10 for a class with 25 spikes;
        - ``"rate"``: the spike count divided by the number of time steps;
        - ``"max"``, ``"last"``: the maximum or the last value of the membrane potential;
        - ``"latency"``: the number of time steps before the first spike. The class that fires first
          has the highest probability. A good initial `temperature` is a tenth of the number of time
          steps;
        - ``"softmax_sum"``: the sum of the class probabilities over time. The class probabilities
          at each step are the softmax of the potentials [2]_.
    moving_window : int, optional
        The length of the moving window, in time steps. Only the readouts ``"count"``,
        ``"sqrt_count"`` and ``"rate"`` support a window. With a window, the loss has a term for
        each time step. With a window of 1 and the readout ``"count"``, the logits at each time step
        are the input divided by the temperature, as in temporal efficient training [3]_. Without a
        window, the logits are computed over all time steps.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms. With ``reduction="none"``, the result has shape
        ``[batch]``, or ``[batch, time]`` if there is a window.
    num_classes : int, optional
        The number of classes. The neurons are divided into `num_classes` groups of neighbouring
        neurons, and each group represents one class. With the readouts ``"count"`` and
        ``"sqrt_count"``, the loss sums over the neurons of a class. With all other readouts, the
        loss averages over the neurons of a class. By default, each neuron represents one class.
    ignore_index : int, default -100
        Samples and time steps with this class index as their label are ignored.
    temperature : float, default 1
        The number :math:`\rho` by which :math:`u` is divided to obtain logits, from 1e-6 to 1e18.
        The temperature has the same unit as :math:`u`.
    label_smoothing : float, default 0
        The fraction of the label's probability that is spread evenly over all classes. The fraction
        must be at least 0 and below 1.
    rates : tuple of float, optional
        Bounds on the firing rates, in spikes per neuron and time step. The first number is the
        lowest permitted rate of the labelled class. The second number is the highest permitted rate
        of every other class. An example is ``(0.5, 0.02)``. Both numbers must be between 0 and 1,
        and the first number must be larger than the second number. If a rate violates its bound, a
        penalty is added to the loss. Bounds require the readout ``"count"``, ``"sqrt_count"`` or
        ``"rate"``. By default, there are no bounds.
    rate_weight : float, default 3
        The factor :math:`\lambda` of the penalties for rates that violate their bounds. The factor
        must be at least 0. With the readout ``"sqrt_count"``, a weight of 1 performed best in our
        measurements.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``, with the time axis at `time_axis`. The spatial axes
    are flattened into one class axis. `target` holds class indices or class probabilities. Class
    indices are integers of shape ``[batch]``. Class probabilities :math:`q` are floats of shape
    ``[batch, class]``. If the loss has a window, both kinds of targets may also have a time axis.
    Each probability must be finite and at least 0. The probabilities of a sample need not sum to 1.

    If the target holds class probabilities, the term of a sample is :math:`-\sum_c q_c \log p_c`,
    where :math:`p` is the softmax of the logits. With ``reduction="mean"``, the sum of the terms is
    divided by the sum of all :math:`q`. A sample with one-hot probabilities therefore contributes
    the same to the loss as a sample with a class index. A sample whose probabilities are all 0 is
    ignored. Class weights :math:`w` multiply :math:`q` both in the term and in the divisor. To
    divide by the number of samples, as PyTorch does for class probabilities, use
    ``reduction="batchmean"``. Label smoothing with the fraction :math:`\epsilon` replaces :math:`q`
    in the term by :math:`(1 - \epsilon) q + \epsilon \sum_c q_c / C`.

    With ``rates=(r, r')``, the following penalties are added to the term of each sample [4]_:

    .. math::
        \lambda \Bigl( \max\bigl(R(r T) - R(n_{y}), 0\bigr)^2
            + \sum_{c \ne y} \max\bigl(R(n_c) - R(r' T), 0\bigr)^2 \Bigr),
        \qquad R(n) = \sqrt{n + 3/8}

    where :math:`\lambda` is `rate_weight`, and :math:`n` is the spike count. Without a window,
    :math:`T` is the number of unmasked steps. With a window, :math:`T` is the length of the window.
    If a class has several neurons, :math:`n` and :math:`T` are summed over its neurons. If the
    target holds class probabilities, both penalties are computed for each class :math:`c`. The
    penalty for a low rate is multiplied by :math:`q_c / \sum q`, and the penalty for a high rate is
    multiplied by :math:`1 - q_c / \sum q`. All penalties of a sample are then multiplied by
    :math:`\sum_c w_c q_c`. Neither the temperature nor label smoothing affects the penalties. The
    bounds do not affect predictions.

    Masked classes are excluded from the softmax. If only some neurons of a class are masked, the
    spike count of the class is the mean count of its unmasked neurons, multiplied by the number of
    all its neurons. With the readout ``"sqrt_count"`` or the option `rates`, spike counts below
    -1/4 are invalid. An invalid count raises an error if the counts are on the CPU. On a GPU and in
    traced functions, an invalid count makes the loss NaN.

    The loss and its gradient are precise even if the predicted probability of the label is close to
    1. For example, if the labelled class has 25 spikes and the only other class has none, the loss
    is 1.3888e-11 in float32. Taking the logarithm of the softmax would give 0, because the softmax
    is rounded to 1.

    References
    ----------
    .. [1] F. J. Anscombe, "The transformation of Poisson, binomial and negative-binomial data",
       Biometrika 35(3/4), 1948.
    .. [2] I. Hammouamri, I. Khalfaoui-Hassani and T. Masquelier, "Learning delays in spiking neural
       networks using dilated convolutions with learnable spacings", ICLR 2024.
    .. [3] S. Deng, Y. Li, S. Zhang and S. Gu, "Temporal efficient training of spiking neural
       network via gradient re-weighting", ICLR 2022.
    .. [4] We know of no publication that uses this sum. The page :doc:`/which-loss-trains` names
       the sources of the two parts, and shows our measurements.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> # [time, batch, class]
    >>> spikes = np.asarray([[[1, 0]], [[0, 0]], [[1, 1]], [[1, 0]]])
    >>> loss = sx.CrossEntropy(time_axis=0)
    >>> float(loss(spikes, [0]).round(3))  # -log(e^3 / (e^3 + e^1))
    0.127
    >>> float(loss(spikes, [[0.9, 0.1]]).round(3))
    0.327

    In the next example, a penalty is added if the labelled class fires in fewer than half of the
    steps, or if any other class fires in more than 2 % of the steps:

    >>> bounded = sx.CrossEntropy(time_axis=0, rates=(0.5, 0.02))
    >>> float((bounded(spikes, [1]) - loss(spikes, [1])).round(3))
    4.462
    """

    _: KW_ONLY
    readout: EntropyReadout = _checks.option("count", _checks.one_of(READOUTS))
    temperature: float = _checks.option(1.0, _checks.scale)
    label_smoothing: float = _checks.option(0.0, _checks.fraction)
    rates: tuple[float, float] | None = _checks.option(None, _checks.optional(_checks.bounds))
    rate_weight: float = _checks.option(3.0, _checks.not_negative)

    classes_compete: ClassVar[bool] = True
    targets: ClassVar[tuple[Target, ...]] = (CLASS_INDICES, PROBABILITIES)
    _shields_masked: ClassVar[bool] = False
    _sums_neurons: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rates is not None and not READOUTS[self.readout].windowed:
            windowed = ", ".join(name for name, each in READOUTS.items() if each.windowed)
            raise ValueError(
                f"rates are bounds on firing rates, so readout must be one of {windowed}; got "
                f"readout={self.readout!r}"
            )

    def _labels(self, prepared: Trains, target: Any) -> Labels:
        labels = super()._labels(prepared, target)
        return labels.as_numbers(prepared) if self.label_smoothing else labels

    @property
    def _divisor(self) -> float:
        """The number by which ``reading.u`` is divided to obtain logits.

        For latencies, the divisor is negative, so that the class that fires first has the largest
        logit.
        """
        return -self.temperature if self.readout == "latency" else self.temperature

    @property
    def _reads_masked(self) -> bool:  # type: ignore[override]
        return self.readout == "count" and self.rates is None

    def score(self, reading: Reading) -> Array:
        """Return the logits, whose softmax gives the class probabilities."""
        u = reading.u
        if self.readout == "sqrt_count":
            u, _ = _root(reading, u, "readout='sqrt_count'")
        return u if self._divisor == 1 else u / self._divisor

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the cross entropies, plus the penalties for rates that violate their bounds."""
        u, root, to_count = reading.u, None, None
        if self.readout == "sqrt_count":
            root, to_count = _root(reading, u, "readout='sqrt_count'")
            u = root
        terms, to_u = compare_logits(reading, u, labels, self._divisor, self.label_smoothing)
        to_reading = to_u if to_count is None else lambda cotangent: to_count(to_u(cotangent))
        if self.rates is None:
            return terms, to_reading
        outside, outside_to_reading = self._outside(self.rates, reading, labels, root)

        def pullback(cotangent: Array) -> Array:
            return to_reading(cotangent) + outside_to_reading(cotangent)

        return terms + outside, pullback

    def _outside(
        self, rates: tuple[float, float], reading: Reading, labels: Labels, root: Array | None
    ) -> ValueAndPullback:
        """Return the penalties for rates beyond the bounds, and the pullback of the penalties."""
        classes, label, n = reading.classes, labels.indices, reading.u
        factor: Any = self.rate_weight
        if self.readout == "rate":
            n = n * reading.duration
        if root is None:
            root, _ = _root(reading, n, "rates")
        # If the labels are class probabilities, `labels.shares` also applies the class weights.
        if labels.numbers is not None:
            label = labels.numbers
            label = label / or_one(reading.adapter, classes.sum(label))
            factor = factor * labels.shares(reading)
        bounds = tuple(rate * reading.duration for rate in rates)
        terms, to_n = criteria.outside_rates(classes, n, root, label, bounds, reading.class_mask)
        if self.readout == "rate":
            return factor * terms, lambda cotangent: to_n(factor * cotangent) * reading.duration
        return factor * terms, lambda cotangent: to_n(factor * cotangent)


def compare_logits(
    reading: Reading, u: Array, labels: Labels, divisor: float, label_smoothing: float
) -> ValueAndPullback:
    """Return the cross entropy of the softmax of ``u / divisor``, and its pullback to `u`."""
    logit = u if divisor == 1 else u / divisor
    classes, class_mask = reading.classes, reading.class_mask
    if labels.numbers is None:
        terms, to_logit = softmax.cross_entropy_of_logits(
            classes, logit, labels.indices, class_mask
        )
    else:
        q = _probabilities(reading, labels, label_smoothing)
        terms, to_logit = softmax.cross_entropy_of_probabilities(classes, logit, q, class_mask)
    if divisor == 1:
        return terms, to_logit
    return terms, lambda cotangent: to_logit(cotangent) / divisor


def _root(reading: Reading, n: Array, option: str) -> ValueAndPullback:
    """Return ``sqrt(n + 3/8)`` for spike counts `n`, and the pullback.

    A count below -1/4 raises an error if the counts are on the CPU.
    """
    adapter = reading.adapter
    checked = adapter.are_within(n, -0.25, math.inf)
    lowest = None if checked else _checks.lowest_below(adapter.concrete_or_none(n), -0.25)
    if lowest is not None:
        raise ValueError(
            f"input must not have negative spike counts with {option}; got {lowest:g}. For "
            "membrane potentials, use readout='max', 'last', 'rate' or 'softmax_sum', without rates"
        )
    return criteria.root(adapter, n, checked=checked)


def _probabilities(reading: Reading, labels: Labels, label_smoothing: float) -> Array:
    """Return the smoothed label probabilities, multiplied by the class weights.

    The probabilities of masked classes are set to 0.
    """
    xp, classes, class_mask = reading.xp, reading.classes, reading.class_mask
    q = labels.numbers
    if label_smoothing:
        present: Any = classes.length(q)
        if class_mask is not None:
            present = reading.adapter.number(class_mask, q.dtype, classes.index)
        q = (1 - label_smoothing) * q + label_smoothing / present * classes.sum(q)
        if class_mask is not None:
            q = xp.where(class_mask, q, reading.adapter.operand(q, 0.0))
    return q if labels.class_weight is None else q * labels.class_weight
