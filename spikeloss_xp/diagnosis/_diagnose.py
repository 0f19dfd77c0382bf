"""The function `diagnose`, which checks its arguments, calls the loss, and makes the report."""

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

    Each finding is a note or a problem. Before training, most findings are notes, because networks
    with silent layers or small gradients often learn anyway. A finding is a problem only if it
    makes learning from this batch impossible, meaningless or very slow.

    After about 100 updates, call this function on the same batch again, and pass the first report
    as `earlier`. If training has hardly improved the accuracy or the loss, the new report contains
    the finding ``"not-moved"``. If the report also contains possible causes, these findings and
    ``"not-moved"`` are problems. Most causes can be seen only in the spikes of the hidden layers
    and in the gradients of the weights, so pass `hidden` and `gradients`.

    Sums over spikes and gradients are computed on the device of each array. These sums, and a
    sample of the values, are copied to the host, which synchronises the device. The function does
    not modify its arguments, their autograd graphs or their gradients.

    Parameters
    ----------
    loss : callable or None
        A loss of this library (possibly wrapped in a ``LossModule``), any other function of the
        input and the target, or None. A function that is not a loss of this library is called as
        ``loss(input, target)``, or as ``loss(input)`` if `target` is None. For such a function, the
        report shows the value of the loss, the layers and the gradients, but nothing about classes.
        A function that cannot be differentiated may be called twice. If `loss` is None, nothing is
        called, and the report does not show the value of a loss either.
    input : array, or sequence or mapping of arrays
        The input of the loss, which is the output of the network. For `SparsityEnforcer`, you can
        pass several arrays, and the report shows each array as a layer. If `loss` is not a loss of
        this library, you can pass several outputs.
    target : array or sequence, optional
        The target. Omit it for `SparsityEnforcer`.
    time_axis : int, optional
        The time axis of the input. `time_axis` is required unless `loss` is a loss of this library,
        which has its own time axis.
    hidden : array, or sequence or mapping of arrays, optional
        The spikes of the hidden layers, in order from the input of the network to its output. Each
        array has its batch, neuron and time axes in the same order as `input`. Sequences and
        mappings may be nested. Mappings are read in insertion order.
    gradients : array, or sequence or mapping of arrays, optional
        The gradients of the loss with respect to the parameters, in order from input to output.
        Arrays may come from any supported library. Sequences and mappings may be nested. If a
        weight has no gradient, pass None for it: the report then names this weight. Leave out
        parameters that are frozen or that do not affect the loss. A parameter is treated as a
        weight if its gradient has two axes, or at least two axes that are longer than 1. All arrays
        are checked for NaN and infinity. If the loss was scaled for mixed precision, divide the
        gradients by the scale first, as ``scaler.unscale_(optimizer)`` does in PyTorch.
    where, lengths, weight : array or sequence, optional
        The mask, the lengths and the class weights, as in a call to the loss. If a hidden layer has
        as many steps as `input`, the lengths are also used for this layer. The mask is also used
        for this layer if the mask is the same for all neurons. A function that is not a loss of
        this library does not receive the mask and the lengths: they only select the entries that
        the report describes. `weight` is accepted only with a loss of this library.
    earlier : diagnosis.Report or float, optional
        The report on the same batch before some training, or the value of the loss in that report.
        The new report then judges whether training has improved the accuracy or the loss enough.

        With class labels, the accuracy must be at least a fifth of the way from chance to 1. Chance
        is the fraction of labels that belong to the commonest class. The accuracy and chance are
        both computed without masked entries, and with the class weights.

        Without class labels, the loss is compared with the loss of a constant output, which is a
        silent output or the mean of all potentials. If the loss is more than 10 % below the loss
        of a constant output, the network has improved enough. If the loss is within 10 % of the
        loss of a constant output, it has not. If the loss is more than 10 % above the loss of a
        constant output, it must have fallen by at least a fifth of the difference between the
        earlier loss and the loss of a constant output.

        A loss on spike times is compared only with the earlier loss. The network has improved
        enough if this loss has fallen by at least 0.3 %.
    updates : int, optional
        The number of updates since the earlier report. With fewer than 90 updates, the report does
        not judge the improvement.

    Returns
    -------
    diagnosis.Report
        A report, which is printed as a table. If nothing was found, the attribute `findings` of the
        report is empty.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape or type, or if an array is traced (as in a compiled
        function). If the loss does not accept a value in its arguments, the report contains a
        finding, and no error is raised. If a function that is not a loss of this library raises an
        error, the report contains a finding with the message of the error.

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
    # A user's function is called outside of `without_graph`, because it may need a graph.
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
    """Yield the findings about the loss, about each layer, and about the gradients."""
    yield from call.findings()
    for layer in layers:
        # The loss may ignore NaN, so NaN in its input is reported only if the loss is NaN too.
        if layer.finite or layer is not call.output:
            yield from _spikes.findings_of(layer)
    yield from _layers.findings_of_gradients(sizes, layers, call.of_output, call.learned)


