"""The base class of the losses.

    spikes --readout--> u --criterion(u, target)--> terms --reduction--> loss

A loss is a frozen dataclass whose methods are the readout and the criterion. Each step returns its
result and its pullback: the value is the last result, and the gradient is the composition of the
pullbacks. A reduced loss is ``sum / weight``, and both add up over chunks of a batch.
"""

from collections.abc import Callable
from typing import Any

from spikeloss_xp import _checks
from spikeloss_xp._dispatch import find_library, library_of
from spikeloss_xp._input.prepared import PreparedInput
from spikeloss_xp._typing import Array, Pullback
from spikeloss_xp.losses.closed_form import ClosedForm
from spikeloss_xp.losses.reduction import REDUCTIONS, divisor, total_weight
from spikeloss_xp.losses.terms import TermEvaluation

PLAIN_VALUES = (int, float, str, bool, type(None))


class Loss(TermEvaluation, ClosedForm):
    """A loss on spike trains: a function of spikes and a target.

    Hyper-parameters go in the constructor, arrays in the call. Losses are immutable, hashable and
    comparable.
    """

    reduction: str

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
            Spikes, ``[batch, *space, time]``, with the time axis at `time_axis`.
        target : array or sequence
            The target, in the form that the class describes.
        where : array or sequence of bool, optional
            The mask, True for entries that count: of shape ``[batch]``, of batch and time in the
            order they have in `input`, or of the shape of `input`. A masked entry is read as
            silence, its gradient is 0, and its term is 0 and not part of the divisor of a mean.
        lengths : array or sequence of int, optional
            The number of steps of each sample that count, from 0 to all: ``[batch]``. The later
            ones are masked.
        weight : array or sequence of float, optional
            Weights of the classes, ``[class]``, finite and at least 0. A term is multiplied by
            the weight of its label (in `SpikeMoid`, by that of its class), and a mean divides by
            the sum of those weights instead of the number of terms. `SpikeTime` has none.

        Returns
        -------
        array
            A scalar array, 0 if nothing counts; or the terms with ``reduction="none"``, 0 where
            they are masked.

        Raises
        ------
        ValueError, TypeError
            If an argument has the wrong shape, dtype, library or range; the message says what
            arrived and what was expected. The range is checked if the values can be read for free;
            otherwise a label or length out of range makes the terms of its sample NaN.
        """
        library = library_of(input)
        options = {"target": target, "where": where, "lengths": lengths, "weight": weight}
        if not self.has_closed_form:
            return self.value(input, **options)
        return library.evaluate(self, input, options)

    def forward(self, input: Array, target: Any, **options: Any) -> Array:
        """Return the value of the loss: the same as calling it."""
        return self(input, target, **options)

    def value(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
    ) -> Array:
        """Return the value of the loss, by operations that the library can differentiate.

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
            The value, and a function from the derivative with respect to the value, an array of
            its shape, to the gradient with respect to `input`. The function may be called once.
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

    def sum_and_weight(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
        context: int = 0,
    ) -> tuple[Array, Array]:
        """Return the sum of the terms, and the weight that the reduction divides it by.

        Both add up over any split of the batch: over micro-batches, processes and devices. The
        loss of the whole is the sum of the sums, for a mean divided by the sum of the weights, or
        0 if that is 0. With a `context`, they add up over segments of time, too.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        where, lengths, weight : array or sequence, optional
            As for a call.
        context : int, default 0
            The number of steps at the beginning that are read, and masked as usual, but have no
            terms, no weight and no label check: the last steps of the segment before. A segment
            needs `memory` of them, or all earlier steps if there are fewer.

        Returns
        -------
        tuple of array
            Scalar arrays of one dtype. The sum can be differentiated. The weight is, for the
            reductions "sum" and "mean", the number of terms that count or, with class weights, the
            sum of their weights; for "batchmean", the number of samples with a term that counts.

        Raises
        ------
        ValueError, TypeError
            If the reduction is "none", which has no sum; if there is a context and the loss reads
            whole trains or counts samples ("batchmean"); or as a call does.

        Examples
        --------
        A mean over two micro-batches of different length is the mean over the batch:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, reduction="mean")
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> sums = [loss.sum_and_weight(spikes[part], label[part])
        ...         for part in (slice(0, 1), slice(1, 4))]
        >>> total, weight = map(sum, zip(*sums))
        >>> float(total / weight), float(loss(spikes, label))
        (0.0625, 0.0625)
        """
        if self.reduction == "none":
            raise ValueError("reduction='none' has no sum: the terms are not added up")
        self._check_context(context)
        prepared, labels = self._prepare(input, target, where, lengths, weight, context)
        (total, number), _ = self._sum_chunks(prepared, labels, with_weight=True)
        if isinstance(number, int):
            number = prepared.library.constant(total, float(number))
        return total, number

    @property
    def memory(self) -> int | None:
        """The number of steps before its own that a term reads; None for a loss of whole trains.

        A segment of a train has the terms of the whole train if `sum_and_weight` gets so many
        earlier steps as context.
        """
        return None

    def _check_context(self, context: int) -> None:
        if _checks.integer(context, "context") == 0:
            return
        if context < 0:
            raise ValueError(f"context must be at least 0; got {context}")
        if self.memory is None:
            raise ValueError(
                "context is for losses with a term at each step and a known memory; that of "
                f"{type(self).__name__} is None: give it a moving_window, or whole trains"
            )
        if self.reduction == "batchmean":
            raise ValueError(
                "context needs reduction='sum' or 'mean': 'batchmean' divides by the number of "
                "samples, which each segment would count again"
            )

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

    def _sum_chunks(
        self,
        prepared: PreparedInput,
        labels: Any,
        *,
        with_weight: bool,
        with_pullback: bool = False,
    ) -> tuple[tuple[Any, ...], Pullback | None]:
        """Return ``(sum, weight)`` over all chunks, and the pullback; None for those not wanted."""
        library, batch_axis = prepared.library, self._batch_axis(prepared)

        def sums(values: Array, mask: Array, labels: Any) -> Any:  # a mask may be None
            terms = self._terms(library, values, mask, labels, prepared.scored)
            total, number = library.sum_all(terms.terms), None
            if with_weight:
                number = total_weight(library, self.reduction, terms, batch_axis)
            if not with_pullback:
                return (total, number), None
            # All terms have the same cotangent; it broadcasts.
            shape = (1,) * terms.terms.ndim
            pullback = terms.pullback
            return (total, number), lambda cotangent: pullback(library.xp.reshape(cotangent, shape))

        arrays = prepared.values, prepared.mask, labels
        return library.map_chunks(sums, arrays, self._chunk_axes(prepared))

    def _check(self, **checks: Callable[[Any, str], Any]) -> None:
        """Check hyper-parameters, and store the plain value that each check returns."""
        shared = {"time_axis": _checks.integer, "reduction": _checks.one_of(REDUCTIONS)}
        _checks.check_fields(self, **{**checks, **shared})
