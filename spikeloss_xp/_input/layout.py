"""The axes of an input: which are batch, class and time."""

import math
from typing import NamedTuple

from spikeloss_xp._arrays import Adapter
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
        return cls(shape, time_axis, batch_axis, time, class_axis(time), batch, neurons, steps)

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
        space = [n for axis, n in enumerate(self.shape[1:], 1) if axis != self.time_axis]
        return adapter.moveaxis(
            adapter.xp.reshape(x, (self.batch, *space, self.steps)), -1, self.time_axis
        )

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