def _given(**arguments: Any) -> dict[str, Any]:
    """Return a dict of the arguments that are not None."""
    return {name: x for name, x in arguments.items() if x is not None}


def _unwrapped(loss: Any, weight: Any) -> tuple[Any, Any]:
    """Return the loss inside a `LossModule`, and the class weights to use.

    The argument `weight` takes precedence over the weights in the module.
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
    """Return the time axis of a loss of this library. Raise an error if an argument is wrong."""
    axis: int = getattr(loss, "time_axis", -1)
    rank = _arrays.rank(next(iter(dict(_layers.named_leaves(input, "input")).values()), None))
    if time_axis is not None and (time_axis - axis) % max(rank, 1):
        raise ValueError(f"time_axis must be the time axis of the loss, {axis}; got {time_axis}")
    if loss.targets and "target" not in given:
        raise TypeError(f"target must be given, because {type(loss).__name__} needs a target")
    if "target" in given and not loss.targets:
        raise TypeError(f"{type(loss).__name__} takes no target, but got one: omit the target")
    return axis


def _named_inputs(loss: Any, input: Any) -> dict[str, Any]:
    """Return the arrays of the input, keyed by their names in the report."""
    name = "input" if isinstance(loss, losses.Loss) else "output"
    several = name == "output" or isinstance(loss, losses.SparsityEnforcer)
    found = dict(_layers.named_leaves(input, name)) if several else {name: input}
    if not found:
        raise ValueError(f"{name} must hold at least one array; got none")
    return found


def _argument(adapter: Adapter, x: Any, name: str) -> Any:
    """Return an argument of the loss, either detached or as a NumPy array.

    An array with at most two axes is copied to the host, because the loss checks only values that
    are on the host. An array with more axes stays on its device, because it may be large.
    """
    if _arrays.find_adapter(x) is adapter:
        on_host = adapter.concrete_or_none(x) is not None
        if on_host or (_arrays.rank(x) > 2 and not adapter.is_lazy):
            return adapter.stop_gradient(x)
    return host_values(x, name)


def _evaluate(adapter: Adapter, loss: Any, input: Any, arguments: dict[str, Any]) -> Any:
    """Return the call to the loss, or a `Refusal` if the loss rejects a value."""
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
    """Return a `Pending` object for each hidden layer.

    If the call is a `Penalty` or a `Function`, the inputs of the loss are layers too.
    """
    trains = _given(**dict(_layers.named_leaves(hidden, "hidden")))
    if _losses.reads_times(loss):
        return [_layers.hidden_times(call.adapter, name, x) for name, x in trains.items()]
    masks = _given(where=arguments.get("where"), lengths=arguments.get("lengths"))
    layer, is_penalty = partial(_layers.layer, time_axis=time_axis), isinstance(call, Penalty)
    shared: dict[str, Any] = {}
    if not isinstance(loss, losses.SparsityEnforcer):
        output = Layout.of(tuple(next(iter(inputs.values())).shape), time_axis)
        # If the loss rejected a value, the mask or the lengths may be wrong, so they are not used.
        shared = _for_hidden(output, {} if isinstance(call, Refusal) else masks)
    found = [layer(name, x, **shared) for name, x in trains.items()]
    if isinstance(call, Penalty | Function):
        found += [layer(name, x, single_step=is_penalty, **masks) for name, x in inputs.items()]
    return found


def _for_hidden(output: Layout, masks: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `layer` for hidden layers: the layout of the output, and the masks.

    A mask that differs between neurons is left out.
    """
    found: dict[str, Any] = {"output": output}
    for name, x in masks.items():
        mask = host_values(x, name)
        if mask.ndim < 3:
            found[name] = mask
        elif mask.ndim == len(output.shape) and max(output._replace(shape=mask.shape).space()) < 2:
            mask = np.squeeze(mask, output.space_axes())
            found[name] = np.broadcast_to(mask, output.with_time(output.batch))
    return found
