"""The class `Batch`, which calls a loss on one batch and takes measurements for `diagnose`."""

import copy
import math
from typing import Any

import numpy as np

from spikeloss_xp._arrays import divisor_of, floating, host_values
from spikeloss_xp._input.targets import MULTI_HOT
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis import _losses, _spikes
from spikeloss_xp.diagnosis._report import Layer
from spikeloss_xp.losses.predictions import ClassScores

MOST = 0.9


class Batch:
    """One call to a loss on one batch, and measurements of its input, value and gradient.

    The constructor evaluates the loss on the device of the input, and stores the results in the
    dict `arrays`. Afterwards, the function `finished` copies these arrays to the host and passes
    them to the method `finish`, which computes the remaining attributes.

    Attributes
    ----------
    loss : Loss
        A copy of the loss with ``reduction="mean"``.
    value : float
        The value of the loss with ``reduction="mean"``.
    equal : float or None
        The value that the loss has if all classes have the same score, if this value is known.
    learned : bool
        Whether the network already predicts the target well, so that gradients may be small.
    of_output : float
        The size of the gradient of the loss with respect to the output. With
        ``reduction="sum"``, the gradient is not divided by the divisor of the mean.
    entries : array
        The number of unmasked steps of each train. The last axis is the time axis, with length 1.
        If nothing is masked, the array has shape ``[1, 1, 1]``.
    masked, kept : float
        `masked` is the fraction of the entries of the input that are masked. `kept` is the number
        of entries that are not masked.
    output : Layer or None
        The firing statistics of the input. None if the input holds predicted rates.
    fires, size : array
        Two arrays of shape ``[sample, class]``. `fires` is True if any neuron of the class fires in
        the sample. `size` is the largest absolute gradient among the entries of the class in the
        sample.
    range : float
        The largest difference between the highest and the lowest finite class score of a sample.
    prepared : Trains
        The input after the loss has checked and converted it.
    labels : Labels
        The target after the loss has checked and converted it.
    layout : Layout
        The shape of the input, and the positions of its batch, time and class axes.
    has_labels : bool
        Whether the target holds class labels, so that an accuracy can be computed.
    hot : array or None
        An array ``[sample, class]`` that is True if the class is a label of the sample at one or
        more steps.
    confusion : array
        The confusion matrix, whose rows are labels and whose columns are predictions. For multi-hot
        labels, there is a matrix of shape ``[2, 2]`` for each class.
    accuracy : float
        The fraction of predictions that are correct.
    progress : float or None
        ``(accuracy - chance) / (1 - chance)``, where `chance` is the accuracy of the best constant
        prediction. Both accuracies are weighted with the class weights.
    constant : float or None
        The lowest known loss of an output that is the same for all samples. None if the target has
        class labels, or if the loss reads spike times.
    found : dict of str to array
        The arrays in `arrays` after they have been copied to the host.
    """

    name = "input"

    def __init__(self, loss: Any, x: Array, target: Any, **masks: Any) -> None:
        self.loss = _with_mean(loss)
        self.x = x
        self.masks = masks
        self.is_sum = loss.reduction == "sum"
        self.multi_hot = MULTI_HOT in loss.targets
        self.names_classes = any(kind.names_classes for kind in loss.targets)
        self.reads_times = _losses.reads_times(loss)
        self.reads_rates = _losses.reads_rates(loss)
        self.prepared, self.labels = self.loss._prepare(x, target, masks)
        self.layout = self.prepared.layout
        self.adapter = self.prepared.adapter
        self.equal = _losses.value_of_equal_scores(loss, self.prepared.num_classes)
        self.arrays = self._evaluate(target)
        # The method `finish` replaces these defaults if there are spikes or labels.
        self.output: Layer | None = None
        self.has_labels = False
        self.hot: Any = None
        self.confusion: Any = np.zeros((1, 1))
        self.accuracy = math.nan
        self.progress: float | None = None
        self.constant: float | None = None

    # On the device --------------------------------------------------------------------------------

    def _evaluate(self, target: Any) -> dict[str, Array]:
        """Evaluate the loss on its device, and return the arrays that `finish` needs."""
        adapter = self.adapter
        values = self.prepared.filled().values
        total, weight, pullback = self.loss.sum_weight_and_pullback(self.x, target, **self.masks)
        one = adapter.scalar(total, 1.0)
        divisor = divisor_of(adapter, weight)
        arrays = {"value": total / divisor}
        arrays["divisor"] = divisor + 0 * one  # converts an int to an array
        arrays |= self._comparison()
        if "hot" not in arrays and not self.reads_times:
            mean = self._mean_sample(values)
            arrays["mean"] = self.loss(mean, target, **self.masks)
            if not self.reads_rates:
                silent = adapter.xp.zeros_like(self.x)
                arrays["silent"] = self.loss(silent, target, **self.masks)
        arrays |= _spikes.unmasked(adapter, self.layout, self.prepared.mask, values)
        if self.reads_rates:
            arrays |= _losses.totals(self.loss, self.prepared, self.labels)
        elif not self.reads_times:
            arrays |= _spikes.activity(adapter, self.layout, values, "input")
        arrays["size"] = self._largest(pullback(one / divisor))
        return arrays

    def _largest(self, gradient: Array) -> Array:
        """Return the largest magnitude of the gradient in each train."""
        xp = self.adapter.xp
        time = self.layout.time
        gradient = floating(self.adapter, gradient)
        if self.layout.has_time:
            gradient = self.layout.collapsed(self.adapter, gradient)
        gradient = xp.reshape(gradient, self.prepared.values.shape)
        # `abs` would create another array as large as the gradient.
        largest = xp.max(gradient, axis=time, keepdims=True)
        least = xp.min(gradient, axis=time, keepdims=True)
        return xp.maximum(largest, -least)

    def _mean_sample(self, values: Array) -> Array:
        """Return the input in which each sample is replaced by the mean of all samples.

        An entry that is masked in all samples becomes NaN.
        """
        xp = self.adapter.xp
        axis = self.layout.batch_axis
        number: Any = self.layout.batch
        if self.prepared.mask is not None:
            mask = xp.broadcast_to(self.prepared.mask, values.shape)
            number = xp.sum(xp.astype(mask, values.dtype), axis=axis, keepdims=True)
        mean = xp.sum(values, axis=axis, keepdims=True) / number
        return self.layout.restored(self.adapter, xp.broadcast_to(mean, values.shape))

    # Labels and scores ----------------------------------------------------------------------------

    def _comparison(self) -> dict[str, Array]:
        """Return a dict of the labels, the confusion matrix and the range of the scores."""
        if not self.names_classes:
            return {}
        scores = self._class_scores()
        try:
            confusion = scores.confusion(self.labels)
        except ValueError:  # the accuracy is not defined for multi-hot labels between 0 and 1
            return {}
        xp = self.adapter.xp
        hot = xp.any(self._labelled(scores), axis=self.layout.time, keepdims=True)
        arrays = {"confusion": confusion, "hot": xp.astype(hot, scores.values.dtype)}
        if not self.multi_hot:
            values = scores.of_classes()
            largest = scores.classes.max(values)
            finite = xp.where(xp.isfinite(values), values, largest)  # masked scores are -inf
            arrays["range"] = xp.max(largest - finite)
        return arrays

    def _class_scores(self) -> ClassScores:
        """Return the score of each class."""
        given = self.labels.numbers if self.labels.indices is None else self.labels.indices
        several = given.shape[self.layout.time] > 1
        scores: ClassScores = self.loss._scores(self.prepared, several and self.loss.per_step)
        return scores

    def _labelled(self, scores: ClassScores) -> Array:
        """Return a mask that is True at the labelled class of each unmasked sample or step."""
        labels = self.labels
        classes = scores.classes
        if labels.indices is None:
            q = labels.numbers
            hot = (q == classes.max(q)) & (q > 0)
        else:
            hot = labels.indices == classes.positions(scores.values)
        if labels.mask is not None:
            hot = hot & labels.mask
        if scores.mask is not None:
            hot = hot & classes.any(scores.mask)
        return hot

    # On the host ----------------------------------------------------------------------------------

    def finish(self, **found: Any) -> None:
        """Compute the remaining attributes from the entries of `arrays`, copied to the host."""
        self.found = found
        self.value = float(found["value"])
        self.range = float(found.get("range", 0))
        self.entries = np.full((1, 1, 1), self.layout.steps)
        if "entries" in found:
            self.entries = np.moveaxis(found["entries"], self.layout.time, -1)
        self.masked = 1 - float(np.mean(self.entries, dtype=float)) / self.layout.steps
        self.kept = math.prod(self.layout.shape) * (1 - self.masked)
        self.size = self._by_class(found["size"]).max(axis=-1)
        self.of_output = self._size_of_gradient()
        self.fires = self._by_class(self._measure_spikes()).any(axis=-1)
        self.has_labels = "hot" in found and bool(np.isfinite(found["confusion"]).all())
        if self.has_labels:
            self.hot = self._by_class(found["hot"] > 0)[..., 0]
            self.confusion = found["confusion"]
            right = np.trace(self.confusion, axis1=-2, axis2=-1).sum()
            self.accuracy = float(right / self.confusion.sum())  # NaN without labels
            self.progress = self._progress()
        self.constant = self._constant()
        self.learned = self._has_learned()

    def _constant(self) -> float | None:
        """Return the lowest known loss of an output that is the same for all samples.

        If the input holds spikes, the mean of all samples is not considered, because a network that
        outputs spikes cannot output the mean of several spike trains.
        """
        holds_spikes = self.output is not None and self.output.holds_spikes
        known = ("silent",) if holds_spikes else ("silent", "mean")
        return min((float(self.found[key]) for key in known if key in self.found), default=None)

    def _progress(self) -> float:
        """Return ``(accuracy - chance) / (1 - chance)``, with class weights in both accuracies.

        `chance` is the fraction of labels that belong to the commonest class.
        """
        weight = np.ravel(host_values(self.masks.get("weight", 1.0), "weight"))
        confusion = np.moveaxis(np.moveaxis(self.confusion, 0, -1) * weight, -1, 0)
        labels = confusion.sum(axis=-1)
        right = np.trace(confusion, axis1=-2, axis2=-1).sum() / labels.sum()
        chance = labels.max(axis=-1).sum() / labels.sum()
        return float((right - chance) / (1 - chance or math.nan))  # NaN if all labels are equal

    def _size_of_gradient(self) -> float:
        """Return the size of the gradient of the loss with respect to the output."""
        over_classes: Any = np.max if self.loss.classes_compete else np.sum
        of_sample = over_classes(self.size, axis=1)
        size = float((of_sample * self.entries.max(axis=(1, 2))).sum())
        return size * float(self.found["divisor"]) if self.is_sum else size

    def _measure_spikes(self) -> Any:
        """Set the attribute `output`, and return a mask that is True where the output fires."""
        if self.reads_rates:
            return self.found["size"] < 0  # False everywhere, because rates are not spikes
        if not self.reads_times:
            self.output = _spikes.layer_of("output", self.layout, **self.found)
            return self.found["spikes"] > 0
        times = self.prepared.values
        fires = _losses.spike_mask(self.loss, times)
        if self.prepared.mask is not None:
            fires = fires & self.prepared.mask
        self.output = _spikes.of_times("output", times, fires)
        return fires

    def _has_learned(self) -> bool:
        """Return whether the network predicts the target so well that its gradients may be small.

        A negative log-likelihood only has to be below its value for the mean of all samples,
        because the minimum of a negative log-likelihood is not 0.
        """
        if self.has_labels:
            return self.accuracy >= MOST
        if self.value == 0:
            return True
        share = 1.0 if self.reads_rates else 1 - MOST
        return bool(self.value < share * self.found.get("mean", -math.inf))

    def _by_class(self, x: Any) -> Any:
        """Rearrange an array to ``[sample, class, neuron * step]``."""
        time_last = np.moveaxis(x, self.layout.time, -1)
        return time_last.reshape(self.layout.batch, self.prepared.num_classes, -1)


def _with_mean(loss: Any) -> Any:
    """Return a copy of a loss, with ``reduction="mean"``."""
    loss = copy.copy(loss)
    # `object.__setattr__` sets the option without checking all options of the loss again.
    object.__setattr__(loss, "reduction", "mean")
    return loss
