"""Properties of losses that `diagnose` uses, and findings about the options of losses.

Users can register functions for their own losses with ``@findings.register``.
"""

import math
from functools import singledispatch
from typing import Any

from spikeloss_xp import losses, times
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis._report import Observations
from spikeloss_xp.losses.likelihood import Likelihood
from spikeloss_xp.readouts import READOUTS
from spikeloss_xp.times.first_spike import TimesLoss


def value_of_equal_scores(loss: Any, classes: int) -> float | None:
    """Return the value of the loss for equal scores of all classes, or None if it is unknown."""
    is_entropy = isinstance(loss, losses.CrossEntropy | times.CrossEntropy)
    return math.log(classes) if is_entropy and getattr(loss, "rates", None) is None else None


def expects_spikes(loss: Any) -> bool:
    """Return True if the input must be spikes, and False if it may also be potentials."""
    if not isinstance(loss, losses.ClassLoss) or isinstance(loss, losses.SquaredError):
        return False
    if isinstance(loss, losses.CrossEntropy) and (loss.readout, loss.rates) == ("rate", None):
        return False  # this loss accepts potentials, and uses their mean
    return READOUTS[loss.readout].of_spikes and loss.moving_window != 1


def reads_times(loss: Any) -> bool:
    """Return whether the input of a loss holds spike times instead of binned spikes."""
    return isinstance(loss, TimesLoss)


def reads_rates(loss: Any) -> bool:
    """Return whether the input of a loss holds predicted rates or logits instead of spikes."""
    return isinstance(loss, Likelihood)


def spike_mask(loss: TimesLoss, times: Array) -> Array:
    """Return a mask that is True for finite times before `silent_time`."""
    return times < getattr(loss, "silent_time", math.inf)


def totals(loss: Any, prepared: Trains, labels: Labels) -> dict[str, Array]:
    """Return the sums from which `diagnose` computes the numbers and findings of a likelihood.

    ``"gain"``, ``"recorded"`` and ``"predicted"`` are arrays with a sum for each neuron. The gain
    is the log-likelihood of the predicted rates, minus the log-likelihood of a constant rate.
    """
    adapter, layout, values = prepared.adapter, prepared.layout, prepared.filled().values
    xp, predicted = adapter.xp, loss._mean_for(adapter, values)
    if prepared.mask is not None:
        predicted = adapter.masked(predicted, prepared.mask)
    gain, recorded, _ = loss._gains(prepared, labels, None, "neuron")
    return {
        "gain": gain,
        "recorded": recorded,
        "predicted": xp.sum(predicted, axis=(layout.batch_axis, layout.time)),
        "lowest": xp.min(values),
        "highest": xp.max(values),
    }


@singledispatch
def findings(loss: Any, batch: Any) -> Observations:
    """Yield the findings about the options of a loss.

    To add findings about a class of losses, register a function with ``@findings.register``, as in
    the example below. `diagnose` calls this function in addition to the functions that are
    registered for the base classes. The function yields either `Finding` objects or tuples of two
    strings. The first string is the code of a finding in the guide "What diagnose finds". The
    second string describes the evidence in the batch.

    Parameters
    ----------
    loss : object
        The loss. The class of the loss decides which registered functions are called.
    batch : object
        The measurements of `diagnose` on the batch. The measurements are attributes, such as
        ``value``, ``accuracy``, ``fires`` and ``layout``.

    Yields
    ------
    tuple of str or Finding
        A code and a description, or a finding.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> from spikeloss_xp.diagnosis import Finding, findings
    >>> class OwnError(sx.SquaredError):
    ...     pass
    >>> @findings.register
    ... def findings_of_own_error(loss: OwnError, batch):
    ...     if batch.value > 1:
    ...         seen = f"the loss is {batch.value:g}"
    ...         why = "Rates are at most 1."
    ...         yield Finding("far-off", "note", seen, why, "Divide the target.")
    >>> loss, spikes = OwnError(time_axis=0), np.eye(3)[:, None]
    >>> report = sx.diagnose(loss, spikes, [[2.0, 2.0, 2.0]])
    >>> [finding.seen for finding in report.findings if finding.code == "far-off"]
    ['the loss is 2.77778']
    """
    return iter(())


def of_options(loss: Any, batch: Any) -> Observations:
    """Yield the findings about the options of a loss."""
    for kind in type(loss).__mro__[:-1]:
        if kind in findings.registry:
            yield from findings.registry[kind](loss, batch)


@findings.register(losses.CrossEntropy)
@findings.register(times.CrossEntropy)
def _of_logits(loss: Any, batch: Any) -> Observations:
    """Yield a finding if the logits of a sample are too close together or too far apart."""
    if batch.fires.any() and (0 < batch.range < 1 or batch.range > 1000):  # False for NaN
        yield "temperature", f"the logits of a sample differ by at most {batch.range:.3g}"
    if getattr(loss, "rates", None) is not None:  # bounds on rates
        yield from _counts_in_one_step(batch)


@findings.register
def _of_filter(loss: losses.SpikeTime, batch: Any) -> Observations:
    if loss.kernel is None and loss.time_constant < 1:
        yield "time-constant", f"time_constant={loss.time_constant:g} steps"


@findings.register
def _of_rates(loss: losses.SpikeRate, batch: Any) -> Observations:
    """Yield a finding if the input holds spike counts over several steps, and not rates."""
    if batch.output.holds_spikes:
        yield from _counts_in_one_step(batch)


def _counts_in_one_step(batch: Any) -> Observations:
    highest = batch.found["sample"].max()
    if batch.layout.steps == 1 and highest > 1:
        yield "impossible-rate", f"the input has one time step, and entries up to {highest:g}"


@findings.register
def _of_likelihood(loss: Likelihood, batch: Any) -> Observations:
    """Yield findings if rates seem to have the wrong unit, or if neurons have no recorded spike."""
    found = batch.found
    spikes, rate = float(found["recorded"].sum()), float(found["predicted"].sum())
    mean = spikes / (batch.kept or 1)
    if spikes and (rate <= spikes / 30 or rate >= 30 * spikes):  # False for NaN
        yield "rate-units", f"the mean rate is {rate / spikes:.3g} times the mean count"
    elif not loss._of_rates and 0 < mean < 0.5 and _may_be_rates(loss, found):
        seen = f"every value of the input is at least 0, but the mean count is {mean:.3g}"
        yield "rate-units", seen
    silent = (found["recorded"] == 0) & batch.entries.any(axis=0).ravel()
    if silent.any():
        yield "silent-target", f"{silent.sum()} of {silent.size} neurons have no recorded spike"


def _may_be_rates(loss: Likelihood, found: Any) -> bool:
    """Return whether the input may hold rates, although the loss expects logarithms or logits.

    `BernoulliNLL` expects logits, which may all be above 0. For `BernoulliNLL`, only values between
    0 and 1 may be rates.
    """
    limit = 1 if isinstance(loss, losses.BernoulliNLL) else math.inf
    return bool(found["lowest"] >= 0 < found["highest"] <= limit)
