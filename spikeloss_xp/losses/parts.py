"""Parts of a call: sums and weights that are additive over micro-batches, segments and blocks."""

import dataclasses
import math
from typing import Any, NamedTuple

from spikeloss_xp import _checks
from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    find_adapter,
    host,
    on_device_of,
    rank,
    shape_of,
)
from spikeloss_xp._input.labels import Labels, TargetTrains
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import Prepared
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, Pullback


class Parts:
    """Mixin for losses that divide a sum of terms by a weight; both are additive over parts."""

    reduction: str
    _prepare: Any
    _sum: Any

    @property
    def memory(self) -> int | None:
        """The number of earlier steps that a term reads, or None if terms read whole trains.

        To return the same terms for a segment as for the whole train, `sum_and_weight` needs this
        many earlier steps as context.
        """
        return None

    @on_device_of("input")
    def sum_and_weight(
        self, input: ArrayT, target: ArrayLike, *, context: int = 0, **options: ArrayLike | None
    ) -> tuple[ArrayT, ArrayT]:
        """Return the sum of the terms, and the weight by which the reduction divides the sum.

        Both results can be summed over any split of the batch into micro-batches, processes or
        devices. With ``reduction="sum"``, the total sum is the loss for the whole batch. For a
        mean, divide the total sum by the total weight; if the weight is 0, the mean is 0. With a
        `context`, both results can also be summed over segments of time.

        Parameters
        ----------
        input : array
            Spikes, as when calling the loss.
        target : array or sequence
            The target, as when calling the loss.
        context : int, default 0
            The number of steps at the start of `input` that belong to earlier segments. These steps
            are read and masked as usual, but they have no terms and no weight, and their labels are
            not checked. A segment needs `memory` steps of context, or all earlier steps if there
            are fewer.
        **options
            The other arguments of the loss: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple of array
            Two scalar arrays with the same dtype. The sum can be differentiated. For the reductions
            "sum" and "mean", the weight is the number of unmasked terms or, with class weights, the
            sum of their weights. For "batchmean", it is the number of samples with an unmasked
            term.

        Raises
        ------
        ValueError, TypeError
            If the reduction is "none"; if a context is given, but the terms read whole trains or
            the reduction is "batchmean"; or for the same reasons as when the loss is called.

        Examples
        --------
        Compute the mean over the whole batch from the sums and weights of two micro-batches:

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
        """Return the sum of the terms, their weight, and the closed-form pullback of the sum.

        Use this method with libraries that have no automatic differentiation.

        Parameters
        ----------
        input : array
            Spikes, as when calling the loss.
        target : array or sequence
            The target, as when calling the loss.
        context : int, default 0
            The number of steps of context, as in `sum_and_weight`. The gradient includes these
            steps.
        **options
            The other arguments of the loss: `where`, `lengths` and `weight`.

        Returns
        -------
        tuple
            The sum and the weight that `sum_and_weight` returns, and the pullback of the sum. The
            pullback is a function that takes a scalar array, the derivative of the loss with
            respect to the sum, and returns the gradient with respect to `input`. Call it at most
            once.

        Raises
        ------
        ValueError, TypeError
            For the same reasons as `sum_and_weight`.

        Examples
        --------
        Compute the gradient of a mean over two micro-batches:

        >>> import numpy as np
        >>> import spikeloss_xp as sx
        >>> loss = sx.SpikeRate(0.5, 0.0, reduction="mean")
        >>> spikes, label = np.eye(4)[:, None, :], [0, 0, 0, 0]
        >>> first = loss.sum_weight_and_pullback(spikes[:1], label[:1])
        >>> rest = loss.sum_weight_and_pullback(spikes[1:], label[1:])
        >>> weight = first[1] + rest[1]
        >>> pullbacks = first[2], rest[2]
        >>> gradient = np.concatenate([pullback(1 / weight) for pullback in pullbacks])
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
        """Return the sum and weight of a part and, if `with_pullback` is True, the pullback."""
        self._check_context(context)
        prepared, labels = self._prepare(input, target, options, context)
        total, weight, pullback = self._sum(prepared, labels, True, with_pullback)
        if isinstance(weight, int):
            # `scalar` may return a cached array, so return a copy that the caller may modify.
            weight = prepared.adapter.scalar(total, float(weight)) + 0.0
        return total, weight, pullback

    def _check_context(self, context: int) -> None:
        """Raise an error if the terms are not summed or the loss cannot use the given context."""
        if self.reduction == "none":
            raise ValueError(
                "reduction='none' has no sum and no weight: use 'sum', 'mean' or 'batchmean'"
            )
        if _checks.integer(context, "context") == 0:
            return
        if context < 0:
            raise ValueError(f"context must be at least 0; got {context}")
        if self.memory is None:
            raise ValueError(
                "context needs a loss with a term at each step and a known memory; the memory of "
                f"this {type(self).__name__} is None: set a moving_window, or pass whole trains "
                "without a context"
            )
        if self.reduction == "batchmean":
            raise ValueError(
                "context needs reduction='sum' or 'mean'; got 'batchmean', which divides by the "
                "number of samples: each segment would count the same samples again"
            )


