"""The contract that the losses share.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A loss is a frozen dataclass that says what its readout and its criterion are. Every step returns
its result and its pullback; the value is the last result, and the gradient is what the pullbacks
give, run in reverse. What is masked is silenced before the readout, and its terms are left out by
the reduction.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from spikeloss_xp import _arrays, _checks, _dispatch, _masks, _targets, readouts
from spikeloss_xp._layout import CLASS, Layout
from spikeloss_xp._targets import Labels
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses import _reduction
from spikeloss_xp.readouts import Reading

NUMERICS = ("stable", "lava")


class Loss(ABC):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str
    time_axis: int
    _smallest_rank: int

    def __call__(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
    ) -> Array:
        """Return the value of the loss, on the library and device of `input`.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]`` with time where `time_axis` says.
        target : array or sequence
            What is wanted; the class says in which form.
        where : array or sequence of bool, optional
            What counts: of shape ``[batch]``, of batch and time in the order they have in
            `input`, or of the shape of `input`. Where it is False an entry is read as silence and
            gets no gradient, and its term is left out of the loss and of what a mean divides by.
        lengths : array or sequence of int, optional
            How many steps of each sample count, from 0 to all: ``[batch]``. The rest is masked.
        weight : array or sequence of float, optional
            Weights of the classes, ``[class]``, finite and at least 0. A term is multiplied by
            the weight of its label, of `SpikeMoid` by that of its class, and a mean divides by
            the sum of those weights instead of the number of terms. `SpikeTime` has none.

        Returns
        -------
        array
            A scalar array, 0 if nothing counts; or the terms with ``reduction="none"``, 0 where
            they do not count.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, dtype, library or range; the message says what
            arrived and what was expected. The range is checked where values can be read for free;
            elsewhere a label or length out of range makes the terms of its sample NaN.
        """
        value, _ = self._evaluate(input, target, where=where, lengths=lengths, weight=weight)
        return value

    def forward(self, input: Array, target: Any, **options: Any) -> Array:
        """Return the value of the loss: the same as calling it."""
        return self(input, target, **options)

    def _evaluate(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
    ) -> tuple[Array, Pullback]:
        """Return the value, and the pullback from there to `input`."""
        xp = _dispatch.namespace(input)
        layout = Layout.of(input, self.time_axis, smallest_rank=self._smallest_rank)
        spikes, to_input = _arrays.floating(xp, input)
        spikes, kept, to_all = _masks.masked(xp, layout, spikes, where, lengths)
        signal, wanted, kept, to_spikes = self._prepare(xp, layout, spikes, kept, target, weight)

        reading, to_signal = self._readout(xp, signal, kept)
        reading, to_reading = self._settle(xp, reading, wanted)
        terms, to_u = self._criterion(xp, reading, wanted)
        terms, to_terms = _reduction.left_out(xp, terms, reading.counted)
        if self.reduction == "none":
            value, to_counted = self._natural(xp, layout, terms)
        else:
            value, to_counted = _reduction.total(
                xp,
                self.reduction,
                terms,
                reading.counted,
                self._amount(wanted),
                self._batch_axis(layout),
            )
        steps = (to_input, to_all, to_spikes, to_signal, to_reading, to_u, to_terms, to_counted)
        return value, _reduction.reverse(*steps)

    @abstractmethod
    def _prepare(
        self,
        xp: Namespace,
        layout: Layout,
        spikes: Array,
        kept: Array | None,
        target: Any,
        weight: Any,
    ) -> tuple[Array, Any, Array | None, Pullback]:
        """Return what to read from, what is wanted of it, what of it counts, and the pullback."""

    @abstractmethod
    def _readout(
        self, xp: Namespace, signal: Array, kept: Array | None
    ) -> tuple[Reading, Pullback]:
        """Return the reading and its pullback."""

    def _settle(self, xp: Namespace, reading: Reading, wanted: Any) -> tuple[Reading, Pullback]:
        """Return a reading that the criterion can bear and that knows what counts."""
        return reading._replace(counted=reading.kept), lambda cotangent: cotangent

    @abstractmethod
    def _criterion(self, xp: Namespace, reading: Reading, wanted: Any) -> tuple[Array, Pullback]:
        """Return the terms of the loss and their pullback."""

    def _natural(self, xp: Namespace, layout: Layout, terms: Array) -> tuple[Array, Pullback]:
        """Return the terms in the layout of the input, and the pullback."""
        return terms, lambda cotangent: cotangent

    def _amount(self, wanted: Any) -> Array | None:
        """Return what the terms were multiplied by, on account of weights; None for 1."""
        return None

    def _batch_axis(self, layout: Layout) -> int:
        """Return which axis of the terms is the batch."""
        return layout.batch_axis

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and keep each as the plain value that its check returns."""
        for name, check in {**checks, "time_axis": _checks.integer}.items():
            object.__setattr__(self, name, check(getattr(self, name), name))
        _checks.one_of(_reduction.REDUCTIONS, self.reduction, "reduction")


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
            per_step=self.moving_window is not None,
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

    def _readout(
        self, xp: Namespace, signal: Array, kept: Array | None
    ) -> tuple[Reading, Pullback]:
        pullbacks, size = [], None
        if self.num_classes is not None:
            signal, kept, size, to_neurons = readouts.population(
                xp, signal, kept, self.num_classes, per_step=self.moving_window is not None
            )
            pullbacks.append(to_neurons)
        if self.readout in readouts.WHOLE:
            reading, to_classes = readouts.WHOLE[self.readout](xp, signal, kept)
        else:
            windowed = readouts.WINDOWED[self.readout]
            reading, to_classes = windowed(xp, signal, self.moving_window, kept)
        if size is not None:
            reading = reading._replace(spike=reading.spike / size)
        return reading, _reduction.reverse(*pullbacks, to_classes)

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
        if self.moving_window is None:
            return super()._natural(xp, layout, terms)
        return layout.natural(xp, terms)

    def _amount(self, wanted: Labels) -> Array | None:
        return wanted.amount

    def _batch_axis(self, layout: Layout) -> int:
        return 0

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
