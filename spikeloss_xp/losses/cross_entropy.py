"""CrossEntropy: the cross entropy of the softmax, with spike counts or other readings as logits."""

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, get_args

from spikeloss_xp import _checks, criteria
from spikeloss_xp._arrays import or_one
from spikeloss_xp._input.labels import INDICES, PROBABILITIES, Labels
from spikeloss_xp._typing import Array, EntropyReadout, ValueAndPullback
from spikeloss_xp.losses.classes import COUNTED, ClassLoss
from spikeloss_xp.readouts import WINDOWED, Reading


@dataclass(frozen=True)
class CrossEntropy(ClassLoss):
    r"""Cross entropy of the softmax, with the numbers of spikes or other readings as logits.

    .. math::
        L = \frac{1}{B} \sum_b
            \Bigl( \log \sum_c e^{u_{b, c} / \rho} - \frac{u_{b, y_b}}{\rho} \Bigr)

    with the reading :math:`u`, by default the number of spikes, the label :math:`y` and the
    temperature :math:`\rho`. With a moving window there is a term at each step.

    Parameters
    ----------
    time_axis : int
        The axis of `input` that is time: 0 for ``[time, batch, class]``, 1 for
        ``[batch, time, class]``, and -1 for ``[batch, class, time]``. Targets and terms with a time
        axis have it there too.
    readout : str, default "count"
        The reading of a class:

        - ``"count"``: its number of spikes :math:`n`;
        - ``"sqrt_count"``: :math:`\sqrt{n + 3/8}`. If spikes are random, its standard deviation is
          near 1/2 for any mean of :math:`n` [1]_. Its derivative is 0.82 at silence, and 0.10 at
          25 spikes;
        - ``"rate"``: its number of spikes divided by that of steps;
        - ``"max"``, ``"last"``: the largest or the last value of a membrane potential;
        - ``"latency"``: the number of steps before its first spike. The earliest class has the
          largest probability, and a tenth of the steps is a good first `temperature`;
        - ``"softmax_sum"``: the sum over time of its probability in a softmax of the potentials at
          each step [2]_.
    moving_window : int, optional
        Length of a moving window, in time steps, for a term at each step; with the first three
        readouts only. With a window of 1 the logits of a step are the input at that step, as in
        temporal efficient training [3]_. By default the reading is over the whole duration.
    temperature : float, default 1
        The divisor :math:`\rho` of the logits, in the unit of the reading; above 0.
    label_smoothing : float, default 0
        The fraction of a label that is spread evenly over all classes; at least 0 and below 1.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        Return the mean of the terms, their sum, their sum divided by the number of samples, or the
        terms: ``[batch]``, or ``[batch, time]`` with a window.
    num_classes : int, optional
        The number of classes. Each class is a group of neighbouring neurons: their sum with the
        first two readouts, and their mean with the others. By default each neuron is a class.
    ignore_index : int, default -100
        The class index of samples or steps that have no terms.
    rates : tuple of float, optional
        Bounds on the rates of the neurons, in spikes per time step, for the first three readouts:
        the lowest rate of the label and the highest of the other classes, as ``(0.5, 0.02)``. A
        neuron beyond its bound is pulled back to it, a silent one too. By default there is none.
    rate_weight : float, default 3
        The weight of the bounds beside the cross entropy, at least 0. With ``"sqrt_count"`` 1 was
        the best of those that were measured.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Notes
    -----
    `input` has shape ``[batch, *space, time]``, with the time axis at `time_axis`. The space axes
    are flattened to one class axis. `target` holds class indices, integers of shape ``[batch]`` or,
    with a window, ``[batch, time]``; or class probabilities :math:`q`, floats of shape
    ``[batch, class]`` or, with a window, also ``[batch, class, time]``. They are finite and at
    least 0, and need not sum to 1.

    The term of a row of probabilities is :math:`-\sum_c q_c \log p_c`, and a mean divides by the
    sum of all :math:`q`. So a row with a single 1 counts as a class index does, and a row of zeros
    does not count. Class weights :math:`w` multiply :math:`q` in both. (PyTorch divides by the
    number of samples, as ``"batchmean"`` does.) Label smoothing replaces :math:`q` in the term by
    :math:`(1 - \epsilon) q + \epsilon \sum_c q_c / C`.

    With `rates`, :math:`(r, r')`, the term of a sample has in addition [4]_

    .. math::
        \lambda \Bigl( \max\bigl(R(r T) - R(n_{y}), 0\bigr)^2
            + \sum_{c \ne y} \max\bigl(R(n_c) - R(r' T), 0\bigr)^2 \Bigr),
        \qquad R(n) = \sqrt{n + 3/8}

    with the `rate_weight` :math:`\lambda`, the numbers of spikes :math:`n`, and the number of steps
    that count, :math:`T`; with a window it is the window's length. A class of several neurons has
    the sum of their spikes and as many times the steps. Of class probabilities each class is the
    label by its share :math:`q_c / \sum q`, and another class by the rest, and a row is multiplied
    by :math:`\sum_c w_c q_c`. Temperature and smoothing do not change the bounds, and `predict`
    does not know them.

    Masked classes take no part. If some neurons of a class are masked, its sum is scaled up to all
    of them. With ``"sqrt_count"`` a number of spikes below 0 raises an error where values can be
    read for free; elsewhere it makes the loss NaN.

    The loss of a certain label keeps its digits, and so does the gradient: 25 spikes against none
    are 1.3888e-11 in float32, where the logarithm of a softmax is 0.

    References
    ----------
    .. [1] F. J. Anscombe, "The transformation of Poisson, binomial and negative-binomial data",
       Biometrika 35(3/4), 1948.
    .. [2] I. Hammouamri, I. Khalfaoui-Hassani and T. Masquelier, "Learning delays in spiking neural
       networks using dilated convolutions with learnable spacings", ICLR 2024.
    .. [3] S. Deng, Y. Li, S. Zhang and S. Gu, "Temporal efficient training of spiking neural
       network via gradient re-weighting", ICLR 2022.
    .. [4] We know of no publication that has this sum. :doc:`/which-loss-trains` names the sources
       of its parts, and has the measurement.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])  # one sample, two classes, four steps
    >>> loss = sx.CrossEntropy(time_axis=-1)
    >>> float(loss(spikes, [0]).round(3))  # -log(e^3 / (e^3 + e^1))
    0.127
    >>> float(loss(spikes, [[0.9, 0.1]]).round(3))
    0.327

    Bounds on the rates pull a silent label, and stop when its neuron fires at half the steps:

    >>> bounded = sx.CrossEntropy(time_axis=-1, rates=(0.5, 0.02))
    >>> float((bounded(spikes, [1]) - loss(spikes, [1])).round(3))
    4.462
    """

    _: KW_ONLY
    readout: EntropyReadout = "count"
    temperature: float = 1.0
    label_smoothing: float = 0.0
    rates: tuple[float, float] | None = None
    rate_weight: float = 3.0

    classes_compete: ClassVar[bool] = True
    targets: ClassVar[tuple[str, ...]] = (INDICES, PROBABILITIES)
    readouts: ClassVar[tuple[str, ...]] = get_args(EntropyReadout)
    _summed: ClassVar[tuple[str, ...]] = ("count", "sqrt_count")

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(
            self,
            temperature=_checks.scale,
            label_smoothing=_checks.fraction,
            rates=_checks.optional(_checks.bounds),
            rate_weight=_checks.not_negative,
        )
        if self.rates is not None and self.readout not in WINDOWED:
            raise ValueError(
                f"rates bounds numbers of spikes, which {', '.join(WINDOWED)} read; got "
                f"readout={self.readout!r}"
            )

    @property
    def _compares_numbers(self) -> bool:  # type: ignore[override]
        return self.label_smoothing > 0

    @property
    def _divisor(self) -> float:
        """The divisor of the readings; the earliest class is the most probable one."""
        return -self.temperature if self.readout == "latency" else self.temperature

    @property
    def expects_spikes(self) -> bool:  # type: ignore[override]
        """Whether the input should hold numbers of spikes, and not also membrane potentials."""
        mean_of_potentials = self.readout == "rate" and self.rates is None
        return super().expects_spikes and not mean_of_potentials

    def value_of_equal_scores(self, classes: int) -> float | None:
        """Return the logarithm of the number of classes, if there are no bounds on the rates."""
        return math.log(classes) if self.rates is None else None

    def findings(self, input: Any) -> Iterator[tuple[str, str]]:
        """Yield a finding if the temperature does not fit the range of the logits."""
        if self.readout in COUNTED:
            steps = self.moving_window or input.shape[self.time_axis]
            largest = {"rate": 1, "sqrt_count": math.sqrt(steps)}.get(self.readout, steps)
            yield from unfit_temperature(largest, steps, self.temperature)

    def score(self, reading: Reading) -> Array:
        """Return the logits of the classes, whose softmax has the probabilities."""
        u = reading.u
        if self.readout == "sqrt_count":
            u, _ = _root(reading, u, "readout='sqrt_count'")
        return u if self._divisor == 1 else u / self._divisor

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the cross entropies, plus the penalties of rates beyond their bounds."""
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
        """Return the terms of the bounds on the rates, and their pullback."""
        classes, label, n = reading.classes, labels.indices, reading.u
        factor: Any = self.rate_weight
        if self.readout == "rate":
            n = n * reading.duration
        if root is None:
            root, _ = _root(reading, n, "rates")
        if labels.numbers is not None:  # the terms include the class weights
            label = labels.numbers
            label = label / or_one(reading.adapter, classes.sum(label))
            factor = factor * labels.weights(reading, compete=True)[1]
        bounds = tuple(rate * reading.duration for rate in rates)
        terms, to_n = criteria.outside_rates(classes, n, root, label, bounds, reading.class_mask)
        if self.readout == "rate":
            return factor * terms, lambda cotangent: to_n(factor * cotangent) * reading.duration
        return factor * terms, lambda cotangent: to_n(factor * cotangent)


def unfit_temperature(
    largest: float, steps: float, temperature: float
) -> Iterator[tuple[str, str]]:
    """Yield a finding if logits up to `largest` differ too little or too much in a softmax."""
    range_of_logits = largest / temperature
    if not 0.1 < range_of_logits < 30 * steps:
        seen = f"logits differ by {range_of_logits:.3g} at most, in {steps:g} steps"
        yield "temperature", seen


def compare_logits(
    reading: Reading, u: Array, labels: Labels, divisor: float, label_smoothing: float
) -> ValueAndPullback:
    """Return the cross entropy of the softmax of ``u / divisor``, and its pullback to `u`."""
    logit = u if divisor == 1 else u / divisor
    classes, class_mask = reading.classes, reading.class_mask
    if labels.numbers is None:
        terms, to_logit = criteria.cross_entropy_of_logits(
            classes, logit, labels.indices, class_mask
        )
    else:
        q = _probabilities(reading, labels, label_smoothing)
        terms, to_logit = criteria.cross_entropy_of_probabilities(classes, logit, q, class_mask)
    if divisor == 1:
        return terms, to_logit
    return terms, lambda cotangent: to_logit(cotangent) / divisor


def _root(reading: Reading, n: Array, option: str) -> ValueAndPullback:
    """Return the square roots of numbers of spikes, which an option needs, and their pullback."""
    adapter = reading.adapter
    checked = adapter.are_within(n, -0.25, math.inf)
    lowest = None if checked else _checks.lowest_below(adapter.concrete_or_none(n), -0.25)
    if lowest is not None:
        raise ValueError(
            f"input must have no number of spikes below 0 with {option}; membrane "
            "potentials need readout='max', 'last', 'rate' or 'softmax_sum', without rates. "
            f"Got {lowest:g}"
        )
    return criteria.root(adapter, n, checked=checked)


def _probabilities(reading: Reading, labels: Labels, label_smoothing: float) -> Array:
    """Return the smoothed labels times the class weights, which are 0 for masked classes."""
    xp, classes, class_mask, q = reading.xp, reading.classes, reading.class_mask, labels.numbers
    if label_smoothing:
        present: Any = classes.length(q)
        if class_mask is not None:
            present = classes.sum(xp.astype(class_mask, q.dtype))
        q = (1 - label_smoothing) * q + label_smoothing / present * classes.sum(q)
        if class_mask is not None:
            q = xp.where(class_mask, q, 0.0)
    return q if labels.class_weight is None else q * labels.class_weight
