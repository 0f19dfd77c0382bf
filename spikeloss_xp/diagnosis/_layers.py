"""Statistics of the spikes of a layer and of the gradient of a weight.

Arrays are reduced on their own device. Only a number for each neuron, sample or gradient and a few
sample values are copied to the host.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import Adapter, adapter_of, find_adapter, floating, read_values
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import mask_of
from spikeloss_xp._typing import Array
from spikeloss_xp.backends import HINT_FOR_TREES
from spikeloss_xp.primitives.chunks import slices

CHUNK = 1 << 20  # the number of entries that are reduced at a time, which limits memory use
SAMPLE = 1 << 16  # the number of entries that are copied to the host to see if they are spikes
ENOUGH = 8  # the number of steps needed to say that a neuron fires at every step


class Layer(NamedTuple):
    """How often the neurons of a layer fire in a batch.

    Attributes
    ----------
    name : str
        The name of the layer, such as ``"hidden.0"`` or ``"output"``.
    rate : float
        The fraction of steps in which a neuron fires.
    silent, always_on : float
        The fraction of neurons that never fire, and of neurons that fire at every step. A neuron
        with fewer than 8 unmasked steps in the batch, or with only one in each sample, is not
        counted as always on. Neurons that are masked at all steps are left out.
    silent_samples : float
        The fraction of samples in which no neuron fires.
    samples : int
        The number of samples.
    finite : bool
        Whether no entry is NaN or infinite.
    """

    name: str
    rate: float
    silent: float
    always_on: float
    silent_samples: float
    samples: int
    finite: bool


class Gradient(NamedTuple):
    """The size of the gradient of one parameter.

    Attributes
    ----------
    name : str
        The name of the parameter.
    rms : float or None
        The root mean square of its entries, which is NaN if an entry is NaN or infinite. None if
        the parameter has no gradient.
    is_weight : bool
        Whether the gradient has at least two axes or is None.
    """

    name: str
    rms: float | None
    is_weight: bool


def leaves(x: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested sequences and mappings, each with its path, in their order."""
    if not isinstance(x, Mapping | list | tuple):
        yield name, x
        return
    for key, each in x.items() if isinstance(x, Mapping) else enumerate(x):
        yield from leaves(each, f"{name}.{key}" if name else str(key))


