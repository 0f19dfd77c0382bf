"""The function `diagnose`."""

import dataclasses
import math
from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp import losses
from spikeloss_xp._arrays import Adapter, adapter_of, find_adapter, floating, host_values, rank
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import ArrayLike
from spikeloss_xp.diagnosis import _rules
from spikeloss_xp.diagnosis._batch import Batch
from spikeloss_xp.diagnosis._layers import (
    Layer,
    eager,
    gradients_of,
    hidden_layer,
    leaves,
    odd_values,
)
from spikeloss_xp.diagnosis._report import Finding, Report, finding_of, silent_layer, texts

# Findings about layers are sorted by layer, from input to output. Among other findings, all of them
# have the rank of the first one, which also comes first in the texts.
OF_LAYERS = ("saturated", "stuck-hidden", "busy-hidden", "silent-hidden", "silent-output")


def diagnose(
    loss: Any, spikes: Any, target: ArrayLike | None = None, *, hidden: Any = None,
    gradients: Any = None, where: ArrayLike | None = None, lengths: ArrayLike | None = None,
    weight: ArrayLike | None = None,
) -> Report:  # fmt: skip
    """Inspect one batch and report what keeps a network from learning.

    The spikes of the hidden layers and the gradients of the weights decide whether a network will
    learn, so pass both. Spikes and gradients are reduced on their own device. The results and a few
    sample values are copied to the host, which synchronises the device. Neither the arguments nor
    the graphs and gradients of the caller are modified.

    Parameters
    ----------
    loss : callable
        A loss of this library.
    spikes : array
        The input of the loss, which is the output of the network. If `SparsityEnforcer` has a
        `layer_axis`, the report shows each layer along this axis.
    target : array or sequence, optional
        The target. Omit it for `SparsityEnforcer`.
    hidden : array, or sequence or mapping of arrays, optional
        Spikes of the hidden layers, in the same layout as `spikes` and in order from input to
        output. Sequences and mappings may be nested, and mappings keep the order of their items.
    gradients : array, or sequence or mapping of arrays, optional
        The gradients of the loss with respect to the parameters, in order from input to output.
        Arrays may come from any supported library. Sequences and mappings may be nested. None
        stands for a weight without a gradient. Arrays with two or more axes are treated as
        weights. All arrays are checked for NaN and infinity.
    where, lengths, weight : array or sequence, optional
        The other arguments of a call to the loss. The lengths also mask the padding of the hidden
        layers that have as many steps as `spikes`.

    Returns
    -------
    diagnosis.Report
        A report whose string is a table. Its `findings` are empty if nothing was found.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape or type, just as when the loss is called, or if an array
        is traced, as in a compiled function. Values that the loss does not accept are reported as a
        finding instead.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> loss, output = sx.CrossEntropy(time_axis=0), np.zeros((20, 4, 3))
    >>> report = sx.diagnose(loss, output, [0, 1, 2, 0])
    >>> [finding.code for finding in report.findings]
    ['silent-output']
    """
    if not isinstance(loss, losses.Loss):
        raise TypeError(f"loss must be a loss of this library, such as SpikeMax(); got {loss!r}")
    penalty = isinstance(loss, losses.SparsityEnforcer)
    if penalty and target is not None:
        raise TypeError("SparsityEnforcer takes no target, but got one: omit the target")
    inputs = dict(leaves(spikes, "input")) if penalty else {"input": spikes}
    adapter = adapter_of(next(iter(inputs.values()), None))
    observed: list[tuple[str, ...]] = []
    if gradients is None and any(adapter.lacks_graph(x) for x in inputs.values()):
        seen = "the spikes are detached, so the loss has no gradient with respect to the weights"
        observed.append(("no-graph", seen))
    given = {"where": where, "lengths": lengths, "weight": weight}
    with np.errstate(all="ignore"), adapter.without_graph():
        sizes = () if gradients is None else gradients_of(gradients)
        arguments = {key: _argument(adapter, x, key) for key, x in given.items() if x is not None}
        if target is not None:
            arguments["target"] = _argument(adapter, target, "target")
        inspect = _inspect_penalty if penalty else _inspect_batch
        numbers, layers, of_call, divisor = inspect(loss, spikes, arguments)
        trains = _hidden(loss, hidden)
        shape = None if penalty or loss.reads_times else tuple(spikes.shape)
        lengths = None if numbers["loss"] is None else arguments.get("lengths")  # or they are wrong
        more, of_layers = _inspect_layers(loss, trains, shape, lengths=lengths)
    layers = (*more, *layers)
    observed += [*of_call, *of_layers, *_rules.of_gradients(sizes, divisor)]
    codes = {code for code, *_ in observed}
    if not any(texts()[code]["severity"] == "problem" for code in codes):
        observed += _rules.at_chance(numbers, layers, sizes)
    all_learn = "no-gradient" not in codes if sizes else None
    findings = [finding_of(each, loss, all_learn=all_learn) for each in observed]
    names = [*(layer.name for layer in layers), *trains, "output"]
    findings.sort(key=lambda each: _place(each, names))
    return Report(numbers, layers, sizes, tuple(findings))


def _place(finding: Finding, names: list[str]) -> tuple[bool, int, int]:
    """Return a sort key for problems before notes, causes before effects, and layers in order."""
    of_layer = finding.code in OF_LAYERS
    rank = list(texts()).index(OF_LAYERS[0] if of_layer else finding.code)
    return finding.severity != "problem", rank, names.index(finding.names[0]) if of_layer else 0


