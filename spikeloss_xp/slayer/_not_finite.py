"""The warning that a loss with the values of lava-dl is not finite."""

import sys
import warnings
from typing import Any

import numpy as np

from spikeloss_xp._arrays import concrete_or_none

OWN = ("spikeloss_xp", "torch")
"""Packages whose frames lie between the caller's line and the warning."""


def warn_if_not_finite(value: Any) -> None:
    """Warn if a value of `SpikeMax` is not finite and can be read without waiting or tracing."""
    known = concrete_or_none(value)
    if known is None or np.isfinite(known).all():
        return
    warnings.warn(
        "SpikeMax is not finite: with numerics='lava' it is infinite where the labelled neuron is "
        "silent, as in lava-dl, and its gradient is not usable. Pass numerics='stable' for a "
        "finite value and gradient. If that is not finite either, the spikes hold NaN or infinity.",
        RuntimeWarning,
        stacklevel=_level_of_caller(),
    )


def _level_of_caller() -> int:
    """Return the `stacklevel`, for the function that calls this, of the first frame outside."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in OWN:
        frame, level = frame.f_back, level + 1
    return level
