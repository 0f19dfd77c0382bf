"""The statistics of the spikes in a layer, and the findings about them."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from spikeloss_xp._arrays import Adapter, floating
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis._report import Layer
from spikeloss_xp.primitives import slices

CHUNK = 1 << 20  # to limit memory use, about this many entries are summed at a time
SAMPLE = 1 << 16  # the number of entries that are copied to the host to see if they are spikes
ENOUGH = 8  # neurons with fewer steps are not reported as always on
QUIET = 0.01  # an output is quiet if its neurons fire in less than this fraction of the steps
BUSY = 0.4  # a layer is busy if its neurons fire in more than this fraction of the steps


# On the device ------------------------------------------------------------------------------------


def activity(adapter: Adapter, layout: Layout, x: Array, name: str) -> dict[str, Array]:
    """Return the arrays from which `layer_of` computes the statistics of a layer.

    The axes of `x` are batch, class and time, in the order of `layout`. Masked entries of `x` are
    0.
    """
    xp = adapter.xp
    axis = layout.batch_axis

    def over_time(trains: Array) -> Array:
        return xp.sum(trains, axis=layout.time, keepdims=True)

    def count(trains: Array) -> Array:
        fires = xp.astype(trains != 0, trains.dtype)
        return over_time(fires)

    def reduced(function: Callable[[Array], Array]) -> Array:
        """Apply the function to one chunk of samples at a time, and join the results."""
        size = CHUNK * layout.batch // math.prod(x.shape)
        before = (slice(None),) * axis
        parts = []
        for chunk in slices(layout.batch, size):
            trains = floating(adapter, x[*before, chunk, ...], name)
            parts.append(function(trains))
        return xp.concat(parts, axis=axis)

    sums = reduced(over_time)
    sample = floating(adapter, some_samples(x, axis))
    # The sum of a binary train is its number of spikes. The sum is faster to compute than the
    # number of entries that are not 0.
    is_binary = _are_binary(adapter, sample, sums, layout.steps)
    spikes = sums if is_binary else reduced(count)
    return {"spikes": spikes, "total": xp.sum(sums), "sample": sample}


def unmasked(adapter: Adapter, layout: Layout, mask: Array | None, x: Array) -> dict[str, Array]:
    """Return the number of unmasked steps of each train, and the mask of `some_samples`."""
    if mask is None:
        return {}
    ones = adapter.xp.astype(mask, adapter.xp.float32)
    entries = adapter.xp.sum(ones, axis=layout.time, keepdims=True)
    kept = some_samples(adapter.xp.broadcast_to(ones, x.shape), layout.batch_axis)
    return {"entries": entries, "kept": kept}


def some_samples(x: Array, axis: int) -> Array:
    """Return every n-th sample of a batch, with n chosen to get about `SAMPLE` entries."""
    step = min(max(1, math.prod(x.shape) // SAMPLE), x.shape[axis])
    return x[(*(slice(None),) * axis, slice(None, None, step), ...)]


def _are_binary(adapter: Adapter, sample: Array, sums: Array, steps: int) -> bool:
    """Return whether all entries seem to be 0 or 1."""
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
) -> Layer:  # fmt: skip
    """Return the statistics of a layer.

    The arguments after `layout` are arrays from the dicts that `activity` and `unmasked` returned,
    copied to the host.
    """
    of_train = np.broadcast_to(layout.steps if entries is None else entries, spikes.shape)
    axes = layout.batch_axis, layout.time
    steps = of_train.sum(axis=axes, dtype=float)
    fired = spikes.sum(axis=axes, dtype=float)[steps > 0]
    steps = steps[steps > 0]
    neurons = max(len(steps), 1)
    always_on = (fired == steps) & (steps >= ENOUGH) & (of_train.max() > 1)
    return Layer(
        name,
        rate=float(fired.sum()) / max(float(steps.sum()), 1),
        silent=float((fired == 0).sum() / neurons),
        always_on=float(always_on.sum() / neurons),
        samples=layout.batch,
        finite=bool(np.isfinite(total)),
        holds_spikes=not odd_values(sample, kept),
    )


def of_times(name: str, times: Any, fires: Any) -> Layer:
    """Return the statistics of a layer of spike times.

    The axes of `times` are batch, neuron and, optionally, spike. `fires` is True for entries of
    `times` that are the time of a spike.
    """
    neurons = (*times.shape[:2], -1)
    first = np.where(fires, times, np.inf).reshape(neurons).min(axis=-1)
    fired = np.any(np.reshape(fires, neurons), axis=-1)
    return Layer(
        name,
        rate=math.nan,
        silent=float(np.mean(~fired.any(axis=0))),
        always_on=0.0,
        samples=len(times),
        finite=True,
        first_spike=float(first[fired].mean()) if fired.any() else math.nan,
    )


def odd_values(values: Any, kept: Any = None) -> str:
    """Return a description of values that cannot be spikes, or "" if they can be spikes.

    Up to 16 distinct values may be fractional or negative, because graded spikes and averaged spike
    counts have few distinct values. `kept` is 0 for masked values, which are ignored.
    """
    values = values if kept is None else values[kept > 0]
    odd = values[np.isfinite(values) & ((values < 0) | (values != np.round(values)))]
    if len(np.unique(odd)) <= min(16, values.size // 4):
        return ""
    bounds = f"values range from {np.nanmin(values):.3g} to {np.nanmax(values):.3g}"
    return f"{len(odd) / values.size:.0%} of the values are fractional or negative ({bounds})"


# Findings -----------------------------------------------------------------------------------------


def findings_of(layer: Layer) -> Iterator[tuple[str, ...]]:
    """Yield a finding if a layer is not finite, is silent, or fires too often."""
    name, output = layer.name, is_output(layer.name)
    if not layer.finite:
        yield "not-finite", f"entries of {name} are NaN or infinite", name
    elif layer.silent == 1:
        code = "silent-output" if output else "silent-hidden"
        yield code, f"{name} is silent in all {layer.samples} samples", name
    elif layer.holds_spikes and layer.rate > BUSY and not output:
        yield "busy-hidden", f"{name} fires in {layer.rate:.0%} of the steps", name


def quiet_outputs(layers: list[Layer]) -> Iterator[tuple[str, ...]]:
    """Yield a finding for each output layer that hardly fires.

    This function is used only after some training, because many outputs fire too rarely at first.
    """
    for name, rate in [(each.name, each.rate) for each in layers if each.holds_spikes]:
        if is_output(name) and 0 < rate < QUIET:  # silent outputs are reported elsewhere
            yield "quiet-output", f"{name} fires in {rate:.2%} of the steps", name


def is_output(name: str) -> bool:
    """Return whether a layer is an output layer, such as ``"output"`` or ``"output.boxes"``."""
    return name.partition(".")[0] == "output"
