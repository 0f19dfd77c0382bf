"""Predict classes, and count how often the predictions are correct.

`Predictor` is the base class of all losses whose input has a class axis.
"""

import math
from abc import abstractmethod
from typing import Any, NamedTuple, overload

from spikeloss_xp import _checks
from spikeloss_xp._arrays import adapter_of, both, on_device_of, or_one, rank
from spikeloss_xp._input.labels import Labels
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._input.targets import Given, kind_of
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, HostArray, IntegerArray, OptionalArray
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.losses.with_target import TargetLoss


class ClassScores(NamedTuple):
    """The scores of the classes. The class with the largest score is predicted.

    The scores in `values` have the axes batch, class and time in the same order as in the spikes.
    The time axis of `values` has length 1 unless `per_step` is True. If the mask is the same for
    all classes, the class axis of `mask` may have length 1.
    """

    prepared: Trains
    values: Array
    mask: Array | None
    per_step: bool

    @property
    def classes(self) -> Axis:
        """The class axis."""
        axis: Axis = self.prepared.adapter.axes[self.prepared.layout.class_axis]
        return axis

    def of_classes(self) -> Array:
        """Return the scores. The score of a masked class is -inf unless all classes are masked."""
        xp, classes = self.prepared.adapter.xp, self.classes
        if self.mask is None or classes.length(self.mask) == 1:
            return self.values
        return xp.where(self.mask | ~classes.any(self.mask), self.values, -math.inf)

    def winner(self) -> Array:
        """Return the index of the class with the largest score.

        The class axis of the result has length 1.
        """
        score = self.values
        if self.mask is not None:  # if all classes are masked, the index is 0
            score = self.prepared.adapter.xp.where(self.mask, score, -math.inf)
        return self.classes.argmax(score)

    def result(self, x: Array, *, with_class: bool = True) -> Array:
        """Move the axes of predictions or scores back to their places in the input.

        The time axis is removed unless `per_step` is True.
        """
        adapter, layout = self.prepared.adapter, self.prepared.layout
        return layout.squeezed(adapter, x, with_class=with_class, with_time=self.per_step)

    def predicted(self) -> Array:
        """Return the predicted classes, of shape ``[batch]`` or ``[batch, time]``."""
        return self.result(self.winner(), with_class=False)

    def confusion(self, labels: Labels) -> Array:
        """Return the confusion matrix of the predictions, given the labels."""
        prepared, readings, classes = self.prepared, self.values, self.classes
        adapter, xp, dtype = prepared.adapter, prepared.adapter.xp, prepared.values.dtype
        if labels.numbers is not None:
            labels = most_probable(classes, labels)
        broken = classes.any(~(readings < math.inf))
        # `wrong` is the index of a class that is not the label.
        wrong = xp.astype(labels.indices == 0, labels.indices.dtype)
        winner = xp.astype(self.winner(), labels.indices.dtype)
        position = classes.positions(readings)
        predicted, counted = position == xp.where(broken, wrong, winner), position == labels.indices
        if self.mask is not None:
            counted = counted & self.mask
        if labels.mask is not None:
            counted = counted & labels.mask

        def by_class(x: Array) -> Array:
            x = adapter.moveaxis(xp.broadcast_to(x, readings.shape), classes.index, 0)
            return xp.reshape(xp.astype(x, dtype), (classes.length(readings), -1))

        counts = adapter.matmul(by_class(counted), by_class(predicted).T)
        if labels.invalid is None:
            return counts
        invalid: Any = both(labels.invalid, labels.mask)
        if self.mask is not None:  # an invalid label is ignored if all classes are masked
            invalid = invalid & classes.any(self.mask)
        return xp.where(xp.any(invalid), math.nan, counts)


