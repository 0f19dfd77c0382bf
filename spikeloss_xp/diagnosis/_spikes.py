"""The statistics of the spikes in a layer, and the findings about them.

The spikes are reduced on their own device, and the statistics are computed from the copied results.
The thresholds for the findings were chosen in training experiments.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spikeloss_xp._arrays import Adapter, floating
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis._report import Layer
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


# On the device ------------------------------------------------------------------------------------


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


# On the host --------------------------------------------------------------------------------------


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


# Findings -----------------------------------------------------------------------------------------


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
    if is_output(name):
        return None
    if always_on >= STUCK_ON and silent + always_on >= STUCK:
        seen = f"{silent:.0%} of the neurons of {name} are silent, and {always_on:.0%} always fire"
        return "stuck-hidden", seen
    if layer.rate > BUSY:
        return "busy-hidden", f"{name} fires in {layer.rate:.0%} of the steps"
    return None


def silent_layer(name: str, samples: int) -> tuple[str, ...]:
    """Return the observation that a layer is silent in every sample."""
    code = "silent-output" if is_output(name) else "silent-hidden"
    return code, f"{name} is silent in all {samples} samples", name


def is_output(name: str) -> bool:
    """Return whether a layer is an output. There may be several, such as ``"output.boxes"``."""
    return name.partition(".")[0] == "output"
