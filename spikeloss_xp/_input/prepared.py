"""The input of a loss: its axes, its values and its mask, in the axes that the loss computes in."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from spikeloss_xp._arrays import (
    Adapter,
    adapter_of,
    asarray_like,
    check_range,
    check_shape,
    concrete_or_none,
    floating,
    shape_of,
)
from spikeloss_xp._typing import Array


def class_axis(time: int) -> int:
    """Return the class axis of an array with axes batch, class and time, given that of time."""
    return 1 if time == 2 else 2


class Layout(NamedTuple):
    """The shape of an input and its time axis.

    The first of the other axes is the batch; the rest is space, which is collapsed into one class
    axis. A loss computes with batch, class and time in the order of the input: time before the
    batch, between batch and class, or last. So do targets and terms have their time axis.

    Attributes
    ----------
    shape : tuple of int
        The shape of the input.
    time_axis, batch_axis : int
        The axes of time steps and of samples, counted from the first.
    time, class_axis : int
        The axes of time and class of arrays with axes batch, class and time.
    batch, neurons, steps : int
        The number of samples, of neurons of a sample, and of time steps.
    has_time : bool
        Whether there is a time axis. Spike times have none: the axis of the spikes, or one that the
        input lacks, has its place.
    """

    shape: tuple[int, ...]
    time_axis: int
    batch_axis: int
    time: int
    class_axis: int
    batch: int
    neurons: int
    steps: int
    has_time: bool = True

    @classmethod
    def of(cls, shape: tuple[int, ...], time_axis: int, argument: str) -> "Layout":
        """Check the shape of an argument and the time axis against each other."""
        if not -len(shape) <= time_axis < len(shape):
            raise ValueError(f"time_axis={time_axis} is not an axis of {argument} of shape {shape}")
        if 0 in shape:
            raise ValueError(f"{argument} has no elements: got shape {shape}")
        return cls.of_shape(shape, time_axis % len(shape))

    @classmethod
    def of_shape(cls, shape: tuple[int, ...], time_axis: int) -> "Layout":
        """Return the layout of a shape whose time axis is counted from the first."""
        batch_axis = 1 if time_axis == 0 else 0
        batch, steps = shape[batch_axis], shape[time_axis]
        neurons = math.prod(shape[1:time_axis] + shape[max(time_axis, 1) + 1 :])
        time = time_axis if time_axis < min(2, len(shape) - 1) else 2
        of_class = 1 if time == 2 else 2
        return cls(shape, time_axis, batch_axis, time, of_class, batch, neurons, steps)

    def space_axes(self) -> tuple[int, ...]:
        """Return the axes besides batch and time, of which the first may be that of the classes."""
        absent = (self.batch_axis, self.time_axis)
        return tuple(axis for axis in range(len(self.shape)) if axis not in absent)

    def space(self) -> tuple[int, ...]:
        """Return the lengths of `space_axes`."""
        return tuple(self.shape[axis] for axis in self.space_axes())

    def classes(self, number: int | None) -> int:
        """Return the number of classes: of neurons, or of groups of neurons if it is given."""
        if number is None:
            return self.neurons
        if self.neurons % number:
            raise ValueError(
                f"num_classes={number} must divide the number of neurons, {self.neurons} in an "
                f"input of shape {self.shape} whose time axis is {self.time_axis}"
            )
        return number

    def collapsed(self, adapter: Adapter, x: Array) -> Array:
        """Return an input, or a mask of its rank, with axes batch, class and time."""
        if x.ndim == 3:
            return x
        if self.time == 2:
            x = adapter.moveaxis(x, self.time_axis, -1)
            shape = (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
        else:
            shape = (*x.shape[:2], math.prod(x.shape[2:]))
        return adapter.xp.reshape(x, shape)

    def input_axes(self, adapter: Adapter, x: Array) -> Array:
        """Return an array with axes batch, class and time in the axes of the input."""
        if len(self.shape) == 3:
            return x
        if self.time != 2 or not self.has_time:
            return adapter.xp.reshape(x, self.shape)
        x = adapter.xp.reshape(x, (self.batch, *self.space(), self.steps))
        return adapter.moveaxis(x, -1, self.time_axis)

    def with_time(self, *shape: int) -> tuple[int, ...]:
        """Return the shape of a target or of terms that have a time axis too."""
        steps = (self.steps,) if self.has_time else ()
        return (*shape[: self.time], *steps, *shape[self.time :])

    def target_axes(self, ndim: int, *, class_axis: bool) -> tuple[int | None, ...]:
        """Return which axis of the input each axis of a target is; None for an axis of classes."""
        axes: list[int | None] = [self.batch_axis, None] if class_axis else [self.batch_axis]
        if ndim > len(axes):
            axes.insert(self.time, self.time_axis)
        return tuple(axes)

    def mask_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return which axis of the input each axis of a mask is."""
        if len(shape) == len(self.shape):
            return tuple(range(len(shape)))
        if len(shape) == 1:  # of two equal sizes it is the batch
            return (self.batch_axis if shape == (self.batch,) else self.time_axis,)
        if shape in (self.with_time(self.batch), self.with_time(1)):
            return tuple(sorted((self.batch_axis, self.time_axis)))
        return (self.batch_axis, *self.space_axes()[1:])  # of pixels

    def broadcastable(self, adapter: Adapter, x: Array) -> Array:
        """Give a mask the axes of the input; those that it lacks have length 1."""
        lengths = dict(zip(self.mask_axes(tuple(x.shape)), x.shape, strict=True))
        shape = tuple(lengths.get(axis, 1) for axis in range(len(self.shape)))
        return adapter.xp.reshape(x, shape)

    def mask_of_blocks(self, adapter: Adapter, x: Array) -> Array:
        """Return a mask of the samples, of samples and steps, or of all entries.

        A block of it has one meaning, even with as many samples as steps, or steps as pixels.
        """
        x = self.broadcastable(adapter, x)
        if any(x.shape[axis] > 1 for axis in self.space_axes()):
            return adapter.xp.broadcast_to(x, self.shape)
        shape = list(x.shape)
        shape[self.batch_axis] = self.batch
        timed = shape[self.time_axis] > 1
        x = adapter.xp.broadcast_to(x, tuple(shape))
        return adapter.xp.reshape(x, self.with_time(self.batch) if timed else (self.batch,))

    def time_axis_for(self, shape: tuple[int, ...], *, class_axis: bool) -> int | None:
        """Return another time axis with which a target would have this shape, if there is one."""
        for axis in (0, 1, len(self.shape) - 1) if self.has_time else ():
            other = Layout.of_shape(self.shape, axis)
            once = (other.batch, other.neurons) if class_axis else (other.batch,)
            if axis != self.time_axis and shape in (once, other.with_time(*once)):
                return axis
        return None

    def hint_at_time(self, shape: tuple[int, ...]) -> str:
        """Return a hint if an array of the classes is as long as time, which may be the classes."""
        if not self.has_time or tuple(shape) != (self.steps,):
            return ""
        return f" (as long as axis {self.time_axis} of input, which is time: see time_axis)"


