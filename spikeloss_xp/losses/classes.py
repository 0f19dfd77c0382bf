"""The base class of the losses that read classes: labels, class weights, windows, competition."""

import copy
import functools
import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, get_args

from spikeloss_xp import _checks, readouts
from spikeloss_xp._arrays import Adapter, rank
from spikeloss_xp._input.labels import INDICES, Labels, class_weights
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import PreparedInput, both
from spikeloss_xp._typing import Array, EntropyReadout, Numerics, PerClass, ValueAndPullback
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.predictions import Predictor, Scores
from spikeloss_xp.readouts import ACROSS_CLASSES, Reading, ReadingAndPullback, read_groups
from spikeloss_xp.readouts.first_spike import latency

NUMERICS = get_args(Numerics)


class RateLoss(Loss, Predictor):
    """The base class of losses that read a number for each class: its rate, or as `readout` says.

    The reading is over the whole duration or, with a moving window, at each step. Readings, labels
    and terms have the axes batch, class and time in the order of the input, the classes at
    ``reading.class_axis``. Time has length 1 without a window.

    A subclass is a frozen dataclass with the fields below and its own hyper-parameters. It defines
    ``_criterion(adapter, reading, labels)``, which returns the terms and their pullback. This class
    handles masks, class weights, ignored and invalid labels, layouts and reductions. With the class
    attribute ``_classes_compete = True`` the classes of a sample share one term: the terms have a
    class axis of length 1, and ``reading.class_mask`` is True for the classes that take part, or
    None if all do.

    Attributes
    ----------
    moving_window : int or None
    readout : str
    num_classes : int or None
    ignore_index : int
        Hyper-parameters, as for `SpikeRate`. Losses without class indices have no `ignore_index`.
    reduction : str
    time_axis : int
        Hyper-parameters of every loss.
    """

    moving_window: int | None
    readout: str
    num_classes: int | None
    ignore_index: int
    _targets: ClassVar[tuple[str, ...]] = (INDICES,)
    """The kinds of targets: class indices, a number for each class, or both in this order."""
    _readouts: ClassVar[tuple[str, ...]] = ("rate", "count", *readouts.OVER_ALL_TIME)
    """The readouts that the loss takes."""
    _summed: ClassVar[tuple[str, ...]] = ()
    """The readouts that are the sum over the neurons of a class; the others are their mean."""

    @abstractmethod
    def _criterion(self, adapter: Adapter, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the terms, without class weights, and their pullback to ``reading.u``."""

    def _labels(self, prepared: PreparedInput, target: Any) -> Labels:
        return self._checked_target(prepared, target, self._targets, self._has_time)

    def _weigh(self, prepared: PreparedInput, labels: Labels, weight: Any) -> Labels:
        classes = prepared.layout.classes(self.num_classes)
        return labels._replace(class_weight=class_weights(prepared, weight, classes))

    def _check_classes(self, layout: Layout, *names: str) -> None:
        """Raise if a sequence among these hyper-parameters is of another number of classes."""
        classes = layout.classes(self.num_classes)
        for name in names:
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != classes:
                raise ValueError(
                    f"{name} must be one number, or {classes}, one for each class; got "
                    f"{len(values)}{layout.hint_at_time((len(values),))}"
                )

    @staticmethod
    def _per_class(adapter: Adapter, reading: Reading, values: PerClass) -> Any:
        """Return a number, or an array with the axes of the readings of one for each class."""
        if not isinstance(values, tuple):
            return values
        axes = (1, -1, 1) if reading.class_axis == 1 else (1, 1, -1)
        return adapter.xp.reshape(adapter.host_constant(values, reading.u), axes)

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads; None if the loss reads whole trains."""
        return None if self.moving_window is None else self.moving_window - 1

    @property
    def _has_time(self) -> bool:
        """Whether readings, labels and terms have a time axis."""
        return self.moving_window is not None

    @property
    def _reads_latency(self) -> bool:
        return getattr(self, "readout", None) == "latency"  # a subclass may read by itself

    def _read(
        self, prepared: PreparedInput, values: Array, mask: Array | None, labels: Any
    ) -> ReadingAndPullback:
        adapter, axis = prepared.adapter, prepared.layout.time
        if self._reads_latency:
            return latency(adapter, values, mask, self.num_classes, axis)
        return read_groups(
            adapter,
            values,
            mask,
            self.num_classes,
            functools.partial(self._read_trains, axis=axis),
            axis=axis,
            proportional=self._reading_is_proportional,
            summed=getattr(self, "readout", None) in self._summed,
        )

    @property
    def _reading_is_proportional(self) -> bool:
        """Whether the readings of `_read_trains` are proportional to the trains."""
        return self.readout not in ACROSS_CLASSES

    def _read_trains(
        self, adapter: Adapter, spikes: Array, mask: Array | None, *, axis: int
    ) -> ReadingAndPullback:
        """Return the reading of each train, with time at an axis, and its pullback."""
        if self.readout in readouts.WINDOWED:
            windowed = readouts.WINDOWED[self.readout]
            return windowed(adapter, spikes, self.moving_window, mask, axis=axis)
        once = readouts.OVER_ALL_TIME if self.readout in readouts.OVER_ALL_TIME else ACROSS_CLASSES
        return once[self.readout](adapter, spikes, mask, axis=axis)

    # Predictions ---------------------------------------------------------------------------------

    def _is_per_step(self, target: Any) -> bool:
        with_classes = self._targets[0] != INDICES
        return self._has_time and rank(target) == 2 + with_classes

    def _score_classes(self, prepared: PreparedInput, per_step: bool) -> Scores:
        reader = self if per_step == self._has_time else self._with_time(per_step)
        reading, _ = reader._reading(prepared, prepared.values, prepared.mask, None)
        return Scores(prepared, self._score(prepared, reading), reading.mask, per_step)

    def _with_time(self, per_step: bool) -> "RateLoss":
        """Return the loss that reads over all of time instead of a moving window."""
        if per_step:
            raise ValueError(
                f"per_step=True needs a {type(self).__name__} with a moving_window: this one reads "
                "over all of time"
            )
        reader = copy.copy(self)  # not checked again: the rates of a step may be potentials
        object.__setattr__(reader, "moving_window", None)
        return reader

    def _score(self, prepared: PreparedInput, reading: Reading) -> Array:
        """Return the scores of the classes, of which the largest wins."""
        return -reading.u if self._reads_latency else reading.u

    # Labels, weights and layout ------------------------------------------------------------------

    def _compete(
        self, adapter: Adapter, reading: Reading, labels: Labels
    ) -> tuple[Reading, Array | None]:
        xp, mask, class_mask, axis = adapter.xp, reading.mask, None, reading.class_axis
        by_class = mask is not None and mask.shape[axis] > 1
        # A row of zeros has no weight, but it would be a sample that counts.
        zeros_count = labels.indices is None and self.reduction == "batchmean"
        if self._classes_compete and (by_class or zeros_count):
            # The term of a sample counts if a neuron with its label does.
            # A probability that is NaN is one of a label, so that the term is NaN.
            if labels.indices is None:
                own = ~(labels.numbers <= 0)
            else:
                own = labels.one_hot(adapter, reading)
            if labels.valid is not None:
                own = own | ~labels.valid
            if by_class:
                class_mask, own = mask, own & mask
            own = xp.any(own, axis=axis, keepdims=True)
            mask = own if by_class else both(mask, own)
        if labels.ignored is not None:
            mask = both(mask, ~labels.ignored)
        if class_mask is not None and mask is not None:
            class_mask = class_mask | ~mask  # masked terms have to be finite as well
        return reading._replace(class_mask=class_mask), mask

    def _fill_labels(
        self, adapter: Adapter, labels: Labels, mask: Array, class_mask: Array | None
    ) -> Labels:
        if labels.numbers is None:
            return labels
        known = adapter.xp.where(both(mask, class_mask), labels.numbers, 0.0)
        return labels._replace(numbers=known)

    def _term_weights(
        self, adapter: Adapter, reading: Reading, labels: Labels
    ) -> tuple[Array | None, Array | None]:
        xp, weight, numbers = adapter.xp, labels.class_weight, labels.numbers
        axis = reading.class_axis
        if numbers is None and weight is not None:  # that of the label
            own = labels.one_hot(adapter, reading)
            weight = xp.sum(xp.where(own, weight, 0.0), axis=axis, keepdims=True)
        factor = weight
        if self._classes_compete and numbers is not None:  # the criterion has the class weights
            share = numbers if weight is None else numbers * weight
            factor, weight = None, xp.sum(share, axis=axis, keepdims=True)
        known = self._known(adapter, reading, labels)
        if known is not None:
            if weight is not None:
                weight = xp.where(labels.valid, weight, 0.0)
            factor = known if factor is None else known * factor
        return factor, weight

    @staticmethod
    def _known(adapter: Adapter, reading: Reading, labels: Labels) -> Array | None:
        """Return 1, or NaN for a label that is no class, as one may be that could not be read."""
        if labels.valid is None:
            return None
        one = adapter.constant(reading.u, 1.0)
        return adapter.xp.where(labels.valid, one, adapter.number(reading.u, math.nan))

    def _result(self, prepared: PreparedInput, terms: Array) -> Array:
        absent = {prepared.layout.class_axis} if self._classes_compete else set()
        if not self._has_time:
            absent.add(prepared.layout.time)
        shape = tuple(n for axis, n in enumerate(terms.shape) if axis not in absent)
        return prepared.adapter.xp.reshape(terms, shape)

    def _from_result(
        self, prepared: PreparedInput, cotangent: Array, shape: tuple[int, ...]
    ) -> Array:
        return prepared.adapter.xp.reshape(cotangent, shape)

    def _target_axes(self, prepared: PreparedInput, labels: Labels, ndim: int) -> Any:
        return prepared.layout.target_axes(ndim, class_axis=labels.indices is None)

    def _chunk_axes(self, prepared: PreparedInput) -> tuple[int, ...]:
        return (self._batch_axis(prepared),) if self._has_time or self._reads_latency else ()

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        if INDICES in self._targets:
            checks = {"ignore_index": _checks.label, **checks}
        super()._check(
            moving_window=_checks.optional_count,
            num_classes=_checks.optional_count,
            readout=self._check_readout,
            **checks,
        )
        if self.readout not in readouts.WINDOWED and self.moving_window is not None:
            raise ValueError(
                f"readout={self.readout!r} is over all of time and has no moving_window; got "
                f"moving_window={self.moving_window}"
            )

    def _check_readout(self, value: Any, argument: str) -> str:
        try:
            return _checks.one_of(self._readouts)(value, argument)
        except ValueError as error:
            if value not in get_args(EntropyReadout):
                raise
            raise ValueError(f"{error}: it is a readout of CrossEntropy") from None
