"""The function `diagnose`, and the calls of losses that it inspects."""

import copy
import math
from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp import _arrays, losses
from spikeloss_xp._arrays import Adapter, floating, host_values, read_values
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.targets import MULTI_HOT
from spikeloss_xp._typing import Array, ArrayLike
from spikeloss_xp.diagnosis import _layers
from spikeloss_xp.diagnosis._calls import Function, Penalty, Refusal
from spikeloss_xp.diagnosis._report import (
    Layer,
    Observations,
    Report,
    finding_of,
    sort_key,
    texts,
)
from spikeloss_xp.losses.base import divisor_of, masked_pullback
from spikeloss_xp.readouts import Reading

SOME, MOST = 0.5, 0.9


def diagnose(
    loss: Any, spikes: Any, target: ArrayLike | None = None, *, time_axis: int | None = None,
    hidden: Any = None, gradients: Any = None, where: ArrayLike | None = None,
    lengths: ArrayLike | None = None, weight: ArrayLike | None = None,
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
        spikes and the target, or None. A function that is not a loss of this library is called
        once, as ``loss(spikes, target)``, or as ``loss(spikes)`` if there is no target. The report
        then shows the loss and everything about layers and gradients, but nothing about classes.
    spikes : array, or sequence or mapping of arrays
        The input of the loss, which is the output of the network. For `SparsityEnforcer`, you can
        pass several arrays, and the report shows each array as a layer. If `loss` is not a loss of
        this library, you can pass several outputs.
    target : array or sequence, optional
        The target. Omit it for `SparsityEnforcer`.
    time_axis : int, optional
        The time axis of the spikes. It is required unless `loss` is a loss of this library, because
        these losses have their own time axis.
    hidden : array, or sequence or mapping of arrays, optional
        Spikes of the hidden layers, in the same layout as `spikes` and in order from input to
        output. Sequences and mappings may be nested, and mappings keep the order of their items.
    gradients : array, or sequence or mapping of arrays, optional
        The gradients of the loss with respect to the parameters, in order from input to output.
        Arrays may come from any supported library. Sequences and mappings may be nested. None is
        reported as a weight that has no gradient, so leave out parameters that are frozen or that
        do not affect the loss. Arrays with two or more axes are treated as weights. All arrays are
        checked for NaN and infinity. If the loss was scaled for mixed precision, divide the
        gradients by the scale first, as ``scaler.unscale_(optimizer)`` does in PyTorch.
    where, lengths, weight : array or sequence, optional
        The other arguments of a call to the loss. The lengths also mask the padding of hidden
        layers that have as many steps as `spikes`. If `loss` is not a loss of this library, the
        mask and the lengths apply to `spikes`, and `weight` is not accepted.

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
    axis = _time_axis(loss, spikes, time_axis, given)
    inputs = _named_inputs(loss, spikes)
    adapter = _arrays.adapter_of(next(iter(inputs.values())))
    observed: list[tuple[str, ...]] = []
    call: Any = None
    if not isinstance(loss, losses.Loss):
        call = Function(loss, spikes, target, _as_read(inputs, axis))
    if gradients is None and any(adapter.lacks_graph(x) for x in inputs.values()):
        seen = "the spikes are detached, so the loss has no gradient with respect to the weights"
        observed.append(("no-graph", seen))
    with np.errstate(all="ignore"), adapter.without_graph():
        weights = [] if gradients is None else _layers.gradients_of(gradients, adapter)
        arguments = {name: _argument(adapter, x, name) for name, x in given.items()}
        call = call or _evaluate(adapter, loss, spikes, arguments)
        pending = _pending_layers(loss, axis, call, hidden, inputs, arguments)
        results = _layers.finished([*weights, call, *pending])
        observed += call.findings()
    sizes, of_layers = tuple(results[: len(weights)]), results[len(weights) + 1 :]
    observed += [each for _, findings in of_layers for each in findings]
    observed += _layers.findings_of_gradients(sizes, call.of_output, learned=call.learned)
    numbers, layers = call.numbers(), [layer for layer, _ in of_layers if layer is not None]
    if call.output is not None:
        layers.append(call.output)
    codes = {code for code, *_ in observed}
    if not any(texts()[code]["severity"] == "problem" for code in codes):
        observed += _layers.at_chance(numbers, layers, sizes)
    all_learn = "no-gradient" not in codes if sizes else None
    found = [finding_of(x, loss, all_learn=all_learn, learned=call.learned) for x in observed]
    names = [*(each.name for each in pending), "output"]
    found.sort(key=lambda each: sort_key(each, names))
    return Report(numbers, tuple(layers), sizes, tuple(found))


def _unwrapped(loss: Any, weight: Any) -> tuple[Any, Any]:
    """Return the loss and the class weights inside a module, or both arguments unchanged."""
    inner = getattr(loss, "loss", None)
    if not isinstance(inner, losses.Loss):
        return loss, weight
    return inner, getattr(loss, "weight", None) if weight is None else weight


def _time_axis(loss: Any, spikes: Any, time_axis: int | None, given: dict[str, Any]) -> int:
    """Return the time axis of the layers. Raise an error if it or another argument does not fit."""
    if isinstance(loss, losses.Loss):
        axis = getattr(loss, "time_axis", -1)
        rank = _arrays.rank(next(iter(dict(_layers.named_leaves(spikes, "input")).values()), None))
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
            "loss must be a loss of this library (such as SpikeMax()), another function of spikes "
            f"and target, or None; got {loss!r}"
        )
    if time_axis is None:
        raise TypeError(
            "time_axis must be given unless loss is a loss of this library: pass 0 for "
            "[time, batch, neuron], 1 for [batch, time, neuron] or -1 for [batch, neuron, time]"
        )
    if "weight" in given:
        raise TypeError("weight is accepted only with a loss of this library: omit it")
    return time_axis