def divisor_of(adapter: Adapter, weight: Array | int) -> Any:
    """Return the divisor of a sum: its weight, or infinity if the weight is 0.

    Dividing by infinity makes the loss 0 even if the sum is not 0, as with label smoothing.
    """
    if not hasattr(weight, "dtype"):  # an int or, while PyTorch exports a function, a symbolic size
        return weight
    return adapter.xp.where(weight > 0, weight, adapter.operand(weight, math.inf))


# Blocks of a call ----------------------------------------------------------------------------


class Split(NamedTuple):
    """How a loss call may be split into blocks whose partial sums are then added.

    Attributes
    ----------
    loss : Loss
        The loss, with the reduction "sum".
    layout : Layout
        The layout of the input.
    axes : dict
        Maps the name of each array (the input or another argument) to a tuple with one entry for
        each axis of that array: the corresponding axis of the input, or None for a class axis that
        the input lacks.
    independent : set of int
        The axes of the input along which the call may be split into blocks whose sums are added.
        For a split along time, each block must be extended to include the `memory` preceding steps.
    dtype : dtype
        The dtype of the computation.
    divisor : array, int or None
        The number by which the reduction divides the sum; None means 1.
    where : array or None
        The mask, reshaped so that it remains unambiguous when it is split into blocks.
    """

    loss: Any
    layout: Layout
    axes: dict[str, tuple[int | None, ...]]
    independent: set[int]
    dtype: Any
    divisor: Any
    where: Any


def split_call(loss: Any, input: Any, arguments: dict[str, Any]) -> Split | None:
    """Return how a call to a loss may be split, or None if it must be evaluated as a whole."""
    target, where, weight = (arguments[name] for name in ("target", "where", "weight"))
    options = {"where": where, "lengths": arguments["lengths"], "weight": weight}
    prepared, labels = loss._prepare(input, target, options)
    layout, every = prepared.layout, tuple(range(input.ndim))
    # A call is not split if it has labels for pixels, or spike times without a spike axis.
    if prepared.pixels is not None or layout.time_axis == input.ndim:
        return None
    axes: dict[str, tuple[int | None, ...]] = {
        "input": every,
        "lengths": (layout.batch_axis,),
        "weight": (None,),
    }
    if where is not None:
        where = where if find_adapter(where) else host(where, "where")
        where = layout.unambiguous(adapter_of(where), where)
    axes["where"] = () if where is None else layout.mask_axes(shape_of(where))
    independent = {layout.batch_axis}
    if not isinstance(labels, TargetTrains):
        axes["target"] = layout.target_axes(rank(target), with_class=labels.indices is None)
    elif not layout.has_time:
        axes["target"] = (0, None, None)[: rank(target)]
    else:  # each neuron has its own terms
        axes["target"] = every
        if weight is None or len(every) < 4:
            independent.update(layout.space_axes())
        if weight is not None and len(every) == 3:
            axes["weight"] = layout.space_axes()
    if loss.memory is not None:
        independent.add(layout.time_axis)

    divisor = None if loss.reduction == "sum" else _divisor(loss, prepared, labels)
    summed = dataclasses.replace(loss, reduction="sum")
    return Split(summed, layout, axes, independent, prepared.values.dtype, divisor, where)


def _divisor(loss: Any, prepared: Prepared, labels: Labels) -> Any:
    """Return the divisor of the whole call, which depends on masks and labels but not on spikes."""
    if isinstance(labels, TargetTrains):
        terms = prepared.values if prepared.layout.has_time else prepared.values[:, :, :1]
        weight = loss._weight(prepared, terms, prepared.mask, labels.class_weight)
    else:
        _, weight, _ = loss._sum(prepared, labels, True, False)
    return divisor_of(prepared.adapter, weight)
