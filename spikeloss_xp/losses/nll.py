"""PoissonNLL, NegativeBinomialNLL and BernoulliNLL: negative log-likelihoods of recorded spikes."""

import math
from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from spikeloss_xp import _checks, criteria
from spikeloss_xp._arrays import Adapter
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Reading, Trains, check_number
from spikeloss_xp._input.targets import BinaryTrains, CountTrains, WholeCountTrains
from spikeloss_xp._typing import Array, Link, PerClass, RateLink, ValueAndPullback
from spikeloss_xp.losses.likelihood import COUNTS, Likelihood

WHOLE_COUNTS = (WholeCountTrains(),)


@dataclass(frozen=True)
class CountNLL(Likelihood):
    """Base class for negative log-likelihoods of spike counts, given the predicted rates."""

    _: KW_ONLY
    link: RateLink = _checks.option("log", _checks.one_of(("log", "identity")))
    constant: bool = _checks.option(False, _checks.flag)

    @property
    def targets(self) -> tuple[CountTrains, ...]:  # type: ignore[override]
        """The loss accepts spike counts, which must be whole numbers if `constant` is True."""
        return WHOLE_COUNTS if self.constant else COUNTS

    @property
    def _of_rates(self) -> bool:  # type: ignore[override]
        """Whether the input holds rates, instead of logarithms of rates."""
        return self.link == "identity"

    @property
    def _shields_masked(self) -> bool:  # type: ignore[override]
        """Whether masked entries of the input are replaced by 1.

        Masked rates are replaced, because masked rates are 0 and the logarithm of 0 is infinite.
        """
        return self._of_rates

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the negative log-likelihood of each count."""
        adapter, u = reading.adapter, reading.u
        positive = self._of_rates and adapter.are_within(u, criteria.TINY, math.inf)
        if self._of_rates and not positive:
            _check_rates(adapter, u)
        return self._of_counts(reading, self._valid_or_nan(reading, labels), positive)

    @abstractmethod
    def _of_counts(self, reading: Reading, n: Array, positive: bool) -> ValueAndPullback:
        """Return the terms for the counts `n`. If `positive` is True, all rates are above 0."""

    def _input_for(self, adapter: Adapter, mean: Array) -> Array:
        return mean if self._of_rates else _log(adapter, mean)

    def _mean_for(self, adapter: Adapter, u: Array) -> Array:
        return u if self._of_rates else adapter.xp.exp(u)


@dataclass(frozen=True)
class PoissonNLL(CountNLL):
    r"""Negative log-likelihood of spike counts under a Poisson distribution with predicted rates.

    .. math:: L = \frac{1}{B C T} \sum_{b, c, t} (r - n \log r)_{b, c, t}

    :math:`n` is the recorded spike count in a time step, and the rate :math:`r` is the predicted
    mean of this count.

    Parameters
    ----------
    time_axis : int
        The time axis of `input` and `target`: 0 for ``[time, batch, neuron]``, 1 for
        ``[batch, time, neuron]``, and -1 for ``[batch, neuron, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms.
    link : {"log", "identity"}, default "log"
        Determines what `input` holds. With ``"log"``, `input` holds the logarithms of rates. With
        ``"identity"``, `input` holds rates, which are at least 0. Rates are in spikes per time
        step. Divide rates in Hz by the number of time steps per second.
    constant : bool, default False
        Whether to add :math:`\log n!`, which does not depend on the input. If `constant` is True,
        all counts must be whole numbers. If `constant` is False, counts may be fractions, such as
        means over trials.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    BernoulliNLL : The negative log-likelihood of trains with at most one spike in a time step.

    Notes
    -----
    `input` has the axes batch, time and neuron, in the order that `time_axis` defines. `target`
    holds spike counts and has the same shape as `input`. If missing counts are NaN, pass
    ``where=~isnan(counts)`` to leave them out. To weight the neurons, pass `weight`.

    If a count and its predicted rate are both 0, the term is 0. If a count is above 0 but its
    predicted rate is 0, the loss is infinite. If a predicted rate is infinite, the loss is infinite
    or NaN.

    The loss is the negative log-likelihood of a point process whose spikes are counted in bins of
    one time step [1]_.

    References
    ----------
    .. [1] W. Truccolo, U. T. Eden, M. R. Fellows, J. P. Donoghue and E. N. Brown, "A point process
       framework for relating neural spiking activity to spiking history, neural ensemble, and
       extrinsic covariate effects", Journal of Neurophysiology 93(2), 2005.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> log_rates = np.log([[[0.5], [0.5], [2.0], [1.0]]])
    >>> counts = [[[0], [1], [2], [1]]]
    >>> loss = sx.PoissonNLL(time_axis=1)
    >>> float(loss(log_rates, counts).round(3))
    0.827
    >>> float(loss.bits_per_spike(log_rates, counts).round(3))
    0.25
    """

    def _of_counts(self, reading: Reading, n: Array, positive: bool) -> ValueAndPullback:
        """Return ``r - n log(r)``, plus ``log(n!)`` if `constant` is True."""
        adapter, u = reading.adapter, reading.u
        if self._of_rates:
            terms, pullback = criteria.poisson_of_rates(adapter, u, n, positive=positive)
        else:
            terms, pullback = criteria.poisson_of_log_rates(adapter, u, n)
        return terms + criteria.log_factorial(adapter, n) if self.constant else terms, pullback


@dataclass(frozen=True)
class NegativeBinomialNLL(CountNLL):
    r"""Negative log-likelihood of spike counts whose variance is larger than their mean.

    .. math::
        L = \frac{1}{B C T} \sum_{b, c, t} \Bigl(
        \bigl(n + \tfrac{1}{a}\bigr) \log(1 + a r) - n \log r \Bigr)_{b, c, t}

    :math:`n` is the recorded spike count in a time step, and the rate :math:`r` is the predicted
    mean of this count. The variance of the count is :math:`r + a r^2`, where :math:`a` is the
    dispersion.

    Parameters
    ----------
    time_axis : int
        The time axis of `input` and `target`: 0 for ``[time, batch, neuron]``, 1 for
        ``[batch, time, neuron]``, and -1 for ``[batch, neuron, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms.
    link : {"log", "identity"}, default "log"
        Determines what `input` holds. With ``"log"``, `input` holds the logarithms of rates. With
        ``"identity"``, `input` holds rates, which are at least 0. Rates are in spikes per time
        step. Divide rates in Hz by the number of time steps per second.
    constant : bool, default False
        Whether to add :math:`\log n! - \sum_{j<n} \log(1 + a j)`, which does not depend on the
        input. With this constant, each term is the negative logarithm of the probability of a
        count. If `constant` is True, all counts must be whole numbers. If `constant` is False,
        counts may be fractions, such as means over trials.
    dispersion : float or sequence of float
        The dispersion :math:`a`, from 0 to 1e6. With a dispersion of 0, the counts have a Poisson
        distribution, as in `PoissonNLL`. Pass one number for all neurons, or a sequence with one
        number for each neuron. The dispersion is a hyper-parameter, so it is not learned.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    PoissonNLL : The negative log-likelihood of counts whose variance equals their mean.

    Notes
    -----
    `input` has the axes batch, time and neuron, in the order that `time_axis` defines. `target`
    holds spike counts and has the same shape as `input`. If missing counts are NaN, pass
    ``where=~isnan(counts)`` to leave them out. To weight the neurons, pass `weight`.

    If a count and its predicted rate are both 0, the term is 0. If a count is above 0 but its
    predicted rate is 0, the loss is infinite. If a predicted rate is infinite, the loss is infinite
    or NaN.

    Counts have a negative binomial distribution if a neuron fires as a Poisson process whose rate
    is multiplied by a random factor in each time step. The factor must have a gamma distribution
    with mean 1 and variance :math:`a` [1]_.

    References
    ----------
    .. [1] R. L. T. Goris, J. A. Movshon and E. P. Simoncelli, "Partitioning neuronal variability",
       Nature Neuroscience 17, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> log_rates = np.log([[[0.5], [0.5], [2.0], [1.0]]])
    >>> counts = [[[0], [0], [5], [1]]]
    >>> loss = sx.NegativeBinomialNLL(time_axis=1, dispersion=0.5)
    >>> float(loss(log_rates, counts).round(3))
    0.874
    >>> float(loss.bits_per_spike(log_rates, counts).round(3))
    0.458
    """

    _: KW_ONLY
    dispersion: PerClass = field(
        metadata=_checks.checked_by(_checks.one_or_more(_checks.dispersion))
    )

    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Trains:
        prepared = super()._prepare_input(input, where, lengths, context)
        check_number(prepared, self.dispersion, "dispersion", "neuron")
        return prepared

    def _chunk_axes(self, prepared: Trains) -> tuple[int, ...]:
        axes, neurons = super()._chunk_axes(prepared), prepared.layout.class_axis
        if isinstance(self.dispersion, tuple):  # `dispersion` is not split into chunks
            return tuple(axis for axis in axes if axis != neurons)
        return axes

    def _of_counts(self, reading: Reading, n: Array, positive: bool) -> ValueAndPullback:
        """Return ``(n + 1/a) log(1 + a r) - n log(r)``. If `constant` is True, add a constant."""
        given = self.dispersion if isinstance(self.dispersion, tuple) else (self.dispersion,)
        # A dispersion of `smallest` gives the same terms as a dispersion of 0, up to rounding.
        smallest = reading.xp.finfo(reading.u.dtype).eps ** 2
        a = reading.per_class(tuple(max(each, smallest) for each in given))
        arguments, constant = (reading.adapter, reading.u, n, a), self.constant
        if self._of_rates:
            return criteria.negative_binomial_of_rates(
                *arguments, positive=positive, constant=constant
            )
        return criteria.negative_binomial_of_log_rates(*arguments, constant=constant)


@dataclass(frozen=True)
class BernoulliNLL(Likelihood):
    r"""Negative log-likelihood of binary spikes with predicted probabilities.

    .. math:: L = -\frac{1}{B C T} \sum_{b, c, t} (s \log p + (1 - s) \log(1 - p))_{b, c, t}

    :math:`s` is 1 if the neuron fires in a time step, and 0 if it does not. :math:`p` is the
    predicted probability that the neuron fires.

    Parameters
    ----------
    time_axis : int
        The time axis of `input` and `target`: 0 for ``[time, batch, neuron]``, 1 for
        ``[batch, time, neuron]``, and -1 for ``[batch, neuron, time]``.
    reduction : {"mean", "sum", "batchmean", "none"}, default "mean"
        How the terms of the loss are reduced to a result. ``"mean"`` returns the mean of the terms,
        ``"sum"`` returns their sum, and ``"batchmean"`` returns their sum divided by the number of
        samples. ``"none"`` returns all terms.
    link : {"logit", "hazard"}, default "logit"
        Determines what `input` holds. With ``"logit"``, `input` holds logits :math:`z`, and the
        probability is :math:`p = 1 / (1 + e^{-z})`. With ``"hazard"``, `input` holds the logarithms
        of escape rates :math:`r`, and the probability is :math:`p = 1 - e^{-r}` [1]_. The escape
        rate of a neuron with escape noise is its expected number of spikes per time step.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is out of range or has the wrong type.

    See Also
    --------
    PoissonNLL : The negative log-likelihood of spike counts, which may be above 1.

    Notes
    -----
    `input` has the axes batch, time and neuron, in the order that `time_axis` defines. `target` has
    the same shape as `input`, and holds bools or the numbers 0 and 1. To leave out missing entries,
    pass `where`. To weight the neurons, pass `weight`.

    References
    ----------
    .. [1] J.-P. Pfister, T. Toyoizumi, D. Barber and W. Gerstner, "Optimal spike-timing-dependent
       plasticity for precise action potential firing in supervised learning", Neural Computation
       18(6), 2006.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> log_rates = np.log([[[0.5], [0.1], [0.7], [0.1]]])
    >>> spikes = [[[0], [0], [1], [0]]]
    >>> float(sx.BernoulliNLL(time_axis=1, link="hazard")(log_rates, spikes).round(3))
    0.347
    """

    targets: ClassVar[tuple[CountTrains, ...]] = (BinaryTrains(),)
    _shields_masked: ClassVar[bool] = False
    _largest_mean: ClassVar[float] = 1.0

    _: KW_ONLY
    link: Link = _checks.option("logit", _checks.one_of(("logit", "hazard")))

    def criterion(self, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the negative log-probability of each entry of the target."""
        adapter, u, spike = reading.adapter, reading.u, self._valid_or_nan(reading, labels)
        if self.link == "logit":
            return criteria.bernoulli_of_logits(adapter, u, spike)
        return criteria.bernoulli_of_log_hazards(adapter, u, spike)

    def _input_for(self, adapter: Adapter, mean: Array) -> Array:
        xp = adapter.xp
        certain = mean == 1
        log_rest = xp.where(certain, -math.inf, xp.log1p(-xp.where(certain, 0.0, mean)))
        return _log(adapter, mean) - log_rest if self.link == "logit" else _log(adapter, -log_rest)

    def _mean_for(self, adapter: Adapter, u: Array) -> Array:
        xp = adapter.xp
        return 1 / (1 + xp.exp(-u)) if self.link == "logit" else -xp.expm1(-xp.exp(u))


def _check_rates(adapter: Adapter, u: Array) -> None:
    """Raise an error if a rate is negative.

    Rates on a GPU and rates in traced functions are not checked.
    """
    lowest = _checks.lowest_below(adapter.concrete_or_none(u), 0)
    if lowest is not None:
        raise ValueError(
            f"input must hold rates, which are not negative; got {lowest:g} (for logarithms of "
            'rates, use link="log")'
        )


def _log(adapter: Adapter, x: Array) -> Array:
    """Return ``log(x)``, which is ``-inf`` for ``x = 0``, without a warning from NumPy."""
    xp = adapter.xp
    return xp.where(x == 0, -math.inf, xp.log(xp.where(x == 0, 1.0, x)))
