"""Readouts of competing classes: a class is read beside the others. They are not linear."""

import math

from spikeloss_xp._dispatch import Library
from spikeloss_xp._input.arrays import or_one
from spikeloss_xp._input.layout import CLASS
from spikeloss_xp._typing import Array, Pullback
from spikeloss_xp.readouts import Reading


def softmax_sum(
    library: Library, spikes: Array, mask: Array | None = None
) -> tuple[Reading, Pullback]:
    """Read ``sum_t p[t]``, where ``p[t]`` is the softmax over the classes unmasked at step t."""
    xp = library.xp
    logit, read = spikes, None
    if mask is not None:
        logit, read = xp.where(mask, spikes, -math.inf), xp.any(mask, axis=-1)
    highest = xp.max(logit, axis=CLASS, keepdims=True)  # against overflow; it cancels
    if mask is not None:
        highest = xp.where(xp.any(mask, axis=CLASS, keepdims=True), highest, 0.0)
    weight = xp.exp(logit - highest)
    total = library.sum(weight, CLASS, keepdims=True)
    p = weight / (total if mask is None else or_one(library, total))

    def pullback(cotangent: Array) -> Array:
        cotangent = cotangent[..., None]
        return p * (cotangent - library.sum(p * cotangent, CLASS, keepdims=True))

    return Reading(library.sum(p, -1), mask=read), pullback


COMPETING = {"softmax_sum": softmax_sum}
