"""Rules about layers and gradients. The thresholds were chosen from experiments with training."""

import math
from collections.abc import Callable
from typing import Any

from spikeloss_xp.diagnosis._layers import Gradient, Layer
from spikeloss_xp.diagnosis._report import Observations, silent_layer

BUSY = 0.4  # the fraction of steps in which a neuron fires
ALWAYS_ON = 0.5  # the fraction of neurons that fire at every step
STUCK = 0.9  # the fraction of neurons that are silent or fire at every step
STUCK_ON = 0.1  # the fraction of neurons that fire at every step
# A vanishing gradient: the size of the first gradient relative to the largest, and the mean factor
# per layer. Some surrogates shrink gradients by a factor of 5 in each layer without harm.
VANISHING, FACTOR = 1 / 30, 1 / 6
SWALLOWED = 1e-6  # 100 times Adam's epsilon, which is added to the size of a gradient
EXPLODING = 300.0  # the size of a gradient if the loss is a mean


def of_layer(layer: Layer, odd_values: Callable[[], str]) -> Observations:
    """Yield the finding about a layer; each layer has at most one.

    If `odd_values` returns a description, the array holds potentials instead of spikes, and no
    finding about too much activity is reported.
    """
    if not layer.finite:
        yield "not-finite", f"entries of {layer.name} are NaN or infinite", layer.name
    elif layer.silent == 1:
        yield silent_layer(layer.name, layer.samples)
    elif (found := _too_active(layer)) and not odd_values():
        yield (*found, layer.name)


def _too_active(layer: Layer) -> tuple[str, str] | None:
    """Return the finding about a layer whose neurons fire too often, or None."""
    name, silent, always_on = layer.name, layer.silent, layer.always_on
    if always_on > ALWAYS_ON:
        return "saturated", f"{always_on:.0%} of the neurons of {name} fire at every step"
    if name == "output":
        return None
    if always_on >= STUCK_ON and silent + always_on >= STUCK:
        seen = f"{silent:.0%} of the neurons of {name} are silent, and {always_on:.0%} always fire"
        return "stuck-hidden", seen
    if layer.rate > BUSY:
        return "busy-hidden", f"{name} fires in {layer.rate:.0%} of the steps"
    return None


def of_gradients(gradients: tuple[Gradient, ...], divisor: float) -> Observations:
    """Yield the findings about the gradients of the weights, from input to output.

    The `divisor` is the number of terms if the loss is a sum, and 1 if it is a mean.
    """
    bad = [each for each in gradients if not math.isfinite(each.rms or 0)]
    if bad:
        yield "not-finite", f"NaN or infinity in the gradient of {_named(bad)}", *_names(bad)
    weights = [each for each in gradients if each.is_weight]
    sizes = [each.rms or 0.0 for each in weights]
    missing = [each for each in weights if each.rms is None]
    zero = [each for each in weights if not each.rms]
    if weights and len(missing) == len(weights):
        seen = "all gradients are None: call diagnose after backward() and before zero_grad()"
        yield "no-gradient", seen, *_names(weights)
    elif missing or sizes[:1] == [0] or 2 * len(zero) > len(weights):
        yield "no-gradient", _without_gradient(weights, zero), *_names(zero)
    elif weights and not bad:
        yield from _of_sizes(weights, sizes, divisor)


def _of_sizes(weights: list[Gradient], sizes: list[float], divisor: float) -> Observations:
    """Yield the findings about the sizes of the gradients. The first size must not be 0."""
    first, largest = sizes[0], max(sizes)
    place = sizes.index(largest)
    at = weights[place].name
    of_first = f"the gradient of {weights[0].name} is {first:.1e}"
    if largest < SWALLOWED:
        yield "vanishing-gradient", f"no gradient is larger than {largest:.1e}", *_names(weights)
    elif first < largest * min(VANISHING, FACTOR**place):
        seen = f"{of_first}, and the gradient of {at} is {largest:.1e}"
        yield "vanishing-gradient", seen, weights[0].name
    if largest > EXPLODING * divisor:
        yield "exploding-gradient", f"the gradient of {at} is {largest:.1e}", at


def _without_gradient(weights: list[Gradient], zero: list[Gradient]) -> str:
    """Describe which weights have no gradient, and whether later weights have a gradient."""
    last = max(weights.index(each) for each in zero)
    seen = f"{_named(zero)} {'has' if len(zero) == 1 else 'have'} no gradient"
    if last + 1 == len(weights):
        return seen
    return (
        f"{seen}, but later weights have one, so something in between is detached, or its "
        "surrogate gradient is 0 at all potentials"
    )


def _names(gradients: list[Gradient]) -> tuple[str, ...]:
    return tuple(each.name for each in gradients)


def _named(gradients: list[Gradient]) -> str:
    """Return the names of up to three gradients as text, followed by the number of the others."""
    names = _names(gradients)
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + others


def at_chance(numbers: Any, layers: Any, gradients: Any) -> Observations:
    """Yield a finding if there is no problem in any layer, but the loss is at chance level."""
    value, equal = numbers["loss"], numbers.get("loss of equal scores")
    if equal and gradients and len(layers) > 1 and math.isclose(value, equal, rel_tol=0.01):
        yield "at-chance", f"the loss is {value:.3g}, and equal scores give {equal:.3g}"
