"""A batch as the loss sees it: spikes, labels, predictions and gradient, and their findings."""

import math
from typing import Any

import numpy as np

from spikeloss_xp._arrays import floating, read_values
from spikeloss_xp._input.targets import MultiHot
from spikeloss_xp._typing import Array
from spikeloss_xp.diagnosis._layers import (
    ENOUGH,
    Layer,
    count_spikes,
    layer_of,
    odd_values,
)
from spikeloss_xp.diagnosis._report import Observations, silent_layer
from spikeloss_xp.losses.base import divisor_of

SOME, MOST = 0.5, 0.9


class Batch:
    """The results of one call to a loss.

    Attributes
    ----------
    value, divisor : float
        The loss, which is a mean, and the number of its terms.
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

    def __init__(self, loss: Any, x: Array, target: Any, **masks: Any) -> None:
        self.loss, self.x, self.masks = loss, x, masks
        prepared, labels = loss._prepare(x, target, masks)
        self.labels = labels
        self.prepared, self.layout, self.adapter = prepared, prepared.layout, prepared.adapter
        total, weight, pullback = loss._sum(prepared, labels, True, True)
        divisor = divisor_of(self.adapter, weight)
        self.value = float(self._on_host(total / divisor))
        self.divisor = float(divisor)
        gradient = pullback(self.adapter.scalar(total, 1.0) / divisor)
        self.size = self._by_class(self._largest(gradient)).max(axis=-1)
        self.entries = self._entries()
        self.masked = 1 - float(np.mean(self.entries)) / self.layout.steps
        self.output: Layer | None = None
        if loss.reads_times:
            fires: Any = loss.fires(prepared.values) & (prepared.mask is None or prepared.mask)
            self.fires = fires.reshape(len(fires), prepared.num_classes, -1).any(axis=-1)
        elif loss.reads_rates:
            self.fires = np.zeros((self.layout.batch, prepared.num_classes), dtype=bool)
        else:
            counts = count_spikes(self.adapter, prepared.values, self.layout, "input")
            spikes, total = map(self._trains, counts)
            self.output = layer_of("output", self.adapter, spikes, total, self.entries)
            self.fires = (self._by_class(counts[0]) > 0).any(axis=-1)
        self._compare(labels)

    def _compare(self, labels: Any) -> None:
        """Compare the predictions with the labels."""
        loss, prepared = self.loss, self.prepared
        self.hot = self._hot(labels)
        self.accuracy, self.ties, self.confusion = math.nan, 0.0, [[0.0]]
        self.range = 0.0
        if self.hot is None:
            return
        given = labels.numbers if labels.indices is None else labels.indices
        per_step = loss.per_step and given.shape[self.layout.time] > 1
        found = loss._scores(prepared, per_step)
        matrix = self._on_host(found.confusion(labels))
        right = np.trace(matrix, axis1=-2, axis2=-1).sum()
        self.confusion = matrix.tolist()
        self.accuracy = float(right / matrix.sum())  # NaN if no label counts
        if not isinstance(loss.targets[0], MultiHot):
            scores = np.moveaxis(self._on_host(found.of_classes()), self.layout.time, -1)
            largest = scores.max(axis=1, keepdims=True)
            best = (scores == largest).sum(axis=1)
            labelled = self.hot.any(axis=1)[:, None]
            self.ties = share(best > 1, np.broadcast_to(labelled, best.shape))
            known = np.where(np.isfinite(scores), scores, largest)  # masked classes have -inf
            self.range = float((largest - known).max())

    def _on_host(self, x: Any) -> Any:
        return read_values(self.adapter, x, "input")

    # Rearranging arrays ---------------------------------------------------------------------------

    def _trains(self, x: Array) -> Array:
        """Rearrange an array from the axes of the prepared input to ``[sample, neuron, step]``."""
        return self.adapter.moveaxis(x, self.layout.time, -1)

    def _by_class(self, x: Array) -> Any:
        """Copy an array to the host, rearranged to ``[sample, class, neuron * step]``."""
        found = self._on_host(self._trains(x))
        return found.reshape(len(found), self.prepared.num_classes, -1)

    def _largest(self, gradient: Array) -> Array:
        """Return the largest magnitude of the gradient of each train."""
        xp, axis = self.adapter.xp, self.layout.time
        if self.layout.has_time:
            gradient = self.layout.collapsed(self.adapter, gradient)
        gradient = xp.reshape(gradient, self.prepared.values.shape)
        # Two reductions need no array of magnitudes, which would be as large as the gradient.
        largest, least = (f(gradient, axis=axis, keepdims=True) for f in (xp.max, xp.min))
        return xp.maximum(largest, -least)

    def _entries(self) -> Any:
        """Return the number of unmasked steps of each train, as an int if nothing is masked."""
        prepared, xp = self.prepared, self.adapter.xp
        if prepared.mask is None:
            return self.layout.steps
        ones = xp.astype(prepared.mask, prepared.values.dtype)
        return self._on_host(self._trains(xp.sum(ones, axis=self.layout.time, keepdims=True)))

    def _hot(self, labels: Any) -> Any:
        """Return the attribute `hot`, or None for a target without classes."""
        time, kinds, classes = self.layout.time, self.loss.targets, self.prepared.num_classes
        multi_hot = isinstance(kinds[0], MultiHot)
        if labels.indices is not None:
            index = np.moveaxis(self._on_host(labels.indices), time, -1)[:, 0]
            hot = np.zeros((self.layout.batch, classes), dtype=bool)
            known = (index >= 0) & (index < classes)
            if labels.ignored is not None:
                known = known & ~np.moveaxis(self._on_host(labels.ignored), time, -1)[:, 0]
            hot[np.nonzero(known)[0], index[known]] = True
        elif kinds[-1].names_classes:
            q = np.moveaxis(self._on_host(labels.numbers), time, -1)
            if multi_hot and not np.isin(q, (0, 1)).all():  # accuracy needs hard labels
                return None
            hot = ((q == q.max(axis=1, keepdims=True)) & (q > 0)).any(axis=-1)
        else:
            return None
        if not isinstance(self.entries, int):
            hot = hot & (self.entries > 0).any(axis=(1, 2))[:, None]
        return hot

    # Numbers and findings -------------------------------------------------------------------------

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the batch, keyed by name."""
        classes, shape = self.prepared.num_classes, self.layout.shape
        time = "time" if self.layout.has_time else "spike"
        axes = {self.layout.batch_axis: "batch", self.layout.time_axis: time}
        names = ", ".join(axes.get(i, "class") for i in range(len(shape)))
        found: dict[str, Any] = {"loss": self.value}
        if (equal := self.loss.value_of_equal_scores(classes)) is not None:
            found["loss of equal scores"] = equal
        if self.hot is not None:
            found |= {"accuracy": self.accuracy, "fraction of ties": self.ties}
        found |= {
            "input, as it is read": f"[{names}] = {shape}",
            "classes, neurons of a class": (classes, self.layout.neurons // classes),
            "fraction that is masked": self.masked,
        }
        if not self.loss.reads_rates:
            found["classes that never fire"] = int((~self.fires.any(axis=0)).sum())
        found["largest gradient of each class"] = self.size.max(axis=0).tolist()
        if self.hot is not None:
            found |= {
                "samples of each class": self.hot.sum(axis=0).tolist(),
                "confusion, labels by predictions": self.confusion,
                "fraction of labels without a gradient": share(self.size == 0, self.hot),
            }
        return found

    def findings(self) -> Observations:
        """Yield the findings of the batch."""
        loss, value = self.loss, self.value
        equal = loss.value_of_equal_scores(self.prepared.num_classes)
        if not (math.isfinite(value) and np.isfinite(self.size).all()):
            yield from self._of_infinity()
        yield from self._of_times() if loss.reads_times else self._of_values()
        yield from self._of_masks()
        learned, fraction = not value, 0.0
        if self.hot is not None:
            yield from self._of_labels()
            learned, fraction = self.accuracy >= MOST, share(self.size == 0, self.hot)
        if equal is not None and self.accuracy < SOME and value > 4 * equal > 0:
            yield "certain-and-wrong", f"the loss is {value:.3g}, but {equal:.3g} for equal scores"
        if not learned and (fraction >= MOST or not self.size.any()):
            where = "at labels" if fraction else "everywhere"
            yield "zero-gradient", f"the gradient of the loss is 0 {where}"
        answers = np.sum(self.confusion, axis=0)
        several = answers.ndim == 1 < len(answers) and answers.sum() >= ENOUGH
        if several and self.ties < SOME and np.count_nonzero(answers) == 1:
            yield "one-answer", f"class {answers.argmax()} is predicted for all samples"
        if self.fires.any() and self.ties >= SOME:
            yield "ties", f"several classes share the best score in {self.ties:.0%} of the samples"
        yield from loss.findings(self)

    def _of_infinity(self) -> Observations:
        finite = self.output is None or self.output.finite
        entries = "" if finite else ", and entries of the input are NaN or infinite"
        yield "not-finite", f"the loss is {self.value:.3g}{entries}"

    def _of_times(self) -> Observations:
        x = np.reshape(self.x, self.prepared.values.shape)
        mask = self.prepared.mask
        counted = x if mask is None else x[np.broadcast_to(mask, x.shape)]
        known = counted[np.isfinite(counted)]
        padding = max(np.mean(x == -1), np.mean((x == 0).sum(axis=2) > 1))
        if counted.size and not len(known):
            yield silent_layer("output", len(x))
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

    def odd_values(self) -> str:
        """Describe the values that are not spike counts, or return "" if they have few levels."""
        x, mask = self.prepared.values, self.prepared.mask
        return odd_values(self.adapter, x, mask, self.layout.batch_axis)

    def _of_masks(self) -> Observations:
        steps, lengths = self.layout.steps, self.masks.get("lengths")
        if "where" in self.masks and self.output is not None and self.output.rate == 0:
            everything = self.adapter.xp.any(floating(self.adapter, self.x) != 0)
            if self.masked < 1 and self._on_host(everything):
                yield "inverted-mask", "all spikes are masked"
        if lengths is not None and steps >= 20 and lengths.max() * 10 <= steps:
            seen = f"lengths are at most {lengths.max()}, but there are {steps} steps"
            yield "short-lengths", seen
        if self.masked > SOME:
            yield "mostly-masked", f"{self.masked:.0%} of the entries are masked"

    def _of_labels(self) -> Observations:
        hot: Any = self.hot
        labelled, occurs = hot.any(axis=1), hot.any(axis=0)
        silent = share(~(self.fires & hot).any(axis=1), labelled)
        if self.fires.any() and silent >= MOST:
            yield "silent-labels", f"the labelled class is silent in {silent:.0%} of the samples"
        if isinstance(self.loss.targets[0], MultiHot):
            return
        number, classes = int(labelled.sum()), len(occurs)
        absent = np.flatnonzero(~occurs)
        absent = absent[absent != self.loss.ignore_index]
        last = classes - len(absent)  # the number of classes, if only the last are absent
        if not len(absent):
            return
        if occurs.sum() == 1 and number >= ENOUGH:
            yield "one-class", f"all {number} labels are {int(occurs.argmax())}"
        elif occurs[:last].all() and number * len(absent) >= 4 * classes:
            seen = f"the largest label is {last - 1}, but there are {classes} classes"
            yield "labels-too-low", seen
        elif number >= 4 * classes:
            yield "absent-class", f"no sample has label {absent.tolist()}"


def share(what: Any, which: Any) -> float:
    """Return the fraction of the entries selected by `which` that are True in `what`."""
    return float(what[which].mean()) if which.any() else 0.0