def _named_inputs(loss: Any, spikes: Any) -> dict[str, Any]:
    """Return the arrays of the input, keyed by their names in the table."""
    name = "input" if isinstance(loss, losses.Loss) else "output"
    several = name == "output" or isinstance(loss, losses.SparsityEnforcer)
    found = dict(_layers.named_leaves(spikes, name)) if several else {name: spikes}
    if not found:
        raise ValueError(f"{name} must hold at least one array; got none")
    return found


def _as_read(outputs: dict[str, Any], time_axis: int) -> dict[str, str]:
    """Return the axes and the shape of each output as text, keyed by the name to print."""
    shapes = {name: _arrays.shape_of(x) for name, x in outputs.items()}
    layouts = {name: Layout.of(shape, time_axis, name) for name, shape in shapes.items()}
    return {f"{name}, as it is read": _layers.axes(x, "neuron") for name, x in layouts.items()}


def _argument(adapter: Adapter, x: Any, name: str) -> Any:
    """Return an argument of the loss unchanged if it is large or on the host, else a NumPy array.

    Small arguments are copied to the host, because the loss checks only values on the host.
    """
    if _arrays.find_adapter(x) is adapter:
        on_host = adapter.concrete_or_none(x) is not None
        if on_host or (_arrays.rank(x) > 2 and not adapter.is_lazy):
            return adapter.stop_gradient(x)
    return host_values(x, name)


def _evaluate(adapter: Adapter, loss: Any, spikes: Any, arguments: dict[str, Any]) -> Any:
    """Return the call to the loss, or a `Refusal` if the loss does not accept some values."""
    penalty = isinstance(loss, losses.SparsityEnforcer)
    kind: Any = Penalty if penalty else Batch
    x = spikes if penalty else _layers.eager(spikes, "input")[1]
    if loss.reads_times:
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
    if getattr(loss, "reads_times", False):
        return [_layers.hidden_times(call.adapter, name, x) for name, x in trains.items()]
    layer = partial(_layers.layer, time_axis=time_axis)
    refused, penalty = isinstance(call, Refusal), isinstance(loss, losses.SparsityEnforcer)
    output = None if penalty else Layout.of(tuple(next(iter(inputs.values())).shape), time_axis)
    lengths = None if refused else arguments.get("lengths")  # the lengths may be wrong
    found = [layer(name, x, output=output, lengths=lengths) for name, x in trains.items()]
    if isinstance(call, Penalty) and not refused:
        masks = {name: x for name, x in arguments.items() if name in ("where", "lengths")}
        found += [layer(name, x, single_step=penalty, **masks) for name, x in inputs.items()]
    return found


