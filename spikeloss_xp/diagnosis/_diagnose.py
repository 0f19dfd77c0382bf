"""The function `diagnose`: it checks its arguments, calls the loss, and makes the report."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp import _arrays, losses
from spikeloss_xp._arrays import Adapter, host_values
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import ArrayLike
from spikeloss_xp.diagnosis import _layers, _losses, _progress, _spikes
from spikeloss_xp.diagnosis._calls import Function, Penalty, Refusal
from spikeloss_xp.diagnosis._findings import Call
from spikeloss_xp.diagnosis._report import Gradient, Layer, Observations, Report, findings_of

DETACHED = "the output is detached, so the loss has no gradient with respect to the weights"


def diagnose(
    loss: Callable[..., Any] | None, input: Any, target: ArrayLike | None = None, *,
    time_axis: int | None = None,
    hidden: Any = None, gradients: Any = None, where: ArrayLike | None = None,
    lengths: ArrayLike | None = None, weight: ArrayLike | None = None,
    earlier: Report | float | None = None, updates: int = 100,
) -> Report:  # fmt: skip
    """Inspect one batch and report what keeps a network from learning.

    Before training, most findings are notes, because networks with silent layers or small gradients
    often learn. A problem is only what makes learning from this batch impossible or meaningless.
    After about 100 updates, pass the first report as `earlier`. If the batch has not moved, the new
    report names this as a problem, together with the possible causes. The spikes of the hidden
    layers and the gradients of the weights show these causes, so pass both.

    Spikes and gradients are reduced on their own device. The results and a few sample values are
    copied to the host, which synchronises the device. The arguments, their graphs and their
    gradients are not modified.

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
        The report on the same batch before some training, or the loss that the report shows, which
        is the mean of the terms. The new report then judges whether the batch has moved. A
        classifier has not moved if its accuracy has covered less than a fifth of the way from
        chance to 1. Chance is the share of the commonest label, or 1 / C for C classes if that is
        larger. Masked entries do not count, and class weights apply to both accuracies. Without
        classes, the batch has not moved if the loss is within 10 % of the loss of a constant answer
        (silent outputs, or the mean of all potentials), or if it is larger and has covered less
        than a fifth of the way there. If no constant answer is known, as for spike times, the batch
        has not moved if the loss has fallen by less than 0.3 %.
    updates : int, optional
        The number of updates since the earlier report. After fewer than 90, the report does not
        judge.

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
    given = _given(where=where, lengths=lengths, weight=weight, target=target)
    axis = _checked_time_axis(loss, input, time_axis, given)
    inputs = _named_inputs(loss, input)
    adapter = _arrays.adapter_of(next(iter(inputs.values())))
    is_own = isinstance(loss, losses.Loss)
    since = _progress.numbers_of(earlier, updates)
    # A function may need a graph.
    call = None if is_own else Function(loss, input, target, inputs, axis, is_judged=bool(since))
    with np.errstate(all="ignore"), adapter.without_graph():
        weights = _layers.gradients_of(gradients, adapter)
        arguments = {name: _argument(adapter, x, name) for name, x in given.items()}
        call = call or _evaluate(adapter, loss, input, arguments)
        pending = _pending_layers(loss, axis, call, hidden, inputs, arguments)
        results = _layers.finished([*weights, call, *pending])
        sizes, layers = results[: len(weights)], results[len(weights) + 1 :]
        layers += [] if call.output is None else [call.output]
        observed = [*_observed(call, layers, sizes)]
        observed += _progress.findings_of(since, loss, call, layers)
        numbers = ({"loss": call.value} | since if since else {}) | call.numbers()
    if not weights and any(map(adapter.lacks_graph, inputs.values())):
        observed.append(("no-graph", DETACHED))
    blocked = _layers.are_blocked(sizes, call.learned)
    found = findings_of(observed, loss, blocked=blocked, decided=bool(weights))
    return Report(numbers, tuple(map(_layers.shown, layers)), tuple(sizes), found)


