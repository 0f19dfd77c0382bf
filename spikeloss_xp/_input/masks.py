"""Masks: which entries of an input count."""

import math
from typing import Any

from spikeloss_xp._dispatch import Library
from spikeloss_xp._input.arrays import asarray_like, concrete_or_none
from spikeloss_xp._input.labels import check_range, check_shape
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array


def mask_of(
    library: Library,
    layout: Layout,
    values: Array,
    where: Any,
    lengths: Any,
    names: tuple[str, str] = ("where", "lengths"),
) -> tuple[Array | None, Array | None]:
    """Return the mask of an input, and a factor that is NaN for samples of impossible length.

    The mask is bool, with the axes of the input; axes along which it is constant may have length
    1. It is None if all entries count. The factor is None if the lengths have been checked. Errors
    name the two arguments by `names`.
    """
    mask, factor = None, None
    if lengths is not None:
        mask, factor = _mask_of_lengths(library, layout, values, lengths, names[1])
    if where is not None:
        mask = both(mask, _mask_of_where(library, layout, values, where, names[0]))
    return mask, factor


def _mask_of_where(library: Library, layout: Layout, values: Array, where: Any, name: str) -> Array:
    mask = asarray_like(library, values, where, name)
    if not library.xp.isdtype(mask.dtype, "bool"):
        raise TypeError(f"{name} must be bool, True for what counts; got {mask.dtype}")
    expected = {
        "[batch]": (layout.batch,),
        "[batch, time], in the order of input": layout.with_time(layout.batch),
        "the shape of input": layout.shape,
    }
    check_shape(mask, name, "bools", expected)
    return layout.broadcastable(library, mask)


def _mask_of_lengths(
    library: Library, layout: Layout, values: Array, lengths: Any, name: str
) -> tuple[Array, Array | None]:
    xp = library.xp
    number = asarray_like(library, values, lengths, name)
    if not xp.isdtype(number.dtype, "integral"):
        raise TypeError(f"{name} must hold integers, in time steps; got {number.dtype}")
    check_shape(number, name, "integers", {"[batch]": (layout.batch,)})
    known = concrete_or_none(lengths)
    check_range(known, 0, layout.steps, name)

    step = library.arange(layout.steps, values)
    axes = tuple(layout.steps if i == layout.time_axis else 1 for i in range(len(layout.shape)))
    number = layout.broadcastable(library, xp.astype(number, step.dtype, copy=False))
    mask = xp.reshape(step, axes) < number
    if known is not None:
        return mask, None
    possible = (number >= 0) & (number <= layout.steps)
    factor = xp.where(possible, library.constant(values, 1.0), math.nan)
    return mask | ~possible, factor


def both(mask: Array | None, other: Array | None) -> Array | None:
    """Return where two masks are True; None stands for a mask that is True everywhere."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def fill_masked(library: Library, x: Array, mask: Array, value: float = 0.0) -> Array:
    """Return `x` with a value in the masked entries.

    By selection: multiplying by 0 would keep NaN, in the value and in the gradient.
    """
    return library.xp.where(mask, x, value)
