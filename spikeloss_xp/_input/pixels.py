"""Labels for each pixel: the readings become a batch in which each pixel is a sample."""

import math
from typing import Any, NamedTuple

from spikeloss_xp._arrays import Adapter, find_adapter, host, shape_of
from spikeloss_xp._input.labels import INDICES, holds_numbers
from spikeloss_xp._input.prepared import Layout, Prepared
from spikeloss_xp._typing import Array


class Pixels(NamedTuple):
    """The pixels of an input whose first axis of space is that of the classes.

    Attributes
    ----------
    source : Layout
        The layout of the input.
    number : int
        The number of pixels of a sample.
    """

    source: Layout
    number: int

    def samples(self, adapter: Adapter, x: Any) -> Any:
        """Return an array with the axes batch, class and time as one of pixels, time last."""
        if x is None:
            return None
        xp, batch, pixels = adapter.xp, self.source.batch, self.number
        x = adapter.moveaxis(x, self.source.time, -1)
        neurons, steps = x.shape[1:]
        if neurons == 1 or x.shape[0] == 1:  # the same for all
            neurons = max(neurons, pixels)
            x = xp.broadcast_to(x, (batch, neurons, steps))
        x = xp.reshape(x, (batch, neurons // pixels, pixels, steps))
        return xp.reshape(adapter.moveaxis(x, 2, 1), (batch * pixels, neurons // pixels, steps))

    def of_samples(self, adapter: Adapter, x: Array) -> Array:
        """Return an array with the axes that it had: the inverse of `samples`."""
        (_, classes, steps), batch = x.shape, self.source.batch
        x = adapter.moveaxis(adapter.xp.reshape(x, (batch, self.number, classes, steps)), 1, 2)
        x = adapter.xp.reshape(x, (batch, classes * self.number, steps))
        return adapter.moveaxis(x, -1, self.source.time)

    def shape(self, *, with_class: bool, timed: bool, classes: int) -> tuple[int, ...]:
        """Return the shape of labels or terms, with the time axis where the input has it."""
        once = [self.source.batch, *(classes,)[:with_class], *self.source.space()[1:]]
        if timed:
            once.insert(self._time(with_class), self.source.steps)
        return tuple(once)

    def labels(self, target: Any, *, with_class: bool) -> Array:
        """Return labels of pixels as those of samples, with time last."""
        target = target if find_adapter(target) else host(target, "target")
        adapter: Any = find_adapter(target)
        if target.ndim > len(self.source.space()) + with_class:
            target = adapter.moveaxis(target, self._time(with_class), -1)
        if with_class:
            target = adapter.moveaxis(target, 1, len(self.source.space()))
        return adapter.xp.reshape(target, (-1, *target.shape[len(self.source.space()) :]))

    def of_user(self, adapter: Adapter, x: Array, *, with_class: bool) -> Array:
        """Return what each pixel has as an image: the inverse of `labels`."""
        rank = len(self.source.space())
        x = adapter.xp.reshape(x, (self.source.batch, *self.source.space()[1:], *x.shape[1:]))
        if with_class:
            x = adapter.moveaxis(x, rank, 1)
        return adapter.moveaxis(x, -1, self._time(with_class)) if x.ndim > rank + with_class else x

    def _time(self, with_class: bool) -> int:
        first = self.source.time_axis < 2  # before the classes
        return self.source.time_axis - (not first and not with_class)


def read_pixels(prepared: Prepared, num_classes: int | None) -> None:
    """Let the readings of an input be those of pixels, with the first axis of space as classes."""
    source = prepared.layout
    channels = source.space()[0] if source.space() else 1
    classes = num_classes or channels
    if len(source.space()) < 2 or channels % classes:
        raise ValueError(
            f"labels of pixels need an axis of classes, divisible by {classes}, and one of pixels "
            f"in input; got shape {source.shape} with time axis {source.time_axis}"
        )
    pixels = prepared.pixels = Pixels(source, source.neurons // channels)
    shape = (source.batch * pixels.number, channels, source.steps)
    prepared.layout, prepared.classes = Layout.of_shape(shape, 2), classes
    prepared.after_context = pixels.samples(prepared.adapter, prepared.after_context)


def labels_of_pixels(loss: Any, prepared: Prepared, target: Any) -> bool | None:
    """Return whether labels of pixels have a time axis, or None if they are no such labels.

    Labels of samples and of their steps come first.
    """
    layout = prepared.layout
    if len(layout.shape) < 4 or not loss._takes_pixels or loss._targets[0] != INDICES:
        return None
    has_time = bool(loss._has_time)
    with_class, shape = holds_numbers(loss._targets, target), shape_of(target)
    plain = (layout.batch, prepared.classes)[: 1 + with_class]
    if shape == plain or (has_time and shape == layout.with_time(*plain)):
        return None
    pixels, classes = Pixels(layout, math.prod(layout.space()[1:])), loss.num_classes
    options = {"with_class": with_class, "classes": classes or layout.space()[0]}
    if shape == pixels.shape(timed=False, **options):
        return False
    return True if has_time and shape == pixels.shape(timed=True, **options) else None
