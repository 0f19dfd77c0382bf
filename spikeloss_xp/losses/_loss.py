"""The contract that the losses share.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A loss is a frozen dataclass that says what its readout and its criterion are. Every step returns
its result and its pullback; the value is the last result, and the gradient is what the pullbacks
give, run in reverse. What is masked is silenced before the readout, and its terms are left out by
the reduction.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from spikeloss_xp import _arrays, _checks, _dispatch, _masks
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.losses import _parts, _reduction
from spikeloss_xp.losses._reduction import Terms
from spikeloss_xp.readouts import Reading


class Loss(ABC):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str
    time_axis: int
    _smallest_rank: int
    _closed = True
    """Whether nothing has a gradient but the arguments of a call, and what is held on to."""

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
        adapter = _dispatch.adapter(_dispatch.namespace(input))
        options = {"target": target, "where": where, "lengths": lengths, "weight": weight}
        if not self._closed:
            return self._evaluate(input, **options, differentiate=False)[0]
        return adapter.value_of(self._evaluate, input, options, self._held())

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
        differentiate: bool = True,
    ) -> tuple[Array, Pullback]:
        """Return the value, and the pullback from there to `input`.

        Without `differentiate` that may not be called, and with it not a second time.
        """
        xp = _dispatch.namespace(input)
        layout = Layout.of(input, self.time_axis, smallest_rank=self._smallest_rank)
        spikes, to_input = _arrays.floating(xp, input)
        spikes, kept, to_all = _masks.masked(xp, layout, spikes, where, lengths)
        signal, wanted, kept, to_spikes = self._prepare(xp, layout, spikes, kept, target, weight)

        axes = self._independent_axes(layout)
        if self.reduction == "none" or not self._reads_every_step:
            axis, parts = axes[0], _parts.WHOLE
        else:
            axis, parts = _parts.along(xp, signal, axes)

        whole = signal, kept, wanted
        terms_of = functools.partial(self._terms, xp)
        if self.reduction == "none":
            terms = terms_of(*whole)
            value, to_terms = self._natural(xp, layout, terms.terms)
            to_signal = _reduction.reverse(terms.pullback, to_terms)
        else:
            value, to_signal = _parts.total(
                xp, self.reduction, whole, axis, parts, terms_of, differentiate=differentiate
            )
        return value, _reduction.reverse(to_input, to_all, to_spikes, to_signal)

    def _terms(self, xp: Namespace, signal: Array, kept: Array | None, wanted: Any) -> Terms:
        """Return the terms of a batch, or of a part of it."""
        reading, to_signal = self._readout(xp, signal, kept, wanted)
        reading, to_reading = self._settle(xp, reading, wanted)
        terms, to_u = self._criterion(xp, reading, wanted)
        terms, to_terms = _reduction.left_out(xp, terms, reading.counted)
        back = _reduction.reverse(to_signal, to_reading, to_u, to_terms)
        return Terms(terms, reading.counted, self._amount(wanted), back)

    def _held(self) -> tuple[Any, ...]:
        """Return the arrays that the loss holds on to."""
        return ()

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

    @property
    @abstractmethod
    def _reads_every_step(self) -> bool:
        """Whether readings are as large as the input, so that a part of the batch is enough."""

    @abstractmethod
    def _readout(
        self, xp: Namespace, signal: Array, kept: Array | None, wanted: Any
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

    def _independent_axes(self, layout: Layout) -> tuple[int, ...]:
        """Return the axes of signal and terms along which nothing depends on its neighbours.

        The batch is the first of them, and the only one if samples are to be counted.
        """
        return (layout.batch_axis,)

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and keep each as the plain value that its check returns."""
        for name, check in {**checks, "time_axis": _checks.integer}.items():
            object.__setattr__(self, name, check(getattr(self, name), name))
        _checks.one_of(_reduction.REDUCTIONS, self.reduction, "reduction")
