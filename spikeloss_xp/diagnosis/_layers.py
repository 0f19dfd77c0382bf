"""Statistics of the layers and gradients that a user passes, and findings about the gradients.

The sums over the entries of all arrays are copied to the host together, because each copy waits for
the device.
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
from spikeloss_xp.diagnosis import _spikes
from spikeloss_xp.diagnosis._report import Gradient, Layer, Observations

# A vanishing gradient is reported if the first weight's gradient, divided by the largest gradient,
# is below VANISHING and below FACTOR ** n. Here, n is the number of layers between the two weights.
# FACTOR is below 1 / 5, because networks learn even if the gradient shrinks by a factor of 5 in
# each layer.
VANISHING = 1 / 30
FACTOR = 1 / 6
SWALLOWED = 1e-8  # the epsilon of Adam, which hardly changes weights with smaller gradients
# A gradient explodes if it is more than EXPLODING times as large as the gradient of the loss with
# respect to the output.
EXPLODING = 20.0


class Pending(NamedTuple):
    """Arrays on a device, and the function that computes a result from them on the host.

    The keys of `arrays` are the names of the arguments of `finish`. The function `finish` takes the
    arrays after they have been copied to the host, and returns the result, such as a `Layer`. Error
    messages use `name`.
    """

    name: str
    adapter: Adapter
    arrays: dict[str, Array]
    finish: Callable[..., Any]


def finished(everything: list[Any]) -> list[Any]:
    """Copy the arrays of all objects to the host, and return the result of each object.

    Each object is a `Pending`, or another object with the same attributes.
    """
    groups: dict[Any, list[Any]] = {}
    for each in everything:
        for key, x in each.arrays.items():
            device = getattr(x, "device", "")
            kind = each.adapter.xp, str(x.dtype), str(device)
            groups.setdefault(kind, []).append((each, key))
    for group in groups.values():
        first, _ = group[0]
        arrays = [each.arrays[key] for each, key in group]
        values = _read_together(first.adapter, arrays, first.name)
        for (each, key), x in zip(group, values, strict=True):
            each.arrays[key] = x
    return [each.finish(**each.arrays) for each in everything]


def _read_together(adapter: Adapter, arrays: list[Array], name: str) -> list[Any]:
    """Return arrays with the same device and dtype as NumPy arrays, copied in one step."""
    xp = adapter.xp
    shapes = [tuple(x.shape) for x in arrays]
    ends = [*itertools.accumulate(map(math.prod, shapes))]
    flat = [xp.reshape(x, (-1,)) for x in arrays]
    values = read_values(adapter, xp.concat(flat), name)
    parts = np.split(values, ends[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def named_leaves(x: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each leaf of nested sequences and mappings.

    A path begins with `name` and consists of keys and indices, such as ``"hidden.0"``.
    """
    if not isinstance(x, Mapping | list | tuple):
        yield name, x
        return
    items = x.items() if isinstance(x, Mapping) else enumerate(x)
    for key, each in items:
        path = f"{name}.{key}" if name else str(key)
        yield from named_leaves(each, path)


def eager(x: Any, name: str) -> tuple[Adapter, Array]:
    """Return the adapter for an array, and the detached array.

    An array from a lazy library is computed and copied to the host.
    """
    adapter = adapter_of(x, name)
    if adapter.is_lazy:
        x = read_values(adapter, x, name)
        return adapter_of(x), x
    return adapter, adapter.stop_gradient(x)


# Layers ---------------------------------------------------------------------------------------


def axes(layout: Layout, space: str) -> str:
    """Return the axes and the shape of an input as text.

    An example is ``"[time, batch, neuron] = (20, 4, 3)"``. `space` is the name for all axes other
    than batch and time, such as ``"neuron"``.
    """
    time = "time" if layout.has_time else "spike"
    known = {layout.batch_axis: "batch", layout.time_axis: time}
    names = [known.get(axis, space) for axis in range(len(layout.shape))]
    return f"[{', '.join(names)}] = {layout.shape}"


def shown(layer: Layer) -> Layer:
    """Replace the rate of a layer by NaN if the layer does not hold spikes."""
    nan = math.nan
    return layer if layer.holds_spikes else layer._replace(rate=nan, always_on=nan)


def layer(
    name: str, x: Any, time_axis: int, *, output: Layout | None = None, single_step: bool = False,
    where: Any = None, lengths: Any = None,
) -> Pending:  # fmt: skip
    """Return the statistics of the unmasked entries of a layer, as a `Pending`.

    If `single_step` is True, an array with one or two axes is treated as a single time step, and is
    not masked. `output` is the layout of the network's output. If the layer and the output have
    different numbers of steps, `where` and `lengths` are ignored.
    """
    adapter, x = eager(x, name)
    if x.ndim < (1 if single_step else 3):
        raise ValueError(
            f"{name} must have a batch, a neuron and a time axis, like the input of a loss; got "
            f"shape {tuple(x.shape)}: if you passed a list of time steps, stack them into one array"
        )
    if x.ndim < 3:
        batch, neurons = (*x.shape, 1)[:2]
        x = adapter.xp.reshape(x, (batch, neurons, 1))
        time_axis = -1
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
        mask = layout.collapsed(adapter, mask)
        mask = adapter.xp.broadcast_to(mask, x.shape)
        x = adapter.xp.where(mask, x, adapter.xp.zeros_like(x))
    arrays = _spikes.activity(adapter, layout, x, name)
    arrays |= _spikes.unmasked(adapter, layout, mask, x)
    finish = partial(_spikes.layer_of, name, layout)
    return Pending(name, adapter, arrays, finish)