def _hidden(loss: Any, hidden: Any) -> dict[str, Any]:
    """Return the arrays of the hidden layers, keyed by name."""
    trains = {name: x for name, x in leaves(hidden, "hidden") if x is not None}
    for name, x in trains.items():
        if not loss.reads_times and getattr(x, "ndim", 3) < 3:
            raise ValueError(
                f"{name} must have a batch, a neuron and a time axis, like the input; got shape "
                f"{tuple(x.shape)}: if the list holds the time steps of a layer, stack them into "
                "one array"
            )
    return trains


def _argument(adapter: Adapter, x: Any, name: str) -> Any:
    """Return an argument of the loss as a NumPy array, or unchanged if it may be large.

    The loss checks the values of a NumPy array, but not the values of an array on a GPU.
    """
    found = find_adapter(x)
    if found is adapter and rank(x) > 2 and not adapter.is_lazy:
        return adapter.stop_gradient(x)
    return host_values(x, name)


def _inspect_batch(
    loss: Any, spikes: Any, arguments: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Layer, ...], list[tuple[str, ...]], float]:
    """Return the numbers, the output layer and the observations of a call, and its divisor.

    The divisor is the number of terms if the loss is a sum, and 1 otherwise.
    """
    _, x = eager(spikes, "input")
    if loss.reads_times:
        x = host_values(x, "input")
        arguments = {name: host_values(each, name) for name, each in arguments.items()}
    is_sum, loss = loss.reduction == "sum", dataclasses.replace(loss, reduction="mean")
    try:
        batch = Batch(loss, x, **arguments)
    except ValueError as error:
        return {"loss": None}, (), [_refusal(loss, x, arguments, error)], 1.0
    divisor = batch.divisor if is_sum else 1.0
    layers = () if batch.output is None else (batch.output,)
    observed = [*batch.findings()]
    for layer in layers:
        found = _rules.of_layer(layer, batch.odd_values)
        observed += [each for each in found if each[0] != "not-finite"]  # the loss may ignore these
    return batch.numbers(), layers, observed, divisor


def _inspect_penalty(
    loss: Any, spikes: Any, arguments: dict[str, Any]
) -> tuple[dict[str, Any], tuple[Layer, ...], list[tuple[str, ...]], float]:
    """Return the same as `_inspect_batch` for `SparsityEnforcer`."""
    try:
        value = float(host_values(loss(spikes, **arguments), "input"))
    except ValueError as error:
        return {"loss": None}, (), [_refusal(loss, spikes, arguments, error)], 1.0
    inputs: dict[str, Any] = {}
    for name, x in leaves(spikes, "input"):
        slices = loss._slices(x, plain=False)  # along `layer_axis`
        inputs.update(leaves(x if slices is None else list(slices), name))
    layers, of_layers = _inspect_layers(loss, inputs, None, **arguments)
    observed: list[tuple[str, ...]] = []
    if not math.isfinite(value):
        observed.append(("not-finite", f"the loss is {value}"))
    observed += of_layers
    largest = [adapter_of(x).xp.max(floating(adapter_of(x), x)) for x in inputs.values()]
    observed += loss.findings(max(float(host_values(x, "input")) for x in largest))
    return {"loss": value}, layers, observed, 1.0


def _inspect_layers(
    loss: Any,
    trains: dict[str, Any],
    shape: tuple[int, ...] | None,
    where: Any = None,
    lengths: Any = None,
) -> tuple[tuple[Layer, ...], list[tuple[str, ...]]]:
    """Return the statistics of layers and the observations about them.

    Given the `shape` of the output, hidden layers must have as many samples as the output, and the
    lengths apply to the layers that have as many steps.
    """
    layers: list[Layer] = []
    observed: list[tuple[str, ...]] = []
    for name, x in trains.items():
        if loss.reads_times:
            times = host_values(x, name)
            if not np.isfinite(times).any():
                observed.append(silent_layer(name, len(times)))
            continue
        adapter, x = eager(x, name)
        padding = lengths if shape is None else _lengths_of(name, x, shape, loss.time_axis, lengths)
        layer = hidden_layer(name, adapter, x, loss.time_axis, where, padding)
        layers.append(layer)
        observed += _rules.of_layer(layer, partial(odd_values, adapter, x, None, 0))
    return tuple(layers), observed


def _lengths_of(
    name: str, x: Any, shape: tuple[int, ...], time_axis: int, lengths: Any
) -> Any | None:
    """Return the lengths that apply to a hidden layer, or raise if it has other samples."""
    output, hidden = (Layout.of(tuple(s), time_axis, name) for s in (shape, x.shape))
    if isinstance(output.batch, int) and hidden.batch != output.batch:
        raise ValueError(
            f"{name} must have as many samples as the input, {output.batch}, with the axes in the "
            f"same order; got {hidden.batch} samples in shape {hidden.shape}"
        )
    return lengths if hidden.steps == output.steps else None


def _refusal(loss: Any, x: Any, arguments: dict[str, Any], error: ValueError) -> tuple[str, str]:
    """Return the observation that the loss rejects values, or raise if a shape is wrong."""
    silent = 2 * loss.reads_times  # losses on spike times reject times of 0 as binned spikes
    arrays = [np.full_like(host_values(each, "input"), silent) for _, each in leaves(x, "input")]
    plain = {name: np.zeros_like(host_values(y, name)) for name, y in arguments.items()}
    if "target" in plain and plain["target"].dtype.kind == "f":
        plain["target"] += silent
    loss(arrays if isinstance(loss, losses.SparsityEnforcer) else arrays[0], **plain)
    return "refused", str(error)
