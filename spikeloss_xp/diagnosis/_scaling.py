"""Scaling: find the factors with which the layers of a network fire at a given rate."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import host_values, rank
from spikeloss_xp._typing import ArrayLike
from spikeloss_xp.diagnosis import _layers

CALLS = 14  # the largest number of calls for each layer
STRIDE = 8.0  # the ratio of successive factors until the rate has been on both sides of the goal
CLOSE = 1.3  # a rate within this factor of the goal is accepted at once
JUMP = 2.0  # a rate within this factor is accepted if the rate jumps past the goal by one spike


def scale_to_rate(
    run: Callable[[list[float]], Any],
    layers: int,
    rate: float | Sequence[float] = 0.05,
    *,
    time_axis: int | None = None,
    lengths: ArrayLike | None = None,
    progress: Callable[[str], Any] | None = None,
) -> list[float]:
    """Return the factors with which the layers of a network fire at a given rate.

    The layers are scaled one after the other, from input to output, by bisection on the logarithm
    of the factor. A rate is accepted if it is within a factor of 1.3 of the goal. If the rate jumps
    past the goal, as it may with few steps, it is also accepted if it is within a factor of 2 and
    differs from the goal by at most one spike for each neuron and sample. A rate of 0 is never
    accepted.

    Weights are not needed: `run` decides what the factors multiply.

    Parameters
    ----------
    run : callable
        Takes a list with one factor for each layer, runs the network on one batch, and returns a
        sequence or mapping with the spikes of each layer, from input to output. It may return the
        rate of a layer instead of its spikes, as a number or an array without axes. It multiplies
        the initial weights of a layer by its factor, not the weights that an earlier call has
        scaled. Instead of the weights, it may scale the weights of a norm, or divide thresholds.
    layers : int
        The number of layers.
    rate : float or sequence of float, optional
        The goal, as the fraction of steps in which a neuron fires, for all layers or for each
        layer. In a sequence, the last number is the rate of the output.
    time_axis : int, optional
        The time axis of the spikes. It is required for `lengths`. Without it, the number of steps
        is unknown, and only a rate within a factor of 1.3 is accepted.
    lengths : array or sequence of int, optional
        The number of valid time steps of each sample. Later steps do not affect the rates.
    progress : callable, optional
        Called with a sentence after each layer, for example `print`.

    Returns
    -------
    list of float
        The factors. They are also the argument of the last call of `run`, so weights that `run`
        has scaled in place are ready for training.

    Raises
    ------
    ValueError
        If 14 calls of `run` for one layer do not reach the rate, with the rates that were seen and
        the usual reason, or if a rate is NaN. Weights that `run` has scaled in place then have the
        factors of its last call.

    Notes
    -----
    A layer's rate need not rise with its factor if the layer is recurrent or if the network has
    skip connections. If several factors give the same rate, any of them may be returned. If the
    rate jumps past the goal or turns back before it, the function raises an error.

    If later layers feed back into earlier ones, scaling a later layer changes the rate of an
    earlier one. The first layer whose rate is not accepted is then scaled again, until all rates
    are accepted or the calls for a layer are used up.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> rng = np.random.default_rng(0)
    >>> inputs = rng.random((50, 16, 20)) < 0.2  # [time, sample, neuron]
    >>> weights = rng.normal(size=(20, 30)), rng.normal(size=(30, 10))
    >>> def fire(currents):
    ...     membrane, spikes = 0.0, []
    ...     for current in currents:
    ...         membrane = 0.9 * membrane + current
    ...         spikes.append(membrane > 1)
    ...         membrane = membrane - spikes[-1]
    ...     return np.stack(spikes)
    >>> def run(factors):
    ...     hidden = fire(inputs @ (factors[0] * weights[0]))
    ...     return hidden, fire(hidden @ (factors[1] * weights[1]))
    >>> factors = sx.scale_to_rate(run, layers=2)
    >>> [bool(0.05 / 1.3 <= spikes.mean() <= 0.05 * 1.3) for spikes in run(factors)]
    [True, True]
    """
    _checks.function(run, "run")
    _checks.optional(_checks.function)(progress, "progress")
    layers = _checks.count(layers, "layers")
    time_axis = _checks.optional(_checks.integer)(time_axis, "time_axis")
    goals = _checks.one_or_more(_checks.firing_rate)(rate, "rate")
    goals = goals if isinstance(goals, tuple) else (goals,) * layers
    if len(goals) != layers:
        raise ValueError(
            f"rate must be a number or have an entry for each of the {layers} layers; got "
            f"{len(goals)} entries"
        )
    if lengths is not None and time_axis is None:
        raise TypeError("lengths need a time_axis: pass the time axis of the spikes")

    def measure(factors: list[float]) -> list[_Activity]:
        return _activities(run(factors), layers, time_axis, lengths)

    search = _Search(measure, goals)
    for i in range(layers):
        search.scale(i, progress)
    while off := [i for i in range(layers) if not search.activities[i].is_accepted(goals[i])]:
        search.scale(off[0], progress)
    return search.factors


class _Activity(NamedTuple):
    """The rate of a layer, and how much one spike of each neuron in each sample changes it."""

    name: str
    rate: float
    of_spike: float

    def ratio(self, goal: float) -> float:
        """Return the factor between the rate and the goal, which is at least 1."""
        return max(self.rate, goal) / min(self.rate, goal) if self.rate else math.inf

    def is_accepted(self, goal: float) -> bool:
        """Return whether the rate is close, or one spike away."""
        one_spike_away = abs(self.rate - goal) <= self.of_spike
        return self.ratio(goal) <= (JUMP if one_spike_away else CLOSE)


class _Search:
    """The factors of the layers, and their activities in the last call of `measure`."""

    def __init__(
        self, measure: Callable[[list[float]], list[_Activity]], goals: tuple[float, ...]
    ) -> None:
        self.measure, self.goals = measure, goals
        self.factors = [1.0] * len(goals)
        self.seen: list[list[tuple[float, _Activity]]] = [[] for _ in goals]
        self.activities = measure([*self.factors])

    def scale(self, i: int, progress: Callable[[str], Any] | None) -> None:
        """Change the factor of one layer until its rate is accepted."""
        goal, seen, low, high = self.goals[i], self.seen[i], 0.0, math.inf
        while (now := self.activities[i]).ratio(goal) > CLOSE:
            factor = self.factors[i]
            seen.append((factor, now))
            if len(seen) > CALLS:
                if now.is_accepted(goal):
                    break
                raise ValueError(_failure(goal, seen))
            low, high = (factor, high) if now.rate < goal else (low, factor)
            if len(seen) == CALLS:  # the bisection may have ended on the wrong side of a jump
                self.factors[i], _ = min(seen, key=lambda each: each[1].ratio(goal))
            elif high == math.inf or low == 0:
                self.factors[i] = factor * (STRIDE if low else 1 / STRIDE)
            else:
                self.factors[i] = math.sqrt(low * high)
            self.activities = self.measure([*self.factors])
        if progress is not None:
            progress(
                f"{now.name} fires at a rate of {now.rate:.3g} with a factor of "
                f"{self.factors[i]:.3g} (calls for this layer: {len(seen)})"
            )


def _failure(goal: float, seen: list[tuple[float, _Activity]]) -> str:
    """Return the message for a layer whose rate was not reached."""
    rates = [activity.rate for _, activity in seen]
    if max(rates) == 0:
        reason = "nothing reaches the layer, such as a silent layer before it"
    elif max(rates) < goal:
        reason = "the layer gets too little input, or run does not apply its factor"
    elif min(rates) > goal:
        reason = (
            "a bias or another input that its factor does not scale makes the layer fire: set "
            "biases to 0"
        )
    else:
        reason = (
            "the rate jumps past the goal because there are too few steps (one spike in 20 steps "
            "is a rate of 0.05) or because all neurons fire together"
        )
    listed = ", ".join(f"{each.rate:.3g} with {factor:.3g}" for factor, each in sorted({*seen}))
    return (
        f"{seen[0][1].name} does not fire at a rate of {goal:.3g} with any factor that was tried. "
        f"The rates were {listed}. The usual reason is that {reason}"
    )


def _activities(
    found: Any, layers: int, time_axis: int | None, lengths: ArrayLike | None
) -> list[_Activity]:
    """Return the activity of each layer, given what `run` returned."""
    leaves = [*_layers.named_leaves(found, "")]
    if len(leaves) != layers:
        raise ValueError(
            "run must return a sequence or mapping with the spikes or the rate of each layer; "
            f"layers is {layers}, but got {len(leaves)}"
        )
    return [_activity(f"layer {name or 0}", x, time_axis, lengths) for name, x in leaves]


def _activity(name: str, x: Any, time_axis: int | None, lengths: ArrayLike | None) -> _Activity:
    """Return the activity of a layer, given its spikes or its rate."""
    steps = math.inf
    if rank(x) == 0:
        rate = float(host_values(x, name))
    else:
        options = {"lengths": lengths, "single_step": time_axis is None}
        with np.errstate(all="ignore"):
            pending = _layers.layer(name, x, time_axis or 0, **options)
            [(layer, _)] = _layers.finished([pending])
        rate = layer.rate if layer.finite else math.nan
        if time_axis is not None:
            steps = x.shape[time_axis]
        if lengths is not None:
            steps = max(float(host_values(lengths, "lengths").mean()), 1.0)
    if not 0 <= rate < math.inf:
        hint = " (it is NaN if any spike is NaN or infinite)" if math.isnan(rate) else ""
        raise ValueError(f"the rate of {name} must be finite and at least 0; got {rate}{hint}")
    return _Activity(name, rate, 1 / steps)
