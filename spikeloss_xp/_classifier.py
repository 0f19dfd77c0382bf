"""The base class of the classifiers: the winning class, and how often it is the label."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Unpack, overload

from spikeloss_xp import _checks
from spikeloss_xp._dispatch import Library
from spikeloss_xp._input.arrays import or_one
from spikeloss_xp._input.labels import class_labels
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._input.prepared import PreparedInput, prepare_input
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    FloatArray,
    HostArray,
    IntegerArray,
    MaskOptions,
)
from spikeloss_xp.readouts import Reading


class Classifier(ABC):
    """A classifier: `_read` returns the readings of the classes, and their scores."""

    num_classes: int | None
    ignore_index: int
    time_axis: int
    _per_step: ClassVar[bool] = False
    """Whether there is a prediction at each step."""

    def __post_init__(self) -> None:
        _checks.check_fields(
            self,
            num_classes=_checks.optional_count,
            ignore_index=_checks.label,
            time_axis=_checks.integer,
        )

    @overload
    def __call__(self, spikes: HostArray, **options: Unpack[MaskOptions]) -> IntegerArray: ...
    @overload
    def __call__(self, spikes: ArrayT, **options: Unpack[MaskOptions]) -> ArrayT: ...
    def __call__(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the prediction."""
        return self.predict(spikes, where=where, lengths=lengths)

    @overload
    def forward(self, spikes: HostArray, **options: Unpack[MaskOptions]) -> IntegerArray: ...
    @overload
    def forward(self, spikes: ArrayT, **options: Unpack[MaskOptions]) -> ArrayT: ...
    def forward(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the prediction: the same as calling it."""
        return self.predict(spikes, where=where, lengths=lengths)

    @overload
    def predict(self, spikes: HostArray, **options: Unpack[MaskOptions]) -> IntegerArray: ...
    @overload
    def predict(self, spikes: ArrayT, **options: Unpack[MaskOptions]) -> ArrayT: ...
    def predict(self, spikes: Array, *, where: Any = None, lengths: Any = None) -> Array:
        """Return the index of the winning class; of several, the first.

        It has the shape of the readings without their class axis. If all entries of a sample or
        step are masked, the index is 0.
        """
        prepared, _, score = self._read(spikes, where, lengths)
        return self._in_layout(prepared, prepared.library.xp.argmax(score, axis=CLASS))

    @overload
    def accuracy(
        self, spikes: HostArray, label: ArrayLike, **options: Unpack[MaskOptions]
    ) -> FloatArray: ...
    @overload
    def accuracy(
        self, spikes: ArrayT, label: ArrayLike, **options: Unpack[MaskOptions]
    ) -> ArrayT: ...
    def accuracy(
        self, spikes: Array, label: Any, *, where: Any = None, lengths: Any = None
    ) -> Array:
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
        library, values, xp = prepared.library, prepared.values, prepared.library.xp
        classes = prepared.layout.classes(self.num_classes)
        labels = class_labels(
            *(library, prepared.layout, values, prepared.mask, label),
            classes=classes,
            per_step=self._per_step,
            ignore_index=self.ignore_index,
            argument="label",
        )
        index = library.arange(classes, values)
        index = xp.reshape(index, (-1, 1) if self._per_step else (-1,))
        predicted = index == xp.argmax(score, axis=CLASS, keepdims=True)
        right = xp.any(labels.target & predicted, axis=CLASS, keepdims=True)
        counted = xp.ones_like(right)
        if reading.mask is not None:
            counted = xp.any(labels.target & reading.mask, axis=CLASS, keepdims=True)
        if labels.ignored is not None:
            counted = counted & ~labels.ignored
        number = library.sum_all(xp.astype(counted, values.dtype))
        total = library.sum_all(xp.astype(right & counted, values.dtype))
        if prepared.factor is not None:  # NaN for samples of impossible length
            total = total * library.sum_all(prepared.factor) / math.prod(prepared.factor.shape)
        if labels.valid is not None:
            total = xp.where(xp.all(labels.valid), total, math.nan)
        return xp.where(number > 0, total / or_one(library, number), math.nan)

    @abstractmethod
    def _read(
        self, spikes: Array, where: Any, lengths: Any
    ) -> tuple[PreparedInput, Reading, Array]:
        """Return the readings, and the scores of the classes, of which the largest wins."""

    def _prepare(self, spikes: Array, where: Any, lengths: Any) -> PreparedInput:
        return prepare_input(
            spikes,
            where,
            lengths,
            time_axis=self.time_axis,
            smallest_rank=3,
            by_class=True,
            argument="spikes",
        )

    def _in_layout(self, prepared: PreparedInput, x: Array) -> Array:
        if not self._per_step:
            return x
        in_layout: Array = prepared.layout.time_as_in_input(prepared.library, x)
        return in_layout


def without_masked(library: Library, score: Array, reading: Reading) -> Array:
    """Return scores of minus infinity for masked classes, unless all of a sample are masked."""
    if reading.mask is None or reading.mask.shape[CLASS] == 1:
        return score
    xp = library.xp
    some = xp.any(reading.mask, axis=CLASS, keepdims=True)
    return xp.where(reading.mask | ~some, score, -math.inf)
