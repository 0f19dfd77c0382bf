"""Layers and weights: the statistics of their spikes and gradients, and findings about them.

Arrays are reduced on their own device. The results and a few sample values are copied to the host
together, because each copy waits for the device. The thresholds for the findings were chosen in
training experiments.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    find_adapter,
    floating,
    host_values,
    read_values,
)
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import mask_of
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis._report import Gradient, Layer, Observations
from spikeloss_xp.primitives import slices

CHUNK = 1 << 20  # to limit memory use, about this many entries are reduced at a time
SAMPLE = 1 << 16  # the number of entries that are copied to the host to see if they are spikes
ENOUGH = 8  # a neuron with fewer steps is not reported as firing at every step
BUSY = 0.4  # a layer is busy if its neurons fire in more than this fraction of the steps
ALWAYS_ON = 0.5  # a layer is saturated if more than this fraction of its neurons always fire
# A layer is stuck if two conditions hold. First, the neurons that fire at every step make up at
# least the fraction STUCK_ON of the layer. Second, these neurons and the silent neurons together
# make up at least the fraction STUCK of the layer.
STUCK = 0.9
STUCK_ON = 0.1
# Let r be the first gradient divided by the largest gradient, and n the number of layers between
# the two gradients. The gradient vanishes if r is below VANISHING and also below FACTOR to the
# power n. Some surrogates shrink gradients by a factor of 5 in each layer without harm.
VANISHING, FACTOR = 1 / 30, 1 / 6
# Limits for the size of the largest gradient, relative to the gradient of the loss with respect to
# the output.
SWALLOWED, EXPLODING = 1e-7, 20.0


class Pending(NamedTuple):
    """Arrays that are still on their device, and a function of their values.

    Attributes
    ----------
    name : str
        The name of the argument from which the arrays were computed. Error messages use this name.
    adapter : Adapter
        The adapter for the arrays.
    arrays : dict of str to array
        The arrays, keyed by the names of the arguments of `finish`.
    finish : callable
        Takes the values as NumPy arrays, and returns the result.
    """

    name: str
    adapter: Adapter
    arrays: dict[str, Array]
    finish: Callable[..., Any]


def finished(everything: list[Any]) -> list[Any]:
    """Return the result of each object, after copying the arrays of all objects to the host.

    Arrays with the same device and dtype are copied together. Each object is a `Pending`, or has
    the same attributes.
    """
    groups: dict[Any, list[Any]] = {}
    for each in everything:
        for key, x in each.arrays.items():
            place = each.adapter.xp, str(x.dtype), str(getattr(x, "device", ""))
            groups.setdefault(place, []).append((each, key, x))
    for group in groups.values():
        first, shapes = group[0][0], [tuple(x.shape) for _, _, x in group]
        flat = [first.adapter.xp.reshape(x, (-1,)) for _, _, x in group]
        joined = read_values(first.adapter, first.adapter.xp.concat(flat), first.name)
        parts = np.split(joined, [*itertools.accumulate(map(math.prod, shapes))][:-1])
        for (each, key, _), part, shape in zip(group, parts, shapes, strict=True):
            each.arrays[key] = part.reshape(shape)
    return [each.finish(**each.arrays) for each in everything]


def named_leaves(x: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested sequences and mappings in order, each with its path."""
    if not isinstance(x, Mapping | list | tuple):
        yield name, x
        return
    for key, each in x.items() if isinstance(x, Mapping) else enumerate(x):
        yield from named_leaves(each, f"{name}.{key}" if name else str(key))


def eager(x: Any, name: str) -> tuple[Adapter, Array]:
    """Return the adapter for an array, and the array without its graph.

    An array from a lazy library is computed and copied to the host.
    """
    adapter = adapter_of(x, name)
    if adapter.is_lazy:
        x = read_values(adapter, x, name)
        return adapter_of(x), x
    return adapter, adapter.stop_gradient(x)


# Layers ---------------------------------------------------------------------------------------


def axes(layout: Layout, space: str) -> str:
    """Return the axes and the shape of an input as text; `space` is the name of a neuron axis."""
    time = "time" if layout.has_time else "spike"
    names = {layout.batch_axis: "batch", layout.time_axis: time}
    return f"[{', '.join(names.get(i, space) for i in range(len(layout.shape)))}] = {layout.shape}"


