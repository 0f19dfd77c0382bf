"""Find scaling factors that make the layers of a network fire at a given rate."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spikeloss_xp import _checks
from spikeloss_xp._arrays import host_values, rank
from spikeloss_xp._typing import ArrayLike
from spikeloss_xp.diagnosis import _layers

CALLS = 14  # the largest number of calls to `run` for each layer
# The factor is multiplied or divided by STRIDE after each call, until a rate below the goal and a
# rate above the goal are known.
STRIDE = 8.0
# A rate is accepted if it is within a factor of CLOSE of the goal. If the rate jumps past the goal,
# a rate within a factor of JUMP is accepted after CALLS calls.
CLOSE = 1.3
JUMP = 2.0
Rates = list[tuple[str, float]]  # the name and the rate of each layer


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
    of the factor. A rate is accepted if it is within a factor of 1.3 of the goal. With few time
    steps, the rate may jump past the goal. If all rates of 14 factors miss the goal, the closest
    rate is accepted if it is within a factor of 2 of the goal. A rate of 0 is never accepted.

    This function neither reads nor changes the weights. The function `run` applies the factors.

    Parameters
    ----------
    run : callable
        Takes a list with one factor for each layer, runs the network on one batch, and returns a
        sequence or mapping with the spikes of each layer, from input to output. `run` may return
        the rate of a layer instead of its spikes, as a number or an array without axes. In each
        call, `run` must multiply the initial weights of a layer by its factor. `run` must not
        multiply weights that an earlier call has already scaled. Alternatively, `run` may scale the
        weights of a normalisation layer, or divide thresholds by the factor.
    layers : int
        The number of layers.
    rate : float or sequence of float, optional
        The goal: the fraction of steps in which a neuron fires. Pass one number for all layers, or
        a number for each layer, from input to output.
    time_axis : int, optional
        The time axis of the spikes, which is required for `lengths`.
    lengths : array or sequence of int, optional
        The number of valid time steps of each sample. Later steps do not affect the rates.
    progress : callable, optional
        A function that is called after each layer has been scaled, with a sentence about the layer.
        An example is `print`.

    Returns
    -------
    list of float
        The factor of each layer. The last call to `run` received the same factors. If `run` scales
        weights in place, the weights are therefore ready for training.

    Raises
    ------
    ValueError
        If 14 calls to `run` for one layer do not reach the rate, or if a rate is NaN. The message
        lists the rates that were seen and the usual reasons. If `run` scales weights in place,
        the weights keep the factors of the last call.

    Notes
    -----
    A layer's rate need not rise with its factor if the layer is recurrent or if the network has
    skip connections. If several factors give the same rate, any of them may be returned. If the
    rate jumps past the goal or turns back before reaching it, the function may raise an error.

    In a recurrent layer, `run` should multiply the input weights by the factor, and the recurrent
    weights by 0.3 and by the factor. Without the factor of 0.3, the recurrent current is often
    larger than the input current.

    If later layers feed back into earlier layers, scaling a later layer changes the rate of an
    earlier layer. After all layers have been scaled, the first layer whose rate is no longer
    accepted is scaled again. The scaling is repeated until all rates are accepted. If 14 calls for
    a layer are not enough, the function raises an error.

    You can scale the thresholds instead of the weights. Divide the threshold of a layer by the
    factor of the layer, and multiply the slope of its surrogate gradient by the factor. With Adam,
    the training is then the same as with scaled weights, biases and learning rates, under four
    conditions:

    - The neurons are leaky, and are reset by subtraction or to 0.
    - The height of the surrogate gradient does not depend on its slope.
    - There is no weight decay.
    - The epsilon of Adam is negligible.

    With SGD, the training with scaled thresholds differs from the training with scaled weights.

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

    def measure(factors: list[float]) -> Rates:
        return _rates(run(factors), layers, time_axis, lengths)

    search, todo = _Search(measure, goals), [*range(layers)]
    while todo:
        sentence = search.scale(todo.pop(0))
        if progress is not None:
            progress(sentence)
        # Scaling a later layer may have changed the rate of an earlier layer.
        todo = todo or [i for i in range(layers) if not search.is_accepted(i)][:1]
    return search.factors


class _Search:
    """A search for the factors, which stores the current factors and the rates seen so far."""

    def __init__(self, measure: Callable[[list[float]], Rates], goals: list[float]) -> None:
        self.measure, self.goals, self.factors = measure, goals, [1.0] * len(goals)
        self.seen: list[list[tuple[float, float]]] = [[] for _ in goals]  # (factor, rate)
        self.layers = measure([*self.factors])

    def is_accepted(self, i: int) -> bool:
        """Return whether the last rate of a layer is close enough to its goal."""
        goal, rates = self.goals[i], [rate for _, rate in self.seen[i]]
        jumps = len(rates) == CALLS and min(rates) < goal < max(rates)
        return _ratio(self.layers[i][1], goal) <= (JUMP if jumps else CLOSE)

    def scale(self, i: int) -> str:
        """Change the factor of one layer until its rate is accepted, and describe the result."""
        goal, seen = self.goals[i], self.seen[i]
        low, high = 0.0, math.inf
        while not self.is_accepted(i):
            factor, (name, rate) = self.factors[i], self.layers[i]
            if len(seen) == CALLS:
                raise ValueError(_failure(name, goal, [*seen, (factor, rate)]))
            seen.append((factor, rate))
            low, high = (factor, high) if rate < goal else (low, factor)
            if len(seen) == CALLS:  # an earlier rate may be closer to the goal than the last rate
                self.factors[i], _ = min(seen, key=lambda each: _ratio(each[1], goal))
            elif low > 0 and high < math.inf:
                self.factors[i] = math.sqrt(low * high)
            else:
                self.factors[i] *= STRIDE if low else 1 / STRIDE
            self.layers = self.measure([*self.factors])
        name, rate = self.layers[i]
        return (
            f"{name} fires at a rate of {rate:.3g} with a factor of {self.factors[i]:.3g} "
            f"(calls for this layer: {len(seen)})"
        )


def _ratio(rate: float, goal: float) -> float:
    """Return the larger of two rates divided by the smaller, or infinity if `rate` is 0."""
    return max(rate, goal) / min(rate, goal) if rate else math.inf


def _failure(name: str, goal: float, seen: list[tuple[float, float]]) -> str:
    """Return the error message for a layer that does not reach its goal."""
    listed = ", ".join(f"{rate:.3g} with {factor:.3g}" for factor, rate in sorted({*seen}))
    return (
        f"{name} does not fire at a rate of {goal:.3g} with any factor that was tried. "
        f"The rates were {listed}. The usual reasons are that nothing reaches the layer (all rates "
        "are 0), that a bias makes it fire without input (all rates are too high: set biases to "
        "0), that there are too few steps (the rate jumps past the goal: one spike in 20 steps is "
        "a rate of 0.05), or that the factor has no effect (all rates are the same: run "
        "does not apply the factor, or a norm or a parametrization undoes it)"
    )


def _rates(found: Any, layers: int, time_axis: int | None, lengths: ArrayLike | None) -> Rates:
    """Return the name and the rate of each layer, given the result of `run`."""
    leaves = [*_layers.named_leaves(found, "")]
    if len(leaves) != layers:
        raise ValueError(
            "run must return a sequence or mapping with the spikes or the rate of each layer; "
            f"layers is {layers}, but got {len(leaves)}"
        )
    named = [(f"layer {name or 0}", x) for name, x in leaves]
    rates = [(name, _rate(name, x, time_axis, lengths)) for name, x in named]
    for name, rate in rates:
        if not 0 <= rate < math.inf:
            raise ValueError(
                f"the rate of {name} must be finite and at least 0; got {rate} (it is NaN if any "
                "spike is NaN or infinite)"
            )
    return rates


def _rate(name: str, x: Any, time_axis: int | None, lengths: ArrayLike | None) -> float:
    """Return the rate of a layer, given its spikes or its rate."""
    if rank(x) == 0:
        return float(host_values(x, name))
    axis, single_step = time_axis or 0, time_axis is None  # the rate is the same for any axis
    with np.errstate(all="ignore"):
        pending = _layers.layer(name, x, axis, single_step=single_step, lengths=lengths)
        [layer] = _layers.finished([pending])
    return layer.rate if layer.finite else math.nan