@dataclass(slots=True)
class Prepared:
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
    classes : int
        The number of classes: of neurons, or of groups of neurons.
    pixels : Pixels or None
        With labels for each pixel, the axes of the input; `layout` is that of the pixels then.
    """

    adapter: Adapter
    values: Array
    mask: Array | None
    layout: Any
    dtype: Any
    valid_or_nan: Array | None = None
    after_context: Array | None = None
    classes: int = 0
    pixels: Any = None

    def gradient(self, cotangent: Array) -> Array:
        """Return the gradient with respect to the input, given that with respect to `values`.

        It has the dtype of the input, or of `values` if the input is bool or integer.
        """
        adapter, layout = self.adapter, self.layout if self.pixels is None else self.pixels.source
        if layout is not None and self.mask is not None:
            cotangent = fill_masked(adapter, cotangent, self.mask)
        if layout is not None and len(layout.shape) != 3:
            cotangent = layout.input_axes(adapter, cotangent)
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
    time_axis: int,
    smallest_rank: int = 3,
    num_classes: int | None = None,
    context: int = 0,
    argument: str = "input",
) -> Prepared:
    """Return an input with its mask. The first `context` steps have no terms."""
    adapter = adapter_of(input, argument).of_call(input)
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
    if len(shape) != 3:
        values = layout.collapsed(adapter, values)
    if mask is not None:
        mask = layout.collapsed(adapter, mask)
        # Durations are sums of the mask over time, and samples with a term are counted.
        full = list(mask.shape)
        full[layout.time], full[int(layout.time == 0)] = layout.steps, layout.batch
        mask = adapter.xp.broadcast_to(mask, tuple(full))
        values = fill_masked(adapter, values, mask)
    after_context = _after(adapter, values, layout.time, context) if context else None
    classes = layout.neurons if num_classes is None else layout.classes(num_classes)
    masks = valid_or_nan, after_context
    return Prepared(adapter, values, mask, layout, input.dtype, *masks, classes)


def prepare_times(input: Array, where: Any, lengths: Any, num_classes: int | None) -> Prepared:
    """Return spike times with the mask of their samples, in the axes of spikes in bins."""
    adapter, shape = adapter_of(input), tuple(input.shape)
    if len(shape) not in (2, 3) or adapter.xp.isdtype(input.dtype, "bool"):
        raise ValueError(
            "input must hold spike times, [batch, class] or [batch, class, spike]; got "
            f"{input.dtype} of shape {shape}"
        )
    if lengths is not None:
        raise TypeError("spike times take no lengths: NaN and infinity are padding")
    if where is not None and shape_of(where) != shape[:1]:
        raise ValueError(
            f"where must have shape {shape[:1]}, [batch], with spike times: NaN and infinity "
            "are padding"
        )
    check_not_trains(adapter, input, "input")
    times = input if len(shape) == 3 else adapter.xp.expand_dims(input, axis=-1)
    prepared = prepare_input(times, where, None, time_axis=-1)
    prepared.layout = prepared.layout._replace(shape=shape, has_time=False)
    prepared.classes = prepared.layout.classes(num_classes)
    if prepared.mask is not None:  # along classes and spikes it is constant
        prepared.mask = prepared.mask[:, :1, :1]
    return prepared


def check_not_trains(adapter: Adapter, times: Array, argument: str) -> None:
    """Raise if all spike times are 0 or 1, and three of one train are equal: spikes in bins."""
    known = adapter.concrete_or_none(times)
    if known is None or known.ndim < 3 or not _only_0_and_1(known[:1]) or not _only_0_and_1(known):
        return
    if max((known == value).sum(axis=-1).max(initial=0) for value in (0, 1)) > 2:
        raise ValueError(
            f"{argument} must hold spike times; got only 0 and 1 of shape {known.shape}, as spikes "
            "in bins are: use the loss of the same name without sx.times, or convert them to times"
        )


def _only_0_and_1(known: np.ndarray) -> bool:
    return bool(((known == 0) | (known == 1) | ~np.isfinite(known)).all())


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
        "[time], the steps of all samples": (layout.steps,),
        "[batch, time], in the order of input": layout.with_time(layout.batch),
        "the same of all samples": layout.with_time(1),
        "[batch, *space] without the classes": (layout.batch, *layout.space()[1:]),
        "the shape of input": layout.shape,
    }
    check_shape(mask, name, "bools", expected)
    mask = layout.broadcastable(adapter, mask)
    if len(layout.space()) > 1 and any(mask.shape[axis] > 1 for axis in layout.space_axes()):
        space = layout.space_axes()  # a mask of pixels lacks the classes
        full = [n if i in space else mask.shape[i] for i, n in enumerate(layout.shape)]
        mask = adapter.xp.broadcast_to(mask, tuple(full))
    return mask


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
    return mask | ~possible, xp.where(possible, adapter.scalar(values, 1.0), math.nan)


def both(mask: Array | None, other: Array | None) -> Array | None:
    """Return where two masks are True; None stands for a mask that is True everywhere."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def fill_masked(adapter: Adapter, x: Array, mask: Array) -> Array:
    """Return `x` with 0 in the masked entries.

    By selection: multiplying by 0 would keep NaN, in the value and in the gradient.
    """
    return adapter.xp.where(mask, x, adapter.operand(x, 0.0))
