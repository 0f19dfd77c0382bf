"""Where batch, class and time are."""

import math
from dataclasses import dataclass

from spikeloss_xp import _arrays
from spikeloss_xp._typing import Array, Namespace, Pullback

CLASS = 1  # the class axis, after an array was brought to batch, class and time


@dataclass(frozen=True)
class Layout:
    """The shape of an input and the axis of it that is time.

    The first of the remaining axes is the batch; the others are space, which is collapsed into
    one class axis. Targets and terms have time where the input has it: before the batch, between
    batch and class, or last.
    """

    shape: tuple[int, ...]
    time_axis: int

    @classmethod
    def of(cls, input: Array, time_axis: int, *, smallest_rank: int) -> "Layout":
        """Check the shape of an input and the axis against each other."""
        shape = tuple(input.shape)
        axes = "[batch, *space, time]" if smallest_rank == 2 else "[batch, class or *space, time]"
        if len(shape) < smallest_rank:
            raise ValueError(
                f"input must have at least {smallest_rank} axes, {axes} in the order that "
                f"time_axis tells; got shape {shape}"
            )
        if not -len(shape) <= time_axis < len(shape):
            raise ValueError(f"time_axis={time_axis} is not an axis of an input of shape {shape}")
        if 0 in shape:
            raise ValueError(f"input has no elements: got shape {shape}")
        return cls(shape, time_axis % len(shape))

    @property
    def steps(self) -> int:
        """The number of time steps."""
        return self.shape[self.time_axis]

    @property
    def batch_axis(self) -> int:
        """The axis that the samples are along."""
        return 1 if self.time_axis == 0 else 0

    @property
    def batch(self) -> int:
        """The number of samples."""
        return self.shape[self.batch_axis]

    @property
    def neurons(self) -> int:
        """The number of neurons of one sample."""
        return math.prod(self.shape) // (self.steps * self.batch)

    @property
    def _time_in_target(self) -> int:
        """Where time is among batch, class and time."""
        return self.time_axis if self.time_axis < min(2, len(self.shape) - 1) else -1

    def classes(self, number: int | None) -> int:
        """Return how many classes the neurons are, each its own class or in groups."""
        if number is None:
            return self.neurons
        if self.neurons % number:
            raise ValueError(
                f"num_classes={number} must divide the number of neurons, {self.neurons} in an "
                f"input of shape {self.shape} whose time axis is {self.time_axis}"
            )
        return number

    def batch_class_time(self, xp: Namespace, x: Array) -> tuple[Array, Pullback]:
        """Return an input, or a mask for it, as `[batch, class, time]`, and the pullback."""
        moved = _arrays.moved(xp, x, self.time_axis, -1)
        shape = moved.shape
        collapsed = xp.reshape(moved, (shape[0], math.prod(shape[1:-1]), shape[-1]))

        def restored(cotangent: Array) -> Array:
            return _arrays.moved(xp, xp.reshape(cotangent, shape), -1, self.time_axis)

        return collapsed, restored

    def with_time(self, *shape: int) -> tuple[int, ...]:
        """Return the shape that a target or term has when it has a time axis too."""
        if self._time_in_target == -1:
            return (*shape, self.steps)
        before = self._time_in_target
        return (*shape[:before], self.steps, *shape[before:])

    def spread(self, xp: Namespace, x: Array) -> Array:
        """Give an array of the batch, or of batch and time, the axes of the input.

        Those that it lacks have length 1.
        """
        if x.ndim == len(self.shape):
            return x
        lengths = {self.batch_axis: self.batch}
        if x.ndim == 2:
            lengths[self.time_axis] = self.steps
        return xp.reshape(x, tuple(lengths.get(axis, 1) for axis in range(len(self.shape))))

    def time_axis_for(self, shape: tuple[int, ...], *, by_class: bool) -> int | None:
        """Return another time axis with which a target would have this shape, if there is one."""
        for axis in (0, 1, len(self.shape) - 1):
            other = Layout(self.shape, axis)
            once = (other.batch, other.neurons) if by_class else (other.batch,)
            if axis != self.time_axis and shape in (once, other.with_time(*once)):
                return axis
        return None

    def elsewhere(self, shape: tuple[int, ...]) -> str:
        """Return a hint if what should be of the classes is as long as another axis."""
        axes = [axis for axis, length in enumerate(self.shape) if (length,) == tuple(shape)]
        if not axes:
            return ""
        return f" (as long as axis {axes[0]} of input: see time_axis)"

    def time_last(self, xp: Namespace, target: Array) -> Array:
        """Move the time axis of a target to the end."""
        return _arrays.moved(xp, target, self._time_in_target, -1)

    def natural(self, xp: Namespace, terms: Array) -> tuple[Array, Pullback]:
        """Move the time axis of terms from the end to where the input has it, and the pullback."""
        return _arrays.moved(xp, terms, -1, self._time_in_target), lambda cotangent: self.time_last(
            xp, cotangent
        )
