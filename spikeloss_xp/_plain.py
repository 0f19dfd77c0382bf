"""The two primitives in plain array API form.

They are the whole of what a library without an adapter of its own runs on, and an adapter whose
library has nothing better uses them too. Time is the last axis, unless another is told, and `x`
already has the floating dtype to compute in.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable
from typing import Literal, NamedTuple

from spikeloss_xp._typing import Array, Namespace

SMALLEST_BLOCK, LARGEST_BLOCK = 32, 128  # where matrix products are efficient on the CPUs measured

Matmul = Callable[[Array, Array], Array]
Way = Literal["joined", "apart", "in place"]


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
    way: Way = "joined",
) -> Array:
    """Filter in two levels, along the last axis, -1, or the first, 0.

    Time is cut into blocks. Each is a matrix product of itself, of what is carried to it from the
    blocks between the near and the far edge of the kernel, and of the blocks `delays` before it
    (after it, with `reverse`). What is carried are a few sums of each block, filtered in the same
    way with a block for a step, and there a block later.
    """
    if axis == -1:
        return _Time(xp, axis, reverse, matmul or xp.matmul, way).filtered(x, filter)
    columns = xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
    time = _Time(xp, -2, reverse, matmul or xp.matmul, way)
    return xp.reshape(time.filtered(columns, filter), x.shape)


class _Time(NamedTuple):
    """Where the steps are, counted from the last axis, and which way to go from there."""

    xp: Namespace
    axis: int
    reverse: bool
    matmul: Matmul
    way: Way

    def filtered(self, x: Array, filter: Blocks) -> Array:
        xp, axis = self.xp, self.axis
        batch, steps, rest = x.shape[:axis], x.shape[axis], x.shape[axis:][1:]
        size = filter.weights.shape[-1]
        blocks = -(-steps // size)

        filling = blocks * size - steps
        cut = xp.concat([x, _silence(xp, x, filling, axis)], axis=axis) if filling else x
        cut = xp.reshape(cut, (*batch, blocks, size, *rest))
        near, far = [(cut, 0)], [(cut, delay) for delay in filter.delays[1:]]
        if filter.summed is not None and filter.carried is not None:
            number = filter.summed.shape[-1]
            sums = self._through(cut, filter.summed)
            sums = xp.reshape(sums, (*batch, blocks * number, *rest))
            carried = self.filtered(sums, filter.carried)
            near.append((xp.reshape(carried, (*batch, blocks, number, *rest)), 1))

        filtered = self._products(near, far, filter.weights)
        filtered = xp.reshape(filtered, (*batch, blocks * size, *rest))
        return _taken(filtered, 0, steps, axis) if filling else filtered

    def _products(
        self, near: list[tuple[Array, int]], far: list[tuple[Array, int]], weights: Array
    ) -> Array:
        """Return the sum of the products of blocks, each a delay later, with their weights.

        The weights are below one another. So near and far are joined, for one product; or there is
        one of each, and they are added up, which took 0.8 to 1.1 of the time where a compiler joins
        number by number; or that of the far ones is added in place, which took 0.8 to 1.
        """
        starts = [0, *itertools.accumulate(x.shape[self.axis] for x, _ in (*near, *far))]

        def product(start: int, *terms: tuple[Array, int]) -> Array:
            parts = [self._later(x, delay) for x, delay in terms]
            joined = parts[0] if len(parts) == 1 else self.xp.concat(parts, axis=self.axis)
            end = start + joined.shape[self.axis]
            return self._through(joined, weights[start:end, :])

        if self.way == "joined":
            return product(0, *near, *far)
        if self.way == "apart":
            return functools.reduce(operator.add, map(product, starts, (*near, *far)))
        total = product(0, *near)
        for start, (x, delay) in zip(starts[len(near) :], far, strict=False):
            self._add_later(total, product(start, (x, 0)), delay)
        return total

    def _through(self, cut: Array, matrix: Array) -> Array:
        return self.matmul(cut, matrix) if self.axis == -1 else self.matmul(matrix.T, cut)

    def _later(self, cut: Array, delay: int) -> Array:
        """Move blocks by a delay: silence comes to where there was none before."""
        if delay == 0:
            return cut
        axis, blocks = self.axis - 1, cut.shape[self.axis - 1]
        delay = _smaller(delay, blocks)
        silence = self.xp.zeros_like(_taken(cut, 0, delay, axis))
        if self.reverse:
            return self.xp.concat([_taken(cut, delay, blocks, axis), silence], axis=axis)
        return self.xp.concat([silence, _taken(cut, 0, blocks - delay, axis)], axis=axis)

    def _add_later(self, total: Array, cut: Array, delay: int) -> None:
        """Add blocks that are moved by a delay, in place."""
        axis, blocks = self.axis - 1, cut.shape[self.axis - 1]
        delay = _smaller(delay, blocks)
        late, early = (delay, blocks), (0, blocks - delay)
        to, of = (early, late) if self.reverse else (late, early)
        changed = _taken(total, *to, axis)
        changed += _taken(cut, *of, axis)


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
