"""The input of a loss: its values and mask in the axes that the loss computes in."""

from dataclasses import dataclass
from typing import Any

from spikeloss_xp._dispatch import Library, library_of
from spikeloss_xp._input.arrays import asarray_like, floating
from spikeloss_xp._input.labels import check_shape
from spikeloss_xp._input.layout import CLASS, Layout
from spikeloss_xp._input.masks import fill_masked, mask_of
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
    by_class : bool
        Whether `values` has axes ``[batch, class, time]``, with masked entries filled with 0.
        Otherwise it has the axes of the input, and masked entries are as they came.
    dtype : dtype
        The dtype of the input.
    factor : array or None
        1, or NaN for samples of impossible length; it has been multiplied to `values`.
    scored : array or None
        Which steps have terms, in the axes of `values` with length 1 for all but time. None if
        all steps have.
    """

    library: Library
    values: Array
    mask: Array | None
    layout: Any
    by_class: bool
    dtype: Any
    factor: Array | None
    scored: Array | None = None

    def gradient(self, cotangent: Array) -> Array:
        """Return the gradient with respect to the input, given that with respect to `values`.

        It has the dtype of the input, or of `values` if the input is bool or integer.
        """
        library = self.library
        if self.by_class:
            if self.mask is not None:
                cotangent = fill_masked(library, cotangent, self.mask)
            cotangent = self.layout.input_axes(library, cotangent)
        if self.factor is not None:
            cotangent = cotangent * self.factor
        xp = library.xp
        if self.dtype != cotangent.dtype and xp.isdtype(self.dtype, "real floating"):
            return xp.astype(cotangent, self.dtype)
        return cotangent


def prepare_array(input: Array) -> PreparedInput:
    """Return an input of any shape, without a mask."""
    library = library_of(input)
    return PreparedInput(library, floating(library, input), None, None, False, input.dtype, None)


def prepare_input(
    input: Array,
    where: Any,
    lengths: Any,
    *,
    time_axis: int,
    smallest_rank: int,
    by_class: bool,
    argument: str = "input",
    context: int = 0,
) -> PreparedInput:
    """Return an input with its mask, in the axes of the input or `by_class`.

    The first `context` steps are not scored.
    """
    library = library_of(input, argument)
    values, mask, factor = floating(library, input, argument), None, None
    layout = Layout.of(input, time_axis, smallest_rank=smallest_rank)
    if where is not None or lengths is not None:
        mask, factor = mask_of(library, layout, values, where, lengths)
    if factor is not None:
        values = values * factor
    if by_class:
        values = layout.batch_class_time(library, values)
        if mask is not None:
            mask = layout.batch_class_time(library, mask)
            # Durations are sums of the mask over time, so it needs all time steps.
            mask = library.xp.broadcast_to(mask, (*mask.shape[:-1], layout.steps))
            values = fill_masked(library, values, mask)
    scored = None
    if context:
        axis = values.ndim - 1 if by_class else layout.time_axis
        scored = _after(library, values, axis, context)
    return PreparedInput(library, values, mask, layout, by_class, input.dtype, factor, scored)


def _after(library: Library, values: Array, axis: int, context: int) -> Array:
    """Return which steps along an axis come after the first ones."""
    steps = values.shape[axis]
    if context > steps:
        raise ValueError(f"context must be at most the number of steps, {steps}; got {context}")
    scored = library.arange(steps, values) >= context
    axes = tuple(steps if i == axis else 1 for i in range(values.ndim))
    return library.xp.reshape(scored, axes)


def sums_elsewhere(prepared: PreparedInput, others: Any, per_neuron: bool) -> list[Array]:
    """Return the events and entries of the rest of a batch, in the dtype to compute in."""
    if len(others) != 2:
        raise ValueError(f"others must be a pair, events and entries; got {len(others)}")
    values, sums = prepared.values, []
    shape: tuple[int, ...] = (values.shape[CLASS],) if per_neuron else ()
    expected = {"[neuron]" if per_neuron else "a scalar": shape}
    for name, given in zip(("events", "entries"), others, strict=True):
        total = asarray_like(prepared.library, values, given, "others")
        check_shape(total, "others", name, expected)
        sums.append(prepared.library.xp.astype(total, values.dtype, copy=False))
    return sums
