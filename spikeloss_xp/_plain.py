"""The two primitives in plain array API form.

They are the whole of what a library without an adapter of its own runs on, and an adapter whose
library has nothing better uses them too. Time is the last axis, unless another is told, and `x`
already has the floating dtype to compute in.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

from spikeloss_xp._typing import Array, Namespace

SMALLEST_BLOCK, LARGEST_BLOCK = 32, 128  # where matrix products are efficient on the CPUs measured

Matmul = Callable[[Array, Array], Array]


class Blocks(NamedTuple):
    """What it takes to filter block by block: the matrices of `in_blocks`."""

    delays: tuple[int, ...]
    weights: Array
    summed: Array | None = None
    carried: "Blocks | None" = None

    def converted(self, convert: Callable[[Array], Array]) -> "Blocks":
        """Return the same with each matrix converted."""
        if self.summed is None or self.carried is None:
            return Blocks(self.delays, convert(self.weights))
        carried = self.carried.converted(convert)
        return Blocks(self.delays, convert(self.weights), convert(self.summed), carried)


def in_blocks(
    xp: Namespace,
    x: Array,
    filter: Blocks,
    *,
    axis: int = -1,
    reverse: bool,
    matmul: Matmul | None = None,
    apart: bool = False,
) -> Array:
    """Filter in two levels, along the last axis, -1, or the first, 0.

    Time is cut into blocks. Each is a matrix product of itself, of the blocks `delays` before it
    (after it, with `reverse`), and of what is carried to it from the blocks in between: a few sums
    of each block, filtered in the same way with a block for a step, and there a block later.
    All of these are joined for one product, or multiplied `apart` and added up.
    """
    run = functools.partial(
        _in_blocks, xp, reverse=reverse, matmul=matmul or xp.matmul, apart=apart
    )
    if axis == -1:
        return run(x, filter, axis)
    columns = xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
    return xp.reshape(run(columns, filter, -2), x.shape)


def _in_blocks(
    xp: Namespace,
    x: Array,
    filter: Blocks,
    axis: int,
    *,
    reverse: bool,
    matmul: Matmul,
    apart: bool,
) -> Array:
    batch, steps, rest = x.shape[:axis], x.shape[axis], x.shape[axis:][1:]
    size = filter.weights.shape[-1]
    blocks = -(-steps // size)

    def through(cut: Array, matrix: Array) -> Array:
        return matmul(matrix.T, cut) if rest else matmul(cut, matrix)

    whole = blocks * size == steps
    cut = x if whole else xp.concat([x, _silence(xp, x, blocks * size - steps, axis)], axis=axis)
    cut = xp.reshape(cut, (*batch, blocks, size, *rest))

    parts = [_shifted(xp, cut, delay, reverse, axis - 1) for delay in filter.delays]
    if filter.summed is not None and filter.carried is not None:
        number = filter.summed.shape[-1]
        sums = xp.reshape(through(cut, filter.summed), (*batch, blocks * number, *rest))
        carried = _in_blocks(
            xp, sums, filter.carried, axis, reverse=reverse, matmul=matmul, apart=apart
        )
        carried = xp.reshape(carried, (*batch, blocks, number, *rest))
        parts.append(_shifted(xp, carried, 1, reverse, axis - 1))

    if apart:
        ends = [(size * i, size * i + size) for i in range(len(parts))]
        matrices = [filter.weights[start:end, :] for start, end in ends]
        filtered = functools.reduce(operator.add, map(through, parts, matrices))
    else:
        joined = parts[0] if len(parts) == 1 else xp.concat(parts, axis=axis)
        filtered = through(joined, filter.weights)
    filtered = xp.reshape(filtered, (*batch, blocks * size, *rest))
    return filtered if whole else _taken(filtered, 0, steps, axis)


def _shifted(xp: Namespace, cut: Array, delay: int, reverse: bool, axis: int) -> Array:
    """Return each block's predecessor by `delay`, or its successor: silence where there is none."""
    if delay == 0:
        return cut
    blocks = cut.shape[axis]
    delay = _smaller(delay, blocks)
    silence = xp.zeros_like(_taken(cut, 0, delay, axis))
    if reverse:
        return xp.concat([_taken(cut, delay, blocks, axis), silence], axis=axis)
    return xp.concat([silence, _taken(cut, 0, blocks - delay, axis)], axis=axis)


