"""The axes of an input: which are batch, class and time."""

import math
from typing import NamedTuple

from spikeloss_xp._arrays import Adapter
from spikeloss_xp._typing import Array

CLASS = 1  # the class axis of arrays with axes [batch, class, time]


class Layout(NamedTuple):
    """The shape of an input and its time axis.

    The first of the other axes is the batch; the rest is space, which is collapsed into one class
    axis. Targets and terms have their time axis where the input has it: before the batch, between
    batch and class, or last.

    Attributes
    ----------
    shape : tuple of int
        The shape of the input.
    time_axis, batch_axis : int
        The axes of time steps and of samples, counted from the first.
    batch, neurons, steps : int
        The number of samples, of neurons of a sample, and of time steps.
    """

    shape: tuple[int, ...]
    time_axis: int
    batch_axis: int
    batch: int
    neurons: int
    steps: int

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
        return cls(shape, time_axis, batch_axis, batch, math.prod(shape) // (batch * steps), steps)

    def time_in_target(self) -> int:
        """Return the time axis among batch, class and time."""
        return self.time_axis if self.time_axis < min(2, len(self.shape) - 1) else -1

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

    def batch_class_time(self, adapter: Adapter, x: Array) -> Array:
        """Return an input, or a mask of its rank, with axes `[batch, class, time]`."""
        last = self.time_axis == len(self.shape) - 1
        moved = x if last else adapter.moveaxis(x, self.time_axis, -1)
        if moved.ndim == 3:
            return moved
        shape = moved.shape
        return adapter.xp.reshape(moved, (shape[0], math.prod(shape[1:-1]), shape[-1]))

    def input_axes(self, adapter: Adapter, x: Array) -> Array:
        """Return an array with axes `[batch, class, time]` in the axes of the input."""
        if x.ndim != len(self.shape):
            others = (self.batch_axis, self.time_axis)
            space = [n for axis, n in enumerate(self.shape) if axis not in others]
            x = adapter.xp.reshape(x, (x.shape[0], *space, x.shape[-1]))
        return adapter.moveaxis(x, -1, self.time_axis)

    def with_time(self, *shape: int) -> tuple[int, ...]:
        """Return the shape of a target or of terms that have a time axis too."""
        before = self.time_in_target()
        if before == -1:
            return (*shape, self.steps)
        return (*shape[:before], self.steps, *shape[before:])

    def target_axes(self, ndim: int, *, class_axis: bool) -> tuple[int | None, ...]:
        """Return which axis of the input each axis of a target is; None for an axis of classes."""
        axes: list[int | None] = [self.batch_axis, None] if class_axis else [self.batch_axis]
        if ndim > len(axes):
            before = self.time_in_target()
            axes.insert(len(axes) if before == -1 else before, self.time_axis)
        return tuple(axes)

    def mask_axes(self, ndim: int) -> tuple[int, ...]:
        """Return which axis of the input each axis of a mask is."""
        if ndim == len(self.shape):
            return tuple(range(ndim))
        axes = (self.batch_axis,) if ndim == 1 else (self.batch_axis, self.time_axis)
        return tuple(sorted(axes))

    def broadcastable(self, adapter: Adapter, x: Array) -> Array:
        """Give an array of the batch, or of batch and time, the axes of the input.

        The other axes have length 1.
        """
        if x.ndim == len(self.shape):
            return x
        lengths = {self.batch_axis: self.batch}
        if x.ndim == 2:
            lengths[self.time_axis] = self.steps
        shape = tuple(lengths.get(axis, 1) for axis in range(len(self.shape)))
        return adapter.xp.reshape(x, shape)

    def time_axis_for(self, shape: tuple[int, ...], *, class_axis: bool) -> int | None:
        """Return another time axis with which a target would have this shape, if there is one."""
        for axis in (0, 1, len(self.shape) - 1):
            other = Layout.of_shape(self.shape, axis)
            once = (other.batch, other.neurons) if class_axis else (other.batch,)
            if axis != self.time_axis and shape in (once, other.with_time(*once)):
                return axis
        return None

    def hint_at_time(self, shape: tuple[int, ...]) -> str:
        """Return a hint if an array of the classes is as long as time, which may be the classes."""
        if tuple(shape) != (self.steps,):
            return ""
        return f" (as long as axis {self.time_axis} of input, which is time: see time_axis)"

    def time_last(self, adapter: Adapter, target: Array) -> Array:
        """Move the time axis of a target, or of terms in the layout of the input, to the end."""
        return adapter.moveaxis(target, self.time_in_target(), -1)

    def time_as_in_input(self, adapter: Adapter, terms: Array) -> Array:
        """Move the time axis of terms from the end to its place in the input."""
        return adapter.moveaxis(terms, -1, self.time_in_target())
