"""The contract that the losses share.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A loss is a frozen dataclass that says what its readout and its criterion are. Every step returns
its result and its pullback; the value is the last result, and the gradient is what the pullbacks
give, run in reverse.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from spikeloss_xp import _arrays, _checks, _dispatch, readouts
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace, Pullback

REDUCTIONS = ("sum", "mean", "none")
NUMERICS = ("stable", "lava")


class Loss(ABC):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str
    time_axis: int
    _smallest_rank: int

    def __call__(self, input: Array, target: Any) -> Array:
        """Return the value of the loss, on the library and device of `input`.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]`` with time where `time_axis` says.
        target : array or sequence
            What is wanted; the class says in which form.

        Returns
        -------
        array
            A scalar array, or the terms with ``reduction="none"``.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, dtype, library or range; the message says what
            arrived and what was expected.
        """
        value, _ = self._evaluate(input, target)
        return value

    def forward(self, input: Array, target: Any) -> Array:
        """Return the value of the loss: the same as calling it."""
        return self(input, target)

    def _evaluate(self, input: Array, target: Any) -> tuple[Array, Pullback]:
        """Return the value, and the pullback from there to `input`."""
        xp = _dispatch.namespace(input)
        layout = Layout.of(input, self.time_axis, smallest_rank=self._smallest_rank)
        spikes, to_input = _arrays.floating(xp, input)
        signal, target, to_spikes = self._prepare(xp, layout, spikes, target)

        u, to_signal = self._readout(xp, signal)
        terms, to_u = self._criterion(xp, layout, u, target)
        value, to_terms = self._reduce(xp, layout, terms)
        return value, lambda cotangent: to_input(to_spikes(to_signal(to_u(to_terms(cotangent)))))

    @abstractmethod
    def _prepare(
        self, xp: Namespace, layout: Layout, spikes: Array, target: Any
    ) -> tuple[Array, Any, Pullback]:
        """Return what to read from, what to compare the reading with, and the pullback."""

    @abstractmethod
    def _readout(self, xp: Namespace, signal: Array) -> tuple[Array, Pullback]:
        """Return the reading and its pullback."""

    @abstractmethod
    def _criterion(
        self, xp: Namespace, layout: Layout, u: Array, target: Any
    ) -> tuple[Array, Pullback]:
        """Return the terms of the loss and their pullback."""

    def _reduce(self, xp: Namespace, layout: Layout, terms: Array) -> tuple[Array, Pullback]:
        if self.reduction == "none":
            return self._natural(xp, layout, terms)

        def spread(cotangent: Array) -> Array:  # every term counts the same in a sum or a mean
            return xp.broadcast_to(cotangent, terms.shape)

        total = _dispatch.adapter(xp).total(xp, terms)
        if self.reduction == "sum":
            return total, spread
        number = math.prod(terms.shape)
        return total / number, lambda cotangent: spread(cotangent / number)

    def _natural(self, xp: Namespace, layout: Layout, terms: Array) -> tuple[Array, Pullback]:
        """Return the terms in the layout of the input, and the pullback."""
        return terms, lambda cotangent: cotangent

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and keep each as the plain value that its check returns."""
        for name, check in {**checks, "time_axis": _checks.integer}.items():
            object.__setattr__(self, name, check(getattr(self, name), name))
        _checks.one_of(REDUCTIONS, self.reduction, "reduction")


class RateLoss(Loss):
    """A loss that reads rates: over all of time, or in a moving window at every step."""

    moving_window: int | None
    _smallest_rank = 3

    def _prepare(
        self, xp: Namespace, layout: Layout, spikes: Array, target: Any
    ) -> tuple[Array, Any, Pullback]:
        spikes, to_spikes = layout.batch_class_time(xp, spikes)
        return spikes, self._target(xp, layout, spikes, target), to_spikes

    @abstractmethod
    def _target(self, xp: Namespace, layout: Layout, spikes: Array, target: Any) -> Any:
        """Return the checked target, where and what the criterion needs it to be."""

    def _readout(self, xp: Namespace, signal: Array) -> tuple[Array, Pullback]:
        return readouts.rate(xp, signal, self.moving_window)

    def _natural(self, xp: Namespace, layout: Layout, terms: Array) -> tuple[Array, Pullback]:
        if self.moving_window is None:
            return super()._natural(xp, layout, terms)
        return layout.natural(xp, terms)
