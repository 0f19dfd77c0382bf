"""Splitting a call of a loss into blocks of its input whose sums add up."""

import dataclasses
from typing import Any, NamedTuple

from spikeloss_xp._arrays import adapter_of, find_adapter, host, rank, shape_of
from spikeloss_xp._input.labels import Labels, TargetTrains
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import Prepared
from spikeloss_xp.losses.parts import divisor_of

Axes = tuple[int | None, ...]


class Split(NamedTuple):
    """The way in which a call of a loss may be split into blocks whose sums add up.

    Attributes
    ----------
    loss : Loss
        The loss, with the reduction "sum".
    layout : Layout
        The layout of the input.
    axes : dict
        For the input and each argument, the axes of the input that its axes correspond to, with
        None for a class axis that the input does not have.
    independent : set of int
        The axes of the input along which the sums of blocks add up. Along time, they add up if each
        block also includes the `memory` steps before it.
    dtype : dtype
        The dtype of the computation.
    divisor : array, int or None
        The number by which the reduction divides the sum; None stands for 1.
    where : array or None
        The mask, in a shape that remains unambiguous for a block.
    """

    loss: Any
    layout: Layout
    axes: dict[str, Axes]
    independent: set[int]
    dtype: Any
    divisor: Any
    where: Any


def split(loss: Any, input: Any, arguments: dict[str, Any]) -> Split | None:
    """Return how a call of a loss may be split, or None if it must be evaluated as a whole."""
    target, where, weight = (arguments[name] for name in ("target", "where", "weight"))
    options = {"where": where, "lengths": arguments["lengths"], "weight": weight}
    prepared, labels = loss._prepare(input, target, options)
    layout, every = prepared.layout, tuple(range(input.ndim))
    # Labels of pixels, or a single spike time for each class, without an axis of spikes.
    if prepared.pixels is not None or layout.time_axis == input.ndim:
        return None
    axes: dict[str, Axes] = {"input": every, "lengths": (layout.batch_axis,), "weight": (None,)}
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