def hidden_times(adapter: Adapter, name: str, x: Any) -> Pending:
    """Return the statistics of a hidden layer that holds spike times, as a `Pending`.

    NaN and infinity stand for a spike that did not occur.
    """
    times = host_values(x, name)
    if times.ndim < 2:
        raise ValueError(f"{name} must have a batch and a neuron axis; got shape {times.shape}")
    finish = partial(_spikes.of_times, name, times, np.isfinite(times))
    return Pending(name, adapter, {}, finish)


# Gradients ------------------------------------------------------------------------------------


def gradients_of(gradients: Any, adapter: Adapter) -> list[Pending]:
    """Return the size of each gradient in nested sequences and mappings."""
    if gradients is None:
        return []
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
    xp = adapter.xp
    x = floating(adapter, x, argument)
    # The entries are divided by the largest entry, so that their squares cannot overflow.
    largest = xp.maximum(xp.max(x), -xp.min(x))
    scale = xp.where((largest > 0) & (largest < math.inf), largest, 1.0)
    x = x / scale
    # Entries are 0 if their input never fires, like the unused rows of an embedding. The root mean
    # square leaves out these entries.
    share = xp.mean(xp.astype(x != 0, x.dtype))
    arrays = {"scale": scale, "mean": xp.mean(x * x), "share": share}
    # A threshold is not a weight, even if it has three axes, as in the shape (neurons, 1, 1).
    is_weight = x.ndim == 2 or sum(n > 1 for n in x.shape) > 1

    def finish(scale: Any, mean: Any, share: Any) -> Gradient:
        rms = float(scale) * math.sqrt(mean / share) if share else 0.0
        return Gradient(name, rms, is_weight)

    return Pending(argument, adapter, arrays, finish)


def findings_of_gradients(
    gradients: list[Gradient], layers: list[Layer], of_output: float | None, learned: bool
) -> Observations:
    """Yield the findings about the gradients of the weights, from input to output."""
    bad = [each for each in gradients if not math.isfinite(_size(each))]
    if bad:
        yield "not-finite", f"NaN or infinity in the gradient of {_named(bad)}", *_names(bad)
    weights = [each for each in gradients if each.is_weight]
    # At the minimum of the loss, all gradients are 0.
    at_minimum = learned and not of_output and not any(map(_size, weights))
    without = [x for x in weights if x.rms is None or (x.rms == 0 and not at_minimum)]
    if _are_too_many(without, weights):
        yield "no-gradient", _without_gradient(weights, without), *_names(without)
    elif weights and not (bad or learned):
        yield from _of_sizes(weights, layers, of_output)


def are_blocked(gradients: list[Gradient], learned: bool) -> bool:
    """Return True if the gradient of a weight is None, or if all gradients are too small."""
    weights = [each for each in gradients if each.is_weight]
    no_graph = any(each.rms is None for each in weights)
    tiny = bool(weights) and max(map(_size, weights)) < SWALLOWED
    return no_graph or (tiny and not learned)


def _are_too_many(without: list[Gradient], weights: list[Gradient]) -> bool:
    """Return whether the weights without a gradient are reported.

    A few gradients of 0 in later layers are not reported.
    """
    if not without:
        return False
    is_missing = any(each.rms is None for each in without)
    return is_missing or without[0] is weights[0] or 2 * len(without) > len(weights)


def _without_gradient(weights: list[Gradient], without: list[Gradient]) -> str:
    """Describe which weights have no gradient."""
    if all(each.rms is None for each in weights):
        return "all gradients are None: call diagnose after backward() and before zero_grad()"
    return f"{_named(without)} {'has' if len(without) == 1 else 'have'} no gradient"


def _of_sizes(
    weights: list[Gradient], layers: list[Layer], of_output: float | None
) -> Observations:
    """Yield findings if gradients are too large or too small.

    The gradient of the first weight must not be 0.
    """
    largest = max(weights, key=_size)
    relative = _size(largest) / of_output if of_output else 1.0
    if relative > EXPLODING:
        yield "exploding-gradient", _in_words(largest), largest.name
    if _size(largest) < SWALLOWED:
        seen = f"no gradient is larger than {_size(largest):.1e}"
        yield "vanishing-gradient", seen, *_names(weights)
        return
    if layers and not layers[-1].holds_spikes and len(weights) > 1:
        # The gradient of a readout without spikes may be large, because there is no surrogate
        # gradient between the readout and the loss.
        largest = max(weights[:-1], key=_size)
    smallest_ratio = min(VANISHING, FACTOR ** _layers_before(largest, weights, layers))
    if _size(weights[0]) < _size(largest) * smallest_ratio:
        seen = f"{_in_words(weights[0])}, and {_in_words(largest)}"
        yield "vanishing-gradient", seen, weights[0].name


def _layers_before(weight: Gradient, weights: list[Gradient], layers: list[Layer]) -> int:
    """Return how many layers lie between the first weight and `weight`.

    A recurrent layer has two weights. With at most two weights for each layer, the result is
    limited to the number of hidden layers.
    """
    place = weights.index(weight)
    depth = sum(each.name.startswith("hidden") for each in layers)  # 0 if unknown
    return min(place, depth) if depth and len(weights) <= 2 * (depth + 1) else place


def _size(gradient: Gradient) -> float:
    return gradient.rms or 0.0


def _in_words(gradient: Gradient) -> str:
    return f"the gradient of {gradient.name} is {_size(gradient):.1e}"


def _names(gradients: list[Gradient]) -> tuple[str, ...]:
    return tuple(each.name for each in gradients)


def _named(gradients: list[Gradient]) -> str:
    """Return up to three names of gradients as text, and the number of the other gradients."""
    names = _names(gradients)
    others = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + others
