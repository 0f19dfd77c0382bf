"""The base class of the losses that read classes: labels, class weights, windows, competition."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, get_args

from spikeloss_xp import _checks, readouts
from spikeloss_xp._arrays import Adapter, asarray_of_dtype, or_one
from spikeloss_xp._input.labels import Labels, class_labels, class_weights, multi_hot_labels
from spikeloss_xp._input.layout import CLASS, Layout
from spikeloss_xp._input.prepared import PreparedInput, both
from spikeloss_xp._typing import Array, Numerics, PerClass, ValueAndPullback
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.readouts import ACROSS_CLASSES, Reading, ReadingAndPullback, read_groups
from spikeloss_xp.readouts.first_spike import latency

NUMERICS = get_args(Numerics)


class RateLoss(Loss):
    """The base class of losses that read a number for each class: its rate, or as `readout` says.

    The reading is over the whole duration or, with a moving window, at each step. Readings, labels
    and terms have axes ``[batch, class]`` or, with a window, ``[batch, class, time]``.

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
        Hyper-parameters, as for `SpikeRate`. Losses of multi-hot labels have no `ignore_index`.
    reduction : str
    time_axis : int
        Hyper-parameters of every loss.
    """

    moving_window: int | None
    readout: str
    num_classes: int | None
    ignore_index: int
    numerics: str  # only of losses with published numbers
    _multi_hot: ClassVar[bool] = False
    """Whether the target is multi-hot; otherwise it holds class indices."""
    _criterion_has_weights: ClassVar[bool] = False
    """Whether the terms of `_criterion` have the class weights already."""
    _readouts: ClassVar[tuple[str, ...]] = (*readouts.WINDOWED, *readouts.OVER_ALL_TIME)
    """The readouts that the loss takes."""

    @abstractmethod
    def _criterion(self, adapter: Adapter, reading: Reading, labels: Labels) -> ValueAndPullback:
        """Return the terms, without class weights, and their pullback to ``reading.u``."""

    def _labels(self, prepared: PreparedInput, target: Any) -> Labels:
        classes, per_step = prepared.layout.classes(self.num_classes), self._has_time
        if self._multi_hot:
            return multi_hot_labels(prepared, target, classes, per_step=per_step)
        ignored = self.ignore_index
        return class_labels(prepared, target, classes, per_step=per_step, ignore_index=ignored)

    def _weigh(self, prepared: PreparedInput, labels: Labels, weight: Any) -> Labels:
        classes, ndim = prepared.layout.classes(self.num_classes), labels.target.ndim
        return labels._replace(class_weight=class_weights(prepared, weight, classes, ndim))

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
    def _per_class(adapter: Adapter, u: Array, values: PerClass) -> Array:
        """Return a hyper-parameter as an array, with a class axis if it has one for each class."""
        each = asarray_of_dtype(adapter, u, values)
        return adapter.xp.reshape(each, (1, -1, 1)[: u.ndim]) if each.ndim else each

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
        self, adapter: Adapter, values: Array, mask: Array | None, labels: Labels
    ) -> ReadingAndPullback:
        if self._reads_latency:
            return latency(adapter, values, mask, self.num_classes, self.time_axis)
        proportional = self._reading_is_proportional
        arrays = adapter, values, mask
        return read_groups(*arrays, self.num_classes, self._read_trains, proportional=proportional)

    @property
    def _reading_is_proportional(self) -> bool:
        """Whether the readings of `_read_trains` are proportional to the trains."""
        return self.readout not in ACROSS_CLASSES

    def _read_trains(
        self, adapter: Adapter, spikes: Array, mask: Array | None
    ) -> ReadingAndPullback:
        """Return the reading of each train, and its pullback."""
        if self.readout in ACROSS_CLASSES:
            return ACROSS_CLASSES[self.readout](adapter, spikes, mask)
        if self.readout in readouts.OVER_ALL_TIME:
            return readouts.OVER_ALL_TIME[self.readout](adapter, spikes, mask)
        windowed = readouts.WINDOWED[self.readout]
        first = self.time_axis == 0
        return windowed(adapter, spikes, self.moving_window, mask, time_first=first)

    def _compete(
        self, adapter: Adapter, reading: Reading, labels: Labels
    ) -> tuple[Reading, Array | None]:
        mask, class_mask = reading.mask, None
        if self._classes_compete and mask is not None and mask.shape[CLASS] > 1:
            # The term of a sample counts if a neuron with its label does.
            own = labels.target > 0 if self._multi_hot else labels.target
            if labels.valid is not None:
                own = own | ~labels.valid
            class_mask = mask
            mask = adapter.xp.any(own & mask, axis=CLASS, keepdims=True)
        if labels.ignored is not None:
            mask = both(mask, ~labels.ignored)
        if class_mask is not None and mask is not None:
            class_mask = class_mask | ~mask  # masked terms have to be finite as well
        return reading._replace(class_mask=class_mask), mask

    def _fill_labels(
        self, adapter: Adapter, labels: Labels, mask: Array, class_mask: Array | None
    ) -> Labels:
        if not self._multi_hot:
            return labels
        return labels._replace(target=adapter.xp.where(both(mask, class_mask), labels.target, 0.0))

    def _term_weights(
        self, adapter: Adapter, reading: Reading, labels: Labels
    ) -> tuple[Array | None, Array | None]:
        xp, weight, target = adapter.xp, labels.class_weight, labels.target
        if weight is not None and xp.isdtype(target.dtype, "bool"):  # that of the label
            weight = xp.sum(xp.where(target, weight, 0.0), axis=CLASS, keepdims=True)
        elif self._multi_hot and self._classes_compete:
            shares = xp.sum(target, axis=CLASS, keepdims=True)
            each = target if weight is None else target * weight
            weight = xp.sum(each, axis=CLASS, keepdims=True)
            if not self._criterion_has_weights:  # the mean of the weights of the labels
                weight = weight / or_one(adapter, shares)
        factor = None if self._criterion_has_weights else weight
        if labels.valid is not None:
            # A label may be no class if its value could not be checked: then its term is NaN.
            if weight is not None:
                weight = xp.where(labels.valid, weight, 0.0)
            known = xp.where(labels.valid, adapter.constant(reading.u, 1.0), math.nan)
            factor = known if factor is None else known * factor
        return factor, weight

    def _terms_in_layout(self, prepared: PreparedInput, terms: Array) -> Array:
        adapter = prepared.adapter
        if self._classes_compete:
            terms = adapter.xp.squeeze(terms, axis=CLASS)
        if not self._has_time:
            return terms
        in_layout: Array = prepared.layout.time_as_in_input(adapter, terms)
        return in_layout

    def _terms_from_layout(self, prepared: PreparedInput, cotangent: Array) -> Array:
        adapter = prepared.adapter
        if self._has_time:
            cotangent = prepared.layout.time_last(adapter, cotangent)
        if self._classes_compete:
            cotangent = adapter.xp.expand_dims(cotangent, axis=CLASS)
        return cotangent

    def _target_axes(self, layout: Layout, ndim: int) -> tuple[int | None, ...]:
        return layout.target_axes(ndim, class_axis=self._multi_hot)

    def _chunk_axes(self, prepared: PreparedInput) -> tuple[int, ...]:
        return (0,) if self._has_time or self._reads_latency else ()

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        if not self._multi_hot:
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

    def _check_published(self, option: str, without: float) -> None:
        """Raise if an option that the published loss lacks is given with its numbers."""
        value = getattr(self, option)
        if self.numerics == "lava" and value != without:
            raise ValueError(
                f"the published loss has no {option}: it needs numerics='stable'; got "
                f"{option}={value} with numerics='lava'"
            )

    def _check_readout(self, value: Any, argument: str) -> str:
        if value == "latency" and value not in self._readouts:
            raise ValueError(
                f"readout='latency' is in steps, and {type(self).__name__} compares with rates: "
                "use SpikeLatency, or SpikeMax with mode='softmax'"
            )
        if value in ACROSS_CLASSES and not self._classes_compete:
            raise ValueError(
                f"readout={value!r} is the vote of competing classes, which have one term: it "
                f"needs SpikeMax(mode='softmax'); {type(self).__name__} has a term for each class"
            )
        return _checks.one_of((*self._readouts, *ACROSS_CLASSES))(value, argument)
