"""What a loss reads from spikes: rates, moving rates and filtered traces.

A readout returns what it read and its pullback, which takes the derivative of the loss with
respect to the reading to the derivative with respect to the spikes. All of them are linear, so
the pullback is the adjoint, and stands beside the operation. Libraries with automatic
differentiation have no use for it and do not run it.
"""

import math
from typing import Any

from spikeloss_xp import _arrays, _dispatch
from spikeloss_xp._typing import Array, Namespace, Pullback
from spikeloss_xp.filters import backwards, causal_filter, moving_average


def rate(xp: Namespace, spikes: Array, moving_window: int | None) -> tuple[Array, Pullback]:
    """Read ``r = mean_t s[t]``, or with a window ``r[t] = sum(s[t - k] for k < W) / W``.

    Spikes are `[batch, class, time]`, the rate `[batch, class]` or `[batch, class, time]`.
    """
    if moving_window is not None:
        return moving_rate(xp, spikes, moving_window)

    steps = spikes.shape[-1]

    def spread(cotangent: Array) -> Array:
        # Each step counts the same in a mean. An array of its own, which whoever gets may change.
        return xp.repeat(cotangent[..., None] / steps, steps, axis=-1)

    return xp.mean(spikes, axis=-1), spread


def moving_rate(xp: Namespace, spikes: Array, window: int) -> tuple[Array, Pullback]:
    """Read ``r[t] = sum(s[t - k] for k < W) / W``."""

    def average(x: Array) -> Array:
        return moving_average(x, window)

    # A spike at t counts in r[t], ..., r[t + W - 1]: the adjoint averages over what comes after.
    return average(spikes), lambda cotangent: backwards(xp, average, cotangent)


def trace(xp: Namespace, spikes: Array, kernel: Any, axis: int) -> tuple[Array, Pullback]:
    """Read ``e[t] = sum(h[k] * s[t - k] for k)``."""
    taps = _arrays.constant(xp, spikes, kernel)

    def filtered(x: Array) -> Array:
        return causal_filter(x, taps, axis)

    # A spike at t appears in e[t + k] with weight h[k]: the adjoint filters against time.
    return filtered(spikes), lambda cotangent: backwards(xp, filtered, cotangent, axis)


def mean_magnitude(xp: Namespace, x: Array) -> tuple[Array, Pullback]:
    """Read the mean of ``|x|`` over the whole array."""
    # As x * sign(x), whose derivative at 0 is 0 in every library; that of abs(x) is 1 in some.
    sign = xp.astype(x > 0, x.dtype) - xp.astype(x < 0, x.dtype)
    number = math.prod(x.shape)
    mean = _dispatch.adapter(xp).total(xp, x * sign) / number
    return mean, lambda cotangent: cotangent * sign / number