def _check_shapes(loss: Any, x: Any, arguments: dict[str, Any]) -> None:
    """Raise the loss's own error if the shape or the type of an argument is wrong."""
    silent = 2 * loss.reads_times  # losses on spike times take zeros for binned spikes
    leaves = _layers.named_leaves(x, "input")
    arrays = [np.full_like(host_values(each, "input"), silent) for _, each in leaves]
    plain = {name: np.zeros_like(host_values(y, name)) for name, y in arguments.items()}
    if "target" in plain and plain["target"].dtype.kind == "f":
        plain["target"] += silent
    loss(arrays if isinstance(loss, losses.SparsityEnforcer) else arrays[0], **plain)


# Calls ----------------------------------------------------------------------------------------


class Batch:
    """A call of a loss.

    The constructor evaluates the loss on the device of the input. `finish` then computes all
    attributes from the values of the `arrays`, so that they can be copied to the host together.

    Attributes
    ----------
    value : float
        The loss, which is a mean for any reduction.
    learned : bool
        Whether the loss is so close to its minimum that small gradients are no problem.
    of_output : float
        The size of the gradient of the loss with respect to the output, summed over neurons, steps
        and samples. If the classes share a term, it is the largest of the classes instead of their
        sum. If the reduction of the loss is a sum, it is the gradient of the sum.
    entries : int or array
        The number of unmasked steps of each train, as an int if nothing is masked.
    masked : float
        The fraction of entries that are masked.
    output : Layer or None
        The statistics of the spikes. None if the input holds spike times or predicted rates.
    fires, size : array
        Whether each class fires, and the largest gradient of its neurons, ``[sample, class]``.
    range : float
        The largest difference between the scores of two classes in a sample.
    prepared, labels
        The input and the target, in the form in which the loss compares them.
    layout : Layout
        The layout of the input.
    hot : array or None
        True for each class that is a label of the sample at any step, ``[sample, class]``. None if
        the target has no classes.
    """

    name = "input"

    def __init__(self, loss: Any, x: Array, target: Any, **masks: Any) -> None:
        self.loss, self.x, self.masks = copy.copy(loss), x, masks
        self.is_sum = loss.reduction == "sum"
        object.__setattr__(self.loss, "reduction", "mean")  # without checking all options again
        self.prepared, self.labels = self.loss._prepare(x, target, masks)
        self.layout, self.adapter = self.prepared.layout, self.prepared.adapter
        self.multi_hot = MULTI_HOT in loss.targets
        self.names_classes = any(kind.names_classes for kind in loss.targets)
        self.arrays = self._evaluate()

    # On the device --------------------------------------------------------------------------------

    def _evaluate(self) -> dict[str, Array]:
        """Return the arrays for `finish`. The spikes are read once for the loss and the scores."""
        loss, prepared, adapter, layout = self.loss, self.prepared, self.adapter, self.layout
        values, mask, xp = prepared.filled(), prepared.mask, adapter.xp
        reading, to_values = loss._read(prepared, values, mask, self.labels)
        terms, term_mask, weight, to_reading = loss._compare(prepared, reading, self.labels)
        total, weight = adapter.sum_all(terms), loss._weight(prepared, terms, term_mask, weight)
        one = adapter.scalar(total, 1.0)
        divisor = one * (weight if isinstance(weight, int) else divisor_of(adapter, weight))
        arrays = {"value": total / divisor, "divisor": divisor, **self._compare(reading)}
        if not (loss.reads_times or "hot" in arrays):
            arrays["mean"] = adapter.sum_all(self._terms_of_mean(values)) / divisor
        arrays |= _layers.unmasked(adapter, layout, mask, values)
        if loss.reads_rates:
            arrays |= loss._totals(prepared, self.labels)
        counts = None if getattr(loss, "_own_readout", True) else reading.counts
        trains = [n if axis != layout.time else 1 for axis, n in enumerate(values.shape)]
        if counts is not None and [*counts.shape] != trains:
            counts = None  # the loss has not counted the spikes of whole trains
        if not (loss.reads_times or loss.reads_rates):
            arrays |= _layers.activity(adapter, layout, values, "input", counts)
        to_masked = masked_pullback(adapter, to_values, mask)
        gradient = prepared.to_input()(to_masked(to_reading(one / divisor)))
        if layout.has_time:
            gradient = layout.collapsed(adapter, gradient)
        gradient = xp.reshape(gradient, values.shape)
        if counts is not None and mask is None:  # the gradient is the same at all steps
            gradient = gradient[(*(slice(None),) * layout.time, slice(1), ...)]
        # Two reductions need no array of magnitudes, which would be as large as the gradient.
        largest, least = (f(gradient, axis=layout.time, keepdims=True) for f in (xp.max, xp.min))
        return arrays | {"size": xp.maximum(largest, -least)}

    def _terms_of_mean(self, values: Array) -> Array:
        """Return the terms of an input that is the same for all samples: their mean."""
        prepared, xp = self.prepared, self.adapter.xp
        total = xp.sum(values, axis=self.layout.batch_axis, keepdims=True)
        number: Any = self.layout.batch
        if prepared.mask is not None:
            counted = xp.astype(prepared.mask, values.dtype) + xp.zeros_like(values)
            number = xp.sum(counted, axis=self.layout.batch_axis, keepdims=True)
            number = xp.where(number > 0, number, 1.0)
        mean = xp.broadcast_to(total / number, values.shape)
        reading, _ = self.loss._read(prepared, mean, prepared.mask, self.labels)
        return self.loss._compare(prepared, reading, self.labels)[0]

    def _compare(self, reading: Reading) -> dict[str, Array]:
        """Return the labels, the confusion matrix, and comparisons of the scores of classes."""
        loss, labels, xp, classes = self.loss, self.labels, self.adapter.xp, reading.classes
        time, dtype, q = self.layout.time, reading.u.dtype, labels.numbers
        if labels.indices is not None:
            hot = labels.one_hot(reading)
        elif loss.targets[-1].names_classes:
            hot = (q == classes.max(q)) & (q > 0)
        else:
            return {}
        if labels.ignored is not None:
            hot = hot & ~labels.ignored
        arrays = {"hot": xp.astype(xp.any(hot, axis=time, keepdims=True), dtype)}
        if self.multi_hot:
            hard = xp.all((q == 0) | (q == 1))  # or there is no accuracy
            if (known := self.adapter.concrete_or_none(hard)) is not None and not known:
                return {}
            arrays["hard"] = xp.astype(hard, dtype)
        given = q if labels.indices is None else labels.indices
        per_step = bool(loss.per_step) and given.shape[time] > 1
        if per_step == bool(loss.per_step):
            found = loss._scores_of(self.prepared, loss.score(reading), reading.mask, per_step)
        else:  # the loss reads each step, but there is one label for all steps
            found = loss._scores(self.prepared, per_step)
        arrays["confusion"] = found.confusion(labels)
        if not self.multi_hot:
            scores = found.of_classes()
            largest = classes.max(scores)
            finite = xp.where(xp.isfinite(scores), scores, largest)  # masked classes have -inf
            arrays["best"] = classes.sum(xp.astype(scores == largest, dtype))
            arrays["range"] = xp.max(largest - finite)
        return arrays

    # On the host ----------------------------------------------------------------------------------

    def finish(self, **found: Any) -> None:
        """Compute the attributes from the values of the arrays."""
        loss, layout, prepared, steps = self.loss, self.layout, self.prepared, self.layout.steps
        self.value, self.found = float(found["value"]), found
        self.equal = loss.value_of_equal_scores(prepared.num_classes)
        entries = found.get("entries")
        self.entries = steps if entries is None else np.moveaxis(entries, layout.time, -1)
        self.masked = 1 - float(np.mean(self.entries, dtype=float)) / steps
        self.size = self._by_class(found["size"]).max(axis=-1)
        steps_of = steps if entries is None else self.entries.max(axis=(1, 2))
        divisor = float(found["divisor"]) if self.is_sum else 1.0
        of_sample = self.size.max(axis=1) if loss.classes_compete else self.size.sum(axis=1)
        self.of_output = float((of_sample * steps_of).sum()) * divisor
        self.output: Layer | None = None
        self.about_output: list[tuple[str, ...]] = []
        if loss.reads_times:
            fires = loss.fires(prepared.values) & (prepared.mask is None or prepared.mask)
            self.output, _ = _layers.of_times("output", prepared.values, fires)
        elif loss.reads_rates:
            fires = found["size"] < 0
        else:
            fires = found["spikes"] > 0
            self.output, self.about_output = _layers.layer_of("output", layout, **found)
            self.odd_values = partial(_layers.odd_values, found["sample"], found.get("kept"))
        self.fires = self._by_class(fires).any(axis=-1)
        self.hot: Any = None
        self.confusion, self.range = np.zeros((1, 1)), float(found.get("range", 0))
        self.accuracy, self.ties = math.nan, 0.0
        if "hot" in found and found.get("hard", True):
            self._count(**found)
        self.learned = self._has_learned(found.get("mean"))

    def _count(self, hot: Any, confusion: Any, best: Any = None, **_: Any) -> None:
        """Compare the predictions with the labels."""
        self.hot, self.confusion = self._by_class(hot > 0)[..., 0], confusion
        if not isinstance(self.entries, int):
            self.hot &= (self.entries > 0).any(axis=(1, 2))[:, None]
        right = np.trace(confusion, axis1=-2, axis2=-1).sum()
        self.accuracy = float(right / confusion.sum())  # NaN if no label counts
        if best is not None:
            best = np.moveaxis(best, self.layout.time, -1)[:, 0]
            labelled = self.hot.any(axis=1)[:, None]
            self.ties = share(best > 1, np.broadcast_to(labelled, best.shape))

    def _has_learned(self, of_mean: Any) -> bool:
        """Return whether the network predicts the target, so that its gradients may be small.

        `of_mean` is the loss of the mean input. A likelihood has no minimum of 0, but is higher for
        the mean unless the input says something about the target.
        """
        if self.hot is not None:
            return self.accuracy >= MOST
        if of_mean is None or not self.value:
            return self.value == 0
        return bool(self.value < of_mean * (1 if self.loss.reads_rates else 1 - MOST))

    def _by_class(self, x: Any) -> Any:
        """Rearrange an array to ``[sample, class, neuron * step]``."""
        shape = self.layout.batch, self.prepared.num_classes, -1
        return np.moveaxis(x, self.layout.time, -1).reshape(shape)

    # Numbers and findings -------------------------------------------------------------------------

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the batch, keyed by name."""
        classes, neurons, hot = self.prepared.num_classes, self.layout.neurons, self.hot
        word, plural, sizes = "class", "classes, neurons of a class", (classes, neurons // classes)
        if not self.names_classes and classes == neurons:
            word, plural, sizes = "neuron", "neurons", neurons
        never = None if self.loss.reads_rates else int((~self.fires.any(axis=0)).sum())
        found: dict[str, Any] = {
            "loss": self.value,
            "loss of equal scores": self.equal,
            "accuracy": None if hot is None else self.accuracy,
            "fraction of ties": None if hot is None else self.ties,
            **self._of_rates(),
            "input, as it is read": _layers.axes(self.layout, word),
            plural: sizes,
            "fraction that is masked": self.masked,
            f"{plural.partition(',')[0]} that never fire": never,
            f"largest gradient of each {word}": self.size.max(axis=0).tolist(),
        }
        if hot is not None:
            found |= {
                "samples of each class": hot.sum(axis=0).tolist(),
                "confusion, labels by predictions": self.confusion.tolist(),
                "fraction of labels without a gradient": share(self.size == 0, hot),
            }
        return {name: x for name, x in found.items() if x is not None}

    def _of_rates(self) -> dict[str, float]:
        """Return the numbers of a likelihood that people plot, or none for other losses."""
        if not self.loss.reads_rates:
            return {}
        found, entries = self.found, math.prod(self.layout.shape) * (1 - self.masked)
        spikes = float(found["recorded"])
        return {
            "bits per spike": float(found["gain"]) / (spikes * math.log(2)) if spikes else math.nan,
            "mean rate": float(found["predicted"]) / entries if entries else math.nan,
            "mean count": spikes / entries if entries else math.nan,
        }

    def findings(self) -> Observations:
        """Yield the findings of the batch."""
        loss, value, equal = self.loss, self.value, self.equal
        if not (math.isfinite(value) and np.isfinite(self.size).all()):
            finite = self.output is None or self.output.finite
            entries = "" if finite else ", and entries of the input are NaN or infinite"
            yield "not-finite", f"the loss is {value:.3g}{entries}"
        yield from self._of_times() if loss.reads_times else self._of_values()
        yield from self._of_masks()
        fraction = 0.0
        if self.hot is not None:
            yield from self._of_labels()
            fraction = share(self.size == 0, self.hot)
        if equal is not None and self.accuracy < SOME and value > 4 * equal > 0:
            yield "certain-and-wrong", f"the loss is {value:.3g}, but {equal:.3g} for equal scores"
        if not self.learned and (fraction >= MOST or not self.size.any()):
            where = "at labels" if fraction else "everywhere"
            yield "zero-gradient", f"the gradient of the loss is 0 {where}"
        answers = np.sum(self.confusion, axis=0)
        several = answers.ndim == 1 < len(answers) and answers.sum() >= _layers.ENOUGH
        if several and self.ties < SOME and np.count_nonzero(answers) == 1:
            yield "one-answer", f"class {answers.argmax()} is predicted for all samples"
        if self.fires.any() and self.ties >= SOME:
            yield "ties", f"several classes share the best score in {self.ties:.0%} of the samples"
        yield from loss.findings(self)
        # The loss may ignore NaN, so only a loss that is not finite is a finding.
        yield from (each for each in self.about_output if each[0] != "not-finite")

    def _of_times(self) -> Observations:
        x = np.reshape(self.x, self.prepared.values.shape)
        mask = self.prepared.mask
        counted = x if mask is None else x[np.broadcast_to(mask, x.shape)]
        known = counted[np.isfinite(counted)]
        padding = max(np.mean(x == -1), np.mean((x == 0).sum(axis=2) > 1))
        if counted.size and not len(known):
            yield _layers.silent_layer("output", len(x))
        elif len(known) and (early := np.mean(self.loss.fires(known))) < 1 - MOST:
            silent = self.loss.silent_time
            yield "times-out-of-range", f"{early:.0%} of the times are below silent_time={silent:g}"
        elif padding or (known == 0).sum() > counted.size * SOME:
            yield "times-out-of-range", "many times are 0 or -1, which look like padding"

    def _of_values(self) -> Observations:
        shape = self.layout.shape
        if self.loss.expects_spikes and self.layout.steps > 1 and (odd := self.odd_values()):
            yield "not-spikes", odd
        if max(shape.count(shape[i]) for i in (self.layout.batch_axis, self.layout.time_axis)) > 1:
            yield "ambiguous-layout", f"several axes of {shape} have the same length"

    def _of_masks(self) -> Observations:
        steps = self.layout.steps
        lengths: Any = _arrays.concrete_or_none(self.masks.get("lengths", ()))
        if "where" in self.masks and self.output is not None and self.output.rate == 0:
            fired = self.adapter.xp.any(floating(self.adapter, self.x) != 0)
            if self.masked < 1 and read_values(self.adapter, fired, "input"):
                yield "inverted-mask", "all spikes are masked"
        if lengths.size and steps >= 20 and lengths.max() * 10 <= steps:
            seen = f"lengths are at most {lengths.max()}, but there are {steps} steps"
            yield "short-lengths", seen
        dropped_out = self.loss.reads_rates and "where" in self.masks  # on purpose
        if self.masked > SOME and not dropped_out:
            yield "mostly-masked", f"{self.masked:.0%} of the entries are masked"

    def _of_labels(self) -> Observations:
        hot: Any = self.hot
        labelled, occurs = hot.any(axis=1), hot.any(axis=0)
        silent = share(~(self.fires & hot).any(axis=1), labelled)
        if self.fires.any() and silent >= MOST:
            yield "silent-labels", f"the labelled class is silent in {silent:.0%} of the samples"
        if self.multi_hot:
            return
        number, classes = int(labelled.sum()), len(occurs)
        absent = np.flatnonzero(~occurs)
        absent = absent[absent != self.loss.ignore_index]
        last = classes - len(absent)  # the number of classes, if only the last are absent
        if not len(absent):
            return
        if occurs.sum() == 1 and number >= _layers.ENOUGH:
            yield "one-class", f"all {number} labels are {int(occurs.argmax())}"
        elif occurs[:last].all() and number * len(absent) >= 4 * classes:
            seen = f"the largest label is {last - 1}, but there are {classes} classes"
            yield "labels-too-low", seen
        elif number >= 4 * classes:
            yield "absent-class", f"no sample has label {absent.tolist()}"


def share(what: Any, which: Any) -> float:
    """Return the fraction of the entries selected by `which` that are True in `what`."""
    return float(what[which].mean()) if which.any() else 0.0
