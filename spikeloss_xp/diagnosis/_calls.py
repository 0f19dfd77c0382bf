"""The loss calls that `diagnose` inspects.

A call has an adapter, arrays on the device, and a method `finish`, which takes the values of these
arrays. After `finish` has run, the call provides the value of the loss, the numbers about the
batch, and the findings.
"""

import copy
import math
from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp import _arrays
from spikeloss_xp._arrays import Adapter, adapter_of, divisor_of, floating, host_values, read_values
from spikeloss_xp._input.targets import MULTI_HOT
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis import _layers, _losses
from spikeloss_xp.diagnosis._report import Layer, Observations
from spikeloss_xp.gradients import value_and_grad

SOME, MOST = 0.5, 0.9
UNIT = 300  # if two times differ by a larger factor, one of them may have another unit


class Batch:
    """A call to a loss on one batch.

    The constructor evaluates the loss on the device of the input. The arrays in `arrays` are then
    copied to the host together, and `finish` computes all attributes from their values.

    Attributes
    ----------
    value : float
        The mean of the terms, whatever the reduction of the loss.
    learned : bool
        Whether the loss is so close to its minimum that small gradients are no problem.
    of_output : float
        The size of the gradient of the loss with respect to the output, summed over classes, steps
        and samples. If the classes of a sample share one term, the gradients are not summed over
        classes: only the class with the largest gradient is used. With ``reduction="sum"``, this is
        the gradient of the sum of the terms, and otherwise of their mean.
    entries : array
        The number of unmasked steps of each train. The last axis stands for time and has length 1.
        If nothing is masked, all axes have length 1.
    masked : float
        The fraction of entries that are masked.
    output : Layer or None
        The statistics of the spikes. None if the input holds spike times or predicted rates.
    fires, size : array
        Whether each class fires, and the largest gradient of its neurons. Both arrays have the
        shape ``[sample, class]``.
    range : float
        The largest difference between the scores of two classes in a sample.
    prepared, labels
        The input and the target, in the form in which the loss compares them.
    layout : Layout
        The layout of the input.
    hot : array or None
        An array ``[sample, class]`` that is True if the class is a label of the sample at any step.
        None if the target has no classes.
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
        self.arrays = self._evaluate(x, target)

    # On the device --------------------------------------------------------------------------------

    def _evaluate(self, x: Array, target: Any) -> dict[str, Array]:
        """Return the arrays for `finish`."""
        loss, prepared, adapter, layout = self.loss, self.prepared, self.adapter, self.layout
        values, xp = prepared.filled(), adapter.xp
        total, weight, pullback = loss.sum_weight_and_pullback(x, target, **self.masks)
        divisor = divisor_of(adapter, weight)
        one = adapter.scalar(total, 1.0)
        arrays = {"value": total / divisor, "divisor": divisor + 0 * one, **self._compare()}
        if not (_losses.reads_times(loss) or "hot" in arrays):
            mean = layout.restored(adapter, self._mean_sample(values))
            arrays["mean"] = loss(mean, target, **self.masks)
        arrays |= _layers.unmasked(adapter, layout, prepared.mask, values)
        if _losses.reads_rates(loss):
            arrays |= _losses.totals(loss, prepared, self.labels)
        elif not _losses.reads_times(loss):
            arrays |= _layers.activity(adapter, layout, values, "input")
        gradient = floating(adapter, pullback(one / divisor))
        if layout.has_time:
            gradient = layout.collapsed(adapter, gradient)
        gradient = xp.reshape(gradient, values.shape)
        # The largest magnitude is found from the maximum and the minimum. `abs` would create
        # another array as large as the gradient.
        largest, least = (f(gradient, axis=layout.time, keepdims=True) for f in (xp.max, xp.min))
        return arrays | {"size": xp.maximum(largest, -least)}

    def _mean_sample(self, values: Array) -> Array:
        """Return the input in which each sample is replaced by the mean of all samples."""
        prepared, xp = self.prepared, self.adapter.xp
        total = xp.sum(values, axis=self.layout.batch_axis, keepdims=True)
        number: Any = self.layout.batch
        if prepared.mask is not None:
            counted = xp.astype(prepared.mask, values.dtype) + xp.zeros_like(values)
            number = xp.sum(counted, axis=self.layout.batch_axis, keepdims=True)
            number = xp.where(number > 0, number, 1.0)
        return xp.broadcast_to(total / number, values.shape)

    def _compare(self) -> dict[str, Array]:
        """Return arrays for the labels, the confusion matrix, and a comparison of the scores."""
        if not self.names_classes:
            return {}
        loss, labels, xp, time = self.loss, self.labels, self.adapter.xp, self.layout.time
        given = labels.numbers if labels.indices is None else labels.indices
        found = loss._scores(self.prepared, bool(loss.per_step) and given.shape[time] > 1)
        try:
            arrays = {"confusion": found.confusion(labels)}
        except ValueError:  # multi-hot labels between 0 and 1, for which accuracy is not defined
            return {}
        classes, dtype, q = found.classes, found.values.dtype, labels.numbers
        if labels.indices is None:
            hot = (q == classes.max(q)) & (q > 0)
        else:
            hot = labels.indices == classes.positions(found.values)
        if labels.mask is not None:
            hot = hot & labels.mask
        if found.mask is not None:
            hot = hot & classes.any(found.mask)
        arrays["hot"] = xp.astype(xp.any(hot, axis=time, keepdims=True), dtype)
        if not self.multi_hot:
            scores = found.of_classes()
            largest = classes.max(scores)
            finite = xp.where(xp.isfinite(scores), scores, largest)  # masked scores are -inf
            best = classes.sum(xp.astype(scores == largest, dtype))
            arrays["best"] = best * xp.astype(classes.any(hot), dtype)
            arrays["range"] = xp.max(largest - finite)
        return arrays

    # On the host ----------------------------------------------------------------------------------

    def finish(self, **found: Any) -> None:
        """Compute the attributes from the values of the arrays."""
        loss, layout, prepared, steps = self.loss, self.layout, self.prepared, self.layout.steps
        self.value, self.found = float(found["value"]), found
        self.equal = _losses.value_of_equal_scores(loss, prepared.num_classes)
        entries = found.get("entries", np.full((1, 1, 1), steps))
        self.entries = np.moveaxis(entries, layout.time, -1)
        self.masked = 1 - float(np.mean(self.entries, dtype=float)) / steps
        self.size = self._by_class(found["size"]).max(axis=-1)
        divisor = float(found["divisor"]) if self.is_sum else 1.0
        of_sample = self.size.max(axis=1) if loss.classes_compete else self.size.sum(axis=1)
        self.of_output = float((of_sample * self.entries.max(axis=(1, 2))).sum()) * divisor
        self.output: Layer | None = None
        self.about_output: list[tuple[str, ...]] = []
        if _losses.reads_times(loss):
            fires = _losses.spike_mask(loss, prepared.values) & (
                prepared.mask is None or prepared.mask
            )
            self.output, _ = _layers.of_times("output", prepared.values, fires)
        elif _losses.reads_rates(loss):
            fires = found["size"] < 0
        else:
            fires = found["spikes"] > 0
            self.output, self.about_output = _layers.layer_of("output", layout, **found)
            self.odd_values = partial(_layers.odd_values, found["sample"], found.get("kept"))
        self.fires = self._by_class(fires).any(axis=-1)
        self.hot: Any = None
        self.confusion, self.range = np.zeros((1, 1)), float(found.get("range", 0))
        self.accuracy, self.ties = math.nan, 0.0
        if "hot" in found and np.isfinite(found["confusion"]).all():
            self._count(**found)
        self.learned = self._has_learned(found.get("mean"))

    def _count(self, hot: Any, confusion: Any, best: Any = None, **_: Any) -> None:
        """Compare the predictions with the labels."""
        self.hot, self.confusion = self._by_class(hot > 0)[..., 0], confusion
        right = np.trace(confusion, axis1=-2, axis2=-1).sum()
        self.accuracy = float(right / confusion.sum())  # NaN if all labels are masked or ignored
        # `best` is the number of classes with the best score, or 0 if all labels of a sample are
        # masked or ignored.
        if best is not None:
            self.ties = share(best > 1, best > 0)

    def _has_learned(self, of_mean: Any) -> bool:
        """Return whether the network predicts the target so well that its gradients may be small.

        `of_mean` is the loss if each sample is replaced by the mean of all samples. The minimum of
        a negative log-likelihood is not 0. If a negative log-likelihood is below `of_mean`, the
        input contains information about the target.
        """
        if self.hot is not None:
            return self.accuracy >= MOST
        if of_mean is None or not self.value:
            return self.value == 0
        return bool(self.value < of_mean * (1 if _losses.reads_rates(self.loss) else 1 - MOST))

    def _by_class(self, x: Any) -> Any:
        """Rearrange an array to ``[sample, class, neuron * step]``."""
        shape = self.layout.batch, self.prepared.num_classes, -1
        return np.moveaxis(x, self.layout.time, -1).reshape(shape)

    # Numbers and findings -------------------------------------------------------------------------

    def numbers(self) -> dict[str, Any]:
        """Return the numbers about the batch, keyed by name."""
        classes, neurons, hot = self.prepared.num_classes, self.layout.neurons, self.hot
        word, plural, sizes = "class", "classes, neurons of a class", (classes, neurons // classes)
        if not self.names_classes and classes == neurons:
            word, plural, sizes = "neuron", "neurons", neurons
        never = None if _losses.reads_rates(self.loss) else int((~self.fires.any(axis=0)).sum())
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
        """Return the numbers that are usually plotted for a likelihood, or {} for other losses."""
        if not _losses.reads_rates(self.loss):
            return {}
        found, entries = self.found, math.prod(self.layout.shape) * (1 - self.masked)
        spikes = float(found["recorded"])
        return {
            "bits per spike": float(found["gain"]) / (spikes * math.log(2)) if spikes else math.nan,
            "mean rate": float(found["predicted"]) / entries if entries else math.nan,
            "mean count": spikes / entries if entries else math.nan,
        }

    def findings(self) -> Observations:
        """Yield the findings about the batch."""
        loss, value, equal = self.loss, self.value, self.equal
        if not (math.isfinite(value) and np.isfinite(self.size).all()):
            finite = self.output is None or self.output.finite
            entries = "" if finite else ", and entries of the input are NaN or infinite"
            yield "not-finite", f"the loss is {value:.3g}{entries}"
        yield from self._of_times() if _losses.reads_times(loss) else self._of_values()
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
            seen = f"several classes share the best score in {self.ties:.0%} of the predictions"
            yield "ties", seen
        yield from _losses.findings(loss, self)
        # The loss may ignore NaN, so NaN is reported only if it reaches the loss or its gradient.
        yield from (each for each in self.about_output if each[0] != "not-finite")

    def _of_times(self) -> Observations:
        x = np.reshape(self.x, self.prepared.values.shape)
        mask = self.prepared.mask
        counted = x if mask is None else x[np.broadcast_to(mask, x.shape)]
        known = counted[np.isfinite(counted)]
        spikes = known[_losses.spike_mask(self.loss, known)]
        padding = max(np.mean(x == -1), np.mean((x == 0).sum(axis=2) > 1))
        if counted.size and not len(known):
            yield _layers.silent_layer("output", len(x))
        elif len(known) and (early := len(spikes) / len(known)) < 1 - MOST:
            silent = self.loss.silent_time
            yield "times-out-of-range", f"{early:.0%} of the times are below silent_time={silent:g}"
        elif padding or (known == 0).sum() > counted.size * SOME:
            yield "times-out-of-range", "many times are 0 or -1, which look like padding"
        elif len(spikes) and (seen := self._other_unit(spikes)):
            yield "times-out-of-range", seen

    def _other_unit(self, times: Any) -> str:
        """Describe an option that seems to have another unit than the times, or return ""."""
        for name in ("silent_time", "true_time", "false_time"):
            time = getattr(self.loss, name, None) or 0.0  # a target time of 0 fits any unit
            early, late = 0 < time < times.min() / UNIT, 0 < times.max() * UNIT < time < math.inf
            if early or late:
                return f"{name} is {time:g}, and times are {times.min():.3g} to {times.max():.3g}"
        return ""

    def _of_values(self) -> Observations:
        shape = self.layout.shape
        if (
            _losses.expects_spikes(self.loss)
            and self.layout.steps > 1
            and (odd := self.odd_values())
        ):
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
        dropped_out = _losses.reads_rates(self.loss) and "where" in self.masks  # masked on purpose
        if self.masked > (MOST if dropped_out else SOME):
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
        last = classes - len(absent)  # the absent classes begin here, if they are the last classes
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
    """Among the entries that `which` selects, return the fraction for which `what` is True."""
    return float(what[which].mean()) if which.any() else 0.0


class Call:
    """The base class of calls that `diagnose` cannot inspect in detail.

    These are calls to a `SparsityEnforcer`, calls with values that the loss does not accept, and
    calls to functions that are not losses of this library. The object has some of the attributes
    and methods of `Batch`. If the loss could not be evaluated, `error` contains the reason.
    """

    name, output, error = "input", None, ""
    adapter: Adapter
    arrays: dict[str, Array]
    of_output: float | None = None
    """The size of the gradient of the loss with respect to the output, or None if it is unknown."""
    value: float | None = None

    def finish(self, value: Any = None) -> None:
        """Store the value of the loss, or None if there is no value."""
        self.value = None if value is None else float(value.item())

    @property
    def learned(self) -> bool:
        """Whether the loss is 0, which is taken as its minimum."""
        return self.value == 0

    def numbers(self) -> dict[str, Any]:
        """Return the value of the loss, keyed by name."""
        return {"loss": self.value}

    def findings(self) -> Observations:
        """Yield the findings of the call, except for those about its layers."""
        if self.error:
            yield "refused", self.error
        elif not math.isfinite(self.value or 0):
            yield "not-finite", f"the loss is {self.value}"


class Penalty(Call):
    """A call to a `SparsityEnforcer`."""

    def __init__(self, loss: Any, x: Any, **masks: Any) -> None:
        self.loss, self.x = loss, x
        self.adapter, value = _layers.eager(loss(x, **masks), "input")
        self.arrays = {"value": value}

    @property
    def largest(self) -> float:
        """The largest entry in any layer."""
        layers = [_layers.eager(x, name) for name, x in _layers.named_leaves(self.x, "input")]
        largest = [adapter.xp.max(floating(adapter, x)) for adapter, x in layers]
        return max(float(host_values(x, "input")) for x in largest)

    def findings(self) -> Observations:
        """Yield the findings of the call, and those about the options of the loss."""
        yield from super().findings()
        yield from _losses.findings(self.loss, self)


class Refusal(Call):
    """A call with values that the loss does not accept. It has no value and no layers."""

    def __init__(self, adapter: Adapter, error: ValueError) -> None:
        self.adapter, self.error, self.arrays = adapter, str(error), {}


class Function(Call):
    """A call to a function that is not a loss of this library.

    The function may be None. Then nothing is called, and there is no value.
    """

    def __init__(self, function: Any, spikes: Any, target: Any, shapes: dict[str, str]) -> None:
        self.shapes, self.arrays = shapes, {}
        if function is None:
            return
        given = (spikes,) if target is None else (spikes, target)
        try:
            value = host_values(self._evaluate(function, *given), "loss")
        except Exception as error:  # the report shows the error and continues without the loss
            self.error = f"{type(error).__name__}: {error}"
            return
        if value.size == 1:
            self.adapter, self.arrays = adapter_of(value), {"value": value}
        else:
            self.error = f"the loss must be a number; got an array of shape {value.shape}"

    def _evaluate(self, function: Any, *given: Any) -> Any:
        """Return the value of the function. If the function has a gradient, store its size."""
        try:
            # Some losses return an array of one entry.
            value, gradient = value_and_grad(lambda *x: function(*x).reshape(()))(*given)
        except Exception:  # the function cannot be differentiated, or it raises an error
            return function(*given)
        size = abs(gradient)
        self.of_output = float(host_values(adapter_of(size).sum_all(size), "loss"))
        return value

    def numbers(self) -> dict[str, Any]:
        """Return the value of the loss, if there is one, and the axes of each output."""
        return self.shapes if self.value is None else {"loss": self.value, **self.shapes}
