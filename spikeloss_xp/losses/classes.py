"""The base class of the losses that read classes: labels, readouts, windows, predictions."""

from typing import Any, ClassVar, get_args

from spikeloss_xp import readouts
from spikeloss_xp._arrays import Adapter
from spikeloss_xp._input.labels import INDICES, MULTI_HOT, Labels
from spikeloss_xp._input.pixels import labels_of_pixels, read_pixels
from spikeloss_xp._input.prepared import Prepared
from spikeloss_xp._typing import Array, Numerics, PerClass
from spikeloss_xp.losses.base import Loss
from spikeloss_xp.predictions import ClassScores, Predictor
from spikeloss_xp.readouts import Read, Reading, read_classes

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
    num_classes: int | None
    ignore_index: int
    _takes_pixels: ClassVar[bool] = True
    _targets: ClassVar[tuple[str, ...]] = (INDICES,)
    """The kinds of targets: class indices, a number for each class, or both in this order."""
    _readouts: ClassVar[tuple[str, ...]] = ("rate", "count", *readouts.OVER_ALL_TIME)
    _summed: ClassVar[tuple[str, ...]] = ()
    """The readouts that are the sum over the neurons of a class; the others are their mean."""
    _by_class: ClassVar[tuple[str, ...]] = ()
    """The hyper-parameters that may be a number for each class."""
    _scores_of: ClassVar[type[ClassScores]] = ClassScores
    """How the scores of the classes become predictions."""

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads; None if the loss reads whole trains."""
        return None if self.moving_window is None else self.moving_window - 1

    @property
    def _has_time(self) -> bool:  # type: ignore[override]
        """Whether readings, labels and terms have a time axis."""
        return self.moving_window is not None

    def _labels(self, prepared: Prepared, target: Any) -> Labels:
        if labels_of_pixels(self, prepared, target) is not None:
            read_pixels(prepared, self.num_classes)
        if self._by_class:
            self._check_classes(prepared)
        return self._checked_labels(prepared, target, self._targets, self._has_time)

    def _read(self, prepared: Prepared, values: Array, mask: Array | None, labels: Any) -> Read:
        return self._read_window(prepared, values, mask, self.moving_window)

    def _read_window(
        self, prepared: Prepared, values: Array, mask: Array | None, window: int | None
    ) -> Read:
        """Return the reading in a window or over all of time, and its pullback to `values`."""
        adapter, pixels = prepared.adapter, prepared.pixels
        kind = self.readout, window, self.num_classes, self._summed
        if pixels is None:
            return read_classes(adapter, values, mask, prepared.layout.time, *kind)
        # Neurons are read before they are rearranged, unless a reading is of several.
        sampled = self.num_classes is not None or self.readout in ("softmax_sum", "latency")
        axis = pixels.source.time
        if sampled:
            values, mask = (pixels.samples(adapter, x) for x in (values, mask))
            axis = 2
        reading, to_values = read_classes(adapter, values, mask, axis, *kind)
        if sampled:
            return reading, lambda cotangent: pixels.of_samples(adapter, to_values(cotangent))

        def of_pixels(x: Any) -> Any:  # without a mask, units are the same numbers for all
            same = mask is None or isinstance(x, int | float)
            return x if same else pixels.samples(adapter, x)

        u, counts = (pixels.samples(adapter, x) for x in (reading.u, reading.counts))
        units = of_pixels(reading.per_unit), of_pixels(reading.saturated)
        others = of_pixels(reading.duration), pixels.samples(adapter, reading.mask)
        reading = Reading(u, *units, counts, *others)
        return reading, lambda cotangent: to_values(pixels.of_samples(adapter, cotangent))

    def _scores(self, prepared: Prepared, per_step: bool) -> ClassScores:
        name = type(self).__name__
        if self._targets[0] not in (INDICES, MULTI_HOT):
            raise TypeError(f"{name} predicts no class: its targets are numbers")
        if per_step and not self._has_time:
            raise ValueError(
                f"per_step=True needs a {name} with a moving_window: this one reads over all of "
                "time"
            )
        self._check_classes(prepared)
        window, adapter = self.moving_window if per_step else None, prepared.adapter
        reading, _ = self._read_window(prepared, prepared.values, prepared.mask, window)
        reading = reading._replace(class_axis=prepared.layout.class_axis)
        return self._scores_of(prepared, self._score(adapter, reading), reading.mask, per_step)

    def _score(self, adapter: Adapter, reading: Reading) -> Array:
        """Return the scores of the classes, of which the largest wins."""
        return reading.u

    def _check_classes(self, prepared: Prepared) -> None:
        """Raise if a sequence among the hyper-parameters is of another number of classes."""
        for name in self._by_class:
            values = getattr(self, name)
            if isinstance(values, tuple) and len(values) != prepared.classes:
                raise ValueError(
                    f"{name} must be one number, or {prepared.classes}, one for each class; got "
                    f"{len(values)}{prepared.layout.hint_at_time((len(values),))}"
                )


def per_class(adapter: Adapter, reading: Reading, values: PerClass) -> Any:
    """Return a number, or an array with the axes of the readings of one for each class."""
    if not isinstance(values, tuple):
        return values
    axes = (1, -1, 1) if reading.class_axis == 1 else (1, 1, -1)
    return adapter.xp.reshape(adapter.constants(values, reading.u), axes)
