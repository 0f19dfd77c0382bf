"""Classifiers: the predicted class of spike trains, and the confidence in each class."""

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args, overload

from spikeloss_xp import _checks, readouts
from spikeloss_xp._arrays import Adapter, or_one
from spikeloss_xp._input.labels import class_labels
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._input.prepared import PreparedInput, prepare_input
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    ConfidenceMode,
    HostArray,
    IntegerArray,
)
from spikeloss_xp.criteria import EPSILON
from spikeloss_xp.readouts import Reading, ReadingAndPullback, read_groups
from spikeloss_xp.readouts.first_spike import latency

MODES = get_args(ConfidenceMode)


class Classifier(ABC):
    """A classifier: it reads each class, and the class with the largest reading wins."""

    num_classes: int | None
    ignore_index: int
    time_axis: int
    _per_step: ClassVar[bool] = False
    """Whether there is a prediction at each step."""
    _smallest_wins: ClassVar[bool] = False
    """Whether the class with the smallest reading wins."""

    def __post_init__(self) -> None:
        _checks.check_fields(
            self,
            num_classes=_checks.optional_count,
            ignore_index=_checks.label,
            time_axis=_checks.integer,
        )

    # Overloads, because the index of a class has another dtype than the spikes.
    @overload
    def predict(
        self, spikes: HostArray, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> IntegerArray: ...
    @overload
    def predict(
        self, spikes: ArrayT, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> ArrayT: ...
    def predict(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the index of the winning class; of several, the first.

        A call, and `forward`, return the same. The index has the shape of the readings without
        their class axis. If all entries of a sample or step are masked, the index is 0.
        """
        prepared, _, score = self._read(spikes, where, lengths)
        return self._in_layout(prepared, prepared.adapter.xp.argmax(score, axis=CLASS))

    if TYPE_CHECKING:
        __call__ = forward = predict
    else:  # a subclass may override `predict`

        def __call__(self, spikes, **masks):
            """Return the prediction."""
            return self.predict(spikes, **masks)

        forward = __call__

    def accuracy(
        self,
        spikes: ArrayT,
        label: ArrayLike,
        *,
        where: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> ArrayT:
        """Return the fraction of the labels that the classifier predicts.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with the time axis at `time_axis`.
        label : array or sequence of int
            Class indices, ``[batch]``; with a moving window also ``[batch, time]``, with the time
            axis where the spikes have it. Labels equal to `ignore_index` do not count.
        where, lengths : array or sequence, optional
            The mask, as for the losses. A label does not count if its class is masked.

        Returns
        -------
        array
            A scalar array in the dtype that the spikes are computed in; NaN if no label counts.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape or dtype, or if a label is no class. Where labels
            cannot be read for free, such a label makes the accuracy NaN instead.
        """
        prepared, reading, score = self._read(spikes, where, lengths)
        adapter, values, xp = prepared.adapter, prepared.values, prepared.adapter.xp
        classes, per_step = prepared.layout.classes(self.num_classes), self._per_step
        ignored = self.ignore_index
        labels = class_labels(
            prepared, label, classes, per_step=per_step, ignore_index=ignored, argument="label"
        )
        index = xp.reshape(adapter.arange(classes, values), (-1, 1) if per_step else (-1,))
        predicted = index == xp.argmax(score, axis=CLASS, keepdims=True)
        right = xp.any(labels.target & predicted, axis=CLASS, keepdims=True)
        counted = xp.ones_like(right)
        if reading.mask is not None:
            counted = xp.any(labels.target & reading.mask, axis=CLASS, keepdims=True)
        if labels.ignored is not None:
            counted = counted & ~labels.ignored
        number = adapter.sum_all(xp.astype(counted, values.dtype))
        total = adapter.sum_all(xp.astype(right & counted, values.dtype))
        if prepared.valid_or_nan is not None:
            total = total * adapter.sum_all(prepared.valid_or_nan) / prepared.layout.batch
        if labels.valid is not None:
            total = xp.where(xp.all(labels.valid), total, math.nan)
        fraction: ArrayT = xp.where(number > 0, total / or_one(adapter, number), math.nan)
        return fraction

    @abstractmethod
    def _reading(self, prepared: PreparedInput) -> Reading:
        """Return the readings of the classes."""

    def _read(
        self, spikes: Array, where: Any, lengths: Any
    ) -> tuple[PreparedInput, Reading, Array]:
        """Return the readings, and the scores of the classes, of which the largest wins."""
        axis, rank = self.time_axis, 3
        prepared = prepare_input(
            spikes, where, lengths, time_axis=axis, smallest_rank=rank, argument="spikes"
        )
        prepared.layout.classes(self.num_classes)  # raises if it does not divide the neurons
        reading, xp = self._reading(prepared), prepared.adapter.xp
        score = -reading.u if self._smallest_wins else reading.u
        mask = reading.mask
        if mask is not None and mask.shape[CLASS] > 1:  # masked classes lose, unless all are
            some = xp.any(mask, axis=CLASS, keepdims=True)
            score = xp.where(mask | ~some, score, -math.inf)
        return prepared, reading, score

    def _in_layout(self, prepared: PreparedInput, x: ArrayT) -> ArrayT:
        if self._per_step:
            x = prepared.layout.time_as_in_input(prepared.adapter, x)
        return x


class _Rates(Classifier):
    time_window: int | None
    mode: str
    eps: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, mode=_checks.one_of(MODES), eps=_checks.not_negative)

    def rate(
        self, spikes: ArrayT, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> ArrayT:
        """Return the rates, in spikes per time step.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with the time axis at `time_axis`.
        where, lengths : array or sequence, optional
            The mask, as for the losses. The rate is over the unmasked steps, and 0 if there are
            none. In a moving window masked steps are silent.

        Returns
        -------
        array
            ``[batch, class]``; with a window also a time axis, where the spikes have it.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes, if `num_classes`
            does not divide the number of neurons, or if a mask has the wrong shape or dtype.
        """
        prepared, reading, _ = self._read(spikes, where, lengths)
        rate: ArrayT = self._in_layout(prepared, reading.u)
        return rate

    def confidence(
        self, spikes: ArrayT, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> ArrayT:
        """Return the confidence in each class, as `mode` says, in the shape of the rates."""
        prepared, reading, logit = self._read(spikes, where, lengths)
        xp, rate = prepared.adapter.xp, reading.u
        confidence: ArrayT
        if self.mode == "probability":
            confidence = rate / (xp.sum(rate, axis=CLASS, keepdims=True) + self.eps)
        else:
            logit = logit - xp.max(logit, axis=CLASS, keepdims=True)
            total = xp.sum(xp.exp(logit), axis=CLASS, keepdims=True)
            logarithmic = self.mode == "logsoftmax"
            confidence = logit - xp.log(total) if logarithmic else xp.exp(logit) / total
        return self._in_layout(prepared, confidence)

    def _reading(self, prepared: PreparedInput) -> Reading:
        first = prepared.layout.time_axis == 0

        def read(adapter: Adapter, trains: Array, mask: Array | None) -> ReadingAndPullback:
            return readouts.rate(adapter, trains, self.time_window, mask, time_first=first)

        arrays = prepared.adapter, prepared.values, prepared.mask
        return read_groups(*arrays, self.num_classes, read, proportional=True)[0]


@dataclass(frozen=True)
class Rate(_Rates):
    """Classify by the rates over the whole duration.

    Parameters
    ----------
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, their softmax, or its logarithm.
    eps : float, default 1e-6
        The number added to the sum of rates, so that the confidence is 0 if all neurons are silent.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    ignore_index : int, default -100
        The label that `accuracy` does not count.
    time_axis : int, default -1
        The axis of the spikes that is time.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.Rate()(np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]]))
    array([0])
    """

    _: KW_ONLY
    mode: ConfidenceMode = "probability"
    eps: float = EPSILON
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    time_window = None


@dataclass(frozen=True)
class MovingWindow(_Rates):
    """Classify at each time step by the rates in a moving window.

    Parameters
    ----------
    time_window : int
        Length of the window, in time steps.
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        What `confidence` returns: the normalised rates, their softmax, or its logarithm.
    eps : float, default 1e-6
        The number added to the sum of rates, so that the confidence is 0 if all neurons are silent.
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    ignore_index : int, default -100
        The label that `accuracy` does not count.
    time_axis : int, default -1
        The time axis of the spikes, and of the results.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.MovingWindow(2)(np.asarray([[[1, 0, 0, 0], [0, 0, 1, 1]]]))
    array([[0, 0, 1, 1]])
    """

    time_window: int
    mode: ConfidenceMode = "probability"
    eps: float = EPSILON
    _: KW_ONLY
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    _per_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, time_window=_checks.count)


@dataclass(frozen=True)
class Latency(Classifier):
    """Classify by latency: the class that fires first wins.

    Parameters
    ----------
    num_classes : int, optional
        The number of classes. Each class is the mean of a group of neighbouring neurons. By default
        each neuron is a class.
    time_axis : int, default -1
        The axis of the spikes that is time.
    ignore_index : int, default -100
        The label that `accuracy` does not count.

    Raises
    ------
    ValueError, TypeError
        If a hyper-parameter is outside its range or of the wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[0, 0, 1, 1], [0, 1, 0, 0]]])
    >>> sx.Latency()(spikes)
    array([1])
    >>> sx.Latency().latency(spikes)
    array([[2., 1.]])
    """

    num_classes: int | None = None
    time_axis: int = -1
    _: KW_ONLY
    ignore_index: int = -100

    _smallest_wins: ClassVar[bool] = True

    def latency(
        self, spikes: ArrayT, *, where: ArrayLike | None = None, lengths: ArrayLike | None = None
    ) -> ArrayT:
        """Return the latency of the first spike of each class, in time steps.

        Parameters
        ----------
        spikes : array
            ``[batch, *space, time]``, with the time axis at `time_axis`; between 0 and 1. A larger
            spike is read as 1, and graded spikes give an expected latency, as in `SpikeLatency`.
        where, lengths : array or sequence, optional
            The mask, as for the losses. Masked steps are not counted.

        Returns
        -------
        array
            ``[batch, class]``. The latency of a silent class is the longest duration of its sample.

        Raises
        ------
        ValueError, TypeError
            If `spikes` is not an array of real numbers with at least three axes or has a negative
            entry, if `num_classes` does not divide the number of neurons, or if a mask has the
            wrong shape or dtype.
        """
        reading: ArrayT = self._read(spikes, where, lengths)[1].u
        return reading

    def _reading(self, prepared: PreparedInput) -> Reading:
        arrays = prepared.adapter, prepared.values, prepared.mask
        return latency(*arrays, self.num_classes, prepared.layout.time_axis)[0]
