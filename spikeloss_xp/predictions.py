"""Predictions of classes, and how often they are right.

A loss that reads classes and a classifier are a `Predictor`.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, overload

from spikeloss_xp import _checks
from spikeloss_xp._arrays import adapter_of, on_device_of, or_one, rank
from spikeloss_xp._input.labels import (
    INDICES,
    MULTI_HOT,
    PROBABILITIES,
    Labels,
    class_target,
    holds_numbers,
)
from spikeloss_xp._input.pixels import labels_of_pixels, read_pixels
from spikeloss_xp._input.prepared import Prepared, both
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, HostArray, IntegerArray
from spikeloss_xp.backends.base import Axis

Mask = ArrayLike | None  # what `where` and `lengths` take


class ClassScores(NamedTuple):
    """The scores of the classes, of which the largest wins.

    Attributes
    ----------
    prepared : Prepared
        The spikes.
    values : array
        With axes batch, class and time in the order of the spikes; time has length 1 unless
        `per_step`.
    mask : array or None
        True for the classes of which any entry is unmasked; its class axis may have length 1.
    per_step : bool
        Whether there is a prediction at each step.
    """

    prepared: Prepared
    values: Array
    mask: Array | None
    per_step: bool

    @property
    def classes(self) -> Axis:
        """The axis of the classes."""
        axis: Axis = self.prepared.adapter.axes[self.prepared.layout.class_axis]
        return axis

    def of_classes(self) -> Array:
        """Return the scores; a masked class is below all others, unless all classes are masked."""
        xp, classes = self.prepared.adapter.xp, self.classes
        if self.mask is None or classes.length(self.mask) == 1:
            return self.values
        return xp.where(self.mask | ~classes.any(self.mask), self.values, -math.inf)

    def winner(self) -> Array:
        """Return the index of the winning class, the first one in a tie, with a class axis."""
        score = self.values
        if self.mask is not None:  # if all classes are masked, the first one wins
            score = self.prepared.adapter.xp.where(self.mask, score, -math.inf)
        return self.classes.argmax(score)

    def result(self, x: Array, *, with_class: bool = True) -> Array:
        """Return predictions or readings, without the time axis unless `per_step`."""
        adapter, layout, pixels = self.prepared.adapter, self.prepared.layout, self.prepared.pixels
        x = layout.squeezed(adapter, x, with_class=with_class, with_time=self.per_step)
        return x if pixels is None else pixels.images(adapter, x, with_class=with_class)

    def predicted(self) -> Array:
        """Return the winning classes, with axes ``[batch]`` or ``[batch, time]``."""
        return self.result(self.winner(), with_class=False)

    def confusion(self, labels: Labels) -> Array:
        """Return the confusion matrix of these labels."""
        prepared, readings, classes = self.prepared, self.values, self.classes
        adapter, xp, dtype = prepared.adapter, prepared.adapter.xp, prepared.values.dtype
        if labels.indices is None:
            labels = most_probable(classes, labels.numbers)
        broken = classes.any(~(readings < math.inf))
        # A class that is not the label: the first, or the second if the label is the first.
        wrong = xp.astype(labels.indices == 0, labels.indices.dtype)
        winner = xp.astype(self.winner(), labels.indices.dtype)
        position = classes.positions(readings)
        predicted, counted = position == xp.where(broken, wrong, winner), position == labels.indices
        if self.mask is not None:
            counted = counted & self.mask
        if labels.ignored is not None:
            counted = counted & ~labels.ignored

        def by_class(x: Array) -> Array:
            x = adapter.moveaxis(xp.broadcast_to(x, readings.shape), classes.index, 0)
            return xp.reshape(xp.astype(x, dtype), (classes.length(readings), -1))

        counts = adapter.matmul(by_class(counted), by_class(predicted).T)
        if labels.valid is None:
            return counts
        valid = labels.valid
        if self.mask is not None:  # where all classes are masked, any label is valid
            valid = valid | ~classes.any(self.mask)
        return xp.where(xp.all(valid), counts, math.nan)


class BinaryScores(ClassScores):
    """The scores of independent classes, each of which is predicted if its score is above 0."""

    def predicted(self) -> Array:
        """Return 0 or 1 for each class."""
        adapter, score = self.prepared.adapter, self.values
        predicted = both(self.mask, score > 0)
        return self.result(adapter.xp.astype(predicted, adapter.arange(1, score).dtype))

    def confusion(self, labels: Labels) -> Array:
        """Return the confusion matrix ``[class, 2, 2]``."""
        prepared, score = self.prepared, self.values
        adapter, xp, dtype = prepared.adapter, prepared.adapter.xp, prepared.values.dtype
        target = xp.broadcast_to(labels.numbers, score.shape)
        binary = (target == 0) | (target == 1)
        known = adapter.concrete_or_none(binary)
        if known is not None and not known.all():
            raise ValueError(
                f"target must be 0 or 1 for each class, as {MULTI_HOT} are, to be counted"
            )
        broken = ~((score < math.inf) & (score > -math.inf))
        predicted = xp.where(broken, target == 0, score > 0)
        counted = xp.ones_like(predicted) if self.mask is None else self.mask
        axes = tuple(axis for axis in range(score.ndim) if axis != self.classes.index)

        def number(label: Array, prediction: Array) -> Array:
            return xp.sum(xp.astype(counted & label & prediction, dtype), axis=axes)

        numbers = [
            number(x, y) for x in (target == 0, target == 1) for y in (~predicted, predicted)
        ]
        counts = xp.reshape(xp.stack(numbers, axis=-1), (-1, 2, 2))
        return xp.where(xp.all(binary | ~counted), counts, math.nan)


def most_probable(classes: Axis, q: Array) -> Labels:
    """Return the classes of the largest probabilities as labels; rows of zeros are ignored."""
    unlabelled = ~classes.any(~(q <= 0))
    return Labels(classes.argmax(q), None, ~classes.any(q != q), unlabelled)


class Predictor(ABC):
    """What a loss or a classifier predicts, and how often that is right.

    A subclass prepares an input, and returns the scores of its classes, at each step or over all of
    time.
    """

    num_classes: int | None
    ignore_index: int | None
    targets: ClassVar[tuple[str, ...]] = (INDICES,)
    """The kinds of targets: class indices, a number for each class, or both in this order."""
    takes_pixels: ClassVar[bool] = False
    """Whether there may be a label for each pixel."""
    per_step: bool | None = False
    """Whether there may be a prediction and a label at each step."""

    @abstractmethod
    def _prepare_input(self, input: Array, where: Any, lengths: Any, context: int = 0) -> Prepared:
        """Return the input with its mask; the first `context` steps have no terms."""

    @abstractmethod
    def _scores(self, prepared: Prepared, per_step: bool) -> ClassScores:
        """Return the scores of the classes."""

    def _is_per_step(self, target: Any) -> bool:
        """Whether a target has labels for each step, in addition to those of samples."""
        with_classes = self.targets[0] != INDICES or holds_numbers(self.targets, target)
        return bool(self.per_step) and rank(target) == 2 + with_classes

    def _checked_labels(
        self, prepared: Prepared, target: Any, kinds: tuple[str, ...], per_step: bool
    ) -> Labels:
        """Return the labels of samples or, if those are read, of pixels."""
        if prepared.pixels is not None:
            with_class = holds_numbers(self.targets, target)
            target = prepared.pixels.labels(target, with_class=with_class)
            mask = prepared.pixels.samples(prepared.adapter, prepared.mask)
            prepared = dataclasses.replace(prepared, mask=mask)
        return class_target(prepared, target, kinds, per_step, self.ignore_index)

    def _read_scores(
        self,
        input: Array,
        where: Any,
        lengths: Any,
        per_step: bool,
        per_pixel: bool = False,
        target: Any = None,
    ) -> ClassScores:
        """Return the scores of samples or pixels, as the target has them if there is one."""
        _checks.flag(per_step, "per_step")
        prepared = self._prepare_input(input, where, lengths)
        timed = None if target is None else labels_of_pixels(self, prepared, target)
        if _checks.flag(per_pixel, "per_pixel") or timed is not None:
            if not self.takes_pixels:
                raise TypeError(f"{type(self).__name__} has no labels of pixels")
            read_pixels(prepared, self.num_classes)
        return self._scores(prepared, per_step if timed is None else timed)

    # Overloads, because the index of a class has another dtype than the spikes.
    @overload
    def predict(
        self, input: HostArray, *, per_step: bool = False, per_pixel: bool = False,
        where: Any = None, lengths: Any = None,
    ) -> IntegerArray: ...  # fmt: skip
    @overload
    def predict(
        self, input: ArrayT, *, per_step: bool = False, per_pixel: bool = False,
        where: Any = None, lengths: Any = None,
    ) -> ArrayT: ...  # fmt: skip
    @on_device_of("input")
    def predict(
        self, input: Array, *, per_step: bool = False, per_pixel: bool = False,
        where: Any = None, lengths: Any = None,
    ) -> Array:  # fmt: skip
        """Return the predicted class; of several that win, the first.

        A loss predicts from the readings that it compares with its target.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        per_step : bool, default False
            Whether a loss predicts at each step, from its moving window, and not over all of time.
        per_pixel : bool, default False
            Whether the classes are the first axis of space alone, with a prediction for each pixel.
        where, lengths : array or sequence, optional
            The mask, as for a loss.

        Returns
        -------
        array of int
            Class indices, ``[batch]``; with `per_step`, and of `MovingWindow`, ``[batch, time]``,
            with the time axis where `input` has it. They are 0 if all entries of a sample or step
            are masked. With `per_pixel` ``[batch, *pixels]``. `SpikeMoid` predicts 0 or 1 for each
            class: ``[batch, class]`` and so on.

        Raises
        ------
        ValueError, TypeError
            As a call of a loss; and if `per_step` is True without a `moving_window`.
        """
        return self._read_scores(input, where, lengths, per_step, per_pixel).predicted()

    @on_device_of("input")
    def scores(
        self, input: ArrayT, *, per_step: bool = False, per_pixel: bool = False,
        where: Mask = None, lengths: Mask = None,
    ) -> ArrayT:  # fmt: skip
        """Return the scores of the classes, of which the largest is predicted.

        They can be differentiated, and serve any function of logits. Those of `CrossEntropy` are
        the logits, after root and temperature: their softmax has the probabilities that are
        trained. Those of `SpikeMoid` are the logits of the single classes, above 0 for yes. The
        others are what `predict` compares.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        per_step : bool, default False
            Whether there are scores at each step, from a moving window, and not over all of time.
        per_pixel : bool, default False
            Whether the classes are the first axis of space alone, with scores for each pixel.
        where, lengths : array or sequence, optional
            The mask, as for a call.

        Returns
        -------
        array
            ``[batch, class]``; with `per_step` ``[batch, class, time]``, with the time axis where
            `input` has it; with `per_pixel` ``[batch, class, *pixels]``. Masked classes have minus
            infinity, unless all of a sample are masked.

        Raises
        ------
        ValueError, TypeError
            As `predict`; and if the targets of the loss are numbers.

        Examples
        --------
        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])
        >>> sx.CrossEntropy(time_axis=-1, temperature=2.0).scores(spikes)
        array([[1.5, 0.5]])
        """
        found = self._read_scores(input, where, lengths, per_step, per_pixel)
        result: ArrayT = found.result(found.of_classes())
        return result

    @on_device_of("input")
    def confusion(
        self, input: ArrayT, target: ArrayLike, *, where: Mask = None, lengths: Mask = None
    ) -> ArrayT:
        """Return how often each class was predicted for each label.

        It adds up over any split of the batch. The accuracy and others follow from the sum: with
        the matrix `m`, ``m.diagonal() / m.sum(1)`` are the fractions that are right of each label.
        In float32 it is exact for up to 2**24 labels. For more, add up the matrices of batches in
        float64 or integers, as by ``np.asarray(loss.confusion(x, y), dtype=int)``.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            Class indices, ``[batch]``. With a moving window also ``[batch, time]``, with the time
            axis where the spikes have it, for the predictions of the steps. Labels equal to
            `ignore_index` do not count. `CrossEntropy` takes class probabilities too: the label is
            the most probable class, the first of several, and a row of zeros does not count.
            `SpikeMoid` takes bools, or floats that are 0 or 1: ``[batch, class]`` and so on.
        where, lengths : array or sequence, optional
            The mask, as for a loss. A label does not count if its class is masked.

        Returns
        -------
        array
            ``[class, class]``, the label by the prediction: whole numbers, in the dtype that the
            spikes are computed in. ``[class, 2, 2]`` for `SpikeMoid`. A sample with a reading that
            is NaN or plus infinity counts as a wrong prediction, if there is another class.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape or dtype, or if a label is no class. Where labels and
            lengths cannot be read for free, an impossible one makes all numbers NaN instead.
        """
        per_step = self._is_per_step(target)
        scores = self._read_scores(input, where, lengths, per_step, target=target)
        kinds = self.targets if PROBABILITIES in self.targets else self.targets[:1]
        labels = self._checked_labels(scores.prepared, target, kinds, scores.per_step)
        prepared = scores.prepared
        counts: ArrayT = scores.confusion(labels)
        if prepared.valid_or_nan is not None:
            counts = counts + 0 * prepared.adapter.sum_all(prepared.valid_or_nan)
        return counts

    @on_device_of("input")
    def accuracy(
        self, input: ArrayT, target: ArrayLike, *, where: Mask = None, lengths: Mask = None
    ) -> ArrayT:
        """Return the fraction of the labels that are predicted.

        The arguments and errors are those of `confusion`. To evaluate several batches, add up
        their `confusion`: a mean of accuracies counts a label of a small batch for more.

        Returns
        -------
        array
            A scalar array in the dtype that the spikes are computed in; NaN if no label counts.
        """
        counts = self.confusion(input, target, where=where, lengths=lengths)
        adapter = adapter_of(counts)
        xp, index = adapter.xp, adapter.arange(counts.shape[-1], counts)
        number = adapter.sum_all(counts)
        right = adapter.sum_all(xp.where(index[:, None] == index[None, :], counts, 0.0))
        fraction: ArrayT = xp.where(number == 0, math.nan, right / or_one(adapter, number))
        return fraction
