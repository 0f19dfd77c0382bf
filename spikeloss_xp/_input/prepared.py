"""The input and mask of a loss, converted to the dtype and axes that losses compute with."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    both,
    concrete_or_none,
    floating,
    shape_of,
)
from spikeloss_xp._checks import check_range, check_shape
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._typing import Array, Namespace, PerClass, Pullback
from spikeloss_xp.backends._axis import Axis


class Reading(NamedTuple):
    """The values that a readout computed from a batch of spikes, with their units and masks.

    Attributes
    ----------
    u : array
        The values, such as spike counts, with the axes batch, class and time in the same order as
        in the input. The time axis has length 1 unless there is a value for each time step.
    classes : Axis
        The class axis. For example, ``classes.sum(u)`` returns the sum over the classes.
    per_unit : float or array
        The number by which a spike count is divided to obtain `u`. For the firing rate of a single
        neuron, `per_unit` is the number of time steps.
    saturated : float or array
        The value of `u` for a neuron that fires at every step. For latencies, the value of `u` for
        a neuron that never fires.
    counts : array or None
        The spike counts from which `u` is computed, for comparisons that must not depend on
        rounding.
    duration : float or array
        The number of time steps over which a count or rate is computed. If a class has several
        neurons, the numbers of time steps of these neurons are added.
    mask : array or None
        True for each value in `u` that is computed from at least one unmasked entry. The class axis
        of the mask may have length 1.
    class_mask : array or None
        True for unmasked classes, with the axes of `u`. None if no class is masked, or if the loss
        has a separate term for each class.
    """

    u: Array
    classes: Axis
    adapter: Adapter
    xp: Namespace
    per_unit: Any = 1.0
    saturated: Any = 1.0
    counts: Array | None = None
    duration: Any = 1.0
    mask: Array | None = None
    class_mask: Array | None = None

    def per_class(self, values: PerClass) -> Any:
        """Return a number, or a tuple with a number for each class as an array like `u`."""
        if not isinstance(values, tuple):
            return values
        shape = [1] * self.u.ndim
        shape[self.classes.index] = -1
        return self.xp.reshape(self.adapter.constants(values, self.u), tuple(shape))


@dataclass(slots=True)
class Trains:
    """Spike trains: an input, or a part of an input, in the dtype and axes used for computation.

    Attributes
    ----------
    values : array
        The input in the dtype used for computation, with the axes batch, class and time in the same
        order as in the input. Masked entries may have any value. In trains that are passed to the
        `read` method of a loss, however, masked entries are 0.
    mask : array or None
        True for unmasked entries, with the axes of `values`. If the mask is constant along an axis,
        this axis of the mask may have length 1.
    layout : Layout or None
        The layout of the input. None if the axes of the input are not converted.
    dtype : dtype
        The dtype of the input as it was passed.
    time, classes : Axis
        The time axis and the class axis. For example, ``time.sum(values)`` returns the spike
        counts.
    invalid : array or None
        True for samples with an invalid length, with the axes of `values`.
    after_context : array or None
        True for the time steps that contribute terms to the loss. False for the first time steps if
        they belong to an earlier segment. All axes except the time axis have length 1.
    num_classes : int
        The number of classes. Each class is a neuron or a group of neurons.
    """

    adapter: Adapter
    values: Array
    mask: Array | None
    layout: Any
    dtype: Any
    invalid: Array | None = None
    after_context: Array | None = None
    num_classes: int = 0
    # The mask that `factor` converted last, and the result of the conversion.
    _converted: tuple[Array, Array] | None = None
    xp: Namespace = field(init=False)
    time: Axis = field(init=False)
    classes: Axis = field(init=False)

    def __post_init__(self) -> None:
        self.xp = self.adapter.xp
        if self.layout is not None:
            self.time = self.adapter.axes[self.layout.time]
            self.classes = self.adapter.axes[self.layout.class_axis]

    def part(self, values: Array, mask: Array | None) -> "Trains":
        """Return trains with the same layout and other values, such as the values of a chunk."""
        if values is self.values and mask is self.mask:
            return self
        masks = self.invalid, self.after_context
        same = self.num_classes, self._converted
        return Trains(self.adapter, values, mask, self.layout, self.dtype, *masks, *same)

    def filled(self) -> "Trains":
        """Return the trains with masked entries set to 0."""
        if self.mask is None:
            return self
        values = self.adapter.masked(self.values, self.factor(self.mask))
        return self.part(values, self.mask)

    def reading(self, u: Array, **units: Any) -> Reading:
        """Return `u` as a `Reading`.

        A value in `u` is masked if it is computed only from masked entries.
        """
        mask, time = self.mask, self.time
        if mask is not None and time.length(u) == 1:
            mask = time.any(mask)
        return Reading(u, self.classes, self.adapter, self.xp, mask=mask, **units)

    def mark_invalid(self) -> None:
        """Multiply the values of samples with an invalid length by NaN."""
        self.values = self.marked(self.values)

    def marked(self, values: Array) -> Array:
        """Return `values`, multiplied by NaN for samples with an invalid length."""
        if self.invalid is None:
            return values
        one, nan = (self.adapter.scalar(values, x) for x in (1.0, math.nan))
        # With `where` instead of a product, the gradient of invalid samples would be 0 and not NaN.
        return values * self.adapter.xp.where(self.invalid, nan, one)

    def factor(self, mask: Array) -> Array:
        """Return a mask in the form that is fastest for `adapter.masked`."""
        if not self.adapter.on_host:
            return mask
        if self._converted is None or self._converted[0] is not mask:
            self._converted = mask, self.adapter.xp.astype(mask, self.values.dtype)
        return self._converted[1]

    def to_input(self) -> Pullback:
        """Return the pullback from `values` to the input.

        The pullback does not keep `values` in memory. The gradient that is passed to the pullback
        must already be 0 for masked entries.
        """
        adapter, layout, dtype = self.adapter, self.layout, self.dtype

        def pullback(gradient: Array) -> Array:
            if layout is not None and len(layout.shape) != 3:
                gradient = layout.restored(adapter, gradient)
            if dtype != gradient.dtype and adapter.xp.isdtype(dtype, "real floating"):
                return adapter.xp.astype(gradient, dtype)
            return gradient

        return pullback


def prepare_input(
    input: Array,
    where: Any,
    lengths: Any,
    time_axis: int,
    smallest_rank: int = 3,
    num_classes: int | None = None,
    context: int = 0,
) -> Trains:
    """Check an input and its mask, and convert them to trains.

    The first `context` time steps contribute no terms to the loss.
    """
    adapter = adapter_of(input).specialized_for(input)
    values, mask, invalid = floating(adapter, input), None, None
    shape = tuple(input.shape)
    if len(shape) < smallest_rank:
        raise ValueError(_lacks_axes(shape, smallest_rank, time_axis))
    layout = Layout.of(shape, time_axis, "input")
    if where is not None or lengths is not None:
        mask, invalid = mask_of(adapter, layout, values, where, lengths)
    if len(shape) != 3:
        values = layout.collapsed(adapter, values)
    if mask is not None:
        mask = layout.collapsed(adapter, mask)
        # The time and batch axes of the mask get their full lengths, so that unmasked steps and
        # samples can be counted.
        full = list(mask.shape)
        full[layout.time], full[layout.batch_axis] = layout.steps, layout.batch
        mask = adapter.xp.broadcast_to(mask, tuple(full))
    after_context = _after(adapter, values, layout.time, context) if context else None
    number = layout.neurons if num_classes is None else layout.number_of_classes(num_classes)
    masks = invalid, after_context
    return Trains(adapter, values, mask, layout, input.dtype, *masks, number)


def without_samples(input: Array, time_axis: int, target: Any) -> Trains:
    """Return the trains of an input whose batch is empty."""
    shape = tuple(input.shape)
    if target is not None and 0 not in shape_of(target):
        raise ValueError(
            f"input of shape {shape} has no samples, but target has shape {shape_of(target)}"
        )
    adapter = adapter_of(input).specialized_for(input)
    layout = Layout.of(shape, time_axis, samples=0)
    values = layout.collapsed(adapter, floating(adapter, input))
    return Trains(adapter, values, None, layout, input.dtype, num_classes=layout.neurons)


def check_number(prepared: Trains, values: Any, argument: str, each: str = "class") -> None:
    """Raise an error unless a hyper-parameter holds one number, or one number for each class."""
    if isinstance(values, tuple) and len(values) != prepared.num_classes:
        raise ValueError(
            f"{argument} must be one number or {prepared.num_classes} numbers (one for each "
            f"{each}); got {len(values)}{prepared.layout.hint_at_time((len(values),))}"
        )


def _lacks_axes(shape: tuple[int, ...], smallest_rank: int, time_axis: int) -> str:
    """Return the error message for an input with fewer axes than `smallest_rank`."""
    axes = "[batch, *space, time]" if smallest_rank == 2 else "[batch, class or *space, time]"
    hint = ""
    if len(shape) == 2:
        one_step = ("[None]", "[:, None]", "[..., None]")[time_axis % 3]
        one_sample = "[:, None]" if time_axis % 3 == 0 else "[None]"
        hint = (
            " (if these are counts or rates without a time axis, pass them as one time step, "
            f"input{one_step}, and divide counts by the number of steps if the loss reads rates; "
            f"if the batch axis is missing, pass input{one_sample}, and add the axis to the target "
            "too)"
        )
    return (
        f"input must have at least {smallest_rank} axes, {axes} in the order that time_axis "
        f"defines; got shape {shape}{hint}"
    )


def _after(adapter: Adapter, values: Array, axis: int, context: int) -> Array:
    """Return a mask that is False for the first `context` time steps and True for later steps."""
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
    """Return the mask of an input, and an array that is True for samples with an invalid length.

    The mask has the axes of the input. If the mask is constant along an axis, this axis may have
    length 1. The second array has the axes of `Trains.values`. `names` holds the names of the
    arguments `where` and `lengths` in error messages.
    """
    mask, invalid = None, None
    if lengths is not None:
        mask, invalid = _mask_of_lengths(adapter, layout, values, lengths, names[1])
    if where is not None:
        mask = both(mask, _mask_of_where(adapter, layout, values, where, names[0]))
    return mask, invalid


def _mask_of_where(adapter: Adapter, layout: Layout, values: Array, where: Any, name: str) -> Array:
    mask = asarray_like(adapter, values, where, name)
    if not adapter.xp.isdtype(mask.dtype, "bool"):
        raise TypeError(f"{name} must be bool, with True for each entry to keep; got {mask.dtype}")
    if mask.ndim != len(layout.shape) or not all(
        n in (1, whole) for n, whole in zip(mask.shape, layout.shape, strict=True)
    ):
        expected = {
            "[batch]": (layout.batch,),
            "[time], for all samples": (layout.steps,),
            "[batch, time], in the order of input": layout.with_time(layout.batch),
            "[1, time], in the order of input": layout.with_time(1),
            "the shape of input, where any axis may have length 1": layout.shape,
        }
        check_shape(mask, name, "bools", expected, layout.hint_at_neurons)
    mask = layout.broadcastable(adapter, mask)
    space = layout.space_axes()
    if len(space) > 1 and any(mask.shape[axis] > 1 for axis in space):
        full = [n if i in space else mask.shape[i] for i, n in enumerate(layout.shape)]
        mask = adapter.xp.broadcast_to(mask, tuple(full))
    return mask


def _mask_of_lengths(
    adapter: Adapter, layout: Layout, values: Array, lengths: Any, name: str
) -> tuple[Array, Array | None]:
    xp = adapter.xp
    number = asarray_like(adapter, values, lengths, name)
    if not xp.isdtype(number.dtype, "integral"):
        raise TypeError(f"{name} must hold integers (numbers of time steps); got {number.dtype}")
    check_shape(number, name, "integers", {"[batch]": (layout.batch,)})
    checked = adapter.are_within(number, 0, layout.steps + 1)
    if not checked:
        known = concrete_or_none(lengths)
        checked = known is not None
        check_range(known, layout.steps, name)

    step = adapter.arange(layout.steps, values)
    axes = tuple(layout.steps if i == layout.time_axis else 1 for i in range(len(layout.shape)))
    number = layout.broadcastable(adapter, xp.astype(number, step.dtype, copy=False))
    mask = xp.reshape(step, axes) < number
    if checked:
        return mask, None
    invalid = number != number % (layout.steps + 1)
    return mask | invalid, layout.collapsed(adapter, invalid)