def reduced(adapter: Adapter, x: Array, axis: int, function: Callable[[Array], Array]) -> Array:
    """Apply a function to chunks of samples, and join the results along `axis`."""
    size, length = math.prod(x.shape), x.shape[axis]
    before = (slice(None),) * axis
    parts = [function(x[*before, chunk, ...]) for chunk in slices(length, CHUNK * length // size)]
    return parts[0] if len(parts) == 1 else adapter.xp.concat(parts, axis=axis)


def count_spikes(adapter: Adapter, x: Array, layout: Layout, name: str) -> tuple[Array, Array]:
    """Return the number of spikes and the sum of each train, with a time axis of length 1.

    The axes of `x` are batch, class and time. The sum shows whether all entries are finite.
    """
    xp = adapter.xp

    def total(chunk: Array) -> Array:
        return xp.sum(floating(adapter, chunk, name), axis=layout.time, keepdims=True)

    def number(chunk: Array) -> Array:
        chunk = floating(adapter, chunk, name)
        return xp.sum(xp.astype(chunk != 0, chunk.dtype), axis=layout.time, keepdims=True)

    converts = floating(adapter, x[:1, :1, :1], name).dtype != x.dtype
    totals = reduced(adapter, x, layout.batch_axis, total) if converts else total(x)
    # The sum of a binary train is its number of spikes, and is three times as fast to compute.
    values = some_values(adapter, x, layout.batch_axis, name)
    if ((values == 0) | (values == 1)).all():
        plausible = (totals == xp.round(totals)) & (totals >= 0) & (totals <= layout.steps)
        if read_values(adapter, xp.all(plausible), name):
            return totals, totals
    return reduced(adapter, x, layout.batch_axis, number), totals


def some_values(adapter: Adapter, x: Array, axis: int, name: str, entries: int = 1 << 14) -> Any:
    """Copy about `entries` values to the host, from samples spread over the whole batch."""
    step = min(max(1, math.prod(x.shape) // entries), x.shape[axis])
    return read_values(adapter, x[(*(slice(None),) * axis, slice(None, None, step), ...)], name)


def odd_values(adapter: Adapter, x: Array, mask: Array | None, axis: int) -> str:
    """Describe the values that are not spike counts, or return "" if they have few levels.

    Graded spikes and means over several neurons have few levels. Only some samples are examined,
    because their values are copied to the host.
    """
    values = some_values(adapter, x, axis, "input", SAMPLE)
    if mask is not None:
        mask = adapter.xp.broadcast_to(mask, x.shape)
        values = values[some_values(adapter, mask, axis, "where", SAMPLE)]
    odd = values[np.isfinite(values) & ((values < 0) | (values != np.round(values)))]
    if len(np.unique(odd)) <= min(16, values.size // 4):
        return ""
    bounds = f"values range from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
    return f"{len(odd) / values.size:.0%} of the values are fractional or negative ({bounds})"


def layer_of(name: str, adapter: Adapter, spikes: Array, total: Array, entries: Any) -> Layer:
    """Return the statistics of a layer from the results of `count_spikes`.

    Their axes are ``[sample, neuron, 1]``. `entries` is the number of unmasked steps of each train,
    as a NumPy array with these axes or as one int for all trains.
    """
    xp, (samples, neurons, _) = adapter.xp, spikes.shape
    sums = [xp.sum(spikes, axis=(0, 2)), xp.sum(spikes, axis=(1, 2)), xp.sum(total, axis=(0, 1))]
    found: Any = read_values(adapter, xp.concat(sums), name)
    by_neuron, by_sample, everything = np.split(found, [neurons, neurons + samples])
    several = np.max(entries) > 1
    each: Any = entries * samples if isinstance(entries, int) else entries.sum(axis=(0, 2))
    steps = each + 0 * by_neuron
    by_neuron, steps = by_neuron[steps > 0], steps[steps > 0]
    known = max(len(steps), 1)
    always = (by_neuron == steps) & (steps >= ENOUGH)
    return Layer(
        name,
        rate=float(by_neuron.sum()) / max(float(steps.sum()), 1),
        silent=float((by_neuron == 0).sum() / known),
        always_on=float(always.sum() / known) if several else 0.0,
        silent_samples=float((by_sample == 0).mean()),
        samples=samples,
        finite=bool(np.isfinite(everything).all()),
    )


def hidden_layer(
    name: str, adapter: Adapter, x: Array, time_axis: int, where: Any = None, lengths: Any = None
) -> Layer:
    """Return the statistics of the unmasked entries of a hidden layer.

    An array with two axes has a single time step, and is not masked.
    """
    if x.ndim < 3:
        samples_and_neurons = (*x.shape, 1)[:2]
        x, time_axis = adapter.xp.reshape(x, (*samples_and_neurons, 1)), -1
        where = lengths = None
    layout, entries = Layout.of(tuple(x.shape), time_axis, name), None
    mask, _ = mask_of(adapter, layout, x, where, lengths)
    x = layout.collapsed(adapter, x)
    if mask is not None:
        xp = adapter.xp
        mask = xp.broadcast_to(layout.collapsed(adapter, mask), x.shape)
        x = xp.where(mask, x, xp.zeros_like(x))
        steps = xp.sum(xp.astype(mask, xp.int32), axis=layout.time, keepdims=True)
        entries = read_values(adapter, adapter.moveaxis(steps, layout.time, -1), name)
    counts = count_spikes(adapter, x, layout, name)
    spikes, total = (adapter.moveaxis(each, layout.time, -1) for each in counts)
    return layer_of(name, adapter, spikes, total, layout.steps if entries is None else entries)


def gradients_of(gradients: Any) -> tuple[Gradient, ...]:
    """Return the sizes of the gradients in nested sequences and mappings, in their order."""
    found = [_gradient(name or "weight", x) for name, x in leaves(gradients, "")]
    if not found:
        raise ValueError("gradients must hold at least one array or None; got none")
    return tuple(each for each in found if each is not None)


def _gradient(name: str, x: Any) -> Gradient | None:
    """Return the size of a gradient, or None if the array has no entries."""
    if x is None:
        return Gradient(name, None, True)
    argument = f"gradients ({name})"
    if find_adapter(x) is None:
        raise TypeError(
            f"{argument} must be an array or None; got {type(x).__qualname__}: {HINT_FOR_TREES}"
        )
    adapter, x = eager(x, argument)
    if 0 in x.shape:
        return None
    xp, x = adapter.xp, floating(adapter, x, argument)
    mean, scale = float(read_values(adapter, xp.mean(x * x), argument)), 1.0
    if not 1e-30 < mean < 1e30:  # squares may have underflowed or overflowed
        scale = float(read_values(adapter, xp.max(xp.abs(x)), argument))
        x = x / (scale if 0 < scale < math.inf else 1.0)
        mean = float(read_values(adapter, xp.mean(x * x), argument))
    return Gradient(name, scale * math.sqrt(mean), x.ndim > 1)


def eager(x: Any, name: str) -> tuple[Adapter, Array]:
    """Return the adapter for an array, and the array without its graph.

    An array from a lazy library is computed and copied to the host.
    """
    adapter = adapter_of(x, name)
    if adapter.is_lazy:
        x = read_values(adapter, x, name)
        return adapter_of(x), x
    return adapter, adapter.stop_gradient(x)
