"""Statistics of the spikes of a layer and of the gradient of a weight.

They are computed where the array lives, and only a few numbers are copied to the host.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from spikeloss_xp._arrays import Adapter, adapter_of, find_adapter, floating, or_one, read_values
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array
from spikeloss_xp.backends import HINT_FOR_TREES
from spikeloss_xp.primitives.chunks import slices

CHUNK = 1 << 20  # entries of an array that are reduced at once, to bound the memory
ENOUGH = 8  # steps that a neuron needs before it can be said to fire at every step


class Layer(NamedTuple):
    """How often the neurons of a layer fire in a batch.

    Attributes
    ----------
    name : str
        The name of the layer, such as ``"hidden.0"`` or ``"output"``.
    rate : float
        The fraction of steps in which a neuron fires.
    silent, always_on : float
        The fraction of neurons that never fire, and of neurons that fire at every step. Neurons
        that are masked at all steps are left out.
    silent_samples : float
        The fraction of samples in which no neuron fires.
    samples : int
        The number of samples.
    not_finite : int
        The number of entries that are NaN or infinite.
    """

    name: str
    rate: float
    silent: float
    always_on: float
    silent_samples: float
    samples: int
    not_finite: int


class Gradient(NamedTuple):
    """The size of the gradient of one parameter.

    Attributes
    ----------
    name : str
        The name of the parameter.
    rms : float or None
        The root mean square of its entries, which is NaN if an entry is NaN or infinite. None if
        the parameter has no gradient.
    not_finite : int
        The number of entries that are NaN or infinite.
    is_weight : bool
        Whether the gradient has at least two axes or is None.
    """

    name: str
    rms: float | None
    not_finite: int
    is_weight: bool


def leaves(x: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested sequences and mappings, each with its path, in their order."""
    if not isinstance(x, Mapping | list | tuple):
        yield name, x
        return
    for key, each in x.items() if isinstance(x, Mapping) else enumerate(x):
        yield from leaves(each, f"{name}.{key}" if name else str(key))


def reduced(adapter: Adapter, x: Array, axis: int, function: Callable[[Array], Any]) -> list[Array]:
    """Apply a function to chunks of samples, and join each of its results along `axis`."""
    size, length = math.prod(x.shape), x.shape[axis]
    before = (slice(None),) * axis
    parts = [function(x[*before, chunk, ...]) for chunk in slices(length, CHUNK * length // size)]
    if len(parts) == 1:
        return list(parts[0])
    return [adapter.xp.concat(same, axis=axis) for same in zip(*parts, strict=True)]


def count_spikes(adapter: Adapter, x: Array, layout: Layout, name: str) -> tuple[Array, Array]:
    """Return the numbers of spikes, and of entries that are NaN or infinite, in each train.

    Both have the axes of `x`, with a time axis of length 1.
    """
    xp = adapter.xp

    def counts(chunk: Array) -> tuple[Array, Array]:
        chunk = floating(adapter, chunk, name)
        finite = xp.isfinite(chunk)
        spikes, others = finite & (chunk != 0), ~finite
        both = (xp.astype(each, chunk.dtype) for each in (spikes, others))
        number, bad = (xp.sum(each, axis=layout.time, keepdims=True) for each in both)
        return number, bad

    number, bad = reduced(adapter, x, layout.batch_axis, counts)
    return number, bad


def layer_of(name: str, adapter: Adapter, trains: tuple[Array, Array], entries: Any) -> Layer:
    """Return the statistics of a layer from its trains.

    The trains are the numbers of their spikes and of their entries that are NaN or infinite, with
    the axes ``[sample, neuron, 1]``. `entries` is the number of unmasked steps of a train, as an
    array with these axes or as one int for all trains.
    """
    xp, (spikes, bad) = adapter.xp, trains
    if isinstance(entries, int):
        several = entries > 1
        entries = xp.full_like(spikes, entries)
    else:
        entries = xp.broadcast_to(entries, spikes.shape)
        several = True

    def number(condition: Array) -> Array:
        return xp.sum(xp.astype(condition, spikes.dtype))

    by_neuron, of_neuron = (xp.sum(each, axis=(0, 2)) for each in (spikes, entries))
    always = (by_neuron == of_neuron) & (of_neuron >= ENOUGH)
    known = of_neuron > 0
    numbers = [xp.sum(spikes), xp.sum(entries), number(known), number(known & (by_neuron == 0))]
    numbers += [number(always), number(xp.sum(spikes, axis=(1, 2)) == 0), xp.sum(bad)]
    found = read_values(adapter, xp.stack(numbers), name).tolist()
    fired, steps, neurons, silent, always_on, silent_samples, not_finite = found
    return Layer(
        name,
        rate=fired / max(steps, 1),
        silent=silent / max(neurons, 1),
        always_on=always_on / max(neurons, 1) if several else 0.0,
        silent_samples=silent_samples / spikes.shape[0],
        samples=spikes.shape[0],
        not_finite=int(not_finite),
    )


def hidden_layer(name: str, adapter: Adapter, x: Array, time_axis: int) -> Layer:
    """Return the statistics of a hidden layer. An array with two axes has a single time step."""
    if x.ndim < 3:
        samples_and_neurons = (*x.shape, 1, 1)[:2]
        x, time_axis = adapter.xp.reshape(x, (*samples_and_neurons, 1)), -1
    layout = Layout.of(tuple(x.shape), time_axis, name)
    x = layout.collapsed(adapter, x)
    counts = count_spikes(adapter, x, layout, name)
    spikes, bad = (adapter.moveaxis(each, layout.time, -1) for each in counts)
    return layer_of(name, adapter, (spikes, bad), layout.steps)


def gradients_of(gradients: Any) -> tuple[Gradient, ...]:
    """Return the sizes of the gradients in nested sequences and mappings, in their order."""
    found = [_gradient(name or "weight", x) for name, x in leaves(gradients, "")]
    if not found:
        raise ValueError("gradients must hold at least one array or None; got none")
    return tuple(each for each in found if each is not None)


def _gradient(name: str, x: Any) -> Gradient | None:
    """Return the size of a gradient, or None if the array has no entries."""
    if x is None:
        return Gradient(name, None, 0, True)
    argument = f"gradients ({name})"
    if find_adapter(x) is None:
        raise TypeError(
            f"{argument} must be an array or None; got {type(x).__qualname__}: {HINT_FOR_TREES}"
        )
    adapter, x = eager(adapter_of(x, argument), x, argument)
    if 0 in x.shape:
        return None
    xp, x = adapter.xp, floating(adapter, x, argument)
    magnitude = xp.abs(x)
    largest = xp.max(magnitude)
    # Squares of very small or large entries would underflow or overflow, so divide first.
    mean = xp.mean((magnitude / or_one(adapter, largest)) ** 2)
    bad = xp.sum(xp.astype(~xp.isfinite(x), x.dtype))
    largest, mean, bad = read_values(adapter, xp.stack([largest, mean, bad]), argument).tolist()
    rms = math.nan if bad else largest * math.sqrt(mean)
    return Gradient(name, rms, int(bad), x.ndim > 1)


def eager(adapter: Adapter, x: Array, name: str) -> tuple[Adapter, Array]:
    """Return a detached array, copied to the host if its library would compute it only later."""
    if adapter.is_lazy:
        x = read_values(adapter, x, name)
        return adapter_of(x), x
    return adapter, adapter.stop_gradient(x)
