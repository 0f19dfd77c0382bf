"""A loss call on one batch, and the measurements from which its findings follow."""

import copy
import math
from functools import partial
from typing import Any

import numpy as np

from spikeloss_xp._arrays import divisor_of, floating
from spikeloss_xp._input.targets import MULTI_HOT
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis import _findings, _losses, _spikes
from spikeloss_xp.diagnosis._findings import MOST, share
from spikeloss_xp.diagnosis._report import Layer, Observations
from spikeloss_xp.predictions import ClassScores


class Batch:
    """A call to a loss on one batch.

    The constructor evaluates the loss on the device of the input. The arrays in `arrays` are then
    copied to the host together, and `finish` computes all attributes from their values.

    Attributes
    ----------
    loss : Loss
        A copy of the loss, whose reduction is the mean.
    value : float
        The mean of the terms, whatever the reduction of the loss.
    equal : float or None
        The loss for equal scores of all classes, or None if it is unknown.
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
        The statistics of the spikes. None if the input holds predicted rates.
    about_output : list of tuple
        The findings about the spikes. The list is empty if the input holds spike times or predicted
        rates.
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
    confusion : array
        The confusion matrix of the predictions, or zeros if the target has no classes.
    accuracy : float
        The fraction of correct predictions. NaN if there are no labels to compare with.
    ties : float
        The fraction of the predictions in which several classes share the best score.
    found : dict of str to array
        The values of the arrays.
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
        self.arrays = self._evaluate(target)
        # These values remain unless `finish` finds spikes or labels.
        self.output: Layer | None = None
        self.about_output: list[tuple[str, ...]] = []
        self.hot: Any = None
        self.confusion: Any = np.zeros((1, 1))
        self.accuracy = math.nan
        self.ties = 0.0

    # On the device --------------------------------------------------------------------------------

    def _evaluate(self, target: Any) -> dict[str, Array]:
        """Return the arrays for `finish`."""
        loss = self.loss
        adapter = self.adapter
        mask = self.prepared.mask
        values = self.prepared.filled()
        total, weight, pullback = loss.sum_weight_and_pullback(self.x, target, **self.masks)
        one = adapter.scalar(total, 1.0)
        divisor = divisor_of(adapter, weight)
        arrays = {"value": total / divisor}
        arrays["divisor"] = divisor + 0 * one  # an array, even if the divisor is an int
        arrays |= self._comparison()
        if "hot" not in arrays and not self.reads_times:
            mean = self._mean_sample(values)
            arrays["mean"] = loss(mean, target, **self.masks)
        arrays |= _spikes.unmasked(adapter, self.layout, mask, values)
        arrays |= self._activity(values)
        arrays["size"] = self._largest(pullback(one / divisor))
        return arrays

    def _activity(self, values: Array) -> dict[str, Array]:
        """Return the arrays for the statistics of the spikes or of the predicted rates."""
        if self.reads_rates:
            return _losses.totals(self.loss, self.prepared, self.labels)
        if self.reads_times:
            return {}
        return _spikes.activity(self.adapter, self.layout, values, "input")

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
        """Return the input in which each sample is replaced by the mean of all samples."""
        xp = self.adapter.xp
        axis = self.layout.batch_axis
        total = xp.sum(values, axis=axis, keepdims=True)
        number = self._number_of_samples(values)
        mean = xp.broadcast_to(total / number, values.shape)
        return self.layout.restored(self.adapter, mean)

    def _number_of_samples(self, values: Array) -> Any:
        """Return the number of samples in which each entry is unmasked, or 1 if it is 0."""
        mask = self.prepared.mask
        if mask is None:
            return self.layout.batch
        xp = self.adapter.xp
        axis = self.layout.batch_axis
        ones = xp.astype(mask, values.dtype)
        ones = ones + xp.zeros_like(values)
        number = xp.sum(ones, axis=axis, keepdims=True)
        return xp.where(number > 0, number, 1.0)

    # On the device: labels and scores -------------------------------------------------------------

    def _comparison(self) -> dict[str, Array]:
        """Return arrays for the labels, the confusion matrix, and a comparison of the scores."""
        if not self.names_classes:
            return {}
        scores = self._class_scores()
        try:
            confusion = scores.confusion(self.labels)
        except ValueError:  # multi-hot labels between 0 and 1, for which accuracy is not defined
            return {}
        xp = self.adapter.xp
        hot = self._labelled(scores)
        at_any_step = xp.any(hot, axis=self.layout.time, keepdims=True)
        arrays = {"confusion": confusion}
        arrays["hot"] = xp.astype(at_any_step, scores.values.dtype)
        if not self.multi_hot:
            arrays |= self._best_scores(scores, hot)
        return arrays

    def _class_scores(self) -> ClassScores:
        """Return the scores of the classes, at each step if there is a label at each step."""
        given = self.labels.indices
        if given is None:
            given = self.labels.numbers
        several = given.shape[self.layout.time] > 1
        per_step = several and bool(self.loss.per_step)
        scores: ClassScores = self.loss._scores(self.prepared, per_step)
        return scores

    def _labelled(self, scores: ClassScores) -> Array:
        """Return a mask that is True for the labels of unmasked samples and steps."""
        labels = self.labels
        classes = scores.classes
        if labels.indices is None:
            q = labels.numbers
            hot = (q == classes.max(q)) & (q > 0)
        else:
            positions = classes.positions(scores.values)
            hot = labels.indices == positions
        if labels.mask is not None:
            hot = hot & labels.mask
        if scores.mask is not None:
            hot = hot & classes.any(scores.mask)
        return hot

    def _best_scores(self, scores: ClassScores, hot: Array) -> dict[str, Array]:
        """Return how many classes share the best score, and the range of the scores.

        The number is 0 if all labels of a sample or step are masked or ignored.
        """
        xp = self.adapter.xp
        classes = scores.classes
        dtype = scores.values.dtype
        values = scores.of_classes()
        largest = classes.max(values)
        finite = xp.where(xp.isfinite(values), values, largest)  # masked scores are -inf
        is_best = xp.astype(values == largest, dtype)
        labelled = xp.astype(classes.any(hot), dtype)
        return {
            "best": classes.sum(is_best) * labelled,
            "range": xp.max(largest - finite),
        }

    # On the host ----------------------------------------------------------------------------------

    def finish(self, **found: Any) -> None:
        """Compute the attributes from the values of the arrays."""
        classes = self.prepared.num_classes
        self.found = found
        self.value = float(found["value"])
        self.equal = _losses.value_of_equal_scores(self.loss, classes)
        self.range = float(found.get("range", 0))
        self.entries = self._unmasked_steps()
        steps = float(np.mean(self.entries, dtype=float))
        self.masked = 1 - steps / self.layout.steps
        self.size = self._by_class(found["size"]).max(axis=-1)
        self.of_output = self._size_of_gradient()
        fires = self._measure_spikes()
        self.fires = self._by_class(fires).any(axis=-1)
        if "hot" in found and np.isfinite(found["confusion"]).all():
            self._compare_with_labels()
        self.learned = self._has_learned()

    def _unmasked_steps(self) -> Any:
        """Return the number of unmasked steps of each train."""
        entries = self.found.get("entries")
        if entries is None:
            return np.full((1, 1, 1), self.layout.steps)
        return np.moveaxis(entries, self.layout.time, -1)

    def _size_of_gradient(self) -> float:
        """Return the size of the gradient of the loss with respect to the output."""
        over_classes: Any = np.max if self.loss.classes_compete else np.sum
        of_sample = over_classes(self.size, axis=1)
        steps = self.entries.max(axis=(1, 2))
        size = float((of_sample * steps).sum())
        if self.is_sum:
            size *= float(self.found["divisor"])
        return size

    def _measure_spikes(self) -> Any:
        """Compute the statistics of the output, and return where it fires."""
        found = self.found
        if self.reads_rates:
            return found["size"] < 0  # nowhere
        if self.reads_times:
            return self._measure_times()
        sample = found["sample"]
        kept = found.get("kept")
        self.odd_values = partial(_spikes.odd_values, sample, kept)
        self.output, self.about_output = _spikes.layer_of("output", self.layout, **found)
        return found["spikes"] > 0

    def _measure_times(self) -> Any:
        """Compute the statistics of the spike times, and return which of them are spikes."""
        times = self.prepared.values
        fires = _losses.spike_mask(self.loss, times)
        if self.prepared.mask is not None:
            fires = fires & self.prepared.mask
        self.output, _ = _spikes.of_times("output", times, fires)
        return fires

    def _compare_with_labels(self) -> None:
        """Compare the predictions with the labels."""
        hot = self.found["hot"] > 0
        confusion = self.found["confusion"]
        right = np.trace(confusion, axis1=-2, axis2=-1).sum()
        self.hot = self._by_class(hot)[..., 0]
        self.confusion = confusion
        self.accuracy = float(right / confusion.sum())  # NaN if all labels are masked or ignored
        best = self.found.get("best")
        if best is not None:
            self.ties = share(best > 1, best > 0)

    def _has_learned(self) -> bool:
        """Return whether the network predicts the target so well that its gradients may be small.

        Without classes, the loss is compared with the loss in which each sample is replaced by the
        mean of all samples. The minimum of a negative log-likelihood is not 0. If it is below the
        loss of the mean, the input contains information about the target.
        """
        if self.hot is not None:
            return self.accuracy >= MOST
        of_mean = self.found.get("mean")
        if of_mean is None or self.value == 0:
            return self.value == 0
        if self.reads_rates:
            return bool(self.value < of_mean)
        return bool(self.value < of_mean * (1 - MOST))

    def _by_class(self, x: Any) -> Any:
        """Rearrange an array to ``[sample, class, neuron * step]``."""
        samples = self.layout.batch
        classes = self.prepared.num_classes
        time_last = np.moveaxis(x, self.layout.time, -1)
        return time_last.reshape(samples, classes, -1)

    # In the report --------------------------------------------------------------------------------

    def numbers(self) -> dict[str, Any]:
        """Return the numbers about the batch, keyed by name."""
        return _findings.numbers_of(self)

    def findings(self) -> Observations:
        """Yield the findings about the batch."""
        return _findings.findings_of(self)


def _with_mean(loss: Any) -> Any:
    """Return a copy of a loss whose value is the mean of its terms."""
    loss = copy.copy(loss)
    # Assigning to the option would check all options again.
    object.__setattr__(loss, "reduction", "mean")
    return loss
