"""Which entries of an input count."""

import math
from typing import Any

from spikeloss_xp import _arrays, _dispatch, _targets
from spikeloss_xp._layout import Layout
from spikeloss_xp._typing import Array, Namespace, Pullback


def masked(
    xp: Namespace, layout: Layout, spikes: Array, where: Any, lengths: Any
) -> tuple[Array, Array | None, Pullback]:
    """Return the spikes, which of them count, and the pullback.

    The mask is bool, with the axes of the input, those of length 1 included along which it does
    not change; it is None where all count. The spikes are as they were, and NaN in samples whose
    length cannot be.
    """
    mask, factor = None, None
    if lengths is not None:
        mask, factor = _before_the_end(xp, layout, spikes, lengths)
    if where is not None:
        chosen = _chosen(xp, layout, spikes, where)
        mask = chosen if mask is None else mask & chosen
    if factor is None:
        return spikes, mask, lambda cotangent: cotangent
    return spikes * factor, mask, lambda cotangent: cotangent * factor


def _chosen(xp: Namespace, layout: Layout, spikes: Array, where: Any) -> Array:
    mask = _arrays.follow(xp, spikes, where, "where")
    if not xp.isdtype(mask.dtype, "bool"):
        raise TypeError(f"where must be bool, True for what counts; got {mask.dtype}")
    expected = {
        "[batch]": (layout.batch,),
        "[batch, time], in the order of input": layout.with_time(layout.batch),
        "the shape of input": layout.shape,
    }
    _targets.check_shape(mask, "where", "bools", expected)
    return layout.spread(xp, mask)


def _before_the_end(
    xp: Namespace, layout: Layout, spikes: Array, lengths: Any
) -> tuple[Array, Array | None]:
    number = _arrays.follow(xp, spikes, lengths, "lengths")
    if not xp.isdtype(number.dtype, "integral"):
        raise TypeError(f"lengths must hold integers, in time steps; got {number.dtype}")
    _targets.check_shape(number, "lengths", "integers", {"[batch]": (layout.batch,)})
    values = _arrays.peek(lengths)
    _targets.check_range(values, 0, layout.steps, "lengths")

    step = xp.arange(layout.steps, device=_dispatch.adapter(xp).device(spikes))
    axes = tuple(layout.steps if i == layout.time_axis else 1 for i in range(len(layout.shape)))
    number = layout.spread(xp, xp.astype(number, step.dtype, copy=False))
    mask = xp.reshape(step, axes) < number
    if values is not None:
        return mask, None
    possible = (number >= 0) & (number <= layout.steps)
    one, nan = (_arrays.constant(xp, spikes, value) for value in (1.0, math.nan))
    return mask | ~possible, xp.where(possible, one, nan)


def silenced(xp: Namespace, x: Array, mask: Array) -> tuple[Array, Pullback]:
    """Return `x` with silence where the mask is False, and the pullback.

    By selection: a product with 0 would let NaN through, there and back.
    """
    silence = _arrays.constant(xp, x, 0.0)
    return xp.where(mask, x, silence), lambda cotangent: xp.where(mask, cotangent, silence)


def by_class(
    xp: Namespace, layout: Layout, x: Array, kept: Array | None
) -> tuple[Array, Array | None, Pullback]:
    """Return an input as `[batch, class, time]`, silent where it is masked, and its mask alike.

    The class axis of the mask has length 1 if the mask is the same for all neurons.
    """
    x, to_input = layout.batch_class_time(xp, x)
    if kept is None:
        return x, None, to_input
    kept, _ = layout.batch_class_time(xp, kept)
    # Durations are sums over it: each step has to be there.
    kept = xp.broadcast_to(kept, (*kept.shape[:-1], layout.steps))
    x, to_all = silenced(xp, x, kept)
    return x, kept, lambda cotangent: to_input(to_all(cotangent))
