"""The function `diagnose`: it checks its arguments, calls the loss, and makes the report."""

from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp import _arrays, _checks, losses
from spikeloss_xp._arrays import Adapter, host_values
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import ArrayLike
from spikeloss_xp.diagnosis import _layers, _losses
from spikeloss_xp.diagnosis._batch import Batch
from spikeloss_xp.diagnosis._calls import Call, Function, Penalty, Refusal
from spikeloss_xp.diagnosis._report import (
    Finding,
    Layer,
    Observation,
    Observations,
    Report,
    finding_of,
    sort_key,
    texts,
)
from spikeloss_xp.diagnosis._spikes import is_output

# With `earlier`, a report names an output that fires in a smaller share of the steps than QUIET,
# and a loss that has fallen by a smaller share than MOVED.
QUIET, MOVED = 0.01, 0.003
DETACHED = "the output is detached, so the loss has no gradient with respect to the weights"


def diagnose(
    loss: Any, input: Any, target: ArrayLike | None = None, *, time_axis: int | None = None,
    hidden: Any = None, gradients: Any = None, where: ArrayLike | None = None,
    lengths: ArrayLike | None = None, weight: ArrayLike | None = None,
    earlier: Report | float | None = None,
) -> Report:  # fmt: skip
    """Inspect one batch and report what keeps a network from learning.

    The spikes of the hidden layers and the gradients of the weights decide whether a network will
    learn, so pass both. Spikes and gradients are reduced on their own device. The results and a few
    sample values are copied to the host, which synchronises the device. The arguments, their graphs
    and their gradients are not modified.

    Parameters
    ----------
    loss : callable or None
        A loss of this library (possibly wrapped in a ``LossModule``), any other function of the
        input and the target, or None. A function that is not a loss of this library is called as
        ``loss(input, target)``, or as ``loss(input)`` if there is no target. The report then shows
        the loss and everything about layers and gradients, but nothing about classes. A function
        that cannot be differentiated may be called twice.
    input : array, or sequence or mapping of arrays
        The input of the loss, which is the output of the network. For `SparsityEnforcer`, you can
        pass several arrays, and the report shows each array as a layer. If `loss` is not a loss of
        this library, you can pass several outputs.
    target : array or sequence, optional
        The target. Omit it for `SparsityEnforcer`.
    time_axis : int, optional
        The time axis of the input. This argument is required unless `loss` is a loss of this
        library, which has its own time axis.
    hidden : array, or sequence or mapping of arrays, optional
        Spikes of the hidden layers, in the same layout as `input` and in order from input to
        output. Sequences and mappings may be nested, and mappings keep the order of their items.
    gradients : array, or sequence or mapping of arrays, optional
        The gradients of the loss with respect to the parameters, in order from input to output.
        Arrays may come from any supported library. Sequences and mappings may be nested. None
        stands for a weight without a gradient, and the report says so. Leave out parameters that
        are frozen or that do not affect the loss. Arrays with two or more axes are treated as
        weights. All arrays are checked for NaN and infinity. If the loss was scaled for mixed
        precision, divide the gradients by the scale first, as ``scaler.unscale_(optimizer)`` does
        in PyTorch.
    where, lengths, weight : array or sequence, optional
        The other arguments of a call to the loss. If a hidden layer has as many steps as `input`,
        the lengths also apply to that layer. A mask also applies to that layer, unless the mask
        differs between neurons. If `loss` is not a loss of this library, the mask and the lengths
        apply to `input`, and `weight` is not accepted.
    earlier : diagnosis.Report or float, optional
        The report on the same batch before some training, such as 30 updates, or the loss of the
        batch at that time. The report then also says if the loss has hardly changed, or if the
        output of a classifier fires in fewer than 1 % of the steps. Before training, neither means
        that the network will not learn.

    Returns
    -------
    diagnosis.Report
        A report, which is printed as a table. If nothing was found, `findings` is empty.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape or type, or if an array is traced (as in a compiled
        function). Values that the loss does not accept are reported as a finding instead. If `loss`
        is not a loss of this library, any error that it raises is also reported as a finding.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> loss, output = sx.CrossEntropy(time_axis=0), np.zeros((20, 4, 3))
    >>> report = sx.diagnose(loss, output, [0, 1, 2, 0])
    >>> [finding.code for finding in report.findings]
    ['silent-output']
    """
    loss, weight = _unwrapped(loss, weight)
    given = {"where": where, "lengths": lengths, "weight": weight, "target": target}
    given = {name: x for name, x in given.items() if x is not None}
    axis = _checked_time_axis(loss, input, time_axis, given)
    inputs = _named_inputs(loss, input)
    adapter = _arrays.adapter_of(next(iter(inputs.values())))
    observed: list[Observation] = []
    call: Any = None
    if not isinstance(loss, losses.Loss):
        layouts = {name: Layout.of(_arrays.shape_of(x), axis, name) for name, x in inputs.items()}
        call = Function(loss, input, target, layouts)
    if gradients is None and any(adapter.lacks_graph(x) for x in inputs.values()):
        observed.append(("no-graph", DETACHED))
    with np.errstate(all="ignore"), adapter.without_graph():
        weights = [] if gradients is None else _layers.gradients_of(gradients, adapter)
        arguments = {name: _argument(adapter, x, name) for name, x in given.items()}
        call = call or _evaluate(adapter, loss, input, arguments)
        pending = _pending_layers(loss, axis, call, hidden, inputs, arguments)
        results = _layers.finished([*weights, call, *pending])
        observed += call.findings()
    sizes, of_layers = tuple(results[: len(weights)]), results[len(weights) + 1 :]
    observed += [each for _, findings in of_layers for each in findings]
    everything = [x for x in (*(layer for layer, _ in of_layers), call.output) if x is not None]
    observed += _layers.findings_of_gradients(sizes, everything, call.of_output, call.learned)
    numbers, layers = call.numbers(), [_layers.shown(x) for x in everything]
    observed += _since(earlier, call, numbers, everything)
    codes = {each.code if isinstance(each, Finding) else each[0] for each in observed}
    if not any(texts().get(code, {}).get("severity") == "problem" for code in codes):
        observed += _layers.at_chance(numbers, layers, sizes)
    all_learn = "no-gradient" not in codes if sizes else None
    found = [finding_of(x, loss, all_learn=all_learn, learned=call.learned) for x in observed]
    names = [*(each.name for each in pending), "output"]
    found.sort(key=lambda each: sort_key(each, names))
    return Report(numbers, tuple(layers), sizes, tuple(found))


