"""Tell adapters how the evaluation of a loss can be split into blocks.

The adapters for libraries such as Dask call the function `spikeloss_xp.backends.base.split_call`.
This module implements `split_call` for losses with a target.
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
    """Description of how the evaluation of a loss can be split into blocks.

    Attributes
    ----------
    loss : Loss
        The loss that is evaluated for each block, with the reduction "sum".
    axes : dict
        `axes` maps the name of each array argument, such as "target", to a tuple. For each axis of
        the argument, the tuple holds the index of the corresponding axis of the input. For an axis
        that is never split, such as the class axis of class probabilities, the tuple holds None.
    independent : set of int
        The axes of the input along which the arguments may be split into blocks. If the arguments
        are split along the time axis, each block must also include the ``loss.memory`` time steps
        before the block.
    divisor : array, int or None
        The number by which the sum over all blocks is divided.
    where : array or None
        The mask, whose number of axes determines which axes of the input the mask covers.
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
    """Return how the evaluation of a loss may be split, or None if it must not be split.

    The evaluation is not split if a subclass overrides `value` or `value_and_pullback`, because the
    value may not be a quotient of two sums. The evaluation is also not split if the loss holds
    arrays, because worker processes may not have these arrays.
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
    if layout.time_axis == input.ndim:  # spike times of shape [batch, class]
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
    else:  # the target is a train for each neuron
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
    """Return the number by which the sum of all terms of a call is divided.

    The divisor depends on the masks and labels, but not on the spikes.
    """
    if isinstance(labels, Filled):  # the number of terms is known without computing the terms
        terms = prepared.values if prepared.layout.has_time else prepared.values[:, :, :1]
        weight = loss._weight(prepared, terms, prepared.mask, labels.class_weight)
    else:
        _, weight, _ = loss._sum(prepared, labels, True, False)
    return divisor_of(prepared.adapter, weight)
