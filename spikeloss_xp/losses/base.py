"""The base class of the losses.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A loss is a frozen dataclass whose methods are the readout and the criterion. Each step returns its
result and its pullback: the value is the last result, and the gradient is the composition of the
pullbacks. A reduced loss is ``sum / weight``, and both add up over chunks of a batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Unpack, overload

from spikeloss_xp import _checks
from spikeloss_xp._dispatch import find_library, library_of
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    CallOptions,
    FloatArray,
    HostArray,
    Pullback,
)
from spikeloss_xp.losses.closed_form import ClosedForm
from spikeloss_xp.losses.reduction import REDUCTIONS, divisor
from spikeloss_xp.losses.split import Split
from spikeloss_xp.losses.sums import Sums

PLAIN_VALUES = (int, float, str, bool, type(None))


class Loss(Sums, ClosedForm):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str

    @overload
    def __call__(
        self, input: HostArray, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> FloatArray: ...
    @overload
    def __call__(
        self, input: ArrayT, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> ArrayT: ...
    def __call__(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
    ) -> Array:
        """Return the value of the loss, an array of the library and on the device of `input`.

        Parameters
        ----------
        input : array
            Spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            The target, as the class describes it.
        where : array or sequence of bool, optional
            The mask, True for entries that count. Its shape is ``[batch]``, that of batch and time
            in the order of `input`, or that of `input`. A masked entry is read as silence and has
            gradient 0. A masked term is 0, and the divisor of a mean does not count it.
        lengths : array or sequence of int, optional
            The number of steps of each sample that count: ``[batch]``, from 0 to the number of
            steps. Later steps are masked.
        weight : array or sequence of float, optional
            Class weights, ``[class]``, finite and at least 0. Each term is multiplied by the weight
            of its label (in `SpikeMoid`, of its class), and a mean divides by the sum of these
            weights instead of the number of terms. `SpikeTime` takes no weights.

        Returns
        -------
        array
            A scalar array, 0 if nothing counts; with ``reduction="none"`` the terms, 0 where they
            are masked.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, dtype, library or range. The message says what
            arrived and what was expected. Ranges are checked where values can be read for free;
            elsewhere a label or length out of range makes the terms of its sample NaN.
        """
        library = library_of(input)
        options = {"target": target, "where": where, "lengths": lengths, "weight": weight}
        if not self.has_closed_form:
            return self.value(input, **options)
        return library.evaluate(self, input, options)

    @overload
    def forward(
        self, input: HostArray, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> FloatArray: ...
    @overload
    def forward(
        self, input: ArrayT, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> ArrayT: ...
    def forward(self, input: Array, target: Any, **options: Any) -> Array:
        """Return the value of the loss: the same as calling it."""
        return self(input, target, **options)

    @overload
    def value(
        self, input: HostArray, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> FloatArray: ...
    @overload
    def value(self, input: ArrayT, target: ArrayLike, **options: Unpack[CallOptions]) -> ArrayT: ...
    def value(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
    ) -> Array:
        """Return the value of the loss, with operations that the library can differentiate.

        A call returns the same value, and may register the closed form as its gradient. The
        arguments are those of a call.
        """
        prepared, labels = self._prepare(input, target, where, lengths, weight)
        library = prepared.library
        if self.reduction == "none":
            terms = self._terms(library, prepared.values, prepared.mask, labels)
            return self._terms_in_layout(prepared, terms.terms)
        weighed = self.reduction != "sum"
        (total, number), _ = self._sum_chunks(prepared, labels, with_weight=weighed)
        return total if number is None else total / divisor(library, number)

    @overload
    def value_and_pullback(
        self, input: HostArray, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> tuple[FloatArray, Pullback]: ...
    @overload
    def value_and_pullback(
        self, input: ArrayT, target: ArrayLike, **options: Unpack[CallOptions]
    ) -> tuple[ArrayT, Pullback]: ...
    def value_and_pullback(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
    ) -> tuple[Array, Pullback]:
        """Return the value of the loss, and the pullback from it to `input`, in closed form.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        where, lengths, weight : array or sequence, optional
            As for a call.

        Returns
        -------
        tuple
            The value, and the pullback: a function that takes an array of the shape of the value,
            the derivative with respect to it, and returns the gradient with respect to `input`.
            Call it once at most.
        """
        prepared, labels = self._prepare(input, target, where, lengths, weight)
        library = prepared.library
        if self.reduction == "none":
            terms = self._terms(library, prepared.values, prepared.mask, labels)

            def of_terms(cotangent: Array) -> Array:
                cotangent = self._terms_from_layout(prepared, cotangent)
                return prepared.gradient(terms.pullback(cotangent))

            return self._terms_in_layout(prepared, terms.terms), of_terms

        (total, number), to_values = self._sum_chunks(
            prepared, labels, with_weight=self.reduction != "sum", with_pullback=True
        )
        assert to_values is not None
        if number is None:
            return total, lambda cotangent: prepared.gradient(to_values(cotangent))
        by = divisor(library, number)
        return total / by, lambda cotangent: prepared.gradient(to_values(cotangent / by))

    def split(self, input: Array, arguments: dict[str, Any]) -> Split | None:
        """Return how a call may be split into blocks, or None if it has to be evaluated as a whole.

        The call is checked as a whole. A loss that overrides `value` or `value_and_pullback` may
        be no quotient of sums, and one that holds arrays may be evaluated here only.
        """
        kind = type(self)
        own = kind.value is Loss.value and kind.value_and_pullback is Loss.value_and_pullback
        if not own or self.reduction == "none" or self.captured_arrays() != ():
            return None
        prepared, labels = self._prepare(input, **arguments)
        layout, where = prepared.layout, arguments["where"]
        target_axes = self._target_axes(layout, _rank(arguments["target"]))
        if target_axes is None:
            return None
        axes: dict[str, tuple[int | None, ...]]
        axes = {"input": tuple(range(input.ndim)), "lengths": (layout.batch_axis,)}
        axes["target"] = target_axes
        axes["where"] = () if where is None else layout.mask_axes(_rank(where))

        by: Any = None
        if self.reduction != "sum":  # the weight depends on masks and labels, not on the spikes
            (_, by), _ = self._sum_chunks(prepared, labels, with_weight=True)
            by = divisor(prepared.library, by)
        summed = dataclasses.replace(self, reduction="sum")  # type: ignore[type-var]
        independent = {layout.batch_axis}
        if not prepared.by_class:
            independent.update(summed._chunk_axes(prepared))
        if self.memory is not None:
            independent.add(layout.time_axis)
        return Split(summed, layout, axes, independent, prepared.values.dtype, by)

    def captured_arrays(self) -> tuple[Any, ...] | None:
        """Return the arrays that the loss holds as hyper-parameters, or None if unknown.

        A function among the hyper-parameters may hold arrays that nobody knows.
        """
        held: list[Any] = []
        for value in vars(self).values():
            if isinstance(value, PLAIN_VALUES):
                continue
            if find_library(value) is not None:
                held.append(value)
            elif not (isinstance(value, tuple) and all(isinstance(v, PLAIN_VALUES) for v in value)):
                return None
        return tuple(held)

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and store the plain value that each check returns."""
        shared = {"time_axis": _checks.integer, "reduction": _checks.one_of(REDUCTIONS)}
        _checks.check_fields(self, **{**checks, **shared})


def _rank(values: Any) -> int:
    """Return the number of axes of an array or of a nested sequence."""
    if isinstance(values, list | tuple):
        return 1 + _rank(values[0])
    return getattr(values, "ndim", 0)