def _since(
    earlier: Report | float | None, call: Any, numbers: dict[str, Any], layers: list[Layer]
) -> Observations:
    """Yield findings about a classifier or a loss that some training should have changed."""
    if earlier is None or call.learned:
        return
    value = numbers.get("loss")
    has_labels = call.labels > 0 if isinstance(call, Function) else "accuracy" in numbers
    before = earlier.numbers.get("loss") if isinstance(earlier, Report) else earlier
    if value is not None and before is not None:
        before = _checks.number(before, "earlier")
        if before - value < MOVED * abs(before):
            yield "not-moved", f"the loss is {value:.4g}, and was {before:.4g}"
    for layer in layers if has_labels else ():
        if is_output(layer.name) and layer.holds_spikes and layer.rate < QUIET:
            yield "quiet-output", f"{layer.name} fires in {layer.rate:.2%} of the steps", layer.name


def _unwrapped(loss: Any, weight: Any) -> tuple[Any, Any]:
    """Return the loss and the class weights that a module holds.

    If `loss` is not such a module, return both arguments unchanged. A `weight` that was passed is
    used instead of the weights in the module.
    """
    inner = getattr(loss, "loss", None)
    if not isinstance(inner, losses.Loss):
        return loss, weight
    return inner, getattr(loss, "weight", None) if weight is None else weight


def _checked_time_axis(loss: Any, input: Any, time_axis: int | None, given: dict[str, Any]) -> int:
    """Return the time axis of the layers. Raise an error if an argument does not fit the loss."""
    if isinstance(loss, losses.Loss):
        axis = getattr(loss, "time_axis", -1)
        rank = _arrays.rank(next(iter(dict(_layers.named_leaves(input, "input")).values()), None))
        if time_axis is not None and (time_axis - axis) % max(rank, 1):
            raise ValueError(f"time_axis must be that of the loss ({axis}); got {time_axis}")
        needs_target = bool(loss.targets)
        if needs_target and "target" not in given:
            raise TypeError(f"target must be given, because {type(loss).__name__} needs a target")
        if not needs_target and "target" in given:
            raise TypeError(f"{type(loss).__name__} takes no target, but got one: omit the target")
        return axis
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        raise TypeError(
            "loss must be a loss of this library (such as SpikeMax()), another function of the "
            f"input and the target, or None; got {loss!r}"
        )
    if time_axis is None:
        raise TypeError(
            "time_axis must be given unless loss is a loss of this library: pass 0 for "
            "[time, batch, neuron], 1 for [batch, time, neuron] or -1 for [batch, neuron, time]"
        )
    if "weight" in given:
        raise TypeError("weight is accepted only with a loss of this library: omit it")
    return time_axis


