"""The base class for negative log-likelihoods of recorded spikes."""

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from spikeloss_xp import _checks
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    concrete_or_none,
    on_device_of,
    or_one,
)
from spikeloss_xp._input.labels import Labels, class_weights
from spikeloss_xp._input.prepared import Reading, Trains
from spikeloss_xp._input.targets import CountTrains
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    OptionalArray,
    ScorePer,
)
from spikeloss_xp.losses.trains import TrainLoss

COUNTS = (CountTrains(),)


@dataclass(frozen=True)
class Likelihood(TrainLoss):
    """Base class for negative log-likelihoods of recorded spikes.

    The class also defines scores, such as `bits_per_spike`.
    """

    targets: ClassVar[tuple[CountTrains, ...]] = COUNTS
    smallest_rank: ClassVar[int] = 3
    _largest_mean: ClassVar[float] = math.inf  # the largest mean count that a null model may have
    _of_rates: ClassVar[bool] = False
    """Whether the input holds rates, instead of logarithms of rates or logits."""

    @abstractmethod
    def _input_for(self, adapter: Adapter, mean: Array) -> Array:
        """Return the value of the input for which the predicted mean count is `mean`."""

    @abstractmethod
    def _mean_for(self, adapter: Adapter, u: Array) -> Array:
        """Return the mean count that an input of `u` predicts."""

    def _valid_or_nan(self, reading: Reading, labels: Labels) -> Array:
        """Return the target with its invalid numbers replaced by NaN.

        If the input holds rates, the target is also set to NaN where the rate is negative. On the
        host, nothing is replaced, because invalid numbers have already raised an error.
        """
        adapter, target = reading.adapter, labels.numbers
        if adapter.on_host:
            return target
        valid = self.targets[0].holds(adapter.xp, target)
        if self._of_rates:
            valid = valid & ~(reading.u < 0)
        return adapter.xp.where(valid, target, adapter.operand(target, math.nan))

    @on_device_of("input")
    def bits_per_spike(
        self, input: ArrayT, target: ArrayLike, *, null: OptionalArray = None,
        per: ScorePer = "all", where: OptionalArray = None, lengths: OptionalArray = None,
    ) -> ArrayT:  # fmt: skip
        r"""Return the gain over a null model, in bits per recorded spike.

        .. math:: \frac{L_\text{null} - L}{\log 2 \sum n}

        :math:`L` is the sum of the terms of the loss, and :math:`\sum n` is the number of recorded
        spikes. :math:`L_\text{null}` is the sum of the terms for the null model, which predicts a
        constant mean count for each neuron. The Neural Latents Benchmark uses this score [1]_.

        Parameters
        ----------
        input : array
            The input, in the same form as for a call to the loss.
        target : array or sequence
            The target, in the same form as for a call to the loss.
        null : array or sequence of float, optional
            The mean count of each neuron per time step, of shape ``[neuron]``. You can compute the
            means from the training set, for example. By default, the mean counts are computed from
            the unmasked entries of the target, as in nlb_tools. For `BernoulliNLL`, a mean count is
            the probability of a spike, so it must be at most 1. If the mean count is 0 for a neuron
            with spikes in the target, the score is infinite. To avoid an infinite score, mask the
            neuron with `where`, or pass a small mean count, such as half a spike in the whole
            training set.
        per : {"all", "neuron"}, default "all"
            ``"all"`` returns one score, which is the total gain of all neurons divided by the total
            number of spikes. ``"neuron"`` returns the score of each neuron.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        array
            A scalar array with ``per="all"``, or an array of shape ``[neuron]`` with
            ``per="neuron"``. The score is 0 if the model is as good as the null model, and negative
            if the model is worse. The score is NaN if there are no spikes. With ``per="all"``,
            neurons without spikes contribute to the score too.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid, just as when the loss is called.

        References
        ----------
        .. [1] F. Pei et al., "Neural Latents Benchmark '21: Evaluating latent variable models of
           neural population activity", NeurIPS Datasets and Benchmarks, 2021.

        Examples
        --------
        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> rates, counts = [[[0.5], [0.5], [2.0], [1.0]]], [[[0], [1], [2], [1]]]
        >>> loss = sx.PoissonNLL(time_axis=1, link="identity")
        >>> float(loss.bits_per_spike(np.asarray(rates), counts).round(3))
        0.25
        """
        gain, spikes, _ = self._scored(input, target, null, per, where=where, lengths=lengths)
        score: ArrayT = _quotient(gain, spikes * math.log(2), spikes)
        return score

    @on_device_of("input")
    def deviance_explained(
        self, input: ArrayT, target: ArrayLike, *, null: OptionalArray = None,
        per: ScorePer = "all", where: OptionalArray = None, lengths: OptionalArray = None,
    ) -> ArrayT:  # fmt: skip
        r"""Return the fraction of the null deviance that the model explains.

        .. math:: D^2 = 1 - \frac{L - L_\text{saturated}}{L_\text{null} - L_\text{saturated}}

        The fraction is also called Cohen's pseudo-:math:`R^2` [1]_. :math:`L_\text{saturated}` is
        the loss of the saturated model, which predicts each count exactly. :math:`L_\text{null}` is
        the loss of the null model, which predicts a constant mean count for each neuron.

        Parameters
        ----------
        input : array
            The input, in the same form as for a call to the loss.
        target : array or sequence
            The target, in the same form as for a call to the loss.
        null : array or sequence of float, optional
            The mean count of each neuron per time step, as for `bits_per_spike`.
        per : {"all", "neuron"}, default "all"
            ``"all"`` returns one score, which is computed from sums over all neurons. ``"neuron"``
            returns the score of each neuron.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        array
            A scalar array with ``per="all"``, or an array of shape ``[neuron]`` with
            ``per="neuron"``. The fraction is 1 for the saturated model, and 0 for the null model.
            The fraction is NaN if there are no spikes, and also if
            :math:`L_\text{null} - L_\text{saturated}` is 0 or infinite.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid, just as when the loss is called.

        References
        ----------
        .. [1] J. Cohen et al., "Applied multiple regression/correlation analysis for the behavioral
           sciences", 3rd edition, 2003.

        Examples
        --------
        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> rates, counts = [[[0.5], [0.5], [2.0], [1.0]]], [[[0], [1], [2], [1]]]
        >>> loss = sx.PoissonNLL(time_axis=1, link="identity")
        >>> float(loss.deviance_explained(np.asarray(rates), counts).round(3))
        0.5
        """
        options: Any = {"where": where, "lengths": lengths, "with_saturated": True}
        gain, spikes, possible = self._scored(input, target, null, per, **options)
        score: ArrayT = _quotient(gain, possible, spikes)
        return score

    @on_device_of("input")
    def gain_and_spikes(
        self, input: ArrayT, target: ArrayLike, *, null: ArrayLike, per: ScorePer = "all",
        where: OptionalArray = None, lengths: OptionalArray = None,
    ) -> tuple[ArrayT, ArrayT]:  # fmt: skip
        """Return the gain over the null model (in nats) and the number of recorded spikes.

        Use this method if the data are split between micro-batches, processes or segments of time.
        Add up the gains of all parts, and add up the numbers of spikes of all parts. To get
        `bits_per_spike` for all the data, divide the total gain by the total number of spikes and
        by ``log(2)``.

        Parameters
        ----------
        input : array
            The input, in the same form as for a call to the loss.
        target : array or sequence
            The target, in the same form as for a call to the loss.
        null : array or sequence of float
            The mean count of each neuron per time step, of shape ``[neuron]``. `null` is required,
            because each part of the data must be compared with the same null model.
        per : {"all", "neuron"}, default "all"
            Whether to return sums over all neurons, or separate sums for each neuron.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        tuple of array
            The gain and the number of spikes: two scalar arrays with ``per="all"``, or two arrays
            of shape ``[neuron]`` with ``per="neuron"``.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid, just as when the loss is called.

        Examples
        --------
        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss, counts = sx.PoissonNLL(time_axis=1, link="identity"), np.ones((1, 4, 1))
        >>> gain, spikes = loss.gain_and_spikes(counts, counts, null=[0.5])
        >>> float(gain.round(3)), float(spikes)
        (0.773, 4.0)
        """
        if null is None:
            raise TypeError(
                "null must hold the mean count of each neuron, so that all parts of the data are "
                "compared with the same null model; got None"
            )
        return self._scored(input, target, null, per, where=where, lengths=lengths)[:2]

    def _scored(
        self, input: Array, target: Any, null: Any, per: str, with_saturated: bool = False,
        **masks: Any,
    ) -> tuple[Array, Array, Any]:  # fmt: skip
        """Return the gain in nats, the number of spikes, and the gain of the saturated model.

        The gain of a model is the loss of the null model minus the loss of the model.
        """
        _checks.one_of(("all", "neuron"))(per, "per")
        prepared, labels = self._prepare(input, target, masks)
        self._warn_of_unit(prepared, labels.numbers)
        return self._gains(prepared, labels, null, per, with_saturated)

    def _warn_of_unit(self, prepared: Trains, counts: Array) -> None:
        """Warn that the rates may be in Hz if the highest rate is far above the largest count."""
        adapter = prepared.adapter
        rates = self._mean_for(adapter, prepared.filled().values)
        known, recorded = (adapter.concrete_or_none(x) for x in (rates, counts))
        if known is None or recorded is None:
            return
        highest, most = known.max(), max(recorded.max(), 1)
        if highest > 100 * most:
            warnings.warn(
                f"the highest predicted rate is {highest:.3g} spikes in a time step, but no count "
                f"is above {most:g}: if the rates are in Hz, multiply them by time_step, the "
                "duration of a step in seconds",
                stacklevel=3,
            )

    def _gains(
        self, prepared: Trains, labels: Labels, null: Any, per: str, with_saturated: bool = False
    ) -> tuple[Array, Array, Any]:
        """Return the results of `_scored` for arguments that have been checked and converted."""
        adapter, layout, counts = prepared.adapter, prepared.layout, labels.numbers

        def summed(x: Array) -> Array:
            if per == "all":
                return adapter.sum_all(x)
            return adapter.xp.sum(x, axis=(layout.batch_axis, layout.time))

        def terms(values: Array) -> Array:
            values = adapter.xp.broadcast_to(values, counts.shape)
            return self._terms(prepared.part(values, prepared.mask), labels).values

        if null is None:
            mean = _means(prepared, counts)
        else:
            mean = self._given_means(prepared, null, counts)
        of_null = terms(self._input_for(adapter, mean))
        of_saturated = (
            summed(of_null - terms(self._input_for(adapter, counts))) if with_saturated else None
        )
        return summed(of_null - terms(prepared.values)), summed(counts), of_saturated

    def _given_means(self, prepared: Trains, null: Any, counts: Array) -> Array:
        """Check the means of the null model, and reshape them to broadcast to the input."""
        means = class_weights(prepared, null, "neuron", "null")
        known = concrete_or_none(null)
        if known is not None and (known > self._largest_mean).any():
            raise ValueError(
                f"null must hold spike probabilities, which are at most 1; got {known.tolist()}"
            )
        if known is not None and (known == 0).any():
            axes = prepared.layout.batch_axis, prepared.layout.time
            spikes = concrete_or_none(prepared.adapter.xp.sum(counts, axis=axes))
            if spikes is not None and spikes[known == 0].any():
                warnings.warn(
                    "null is 0 for a neuron with spikes in the target, so the gain is infinite: "
                    "leave such neurons out with where=..., or give them a small mean in null",
                    stacklevel=2,
                )
        return means


def _means(prepared: Trains, counts: Array) -> Array:
    """Return the mean count of each neuron. The mean is 0 if all entries of a neuron are masked."""
    adapter, layout, steps = prepared.adapter, prepared.layout, prepared.mask
    xp, axes = adapter.xp, (layout.batch_axis, layout.time)
    if steps is None:
        return xp.mean(counts, axis=axes, keepdims=True)
    steps = xp.sum(xp.astype(steps, counts.dtype), axis=axes, keepdims=True)
    return xp.sum(counts, axis=axes, keepdims=True) / or_one(adapter, steps)


def _quotient(gain: Array, divisor: Array, spikes: Array) -> Array:
    """Return ``gain / divisor``, or NaN if the quotient is undefined or there are no spikes."""
    xp, known = adapter_of(gain).xp, (spikes > 0) & (divisor > 0) & (divisor < math.inf)
    return xp.where(known, gain / xp.where(known, divisor, 1.0), math.nan)
