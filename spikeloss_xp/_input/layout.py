"""The layout of an input: which of its axes are the batch, class and time axes.

Losses compute with arrays that have the three axes batch, class and time, in the same order as in
the input.
"""

import math
from typing import NamedTuple

from spikeloss_xp._arrays import Adapter
from spikeloss_xp._typing import Array


class Layout(NamedTuple):
    """The shape of an input and the positions of its batch and time axes.

    The batch axis is the first axis of the input that is not the time axis. All axes except the
    batch and time axes are spatial axes, which are flattened into one class axis. The time axis of
    targets and terms has the same position as the time axis of the input.

    Attributes
    ----------
    shape : tuple of int
        The shape of the input.
    time_axis, batch_axis : int
        The positions of the time and batch axes in the input. They are not negative. In arrays
        with the axes batch, class and time, the batch axis is also at the position `batch_axis`.
    time, class_axis : int
        The positions of the time and class axes in arrays with the axes batch, class and time.
    batch, neurons, steps : int
        The number of samples, the number of neurons of a sample, and the number of time steps.
    has_time : bool
        Whether the input has a time axis. An input that holds spike times has a spike axis, which
        is treated like a time axis.
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
    def of(
        cls, shape: tuple[int, ...], time_axis: int, argument: str = "input", *, samples: int = 1
    ) -> "Layout":
        """Check the shape and time axis of an argument, and return its layout.

        The argument must have at least `samples` samples.
        """
        if not -len(shape) <= time_axis < len(shape):
            raise ValueError(
                f"time_axis={time_axis} is not an axis of {argument}, which has shape {shape}"
            )
        time_axis %= len(shape)
        batch_axis = 1 if time_axis == 0 else 0
        if 0 in shape and (samples or 0 in shape[:batch_axis] + shape[batch_axis + 1 :]):
            raise ValueError(f"{argument} has no elements: got shape {shape}")
        if len(shape) < 2:
            raise ValueError(f"{argument} must have a batch and a time axis; got shape {shape}")
        batch, steps = shape[batch_axis], shape[time_axis]
        neurons = math.prod(shape[1:time_axis] + shape[max(time_axis, 1) + 1 :])
        time = time_axis if time_axis < min(2, len(shape) - 1) else 2
        class_axis = 1 if time == 2 else 2
        return cls(shape, time_axis, batch_axis, time, class_axis, batch, neurons, steps)

    def space_axes(self) -> tuple[int, ...]:
        """Return the positions of the spatial axes: all axes of the input except batch and time."""
        others = (self.batch_axis, self.time_axis)
        return tuple(axis for axis in range(len(self.shape)) if axis not in others)

    def space(self) -> tuple[int, ...]:
        """Return the lengths of the axes in `space_axes`."""
        return tuple(self.shape[axis] for axis in self.space_axes())

    def number_of_classes(self, num_classes: int) -> int:
        """Return `num_classes`, or raise an error if it does not divide the number of neurons."""
        if self.neurons % num_classes:
            raise ValueError(
                f"num_classes={num_classes} must divide the number of neurons, {self.neurons}, of "
                f"an input of shape {self.shape} with time axis {self.time_axis}"
            )
        return num_classes

    # Axis conversion

    def collapsed(self, adapter: Adapter, x: Array) -> Array:
        """Convert an array with the axes of the input to the axes batch, class and time."""
        if x.ndim == 3:
            return x
        if self.time == 2:
            x = adapter.moveaxis(x, self.time_axis, -1)
            shape = (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
        else:
            shape = (*x.shape[:2], math.prod(x.shape[2:]))
        return adapter.xp.reshape(x, shape)

    def restored(self, adapter: Adapter, x: Array) -> Array:
        """Convert an array with the axes batch, class and time to the axes of the input."""
        if len(self.shape) == 3:
            return x
        if self.time != 2 or not self.has_time:
            return adapter.xp.reshape(x, self.shape)
        x = adapter.xp.reshape(x, (self.batch, *self.space(), self.steps))
        return adapter.moveaxis(x, -1, self.time_axis)

    def expanded(self, adapter: Adapter, x: Array, *, with_class: bool) -> Array:
        """Return a target with the axes batch, class and time. Missing axes get length 1."""
        if with_class:
            return adapter.xp.expand_dims(x, axis=self.time) if x.ndim == 2 else x
        if x.ndim == 1:
            return adapter.xp.reshape(x, (1, -1, 1) if self.time == 0 else (-1, 1, 1))
        return adapter.xp.expand_dims(x, axis=self.class_axis)

    def squeezed(
        self, adapter: Adapter, x: Array, *, with_class: bool = True, with_time: bool = True
    ) -> Array:
        """Remove the class axis, the time axis or both. A removed axis must have length 1."""
        axes = () if with_class else (self.class_axis,)
        axes = axes if with_time else (*axes, self.time)
        return adapter.xp.squeeze(x, axis=axes) if axes else x

    def per_class(self, adapter: Adapter, x: Array) -> Array:
        """Reshape an array of shape ``[class]`` to the axes batch, class and time."""
        return adapter.xp.reshape(x, (1, -1, 1) if self.class_axis == 1 else (1, 1, -1))

    def with_time(self, *shape: int) -> tuple[int, ...]:
        """Insert the number of time steps into a shape that has no time axis."""
        steps = (self.steps,) if self.has_time else ()
        return (*shape[: self.time], *steps, *shape[self.time :])

    # Targets and masks ----------------------------------------------------------------------------

    def target_axes(self, ndim: int, *, with_class: bool) -> tuple[int | None, ...]:
        """Return the axis of the input for each axis of a target, and None for its class axis."""
        axes: list[int | None] = [self.batch_axis, None] if with_class else [self.batch_axis]
        if ndim > len(axes):
            axes.insert(self.time, self.time_axis)
        return tuple(axes)

    def mask_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return, for each axis of a mask, the corresponding axis of the input."""
        if len(shape) == len(self.shape):
            return tuple(range(len(shape)))
        # If the numbers of samples and steps are equal, a mask with one axis has one entry per
        # sample.
        if len(shape) == 1:
            return (self.batch_axis if shape == (self.batch,) else self.time_axis,)
        return tuple(sorted((self.batch_axis, self.time_axis)))

    def broadcastable(self, adapter: Adapter, x: Array) -> Array:
        """Return a mask with all axes of the input. Missing axes get length 1."""
        lengths = dict(zip(self.mask_axes(tuple(x.shape)), x.shape, strict=True))
        shape = tuple(lengths.get(axis, 1) for axis in range(len(self.shape)))
        return adapter.xp.reshape(x, shape)

    def unambiguous(self, adapter: Adapter, x: Array) -> Array:
        """Return a mask of shape ``[batch]`` or ``[batch, time]``, or with the shape of the input.

        The returned mask can be split into the same blocks as the input. A block of a mask of shape
        ``[time]`` could be mistaken for a mask of shape ``[batch]``.
        """
        x = self.broadcastable(adapter, x)
        timed = x.shape[self.time_axis] > 1
        if any(x.shape[axis] > 1 for axis in self.space_axes()):
            return adapter.xp.broadcast_to(x, self.shape)
        shape = list(x.shape)
        shape[self.batch_axis] = self.batch
        x = adapter.xp.broadcast_to(x, tuple(shape))
        return adapter.xp.reshape(x, self.with_time(self.batch) if timed else (self.batch,))

    # Error hints ----------------------------------------------------------------------------------

    def time_axis_for(self, shape: tuple[int, ...], *, with_class: bool) -> int | None:
        """Return a time axis, other than `time_axis`, that would explain the shape of a target."""
        for axis in (0, 1, len(self.shape) - 1) if self.has_time else ():
            other = Layout.of(self.shape, axis)
            once = (other.batch, other.neurons) if with_class else (other.batch,)
            if axis != self.time_axis and shape in (once, other.with_time(*once)):
                return axis
        return None

    def hint_at_neurons(self, shape: tuple[int, ...]) -> str:
        """Return a hint if a mask has only the spatial axes of the input, else ""."""
        axes = range(len(self.shape))
        index = ", ".join(":" if axis in self.space_axes() else "None" for axis in axes)
        hint = f" (to leave out whole neurons, add the other axes: [{index}])"
        return hint if shape == self.space() else ""

    def hint_at_time(self, shape: tuple[int, ...]) -> str:
        """Return a hint if an array with one axis has one entry for each time step, else ""."""
        if not self.has_time or tuple(shape) != (self.steps,):
            return ""
        return f" (it is as long as the time axis of input, axis {self.time_axis}: see time_axis)"
