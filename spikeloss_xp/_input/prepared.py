"""The input of a loss: its values and its mask, in the axes that the loss computes in."""

import math
from dataclasses import dataclass
from typing import Any

from spikeloss_xp._arrays import (
    Library,
    asarray_like,
    check_range,
    check_shape,
    concrete_or_none,
    floating,
    library_of,
)
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array


@dataclass(slots=True)
class PreparedInput:
    """An input in the dtype and axes to compute in, which knows its own gradient.

    Attributes
    ----------
    library : Library
        The library of the input.
    values : array
        The input, in the dtype to compute in.
    mask : array or None
        Which entries count, in the axes of `values`; axes along which it is constant may have
        length 1. None if all entries count.
    layout : Layout
        The layout of the input; None for an array of any shape.
    canonical : bool
        Whether `values` has axes ``[batch, class, time]``, with masked entries filled with 0.
        Otherwise it has the axes of the input, and masked entries are as they came.
    dtype : dtype
        The dtype of the input.
    valid_or_nan : array or None
        1, or NaN for samples of impossible length; it has been multiplied to `values`. None if no
        length is impossible.
    after_context : array or None
        Which steps have terms, in the axes of `values` with length 1 for all but time: those after
        the context of a segment. None if all steps have.
    """

    library: Library
    values: Array
    mask: Array | None
    layout: Any
    canonical: bool
    dtype: Any
    valid_or_nan: Array | None = None
    after_context: Array | None = None

    @property
    def term_mask(self) -> Array | None:
        """Which entries count and have terms."""
        return both(self.mask, self.after_context)

    def gradient(self, cotangent: Array) -> Array:
        """Return the gradient with respect to the input, given that with respect to `values`.

        It has the dtype of the input, or of `values` if the input is bool or integer.
        """
        library = self.library
        if self.canonical:
            if self.mask is not None:
                cotangent = fill_masked(library, cotangent, self.mask)
            cotangent = self.layout.input_axes(library, cotangent)
        if self.valid_or_nan is not None:
            cotangent = cotangent * self.valid_or_nan
        xp = library.xp
        if self.dtype != cotangent.dtype and xp.isdtype(self.dtype, "real floating"):
            return xp.astype(cotangent, self.dtype)
        return cotangent


def prepare_input(
    input: Array,
    where: Any,
    lengths: Any,
    *,
    time_axis: int,
    smallest_rank: int,
    canonical: bool = True,
    argument: str = "input",
    context: int = 0,
) -> PreparedInput:
    """Return an input with its mask, in the axes of the input or in `canonical` ones.

    The first `context` steps have no terms.
    """
    library = library_of(input, argument)
    values, mask, valid_or_nan = floating(library, input, argument), None, None
    layout = Layout.of(input, time_axis, smallest_rank=smallest_rank)
    if where is not None or lengths is not None:
        mask, valid_or_nan = mask_of(library, layout, values, where, lengths)
    if valid_or_nan is not None:
        values = values * valid_or_nan
    if canonical:
        values = layout.batch_class_time(library, values)
        if mask is not None:
            mask = layout.batch_class_time(library, mask)
            # Durations are sums of the mask over time, so it needs all time steps.
            mask = library.xp.broadcast_to(mask, (*mask.shape[:-1], layout.steps))
            values = fill_masked(library, values, mask)
    after_context = None
    if context:
        axis = values.ndim - 1 if canonical else layout.time_axis
        after_context = _after(library, values, axis, context)
    return PreparedInput(
        library, values, mask, layout, canonical, input.dtype, valid_or_nan, after_context
    )


def _after(library: Library, values: Array, axis: int, context: int) -> Array:
    """Return which steps along an axis come after the first ones."""
    steps = values.shape[axis]
    if context > steps:
        raise ValueError(f"context must be at most the number of steps, {steps}; got {context}")
    axes = tuple(steps if i == axis else 1 for i in range(values.ndim))
    return library.xp.reshape(library.arange(steps, values) >= context, axes)


def mask_of(
    library: Library,
    layout: Layout,
    values: Array,
    where: Any,
    lengths: Any,
    names: tuple[str, str] = ("where", "lengths"),
) -> tuple[Array | None, Array | None]:
    """Return the mask of an input, and an array that is NaN for samples of impossible length.

    The mask is bool, with the axes of the input; axes along which it is constant may have length
    1. It is None if all entries count. The array is 1 for the other samples, and None if the
    lengths have been checked. Errors name the two arguments by `names`.
    """
    mask, valid_or_nan = None, None
    if lengths is not None:
        mask, valid_or_nan = _mask_of_lengths(library, layout, values, lengths, names[1])
    if where is not None:
        mask = both(mask, _mask_of_where(library, layout, values, where, names[0]))
    return mask, valid_or_nan


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
    return mask | ~possible, xp.where(possible, library.constant(values, 1.0), math.nan)


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
