"""Wanted times of spikes, one for each class."""

import math
from typing import Any

from spikeloss_xp._input.arrays import check_size
from spikeloss_xp._input.labels import check_shape, concrete_unmasked
from spikeloss_xp._input.prepared import PreparedInput
from spikeloss_xp._typing import Array


def wanted_times(prepared: PreparedInput, times: Array, target: Any, classes: int) -> Array:
    """Return times of shape ``[batch, class]``, in the dtype of the values.

    A time that is negative or not finite raises if its value is concrete; else it is NaN.

    Parameters
    ----------
    prepared : PreparedInput
        The input.
    times : array
        The times, in the library of the input.
    target : array or sequence
        The same, as the caller gave them.
    classes : int
        The number of classes.
    """
    xp, layout, values = prepared.library.xp, prepared.layout, prepared.values
    expected: dict[str, tuple[int, ...]] = {"[batch, class]": (layout.batch, classes)}

    def hint(shape: tuple[int, ...]) -> str:
        if shape == (classes, layout.batch):
            return " (its axes are in another order)"
        return " (class indices are integers of shape [batch])"

    check_shape(times, "target", "wanted times", expected, hint)
    known = concrete_unmasked(layout, target, prepared.mask, classes, by_class=True)
    if known is not None and not bool(((known >= 0) & (known < math.inf)).all()):
        raise ValueError(
            "target must hold times that are finite and at least 0, in steps; got values from "
            f"{known.min()} to {known.max()}"
        )
    check_size(prepared.library, values, target, "target")
    times = xp.astype(times, values.dtype, copy=False)
    if known is not None:
        return times
    return xp.where((times >= 0) & (times < math.inf), times, math.nan)
