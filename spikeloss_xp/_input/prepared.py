"""The input of a loss: its values and its mask, in the axes that the loss computes in."""

import math
from dataclasses import dataclass
from typing import Any

from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    check_range,
    check_shape,
    concrete_or_none,
    floating,
)
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array


@dataclass(slots=True)
class PreparedInput:
    """An input in the dtype and axes to compute in, which knows its own gradient.

    Attributes
    ----------
    adapter : Adapter
        The adapter of the library of the input.
    values : array
        The input, in the dtype to compute in, with axes batch, class and time in the order of the
        input, and 0 where it is masked.
    mask : array or None
        Which entries count, in the axes of `values`; axes along which it is constant may have
        length 1. None if all entries count.
    layout : Layout
        The layout of the input; None for an array of any shape, whose axes stay.
    dtype : dtype
        The dtype of the input.
    valid_or_nan : array or None
        1, or NaN for samples of impossible length; it has been multiplied to `values`. None if no
        length is impossible.
    after_context : array or None
        Which steps have terms, in the axes of `values` with length 1 for all but time: those after
        the context of a segment. None if all steps have.
    """

    adapter: Adapter
    values: Array
    mask: Array | None
    layout: Any
    dtype: Any
    valid_or_nan: Array | None = None
    after_context: Array | None = None

    @property
    def term_mask(self) -> Array | None:
        """Which entries count and have terms."""
        return self.mask if self.after_context is None else both(self.mask, self.after_context)

    def gradient(self, cotangent: Array) -> Array:
        """Return the gradient with respect to the input, given that with respect to `values`.

        It has the dtype of the input, or of `values` if the input is bool or integer.
        """
        adapter = self.adapter
        if self.layout is not None:
            if self.mask is not None:
                cotangent = fill_masked(adapter, cotangent, self.mask)
            cotangent = self.layout.input_axes(adapter, cotangent)
        if self.valid_or_nan is not None:
            cotangent = cotangent * self.valid_or_nan
        xp = adapter.xp
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
    argument: str = "input",
    context: int = 0,
) -> PreparedInput:
    """Return an input with its mask. The first `context` steps have no terms."""
    adapter = adapter_of(input, argument)
    values, mask, valid_or_nan = floating(adapter, input, argument), None, None
    shape = tuple(input.shape)
    if len(shape) < smallest_rank:
        axes = "[batch, *space, time]" if smallest_rank == 2 else "[batch, class or *space, time]"
        sample = " (one sample is a batch of one: loss(input[None], target[None]))"
        raise ValueError(
            f"input must have at least {smallest_rank} axes, {axes} in the order that "
            f"time_axis tells; got shape {shape}{sample if len(shape) > 1 else ''}"
        )
    layout = Layout.of(shape, time_axis, "input")
    if where is not None or lengths is not None:
        mask, valid_or_nan = mask_of(adapter, layout, values, where, lengths)
    if valid_or_nan is not None:
        values = values * valid_or_nan
    values = layout.collapsed(adapter, values)
    if mask is not None:
        mask = layout.collapsed(adapter, mask)
        # Durations are sums of the mask over time, so it needs all time steps.
        before, after = mask.shape[: layout.time], mask.shape[layout.time + 1 :]
        mask = adapter.xp.broadcast_to(mask, (*before, layout.steps, *after))
        values = fill_masked(adapter, values, mask)
    after_context = _after(adapter, values, layout.time, context) if context else None
    return PreparedInput(adapter, values, mask, layout, input.dtype, valid_or_nan, after_context)


def _after(adapter: Adapter, values: Array, axis: int, context: int) -> Array:
    """Return which steps along an axis come after the first ones."""
    steps = values.shape[axis]
    if context > steps:
        raise ValueError(f"context must be at most the number of steps, {steps}; got {context}")
    return adapter.along(axis, values) >= context


def mask_of(
    adapter: Adapter,
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
        mask, valid_or_nan = _mask_of_lengths(adapter, layout, values, lengths, names[1])
    if where is not None:
        mask = both(mask, _mask_of_where(adapter, layout, values, where, names[0]))
    return mask, valid_or_nan


def _mask_of_where(adapter: Adapter, layout: Layout, values: Array, where: Any, name: str) -> Array:
    mask = asarray_like(adapter, values, where, name)
    if not adapter.xp.isdtype(mask.dtype, "bool"):
        raise TypeError(f"{name} must be bool, True for what counts; got {mask.dtype}")
    expected = {
        "[batch]": (layout.batch,),
        "[batch, time], in the order of input": layout.with_time(layout.batch),
        "the shape of input": layout.shape,
    }
    check_shape(mask, name, "bools", expected)
    return layout.broadcastable(adapter, mask)


def _mask_of_lengths(
    adapter: Adapter, layout: Layout, values: Array, lengths: Any, name: str
) -> tuple[Array, Array | None]:
    xp = adapter.xp
    number = asarray_like(adapter, values, lengths, name)
    if not xp.isdtype(number.dtype, "integral"):
        raise TypeError(f"{name} must hold integers, in time steps; got {number.dtype}")
    check_shape(number, name, "integers", {"[batch]": (layout.batch,)})
    known = concrete_or_none(lengths)
    check_range(known, layout.steps, name)

    step = adapter.arange(layout.steps, values)
    axes = tuple(layout.steps if i == layout.time_axis else 1 for i in range(len(layout.shape)))
    number = layout.broadcastable(adapter, xp.astype(number, step.dtype, copy=False))
    mask = xp.reshape(step, axes) < number
    if known is not None:
        return mask, None
    possible = (number >= 0) & (number <= layout.steps)
    return mask | ~possible, xp.where(possible, adapter.constant(values, 1.0), math.nan)


def both(mask: Array | None, other: Array | None) -> Array | None:
    """Return where two masks are True; None stands for a mask that is True everywhere."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def fill_masked(adapter: Adapter, x: Array, mask: Array, value: float = 0.0) -> Array:
    """Return `x` with a value in the masked entries.

    By selection: multiplying by 0 would keep NaN, in the value and in the gradient.
    """
    return adapter.xp.where(mask, x, adapter.number(x, value))
