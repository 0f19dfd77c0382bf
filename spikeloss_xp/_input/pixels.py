"""Labels for pixels: the input is rearranged so that each pixel becomes a sample."""

import math
from typing import Any, NamedTuple

from spikeloss_xp._arrays import Adapter, find_adapter, host, shape_of
from spikeloss_xp._input.labels import INDICES, holds_numbers
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import Prepared
from spikeloss_xp._typing import Array


class Pixels(NamedTuple):
    """The pixels of an input whose first space axis is the class axis.

    Attributes
    ----------
    source : Layout
        The layout of the input.
    number : int
        The number of pixels in a sample.
    """

    source: Layout
    number: int

    def samples(self, adapter: Adapter, x: Any) -> Any:
        """Convert an array with the axes batch, class and time into ``[pixel, class, time]``."""
        if x is None:
            return None
        xp, batch, pixels = adapter.xp, self.source.batch, self.number
        x = adapter.moveaxis(x, self.source.time, -1)
        neurons, steps = x.shape[1:]
        if neurons == 1 or x.shape[0] == 1:  # `x` is constant along an axis of length 1
            neurons = max(neurons, pixels)
            x = xp.broadcast_to(x, (batch, neurons, steps))
        x = xp.reshape(x, (batch, neurons // pixels, pixels, steps))
        return xp.reshape(adapter.moveaxis(x, 2, 1), (batch * pixels, neurons // pixels, steps))

    def of_samples(self, adapter: Adapter, x: Array) -> Array:
        """Convert ``[pixel, class, time]`` to batch, class and time: the inverse of `samples`."""
        (_, classes, steps), batch = x.shape, self.source.batch
        x = adapter.moveaxis(adapter.xp.reshape(x, (batch, self.number, classes, steps)), 1, 2)
        x = adapter.xp.reshape(x, (batch, classes * self.number, steps))
        return adapter.moveaxis(x, -1, self.source.time)

    def shape(self, *, with_class: bool, timed: bool, classes: int) -> tuple[int, ...]:
        """Return the shape of labels or terms, with time at the same position as in the input."""
        once = [self.source.batch, *(classes,)[:with_class], *self.source.space()[1:]]
        if timed:
            once.insert(self._time(with_class), self.source.steps)
        return tuple(once)

    def labels(self, target: Any, *, with_class: bool) -> Array:
        """Convert labels for pixels into labels for samples, with the time axis last."""
        target = target if find_adapter(target) else host(target, "target")
        adapter: Any = find_adapter(target)
        rank = len(self.source.space())
        if target.ndim > rank + with_class:
            target = adapter.moveaxis(target, self._time(with_class), -1)
        if with_class:
            target = adapter.moveaxis(target, 1, rank)
        return adapter.xp.reshape(target, (-1, *target.shape[rank:]))

    def images(self, adapter: Adapter, x: Array, *, with_class: bool) -> Array:
        """Convert an array with one row per pixel into images. This is the inverse of `labels`."""
        rank = len(self.source.space())
        x = adapter.xp.reshape(x, (self.source.batch, *self.source.space()[1:], *x.shape[1:]))
        if with_class:
            x = adapter.moveaxis(x, rank, 1)
        return adapter.moveaxis(x, -1, self._time(with_class)) if x.ndim > rank + with_class else x

    def _time(self, with_class: bool) -> int:
        """Return the position of the time axis in labels or terms."""
        time = self.source.time_axis
        before_the_classes = time < 2
        return time if before_the_classes or with_class else time - 1


def read_pixels(prepared: Prepared, num_classes: int | None) -> None:
    """Change a prepared input in place so that each pixel is read as a sample.

    The first space axis becomes the class axis.
    """
    source = prepared.layout
    channels = source.space()[0] if source.space() else 1
    classes = num_classes or channels
    if len(source.space()) < 2 or channels % classes:
        raise ValueError(
            "labels for pixels need an input with a pixel axis and a class axis whose length is "
            f"divisible by {classes}; got shape {source.shape} with time axis {source.time_axis}"
        )
    pixels = prepared.pixels = Pixels(source, source.neurons // channels)
    shape = (source.batch * pixels.number, channels, source.steps)
    prepared.layout, prepared.num_classes = Layout.of(shape, 2), classes
    prepared.after_context = pixels.samples(prepared.adapter, prepared.after_context)


def labels_of_pixels(loss: Any, prepared: Prepared, target: Any) -> bool | None:
    """Return whether labels for pixels have a time axis, or None if the labels are for samples.

    If the shape is valid both for samples and for pixels, the labels are taken to be per sample, or
    per time step of each sample.
    """
    layout = prepared.layout
    if not loss.takes_pixels or loss.targets[0] != INDICES or len(layout.shape) < 4:
        return None
    per_step = bool(loss.per_step)
    with_class, shape = holds_numbers(loss.targets, target), shape_of(target)
    plain = (layout.batch, prepared.num_classes)[: 1 + with_class]
    if shape == plain or (per_step and shape == layout.with_time(*plain)):
        return None
    pixels, classes = Pixels(layout, math.prod(layout.space()[1:])), loss.num_classes
    options = {"with_class": with_class, "classes": classes or layout.space()[0]}
    if shape == pixels.shape(timed=False, **options):
        return False
    return True if per_step and shape == pixels.shape(timed=True, **options) else None
