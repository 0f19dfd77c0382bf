"""The two primitives in plain array API form.

They are the whole of what a library without an adapter of its own runs on, and an adapter whose
library has nothing better uses them too. Time is the last axis, and `x` already has the floating
dtype to compute in.
"""

import functools
import operator
from collections.abc import Callable

from spikeloss_xp._typing import Array, Namespace

SMALLEST_BLOCK, LARGEST_BLOCK = 32, 128  # where matrix products are efficient on the CPUs measured


def causal_filter(
    xp: Namespace,
    x: Array,
    kernel: Array,
    *,
    device: object = None,
    matmul: Callable[[Array, Array], Array] | None = None,
) -> Array:
    """Return ``y[t] = sum(kernel[k] * x[t - k] for k in range(len(kernel)))``.

    Time is cut into blocks. What block ``b - m`` contributes to block ``b`` is its product with
    the Toeplitz matrix ``kernel[m * size + j - i]``, for input step ``i`` and output step ``j``.
    """
    steps = x.shape[-1]
    taps = _smaller(kernel.shape[0], steps)
    size = _smaller(max(SMALLEST_BLOCK, _smaller(taps, LARGEST_BLOCK)), steps)
    blocks = -(-steps // size)
    reach = _smaller(-(-(taps - 1) // size), blocks - 1)  # how many blocks back the kernel reaches

    def zeros(number: int) -> Array:
        return xp.zeros(number, dtype=x.dtype, device=device)

    step = xp.arange(size, device=device)
    lag = xp.reshape(step[None, :] - step[:, None] + (size - 1), (-1,))
    taps_by_lag = xp.concat([zeros(size - 1), kernel[:taps], zeros((reach + 1) * size - taps)])
    before, after = _silence(xp, x, reach * size), _silence(xp, x, blocks * size - steps)
    padded = xp.concat([before, x, after], axis=-1)
    cut = xp.reshape(padded, (*x.shape[:-1], reach + blocks, size))

    def contribution(m: int) -> Array:
        toeplitz = xp.reshape(xp.take(taps_by_lag, lag + m * size), (size, size))
        return (matmul or xp.matmul)(cut[..., reach - m : reach - m + blocks, :], toeplitz)

    filtered = functools.reduce(operator.add, map(contribution, range(reach + 1)))
    return xp.reshape(filtered, (*x.shape[:-1], blocks * size))[..., :steps]


def _silence(xp: Namespace, x: Array, steps: int) -> Array:
    """Return zeros as long as the first `steps` of `x`, and placed and sharded as those are."""
    return xp.zeros_like(x[..., :steps])


def _smaller(a: int, b: int) -> int:
    """Return ``min(a, b)``, by a comparison, which tracing with symbolic sizes decides for good."""
    return a if a <= b else b


def moving_sum(xp: Namespace, x: Array, window: int) -> Array:
    """Return ``y[t] = sum(x[t - k] for k in range(window))``, silence before the first step.

    By doubling: a sum over ``m + n`` steps is a sum over ``m`` steps and, ``m`` steps earlier, one
    over ``n``. Sums of spikes are exact, and nothing is subtracted that was added before.
    """
    window = _smaller(window, x.shape[-1])

    def delayed(y: Array, delay: int) -> Array:
        return xp.concat([_silence(xp, y, delay), y[..., : y.shape[-1] - delay]], axis=-1)

    power, span = x, 1  # a sum over `span` steps, a power of two
    total, covered = (x, 1) if window & 1 else (None, 0)
    while covered < window:
        power, span = power + delayed(power, span), 2 * span
        if window & span:
            total = power if total is None else total + delayed(power, covered)
            covered += span
    return total