def _observed(call: Any, layers: list[Layer], sizes: list[Gradient]) -> Observations:
    """Yield what was observed in the call, in each layer and in the gradients."""
    yield from call.findings()
    for layer in layers:
        # The loss may ignore NaN, so NaN in its input is reported only if the value is NaN too.
        if layer.finite or layer is not call.output:
            yield from _spikes.findings_of(layer)
    yield from _layers.findings_of_gradients(sizes, layers, call.of_output, call.learned)


def _given(**arguments: Any) -> dict[str, Any]:
    """Return the arguments that are not None."""
    return {name: x for name, x in arguments.items() if x is not None}


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
        return _own_time_axis(loss, input, time_axis, given)
    if loss is not None and (isinstance(loss, type) or not callable(loss)):
        raise TypeError(
            "loss must be a loss of this library (such as SpikeMax(time_axis=0)), another function "
            f"of the input and the target, or None; got {loss!r}"
        )
    if time_axis is None:
        raise TypeError(
            "time_axis must be given unless loss is a loss of this library: pass 0 for "
            "[time, batch, neuron], 1 for [batch, time, neuron] or -1 for [batch, neuron, time]"
        )
    if "weight" in given:
        raise TypeError("weight is accepted only with a loss of this library: omit it")
    return time_axis


def _own_time_axis(loss: Any, input: Any, time_axis: int | None, given: dict[str, Any]) -> int:
    """Return the time axis of a loss of this library, after the same checks."""
    axis: int = getattr(loss, "time_axis", -1)
    rank = _arrays.rank(next(iter(dict(_layers.named_leaves(input, "input")).values()), None))
    if time_axis is not None and (time_axis - axis) % max(rank, 1):
        raise ValueError(f"time_axis must be that of the loss ({axis}); got {time_axis}")
    if loss.targets and "target" not in given:
        raise TypeError(f"target must be given, because {type(loss).__name__} needs a target")
    if "target" in given and not loss.targets:
        raise TypeError(f"{type(loss).__name__} takes no target, but got one: omit the target")
    return axis


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
    kind: Any = Penalty if penalty else Call
    x = input if penalty else _layers.eager(input, "input")[1]
    if _losses.reads_times(loss):
        x = host_values(x, "input")
        arguments = {name: host_values(each, name) for name, each in arguments.items()}
    try:
        return kind(loss, x, **arguments)
    except ValueError as error:
        _check_shapes(loss, x, arguments)
        return Refusal(adapter, str(error))


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


def _pending_layers(
    loss: Any, time_axis: int, call: Any, hidden: Any, inputs: dict[str, Any],
    arguments: dict[str, Any],
) -> list[_layers.Pending]:  # fmt: skip
    """Return the statistics of the hidden layers, and of inputs that are shown as layers."""
    trains = _given(**dict(_layers.named_leaves(hidden, "hidden")))
    if _losses.reads_times(loss):
        return [_layers.hidden_times(call.adapter, name, x) for name, x in trains.items()]
    masks = _given(where=arguments.get("where"), lengths=arguments.get("lengths"))
    layer, is_penalty = partial(_layers.layer, time_axis=time_axis), isinstance(call, Penalty)
    shared: dict[str, Any] = {}
    if not isinstance(loss, losses.SparsityEnforcer):
        output = Layout.of(tuple(next(iter(inputs.values())).shape), time_axis)
        # The loss may have refused any of the masks.
        shared = _for_hidden(output, {} if isinstance(call, Refusal) else masks)
    found = [layer(name, x, **shared) for name, x in trains.items()]
    if isinstance(call, Penalty | Function):
        found += [layer(name, x, single_step=is_penalty, **masks) for name, x in inputs.items()]
    return found


def _for_hidden(output: Layout, masks: dict[str, Any]) -> dict[str, Any]:
    """Return the options of hidden layers: the output, and masks that are equal for all neurons."""
    found: dict[str, Any] = {"output": output}
    for name, x in masks.items():
        mask = host_values(x, name)
        if mask.ndim < 3:
            found[name] = mask
        elif mask.ndim == len(output.shape) and max(output._replace(shape=mask.shape).space()) < 2:
            mask = np.squeeze(mask, output.space_axes())
            found[name] = np.broadcast_to(mask, output.with_time(output.batch))
    return found