def activity(adapter: Adapter, layout: Layout, x: Array, name: str) -> dict[str, Array]:
    """Return the arrays from which `layer_of` computes the statistics of a layer.

    The axes of `x` are batch, class and time, and its masked entries are 0.
    """
    xp = adapter.xp
    axis = layout.batch_axis

    def over_time(trains: Array) -> Array:
        return xp.sum(trains, axis=layout.time, keepdims=True)

    def count(trains: Array) -> Array:
        fires = xp.astype(trains != 0, trains.dtype)
        return over_time(fires)

    def reduced(function: Callable[[Array], Array]) -> Array:
        """Reduce the trains in chunks of samples."""
        size = CHUNK * layout.batch // math.prod(x.shape)
        before = (slice(None),) * axis
        parts = []
        for chunk in slices(layout.batch, size):
            trains = floating(adapter, x[*before, chunk, ...], name)
            parts.append(function(trains))
        return xp.concat(parts, axis=axis)

    sums = reduced(over_time)
    sample = floating(adapter, some_samples(x, axis))
    # The sum of a binary train is its number of spikes. Summing is three times as fast as counting.
    is_binary = _are_binary(adapter, sample, sums, layout.steps)
    spikes = sums if is_binary else reduced(count)
    return {"spikes": spikes, "total": xp.sum(sums), "sample": sample}


def unmasked(adapter: Adapter, layout: Layout, mask: Array | None, x: Array) -> dict[str, Array]:
    """Return the number of unmasked steps of each train, and the mask of the sampled values."""
    if mask is None:
        return {}
    ones = adapter.xp.astype(mask, adapter.xp.float32)
    entries = adapter.xp.sum(ones, axis=layout.time, keepdims=True)
    kept = some_samples(adapter.xp.broadcast_to(ones, x.shape), layout.batch_axis)
    return {"entries": entries, "kept": kept}