def _named_inputs(loss: Any, input: Any) -> dict[str, Any]:
    """Return the arrays of the input, keyed by their names in the table."""
    name = "input" if isinstance(loss, losses.Loss) else "output"
    several = name == "output" or isinstance(loss, losses.SparsityEnforcer)
    found = dict(_layers.named_leaves(input, name)) if several else {name: input}
    if not found:
        raise ValueError(f"{name} must hold at least one array; got none")
    return found


def _argument(adapter: Adapter, x: Any, name: str) -> Any:
    """Return an argument of the loss unchanged if it is large or on the host, else a NumPy array.

    Small arguments are copied to the host, because the loss checks only values on the host.
    """
    if _arrays.find_adapter(x) is adapter:
        on_host = adapter.concrete_or_none(x) is not None
        if on_host or (_arrays.rank(x) > 2 and not adapter.is_lazy):
            return adapter.stop_gradient(x)
    return host_values(x, name)


def _evaluate(adapter: Adapter, loss: Any, input: Any, arguments: dict[str, Any]) -> Any:
    """Return the call to the loss, or a `Refusal` if the loss does not accept some values."""
    penalty = isinstance(loss, losses.SparsityEnforcer)
    kind: Any = Penalty if penalty else Batch
    x = input if penalty else _layers.eager(input, "input")[1]
    if _losses.reads_times(loss):
        x = host_values(x, "input")
        arguments = {name: host_values(each, name) for name, each in arguments.items()}
    try:
        return kind(loss, x, **arguments)
    except ValueError as error:
        _check_shapes(loss, x, arguments)
        return Refusal(adapter, error)


def _pending_layers(
    loss: Any, time_axis: int, call: Any, hidden: Any, inputs: dict[str, Any],
    arguments: dict[str, Any],
) -> list[_layers.Pending]:  # fmt: skip
    """Return the statistics of the hidden layers, and of inputs that are shown as layers."""
    trains = {name: x for name, x in _layers.named_leaves(hidden, "hidden") if x is not None}
    if _losses.reads_times(loss):
        return [_layers.hidden_times(call.adapter, name, x) for name, x in trains.items()]
    layer = partial(_layers.layer, time_axis=time_axis)
    refused, penalty = isinstance(call, Refusal), isinstance(loss, losses.SparsityEnforcer)
    output = None if penalty else Layout.of(tuple(next(iter(inputs.values())).shape), time_axis)
    masks = {name: x for name, x in arguments.items() if name in ("where", "lengths")}
    shared: dict[str, Any] = {}
    if not (refused or output is None):  # the loss may have refused any of the masks
        kept = {name: _without_neurons(x, output, name) for name, x in masks.items()}
        shared = {name: x for name, x in kept.items() if x is not None}
    found = [layer(name, x, output=output, **shared) for name, x in trains.items()]
    if isinstance(call, Call) and not refused:
        found += [layer(name, x, single_step=penalty, **masks) for name, x in inputs.items()]
    return found


def _without_neurons(mask: Any, output: Layout, name: str) -> Any:
    """Return a mask or lengths without the neurons, or None if the mask differs between neurons."""
    mask = host_values(mask, name)
    if mask.ndim < 3:
        return mask
    if mask.ndim != len(output.shape) or any(mask.shape[axis] > 1 for axis in output.space_axes()):
        return None
    return np.broadcast_to(np.squeeze(mask, output.space_axes()), output.with_time(output.batch))


def _check_shapes(loss: Any, x: Any, arguments: dict[str, Any]) -> None:
    """Raise the loss's own error if the shape or the type of an argument is wrong."""
    # A loss on spike times would reject an array of zeros, which looks like binned spikes.
    silent = 2 * _losses.reads_times(loss)
    leaves = _layers.named_leaves(x, "input")
    arrays = [np.full_like(host_values(each, "input"), silent) for _, each in leaves]
    plain = {name: np.zeros_like(host_values(y, name)) for name, y in arguments.items()}
    if "target" in plain and plain["target"].dtype.kind == "f":
        plain["target"] += silent
    loss(arrays if isinstance(loss, losses.SparsityEnforcer) else arrays[0], **plain)
