"""What the losses that read rates share: classes, labels, weights and windows."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from spikeloss_xp import _arrays, _checks, _masks, _targets, readouts
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._targets import Labels
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses import _reduction
from spikeloss_xp.losses._loss import Loss
from spikeloss_xp.readouts import Reading

NUMERICS = ("stable", "lava")


class RateLoss(Loss):
    """A loss that reads classes: their rates, or what else `readout` says.

    Over all of time, or in a moving window at every step. Readings, labels and terms have a batch
    and a class axis, and last a time axis if there is a window.
    """

    moving_window: int | None
    readout: str
    num_classes: int | None
    ignore_index: int
    _smallest_rank = 3

    def _prepare(
        self,
        xp: Namespace,
        layout: Layout,
        spikes: Array,
        kept: Array | None,
        target: Any,
        weight: Any,
    ) -> tuple[Array, Labels, Array | None, Pullback]:
        signal, kept, to_spikes = _masks.by_class(xp, layout, spikes, kept)
        labels = self._target(xp, layout, signal, kept, target)
        if weight is not None:
            classes = layout.classes(self.num_classes)
            weights = _targets.class_weights(xp, layout, signal, weight, classes, labels.hot.ndim)
            labels = self._weigh(xp, labels, weights)
        return signal, labels, kept, to_spikes

    def _class_labels(
        self, xp: Namespace, layout: Layout, spikes: Array, kept: Array | None, target: Any
    ) -> Labels:
        return _targets.class_labels(
            xp,
            layout,
            spikes,
            kept,
            target,
            classes=layout.classes(self.num_classes),
            per_step=self._has_time,
            ignore_index=self.ignore_index,
        )

    @abstractmethod
    def _target(
        self, xp: Namespace, layout: Layout, spikes: Array, kept: Array | None, target: Any
    ) -> Labels:
        """Return the checked labels, where and what the criterion needs them to be."""

    def _weigh(self, xp: Namespace, labels: Labels, weights: Array) -> Labels:
        """Return labels that know the weights of the classes: each term has that of its label."""
        chosen = xp.where(labels.hot, weights, _arrays.constant(xp, weights, 0.0))
        amount = xp.sum(chosen, axis=CLASS, keepdims=True)
        return labels._replace(amount=amount, weight=weights)

    @property
    def _has_time(self) -> bool:
        """Whether readings, labels and terms have a time axis."""
        return self.moving_window is not None

    @property
    def _reads_every_step(self) -> bool:
        return self._has_time

    def _readout(
        self, xp: Namespace, signal: Array, kept: Array | None, wanted: Labels
    ) -> tuple[Reading, Pullback]:
        pullbacks, size = [], None
        if self.num_classes is not None:
            signal, kept, size, to_neurons = readouts.population(
                xp, signal, kept, self.num_classes, per_step=self._has_time
            )
            pullbacks.append(to_neurons)
        reading, to_classes = self._read(xp, signal, kept)
        if size is not None:
            reading = reading._replace(spike=reading.spike / size)
        return reading, _reduction.reverse(*pullbacks, to_classes)

    def _read(self, xp: Namespace, signal: Array, kept: Array | None) -> tuple[Reading, Pullback]:
        """Return what is read of each class, and the pullback."""
        if self.readout in readouts.WHOLE:
            return readouts.WHOLE[self.readout](xp, signal, kept)
        first = self.time_axis == 0
        windowed = readouts.WINDOWED[self.readout]
        return windowed(xp, signal, self.moving_window, kept, time_first=first)

    def _settle(self, xp: Namespace, reading: Reading, wanted: Labels) -> tuple[Reading, Pullback]:
        counted = self._counted(xp, reading.kept, wanted)
        if counted is None:
            return reading, lambda cotangent: cotangent
        one, zero = (_arrays.constant(xp, reading.u, value) for value in (1.0, 0.0))
        u = xp.where(counted, reading.u, one)  # at which no criterion is infinite, or has NaN slope
        return (
            reading._replace(u=u, counted=counted),
            lambda cotangent: xp.where(counted, cotangent, zero),
        )

    def _counted(self, xp: Namespace, kept: Array | None, labels: Labels) -> Array | None:
        """Return which terms count; None if all do."""
        if labels.ignored is None:
            return kept
        return ~labels.ignored if kept is None else kept & ~labels.ignored

    def _natural(self, xp: Namespace, layout: Layout, terms: Array) -> tuple[Array, Pullback]:
        if not self._has_time:
            return super()._natural(xp, layout, terms)
        return layout.natural(xp, terms)

    def _amount(self, wanted: Labels) -> Array | None:
        return wanted.amount

    def _independent_axes(self, layout: Layout) -> tuple[int, ...]:
        return (0,)

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        super()._check(
            moving_window=_checks.optional_count, num_classes=_checks.optional_count, **checks
        )
        _checks.one_of((*readouts.WINDOWED, *readouts.WHOLE), self.readout, "readout")
        if self.readout in readouts.WHOLE and self.moving_window is not None:
            raise ValueError(
                f"readout={self.readout!r} is over all of time and has no moving_window; got "
                f"moving_window={self.moving_window}"
            )