def some_samples(x: Array, axis: int) -> Array:
    """Return samples that are spread over the whole batch and hold about `SAMPLE` entries."""
    step = min(max(1, math.prod(x.shape) // SAMPLE), x.shape[axis])
    return x[(*(slice(None),) * axis, slice(None, None, step), ...)]


def _are_binary(adapter: Adapter, sample: Array, sums: Array, steps: int) -> bool:
    """Return whether all entries seem to be 0 or 1; False if they cannot be read for free."""
    values = adapter.concrete_or_none(sample)
    numbers = adapter.concrete_or_none(sums)
    if values is None or numbers is None:
        return False
    plausible = (numbers == np.round(numbers)) & (numbers >= 0) & (numbers <= steps)
    if not plausible.all():
        return False
    binary = (values == 0) | (values == 1)
    return bool(binary.all())


def layer_of(
    name: str, layout: Layout, spikes: Any, total: Any, sample: Any, entries: Any = None,
    kept: Any = None, **_: Any,
) -> tuple[Layer, list[tuple[str, ...]]]:  # fmt: skip
    """Return the statistics of a layer, and the findings about it.

    The functions `activity` and `unmasked` return arrays for a layer. Each argument after `layout`
    is the value of the array with the same name. Arguments with other names are ignored.
    """
    if entries is None:
        entries = layout.steps
    of_train = np.broadcast_to(entries, spikes.shape)
    axes = layout.batch_axis, layout.time
    fired = spikes.sum(axis=axes, dtype=float)
    steps = of_train.sum(axis=axes, dtype=float)
    is_unmasked = steps > 0
    fired = fired[is_unmasked]
    steps = steps[is_unmasked]
    neurons = max(len(steps), 1)
    silent = fired == 0
    always_on = (fired == steps) & (steps >= ENOUGH)
    if of_train.max() <= 1:
        always_on[:] = False
    by_sample = spikes.sum(axis=(layout.class_axis, layout.time))
    layer = Layer(
        name,
        rate=float(fired.sum()) / max(float(steps.sum()), 1),
        silent=float(silent.sum() / neurons),
        always_on=float(always_on.sum() / neurons),
        silent_samples=float((by_sample == 0).mean()),
        samples=layout.batch,
        finite=bool(np.isfinite(total)),
        holds_spikes=not odd_values(sample, kept),
    )
    return layer, [*_of_layer(layer)]


def shown(layer: Layer) -> Layer:
    """Return a layer as a report shows it, without a rate if its values are no spikes."""
    return layer if layer.holds_spikes else layer._replace(rate=math.nan, always_on=math.nan)


def odd_values(values: Any, kept: Any = None) -> str:
    """Describe the values that are not spike counts, or return "" if they take few distinct values.

    Graded spikes and means over several neurons take few distinct values. `kept` is 0 for masked
    values.
    """
    values = values if kept is None else values[kept > 0]
    odd = values[np.isfinite(values) & ((values < 0) | (values != np.round(values)))]
    if len(np.unique(odd)) <= min(16, values.size // 4):
        return ""
    bounds = f"values range from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
    return f"{len(odd) / values.size:.0%} of the values are fractional or negative ({bounds})"


def layer(
    name: str, x: Any, time_axis: int, *, output: Layout | None = None, single_step: bool = False,
    where: Any = None, lengths: Any = None,
) -> Pending:  # fmt: skip
    """Return the statistics of the unmasked entries of a layer, and the findings about it.

    If `single_step` is True, an array with one or two axes is treated as a single time step, and is
    not masked. If the layout of the `output` is given, the layer must have as many samples as the
    output. In that case, the masks are ignored if the layer and the output differ in the number
    of steps.
    """
    adapter, x = eager(x, name)
    if x.ndim < (1 if single_step else 3):
        raise ValueError(
            f"{name} must have a batch, a neuron and a time axis, like the input of a loss; got "
            f"shape {tuple(x.shape)}: if you passed a list of time steps, stack them into one array"
        )
    if x.ndim < 3:
        x, time_axis = adapter.xp.reshape(x, (*(*x.shape, 1)[:2], 1)), -1
        where = lengths = None
    layout = Layout.of(tuple(x.shape), time_axis, name)
    if output is not None and layout.batch != output.batch:
        raise ValueError(
            f"{name} must have as many samples as the input, {output.batch}, with the axes in the "
            f"same order; got {layout.batch} samples in shape {layout.shape}"
        )
    if output is not None and layout.steps != output.steps:
        where = lengths = None
    mask, _ = mask_of(adapter, layout, x, where, lengths)
    x = layout.collapsed(adapter, x)
    if mask is not None:
        mask = adapter.xp.broadcast_to(layout.collapsed(adapter, mask), x.shape)
        x = adapter.xp.where(mask, x, adapter.xp.zeros_like(x))
    arrays = activity(adapter, layout, x, name) | unmasked(adapter, layout, mask, x)
    return Pending(name, adapter, arrays, partial(layer_of, name, layout))


def _of_layer(layer: Layer) -> Iterator[tuple[str, ...]]:
    """Yield the finding about a layer. There is at most one finding for each layer."""
    if not layer.finite:
        yield "not-finite", f"entries of {layer.name} are NaN or infinite", layer.name
    elif layer.silent == 1:
        yield silent_layer(layer.name, layer.samples)
    elif layer.holds_spikes and (found := _too_active(layer)):
        yield (*found, layer.name)


def _too_active(layer: Layer) -> tuple[str, str] | None:
    """Return the finding about a layer whose neurons fire too often, or None."""
    name, silent, always_on = layer.name, layer.silent, layer.always_on
    if always_on > ALWAYS_ON:
        return "saturated", f"{always_on:.0%} of the neurons of {name} fire at every step"
    if _is_output(name):
        return None
    if always_on >= STUCK_ON and silent + always_on >= STUCK:
        seen = f"{silent:.0%} of the neurons of {name} are silent, and {always_on:.0%} always fire"
        return "stuck-hidden", seen
    if layer.rate > BUSY:
        return "busy-hidden", f"{name} fires in {layer.rate:.0%} of the steps"
    return None


def silent_layer(name: str, samples: int) -> tuple[str, ...]:
    """Return the observation that a layer is silent in every sample."""
    code = "silent-output" if _is_output(name) else "silent-hidden"
    return code, f"{name} is silent in all {samples} samples", name


def _is_output(name: str) -> bool:
    """Return whether a layer is an output. There may be several, such as ``"output.boxes"``."""
    return name.partition(".")[0] == "output"


def hidden_times(adapter: Adapter, name: str, x: Any) -> Pending:
    """Return the statistics of a hidden layer of spike times, in which NaN and inf mark silence."""
    times = host_values(x, name)
    if times.ndim < 2:
        raise ValueError(f"{name} must have a batch and a neuron axis; got shape {times.shape}")
    return Pending(name, adapter, {}, partial(of_times, name, times, np.isfinite(times)))


def of_times(name: str, times: Any, fires: Any) -> tuple[Layer, list[tuple[str, ...]]]:
    """Return the statistics of a layer of spike times, and the finding that it is silent.

    The axes of `times` are batch, neuron and, optionally, spike. `fires` is True for times that are
    spikes.
    """
    neurons = (*times.shape[:2], -1)
    fired = np.any(np.reshape(fires, neurons), axis=-1)
    first = np.where(fires, times, np.inf).reshape(neurons).min(axis=-1)
    layer = Layer(
        name,
        rate=math.nan,
        silent=float(np.mean(~fired.any(axis=0))),
        always_on=0.0,
        silent_samples=float(np.mean(~fired.any(axis=1))),
        samples=len(times),
        finite=True,
        first_spike=float(first[fired].mean()) if fired.any() else math.nan,
    )
    return layer, [] if fired.any() else [silent_layer(name, layer.samples)]


# Gradients ------------------------------------------------------------------------------------


def gradients_of(gradients: Any, adapter: Adapter) -> list[Pending]:
    """Return the sizes of the gradients in nested sequences and mappings, in the same order."""
    found = [_gradient(name or "weight", x, adapter) for name, x in named_leaves(gradients, "")]
    if not found:
        raise ValueError("gradients must hold at least one array or None; got none")
    return [each for each in found if each is not None]


def _gradient(name: str, x: Any, adapter: Adapter) -> Pending | None:
    """Return the size of a gradient, or None if the array has no entries."""
    if x is None:
        return Pending(name, adapter, {}, partial(Gradient, name, None, is_weight=True))
    argument = f"gradients ({name})"
    if find_adapter(x) is None:
        raise TypeError(
            f"{argument} must be an array or None; got {type(x).__qualname__}: pass nested lists "
            "and dicts of arrays, in the order of the layers. For an Equinox module or another "
            "pytree, pass jax.tree.leaves(gradients)"
        )
    adapter, x = eager(x, argument)
    if 0 in x.shape:
        return None
    xp, x = adapter.xp, floating(adapter, x, argument)
    # Without a scale, the squares could underflow or overflow.
    largest = xp.maximum(xp.max(x), -xp.min(x))
    scale = xp.where((largest > 0) & (largest < math.inf), largest, 1.0)
    x = x / scale
    # Dividing by `share` excludes zeros from the mean. Zeros come from inputs that never fire, such
    # as unused rows of an embedding.
    arrays = {"mean": xp.mean(x * x), "share": xp.mean(xp.astype(x != 0, x.dtype))}
    is_weight = x.ndim > 1

    def finish(scale: Any, mean: Any, share: Any) -> Gradient:
        rms = float(scale) * math.sqrt(mean / share) if share else 0.0
        return Gradient(name, rms, is_weight)

    return Pending(argument, adapter, {"scale": scale, **arrays}, finish)


def findings_of_gradients(
    gradients: tuple[Gradient, ...], of_output: float | None, depth: int, *, learned: bool
) -> Observations:
    """Yield the findings about the gradients of the weights, from input to output.

    `of_output` is the size of the gradient of the loss with respect to the output, or None if it is
    unknown. `depth` is the number of hidden layers, or 0 if it is unknown. If the network has
    `learned` the batch, small and large gradients are no problem.
    """
    bad = [each for each in gradients if not math.isfinite(each.rms or 0)]
    if bad:
        yield "not-finite", f"NaN or infinity in the gradient of {_named(bad)}", *_names(bad)
    weights = [each for each in gradients if each.is_weight]
    if not weights:
        return
    missing = [each for each in weights if each.rms is None]
    zero = [each for each in weights if not each.rms]
    at_minimum = learned and not of_output
    first_is_zero = not weights[0].rms
    most_are_zero = 2 * len(zero) > len(weights)
    if len(missing) == len(weights):
        seen = "all gradients are None: call diagnose after backward() and before zero_grad()"
        yield "no-gradient", seen, *_names(weights)
    elif at_minimum and len(zero) == len(weights):
        return
    elif missing or first_is_zero or most_are_zero:
        seen = _without_gradient(weights, zero)
        yield "no-gradient", seen, *_names(zero)
    elif not bad and not learned:
        yield from _of_sizes(weights, of_output, depth)


def _of_sizes(weights: list[Gradient], of_output: float | None, depth: int) -> Observations:
    """Yield the findings about the sizes of the gradients. The first size must not be 0."""
    sizes = [each.rms or 0.0 for each in weights]
    largest = max(sizes)
    place = sizes.index(largest)
    first_name = weights[0].name
    largest_name = weights[place].name
    of_largest = f"the gradient of {largest_name} is {largest:.1e}"
    layers_between = place
    if depth and len(weights) <= 2 * (depth + 1):  # recurrent weights make no network deeper
        layers_between = min(place, depth)
    smallest_ratio = min(VANISHING, FACTOR**layers_between)
    if of_output and largest < SWALLOWED * of_output:
        seen = f"no gradient is larger than {largest:.1e}"
        yield "vanishing-gradient", seen, *_names(weights)
    elif sizes[0] < largest * smallest_ratio:
        seen = f"the gradient of {first_name} is {sizes[0]:.1e}, and {of_largest}"
        yield "vanishing-gradient", seen, first_name
    if of_output and largest > EXPLODING * of_output:
        yield "exploding-gradient", of_largest, largest_name


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
    """Return the names of up to three gradients as text, followed by the number of others."""
    names = _names(gradients)
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + others


def at_chance(numbers: Any, layers: Any, gradients: Any) -> Observations:
    """Yield a finding if there is no problem in any layer, but the loss is at chance level."""
    value, equal = numbers.get("loss"), numbers.get("loss of equal scores")
    if equal and gradients and len(layers) > 1 and math.isclose(value, equal, rel_tol=0.01):
        yield "at-chance", f"the loss is {value:.3g}, and equal scores give {equal:.3g}"