class BinaryScores(ClassScores):
    """The scores of independent classes. Each class with a score above 0 is predicted."""

    def predicted(self) -> Array:
        """Return an array that is 1 for each predicted class, and 0 for each other class."""
        adapter, score = self.prepared.adapter, self.values
        predicted = both(self.mask, score > 0)
        return self.result(adapter.xp.astype(predicted, adapter.arange(1, score).dtype))

    def confusion(self, labels: Labels) -> Array:
        """Return an array of shape ``[class, 2, 2]`` with a confusion matrix for each class."""
        prepared, score = self.prepared, self.values
        adapter, xp, dtype = prepared.adapter, prepared.adapter.xp, prepared.values.dtype
        target = xp.broadcast_to(labels.numbers, score.shape)
        binary = (target == 0) | (target == 1)
        known = adapter.concrete_or_none(binary)
        if known is not None and not known.all():
            raise ValueError(
                "target must be 0 or 1 for each class (multi-hot labels) to be compared with "
                "predictions; got values between 0 and 1: round them first"
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


def most_probable(classes: Axis, labels: Labels) -> Labels:
    """Convert class probabilities to the index of the most probable class.

    A label is masked if all of its probabilities are 0.
    """
    q = labels.numbers
    labelled, invalid = classes.any(~(q <= 0)), both(classes.any(q != q), labels.mask)
    return Labels(classes.argmax(q), mask=both(labels.mask, labelled), invalid=invalid)


class Predictor(TargetLoss):
    """Base class for losses that predict classes.

    A subclass defines the method `_scores`, which returns a score for each class.
    """

    num_classes: int | None

    @abstractmethod
    def _scores(self, prepared: Trains, per_step: bool) -> ClassScores:
        """Return the scores of the classes.

        If `per_step` is True, return scores for each time step.
        """

    def _read_scores(self, input: Array, where: Any, lengths: Any, per_step: bool) -> ClassScores:
        """Check the arguments of a prediction, and return the scores of the classes."""
        if _checks.flag(per_step, "per_step") and not self.per_step:
            raise ValueError(
                "per_step=True needs a loss with a moving_window; got a "
                f"{type(self).__name__} without a moving_window"
            )
        prepared = self._prepare_input(input, where, lengths)
        prepared.mark_invalid()
        return self._scores(prepared, per_step)

    # NumPy's array types include the dtype, so the overload for NumPy has to state that class
    # indices are integers.
    @overload
    def predict(
        self, input: HostArray, *, per_step: bool = False,
        where: Any = None, lengths: Any = None,
    ) -> IntegerArray: ...  # fmt: skip
    @overload
    def predict(
        self, input: ArrayT, *, per_step: bool = False,
        where: Any = None, lengths: Any = None,
    ) -> ArrayT: ...  # fmt: skip
    @on_device_of("input")
    def predict(
        self, input: Array, *, per_step: bool = False,
        where: Any = None, lengths: Any = None,
    ) -> Array:  # fmt: skip
        """Return the predicted class of each sample.

        The prediction uses the numbers that the loss computes from the spikes, such as spike
        counts. If several classes tie, the first of these classes is predicted.

        Parameters
        ----------
        input : array
            The spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        per_step : bool, default False
            If True, a class is predicted for each time step, from the moving window that ends at
            this step. If False, one class is predicted for each sample, from all time steps.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        array of int
            The indices of the predicted classes. The index is 0 if all entries of the sample or
            time step are masked. The array has the following shape:

            - ``[batch]`` by default;
            - ``[batch, time]`` if `per_step` is True. The time axis is at the same position as in
              `input`.

            `SpikeMoid` predicts 0 or 1 for each class, so its predictions also have a class axis:
            ``[batch, class]`` by default.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid. In particular, `per_step` must be False if the loss has no
            `moving_window`.
        """
        return self._read_scores(input, where, lengths, per_step).predicted()

    @on_device_of("input")
    def scores(
        self, input: ArrayT, *, per_step: bool = False,
        where: OptionalArray = None, lengths: OptionalArray = None,
    ) -> ArrayT:  # fmt: skip
        """Return the scores of the classes. The class with the largest score is predicted.

        Scores are differentiable. You can pass the scores to any function that takes logits. For
        `CrossEntropy`, the scores are the logits, which are already divided by the temperature. The
        softmax of the logits gives the class probabilities. For `SpikeMoid`, the score of a class
        is its logit, and a class is predicted if its logit is above 0. For all other losses,
        `predict` returns the class with the largest score.

        Parameters
        ----------
        input : array
            The spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        per_step : bool, default False
            If True, the scores for a time step are computed from the moving window that ends at
            this step. If False, scores are computed from all time steps.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss.

        Returns
        -------
        array
            The scores. The score of a masked class is minus infinity, unless all classes of the
            sample are masked. The array has the following shape:

            - ``[batch, class]`` by default;
            - ``[batch, class, time]`` if `per_step` is True, with the time axis at the same
              position as in `input`.

        Raises
        ------
        ValueError, TypeError
            If an argument is invalid, or if the loss takes numbers instead of class labels as its
            target.

        Examples
        --------
        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]])
        >>> sx.CrossEntropy(time_axis=-1, temperature=2.0).scores(spikes)
        array([[1.5, 0.5]])
        """
        found = self._read_scores(input, where, lengths, per_step)
        # Multiplying by 1 copies the scores, which may be a view of the spikes.
        result: ArrayT = 1 * found.result(found.of_classes())
        return result

    @on_device_of("input")
    def confusion(
        self, input: ArrayT, target: ArrayLike, *,
        where: OptionalArray = None, lengths: OptionalArray = None,
    ) -> ArrayT:  # fmt: skip
        """Return the confusion matrix of the predicted classes and the labels.

        To evaluate several batches, add up their confusion matrices, and compute the accuracy and
        other metrics from the sum. For example, ``m.diagonal() / m.sum(1)`` is the recall of each
        class for a confusion matrix ``m``. In float32, the counts are exact for up to 2**24 labels.
        For more labels, convert each matrix to integers before you add it, for example with
        ``np.asarray(loss.confusion(x, y), dtype=int)``.

        Parameters
        ----------
        input : array
            The spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            Class indices of shape ``[batch]``. With a moving window, you may also pass a label for
            each time step, in an array of shape ``[batch, time]``. The axes of this array must have
            the same order as in `input`. If there is a label for each time step, the predictions
            for all time steps are counted. Labels equal to `ignore_index` are not counted.

            `CrossEntropy` also accepts class probabilities. If the target holds class
            probabilities, the label is the most probable class. If several classes are equally
            probable, the label is the first of these classes. A sample whose probabilities are all
            0 is not counted. `SpikeMoid` accepts only bools, or floats that are 0 or 1. For
            `SpikeMoid`, the target has shape ``[batch, class]``, or ``[batch, class, time]`` with a
            label for each time step.
        where, lengths : array or sequence, optional
            The mask, in the same form as for a call to the loss. A label is not counted if its
            class is masked.

        Returns
        -------
        array
            An array of shape ``[class, class]`` with a row for each label and a column for each
            predicted class. For `SpikeMoid`, the array has shape ``[class, 2, 2]``. The matrix of a
            class has a row for each label (0 or 1) and a column for each prediction (0 or 1). The
            entries are whole numbers, stored with the floating-point dtype of the computation. If a
            score of a sample is NaN or plus infinity, the prediction for this sample is counted as
            wrong. With a single class, no prediction is counted as wrong.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape or dtype, or if a label is not a valid class. On a
            GPU and in traced functions, an invalid label or length makes the whole matrix NaN.
        """
        with_time = kind_of(self.targets, target).rank + 1
        per_step = bool(self.per_step) and rank(target) == with_time
        scores = self._read_scores(input, where, lengths, per_step)
        kinds = tuple(kind for kind in self.targets if kind.names_classes)
        prepared = scores.prepared
        given = Given(prepared, target, kinds, per_step, self.ignore_index)
        counts: ArrayT = scores.confusion(kind_of(kinds, target).read(given))
        if prepared.invalid is None:
            return counts
        xp = prepared.adapter.xp
        counts = xp.where(xp.any(prepared.invalid), math.nan, counts)
        return counts

    @on_device_of("input")
    def accuracy(
        self, input: ArrayT, target: ArrayLike, *,
        where: OptionalArray = None, lengths: OptionalArray = None,
    ) -> ArrayT:  # fmt: skip
        """Return the fraction of labels that are predicted correctly.

        The arguments and errors are the same as for `confusion`. To evaluate several batches, add
        up their confusion matrices, and compute the accuracy from the sum. Averaging the accuracies
        of the batches would give labels in small batches more weight than labels in large batches.

        Returns
        -------
        array
            A scalar array. The result is NaN if no label is counted, for example because all labels
            are masked.
        """
        counts = self.confusion(input, target, where=where, lengths=lengths)
        adapter = adapter_of(counts)
        xp, index = adapter.xp, adapter.arange(counts.shape[-1], counts)
        number = adapter.sum_all(counts)
        right = adapter.sum_all(xp.where(index[:, None] == index[None, :], counts, 0.0))
        fraction: ArrayT = xp.where(number == 0, math.nan, right / or_one(adapter, number))
        return fraction
