"""How a call to a loss is split into blocks whose sums are then added.

The losses do not know about blocks. A library that computes block by block, such as Dask, asks
`spikeloss_xp.backends.base.split_call`, and this module registers the answer.
"""

import dataclasses
from typing import Any, NamedTuple

from spikeloss_xp._arrays import adapter_of, divisor_of, find_adapter, host, rank, shape_of
from spikeloss_xp._input.labels import Filled, Labels
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._input.targets import kind_of
from spikeloss_xp._typing import Array
from spikeloss_xp.backends.base import captured_arrays, split_call
from spikeloss_xp.losses.with_target import TargetLoss


class Split(NamedTuple):
    """How a loss call may be split into blocks whose partial sums are then added.

    Attributes
    ----------
    loss : Loss
        The loss, with the reduction "sum".
    layout : Layout
        The layout of the input.
    axes : dict
        A tuple for each array argument, such as "input" or "target". The tuple has an entry for
        each axis of the array. The entry is the matching axis of the input. It is None for an axis
        that is never split, such as the class axis of class probabilities.
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


@split_call.register
def split(loss: TargetLoss, input: Array, arguments: dict[str, Any]) -> Split | None:
    """Return how a call to a loss may be split, or None if it must be evaluated as a whole.

    The call is checked before it is split. A loss that overrides `value` or `value_and_pullback` is
    not split, because its value may not be a quotient of sums. A loss that holds arrays is not
    split either, because the processes that evaluate the blocks may not have these arrays.
    """
    kind = type(loss)
    own = kind.value is TargetLoss.value
    own = own and kind.value_and_pullback is TargetLoss.value_and_pullback
    if not own or loss.reduction == "none" or captured_arrays(loss) != ():
        return None
    target, where, weight = (arguments[name] for name in ("target", "where", "weight"))
    options = {"where": where, "lengths": arguments["lengths"], "weight": weight}
    prepared, labels = loss._prepare(input, target, options)
    layout, every = prepared.layout, tuple(range(input.ndim))
    summed: Any = dataclasses.replace(loss, reduction="sum")  # type: ignore[type-var]
    if layout.time_axis == input.ndim:  # the input holds spike times and has no spike axis
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
    target_kind = kind_of(loss.targets, target)
    if target_kind.rank < 3:
        axes["target"] = layout.target_axes(rank(target), with_class=target_kind.rank == 2)
    elif not layout.has_time:
        axes["target"] = (0, None, None)[: rank(target)]
    else:  # each neuron has its own terms
        axes["target"] = every
        alike = layout.class_axis in summed._chunk_axes(prepared)
        if alike and (weight is None or len(every) < 4):
            independent.update(layout.space_axes())
        if weight is not None and len(every) == 3:
            axes["weight"] = layout.space_axes()
    if loss.memory is not None:
        independent.add(layout.time_axis)

    divisor = None if loss.reduction == "sum" else _divisor(loss, prepared, labels)
    return Split(summed, layout, axes, independent, prepared.values.dtype, divisor, where)


def _divisor(loss: Any, prepared: Trains, labels: Labels) -> Any:
    """Return the divisor of the whole call, which depends on masks and labels but not on spikes."""
    if isinstance(labels, Filled):  # the terms need not be computed
        terms = prepared.values if prepared.layout.has_time else prepared.values[:, :, :1]
        weight = loss._weight(prepared, terms, prepared.mask, labels.class_weight)
    else:
        _, weight, _ = loss._sum(prepared, labels, True, False)
    return divisor_of(prepared.adapter, weight)