def _taken(x: Array, start: int, stop: int, axis: int) -> Array:
    """Return what lies from `start` to before `stop` along an axis, counted from the last."""
    return x[(..., slice(start, stop), *(slice(None) for _ in range(-1 - axis)))]


def causal_filter(
    xp: Namespace,
    x: Array,
    kernel: Array,
    *,
    reverse: bool = False,
    device: object = None,
    matmul: Matmul | None = None,
) -> Array:
    """Return ``y[t] = sum(kernel[k] * x[t - k] for k in range(len(kernel)))``.

    With `reverse`, the adjoint: ``x[t + k]`` in place of ``x[t - k]``. Time is cut into blocks.
    What block ``b - m`` contributes to block ``b`` is its product with the Toeplitz matrix
    ``kernel[m * size + j - i]``, for input step ``i`` and output step ``j``; what block ``b + m``
    contributes to the adjoint, its product with the same matrix transposed.
    """
    steps = x.shape[-1]
    taps = _smaller(kernel.shape[0], steps)
    size = _smaller(max(SMALLEST_BLOCK, _smaller(taps, LARGEST_BLOCK)), steps)
    blocks = -(-steps // size)
    reach = _smaller(-(-(taps - 1) // size), blocks - 1)  # how many blocks back the kernel reaches

    def zeros(number: int) -> Array:
        return xp.zeros(number, dtype=x.dtype, device=device)

    first, second = xp.arange(size, device=device), xp.arange(size, device=device)
    lag = first[:, None] - second[None, :] if reverse else second[None, :] - first[:, None]
    lag = xp.reshape(lag + (size - 1), (-1,))
    taps_by_lag = xp.concat([zeros(size - 1), kernel[:taps], zeros((reach + 1) * size - taps)])
    beyond, filling = _silence(xp, x, reach * size), _silence(xp, x, blocks * size - steps)
    padded = [x, filling, beyond] if reverse else [beyond, x, filling]
    cut = xp.reshape(xp.concat(padded, axis=-1), (*x.shape[:-1], reach + blocks, size))

    def contribution(m: int) -> Array:
        toeplitz = xp.reshape(xp.take(taps_by_lag, lag + m * size), (size, size))
        start = m if reverse else reach - m
        return (matmul or xp.matmul)(cut[..., start : start + blocks, :], toeplitz)

    filtered = functools.reduce(operator.add, map(contribution, range(reach + 1)))
    return xp.reshape(filtered, (*x.shape[:-1], blocks * size))[..., :steps]


def _silence(xp: Namespace, x: Array, steps: int, axis: int = -1) -> Array:
    """Return so many steps of zeros, placed and sharded as `x` is."""
    shape = (*x.shape[:axis], steps, *x.shape[axis:][1:])
    return xp.broadcast_to(xp.zeros_like(_taken(x, 0, 1, axis)), shape)


def _smaller(a: int, b: int) -> int:
    """Return ``min(a, b)``, by a comparison, which tracing with symbolic sizes decides for good."""
    return a if a <= b else b


def moving_sum(xp: Namespace, x: Array, window: int, *, reverse: bool = False) -> Array:
    """Return ``y[t] = sum(x[t - k] for k in range(window))``, silence before the first step.

    With `reverse`, the adjoint: ``x[t + k]``, and silence after the last step. By doubling: a sum
    over ``m + n`` steps is a sum over ``m`` steps and, ``m`` steps earlier, one over ``n``. Sums
    of spikes are exact, and nothing is subtracted that was added before.
    """
    window = _smaller(window, x.shape[-1])

    def delayed(y: Array, delay: int) -> Array:
        silence, kept = _silence(xp, y, delay), y.shape[-1] - delay
        return xp.concat(
            [y[..., delay:], silence] if reverse else [silence, y[..., :kept]], axis=-1
        )

    power, span = x, 1  # a sum over `span` steps, a power of two
    total, covered = (x, 1) if window & 1 else (None, 0)
    while covered < window:
        power, span = power + delayed(power, span), 2 * span
        if window & span:
            total = power if total is None else total + delayed(power, covered)
            covered += span
    return total
