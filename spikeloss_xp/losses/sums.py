"""The sum of the terms of a loss, and the weight that a reduction divides it by.

Both add up over chunks that stay in a cache, micro-batches, processes, devices, and, for losses
with a term at each step, segments of time.
"""

from typing import Any, Unpack, overload

from spikeloss_xp import _checks
from spikeloss_xp._input.prepared import PreparedInput
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    FloatArray,
    HostArray,
    Pullback,
    SumOptions,
)
from spikeloss_xp.losses.reduction import as_array, total_weight
from spikeloss_xp.losses.terms import TermEvaluation


class Sums(TermEvaluation):
    """The sum and the weight of a batch, of a part of it, or of a segment of time."""

    reduction: str

    @overload
    def sum_and_weight(
        self, input: HostArray, target: ArrayLike, **options: Unpack[SumOptions]
    ) -> tuple[FloatArray, FloatArray]: ...
    @overload
    def sum_and_weight(
        self, input: ArrayT, target: ArrayLike, **options: Unpack[SumOptions]
    ) -> tuple[ArrayT, ArrayT]: ...
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
        loss of the batch is the sum of the sums. For a mean it is divided by the sum of the
        weights, and it is 0 if that is 0. With a `context` both add up over segments of time too.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        where, lengths, weight : array or sequence, optional
            As for a call.
        context : int, default 0
            The number of first steps that belong to the segment before. They are read, and masked
            as usual, but have no terms and no weight, and their labels are not checked. A segment
            needs `memory` such steps, or all earlier steps if there are fewer.

        Returns
        -------
        tuple of array
            Scalar arrays of one dtype. The sum can be differentiated. For the reductions "sum" and
            "mean" the weight is the number of terms that count or, with class weights, the sum of
            their weights. For "batchmean" it is the number of samples with a term that counts.

        Raises
        ------
        ValueError, TypeError
            If the reduction is "none", which has no sum; if there is a context, but the loss reads
            whole trains or the reduction is "batchmean"; and as a call.

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
        self._check_context(context)
        prepared, labels = self._prepare(input, target, where, lengths, weight, context)
        (total, number), _ = self._sum_chunks(prepared, labels, with_weight=True)
        return total, as_array(prepared.library, total, number)

    @overload
    def sum_weight_and_pullback(
        self, input: HostArray, target: ArrayLike, **options: Unpack[SumOptions]
    ) -> tuple[FloatArray, FloatArray, Pullback]: ...
    @overload
    def sum_weight_and_pullback(
        self, input: ArrayT, target: ArrayLike, **options: Unpack[SumOptions]
    ) -> tuple[ArrayT, ArrayT, Pullback]: ...
    def sum_weight_and_pullback(
        self,
        input: Array,
        target: Any,
        *,
        where: Any = None,
        lengths: Any = None,
        weight: Any = None,
        context: int = 0,
    ) -> tuple[Array, Array, Pullback]:
        """Return the sum, the weight, and the pullback from the sum to `input`, in closed form.

        For libraries without automatic differentiation.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        where, lengths, weight : array or sequence, optional
            As for a call.
        context : int, default 0
            As for `sum_and_weight`. The gradient reaches into the context.

        Returns
        -------
        tuple
            The results of `sum_and_weight`, and the pullback of the sum: a function that takes a
            scalar array, the derivative with respect to the sum, and returns the gradient with
            respect to `input`. Call it once at most.

        Raises
        ------
        ValueError, TypeError
            As `sum_and_weight`.

        Examples
        --------
        The gradient of a mean over two micro-batches:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, reduction="mean")
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> first = loss.sum_weight_and_pullback(spikes[:1], label[:1])
        >>> rest = loss.sum_weight_and_pullback(spikes[1:], label[1:])
        >>> weight = first[1] + rest[1]
        >>> gradient = np.concatenate([pullback(1 / weight) for _, _, pullback in (first, rest)])
        >>> bool(np.all(gradient == sx.value_and_grad(loss)(spikes, label)[1]))
        True
        """
        self._check_context(context)
        prepared, labels = self._prepare(input, target, where, lengths, weight, context)
        (total, number), to_values = self._sum_chunks(
            prepared, labels, with_weight=True, with_pullback=True
        )
        assert to_values is not None
        number = as_array(prepared.library, total, number)
        return total, number, lambda cotangent: prepared.gradient(to_values(cotangent))

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads; None if the loss reads whole trains.

        `sum_and_weight` of a segment needs so many earlier steps as context for the terms of the
        whole train.
        """
        return None

    def _check_context(self, context: int) -> None:
        if self.reduction == "none":
            raise ValueError("reduction='none' has no sum: the terms are not added up")
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
        return library.map_chunks(sums, arrays, self._chunk_axes(prepared), batch_axis)
