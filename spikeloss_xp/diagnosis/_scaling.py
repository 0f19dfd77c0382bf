"""Find scaling factors that make the layers of a network fire at a given rate."""

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
    """Return scaling factors that make the layers of a network fire at a given rate.

    The layers are scaled one after the other, from input to output, by bisection on the logarithm
    of the factor. A rate is accepted if it is within a factor of 1.3 of the goal. If the rate jumps
    past the goal, as it may with few steps, it is also accepted if it is within a factor of 2 and
    differs from the goal by at most one spike for each neuron and sample. A rate of 0 is never
    accepted.

    This function does not need the weights: `run` decides what the factors multiply.

    Parameters
    ----------
    run : callable
        Takes a list with one factor for each layer, runs the network on one batch, and returns a
        sequence or mapping with the spikes of each layer, from input to output. It may return the
        rate of a layer instead of its spikes, as a number or an array without axes. `run` must
        multiply the initial weights of a layer by its factor, not weights that an earlier call has
        scaled. Instead, it may scale the weights of a norm, or divide thresholds by the factor.
    layers : int
        The number of layers.
    rate : float or sequence of float, optional
        The goal: the fraction of steps in which a neuron fires. Pass one number for all layers, or
        a number for each layer, from input to output.
    time_axis : int, optional
        The time axis of the spikes. It is required for `lengths`. Without it, the number of steps
        is unknown, and only a rate within a factor of 1.3 is accepted.
    lengths : array or sequence of int, optional
        The number of valid time steps of each sample. Later steps do not affect the rates.
    progress : callable, optional
        A function that is called with a sentence after each layer, for example `print`.

    Returns
    -------
    list of float
        The factors. They are also the argument of the last call to `run`, so weights that `run`
        has scaled in place are ready for training.

    Raises
    ------
    ValueError
        If 14 calls to `run` for one layer do not reach the rate, or if a rate is NaN. The message
        lists the rates that were seen and the usual reasons. Weights that `run` has scaled in place
        then have the factors of its last call.

    Notes
    -----
    A layer's rate need not rise with its factor if the layer is recurrent or if the network has
    skip connections. If several factors give the same rate, any of them may be returned. If the
    rate jumps past the goal or turns back before reaching it, the function may raise an error.

    If later layers feed back into earlier layers, scaling a later layer changes the rate of an
    earlier layer. The first layer whose rate is not accepted is then scaled again, until all rates
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
    given = _checks.one_or_more(_checks.firing_rate)(rate, "rate")
    goals = [*given] if isinstance(given, tuple) else [given] * layers
    if len(goals) != layers:
        raise ValueError(f"rate must be a number or {layers} numbers; got {len(goals)} numbers")
    if lengths is not None and time_axis is None:
        raise TypeError("lengths need a time_axis: pass the time axis of the spikes")

    def measure(factors: list[float]) -> list[_Activity]:
        return _activities(run(factors), layers, time_axis, lengths)

    search, todo = _Search(measure, goals), [*range(layers)]
    while todo:
        sentence = search.scale(todo.pop(0))
        if progress is not None:
            progress(sentence)
        # A later layer may have changed the rate of an earlier one.
        moved = (i for i in range(layers) if not search.activities[i].is_accepted(goals[i]))
        todo = todo or [*moved][:1]
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

    def __init__(self, measure: Callable[[list[float]], list[_Activity]], goals: list[float]):
        self.measure, self.goals, self.factors = measure, goals, [1.0] * len(goals)
        self.seen: list[list[tuple[float, _Activity]]] = [[] for _ in goals]
        self.activities = measure([*self.factors])

    def scale(self, i: int) -> str:
        """Change the factor of one layer until its rate is accepted, and describe the result."""
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
            elif low > 0 and high < math.inf:
                self.factors[i] = math.sqrt(low * high)
            else:
                self.factors[i] *= STRIDE if low else 1 / STRIDE
            self.activities = self.measure([*self.factors])
        return (
            f"{now.name} fires at a rate of {now.rate:.3g} with a factor of {self.factors[i]:.3g} "
            f"(calls for this layer: {len(seen)})"
        )


def _failure(goal: float, seen: list[tuple[float, _Activity]]) -> str:
    """Return the message for a layer whose rate was not reached."""
    listed = ", ".join(f"{each.rate:.3g} with {factor:.3g}" for factor, each in sorted({*seen}))
    return (
        f"{seen[0][1].name} does not fire at a rate of {goal:.3g} with any factor that was tried. "
        f"The rates were {listed}. The usual reasons are that nothing reaches the layer (all rates "
        "are 0), that a bias makes it fire alone (all rates are too high: set biases to 0), that "
        "there are too few steps (the rate jumps past the goal: one spike in 20 steps is a rate of "
        "0.05), or that run does not apply the factor"
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
    activities = [_activity(f"layer {name or 0}", x, time_axis, lengths) for name, x in leaves]
    for name, rate, _ in activities:
        if not 0 <= rate < math.inf:
            raise ValueError(
                f"the rate of {name} must be finite and at least 0; got {rate} (it is NaN if any "
                "spike is NaN or infinite)"
            )
    return activities


def _activity(name: str, x: Any, time_axis: int | None, lengths: ArrayLike | None) -> _Activity:
    """Return the activity of a layer, given its spikes or its rate."""
    if rank(x) == 0:
        return _Activity(name, float(host_values(x, name)), 0.0)
    axis, single_step = time_axis or 0, time_axis is None  # the rate is the same for any axis
    with np.errstate(all="ignore"):
        pending = _layers.layer(name, x, axis, single_step=single_step, lengths=lengths)
        [(layer, _)] = _layers.finished([pending])
    steps = math.inf if time_axis is None else x.shape[time_axis]
    if lengths is not None:
        steps = max(float(host_values(lengths, "lengths").mean()), 1.0)
    return _Activity(name, layer.rate if layer.finite else math.nan, 1 / steps)
