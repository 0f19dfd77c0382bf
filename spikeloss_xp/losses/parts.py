"""Parts of a batch: sums and weights that add up over micro-batches, processes and segments."""

import math
from typing import Any

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Adapter, on_device_of
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, Pullback


class Parts:
    """A loss that is the sum of its terms divided by their weight, both of which add up."""

    reduction: str
    _prepare: Any
    _sum: Any

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads; None if the loss reads whole trains.

        For the terms of the whole train, `sum_and_weight` needs this many earlier steps before a
        segment as its context.
        """
        return None

    @on_device_of("input")
    def sum_and_weight(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of the terms, and the weight that the reduction divides it by.

        Both add up over any split of the batch: over micro-batches, processes and devices. The
        loss of the batch is the sum of the sums. A mean divides it by the sum of the weights, and
        is 0 if that is 0. With a `context`, both also add up over segments of time.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        context : int, default 0
            The number of steps at the start that belong to the previous segment. They are read, and
            masked as usual, but have no terms and no weight, and their labels are not checked. A
            segment needs `memory` such steps, or all earlier steps if there are fewer.
        **options
            The other arguments of a call: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple of array
            Scalar arrays of one dtype. The sum can be differentiated. For the reductions "sum" and
            "mean" the weight is the number of unmasked terms or, with class weights, the sum of
            their weights. For "batchmean" it is the number of samples with an unmasked term.

        Raises
        ------
        ValueError, TypeError
            If the reduction is "none", which has no sum; if there is a context, but the loss reads
            whole trains or the reduction is "batchmean"; and for the same reasons as a call.

        Examples
        --------
        A mean over two micro-batches of different sizes is the mean over the batch:

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
        return self._sum_of_part(input, target, context, options, with_pullback=False)[:2]

    @on_device_of("input")
    def sum_weight_and_pullback(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT, Pullback]:
        """Return the sum, the weight, and the pullback from the sum to `input`, in closed form.

        This is for libraries without automatic differentiation.

        Parameters
        ----------
        input : array
            Spikes, as for a call.
        target : array or sequence
            The target, as for a call.
        context : int, default 0
            As for `sum_and_weight`. The gradient reaches into the context.
        **options
            The other arguments of a call: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The results of `sum_and_weight`, and the pullback of the sum: a function that takes a
            scalar array, the derivative with respect to the sum, and returns the gradient with
            respect to `input`. Call it at most once.

        Raises
        ------
        ValueError, TypeError
            For the same reasons as `sum_and_weight`.

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
        return self._sum_of_part(input, target, context, options, with_pullback=True)

    def _sum_of_part(
        self,
        input: Array,
        target: Any,
        context: int,
        options: dict[str, Any],
        *,
        with_pullback: bool,
    ) -> tuple[Array, Array, Pullback]:
        """Return sum and weight of a micro-batch or segment, and the pullback if it is wanted."""
        self._check_context(context)
        prepared, labels = self._prepare(input, target, options, context)
        total, weight, pullback = self._sum(prepared, labels, True, with_pullback)
        if isinstance(weight, int):
            weight = prepared.adapter.scalar(total, float(weight)) + 0.0  # an array of its own
        return total, weight, pullback

    def _check_context(self, context: int) -> None:
        """Raise if the terms cannot be added up, or not over segments with this context."""
        if self.reduction == "none":
            raise ValueError("reduction='none' has no sum: the terms are not added up")
        if _checks.integer(context, "context") == 0:
            return
        if context < 0:
            raise ValueError(f"context must be at least 0; got {context}")
        if self.memory is None:
            raise ValueError(
                "context is for losses with a term at each step and a known memory; the memory of "
                f"{type(self).__name__} is None: give it a moving_window, or whole trains"
            )
        if self.reduction == "batchmean":
            raise ValueError(
                "context needs reduction='sum' or 'mean': 'batchmean' divides by the number of "
                "samples, which would be counted again in each segment"
            )


def divisor_of(adapter: Adapter, weight: Array | int) -> Any:
    """Return the number to divide a sum by: its weight, or infinity if everything is masked.

    The loss is 0 then. With smoothed labels the sum need not be 0.
    """
    if isinstance(weight, int):
        return weight
    return adapter.xp.where(weight > 0, weight, adapter.operand(weight, math.inf))
