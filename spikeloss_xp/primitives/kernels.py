"""Exponential kernels and their filter matrices, which are computed with NumPy.

If the kernel has order `n`, a block of time steps contributes to later blocks only through `n`
weighted sums over its steps. This follows from Vandermonde's identity:

    h[p size + j - i] = sum over l, m with l + m < n of
        a**(size - i) C(size - i, l)
        a**((p - 1) size) C((p - 1) size + n - 1, n - 1 - l - m)
        a**j C(j, m)

In this formula, ``h[p size + j - i]`` is the weight of input step ``i`` for output step ``j`` of
the block that comes ``p`` blocks later. A block has ``size`` time steps, and the decay per step is
``a = exp(-1 / tau)``. No factor is negative, so no precision is lost to cancellation.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from spikeloss_xp import _tuning
from spikeloss_xp.primitives.block_filter import BlockMatrices


class Exponential(NamedTuple):
    """The kernel ``h[k] = C(k + order - 1, order - 1) * exp(-k / time_constant)`` for k < length.

    A kernel of order 1 with an infinite time constant is a moving window.
    """

    time_constant: float
    length: int
    order: int = 1

    def taps(self) -> np.ndarray:
        """Return the taps in float64."""
        lower = self.order - 1
        taps = (
            math.comb(k + lower, lower) * math.exp(-k / self.time_constant)
            for k in range(self.length)
        )
        return np.fromiter(taps, np.float64, self.length)

    def largest_tap(self) -> float:
        """Return the largest tap, accurate to ten digits, without computing the other taps."""
        n, last = self.order, self.length - 1
        try:
            growth = math.exp(1 / self.time_constant)
        except OverflowError:
            return 1.0
        # `peak` is the lag of the largest tap.
        peak = last if growth == 1 else min(max(math.ceil((n - growth) / (growth - 1)), 0), last)
        logarithm = math.lgamma(peak + n) - math.lgamma(n) - math.lgamma(peak + 1)
        try:
            return math.exp(logarithm - peak / self.time_constant)
        except OverflowError:
            return math.inf


# The cache is small, because the matrices of a long kernel of high order take several MB.
@functools.lru_cache(maxsize=8)
def block_matrices(
    kernel: Exponential, steps: int | None, dtype: str, *, reverse: bool
) -> BlockMatrices:
    """Return the matrices of a block filter or, if `reverse` is True, of its adjoint.

    If `steps` is None, the matrices can be used for any number of time steps. Arrays with many time
    steps are split into blocks, because longer sums are less accurate. The run time of the filter
    does not grow with the length of a long kernel.
    """
    if steps is not None:  # taps for longer lags would be multiplied only by zeros
        kernel = kernel._replace(length=min(kernel.length, steps))
    made = _chosen(kernel, steps, dtype, largest=_tuning.ONE_MATRIX)
    return _adjoint(made) if reverse else made


@functools.lru_cache(maxsize=16)
def window_band(window: int, dtype: str) -> np.ndarray:
    """Return the banded matrix that `block_filter.sum_in_blocks` uses to sum a moving window."""
    size = _tuning.WINDOW_BLOCK
    step, output = np.arange(size + window - 1)[:, None], np.arange(size)
    return ((step >= output) & (step < output + window)).astype(dtype)


def _chosen(kernel: Exponential, steps: int | None, dtype: str, *, largest: int) -> BlockMatrices:
    taps = kernel.taps().astype(dtype)
    reached = int(np.flatnonzero(taps)[-1]) + 1  # all later taps underflow to 0
    short = reached <= 2 * _tuning.SMALLEST_BLOCK
    if steps is not None and steps <= largest:
        return _joined([(0, _between(taps, steps, 0))])
    if short:
        size = 2 * _tuning.SMALLEST_BLOCK
        return _joined([(later, _between(taps, size, later)) for later in (0, 1)])

    size = _size(kernel, steps)
    number = None if steps is None else -(-steps // size)
    reach, far = divmod(kernel.length, size)
    later = (0, reach, reach + 1)[: 2 + (far > 1)]
    edges = [(p, _between(taps, size, p)) for p in later if number is None or p < number]
    edges = [(p, matrix) for p, matrix in edges if matrix.any()]
    if reach == 1 or number == 1:
        return _joined(edges)
    return _joined(edges, *_carry(kernel, size, reach - 1, number, dtype))


def _size(kernel: Exponential, steps: int | None) -> int:
    """Return the block length with the lowest cost, in multiplications per time step."""

    def cost(size: int) -> float:
        edges = size * (2 + (kernel.length % size > 1))
        sums = kernel.length if steps is None else steps
        carrying = min(kernel.order * sums / size, _tuning.CARRIED) * kernel.order / size
        filling = 0 if steps is not None and steps % size == 0 else 10
        return edges + carrying + filling

    largest = min(kernel.length // 2, _tuning.LARGEST_BLOCK)
    return min(range(_tuning.SMALLEST_BLOCK, largest + 1), key=cost)


def _between(taps: np.ndarray, size: int, later: int) -> np.ndarray:
    """Return the matrix that maps an input block to its contribution to an output block.

    The output block is `later` blocks after the input block.
    """
    step = np.arange(size)
    lag = later * size + step[None, :] - step[:, None]
    inside = (lag >= 0) & (lag < len(taps))
    return np.where(inside, taps[np.where(inside, lag, 0)], taps.dtype.type(0))


def _carry(
    kernel: Exponential, size: int, reach: int, number: int | None, dtype: str
) -> tuple[np.ndarray, BlockMatrices, np.ndarray]:
    """Return `to_sums` and `carried`, and the matrix that maps the filtered sums to outputs.

    Through its weighted sums, a block contributes to the outputs of the next `reach` blocks.
    """
    n, step = kernel.order, np.arange(size)
    to_sums, from_sums = (
        np.stack([_choose(k, m) * np.exp(-k / kernel.time_constant) for m in range(n)], axis=-1)
        for k in (size - step, step)
    )
    if n == 1:
        slower = Exponential(kernel.time_constant / size, reach)
        carried = _chosen(slower, number, dtype, largest=_tuning.CARRIED)
    else:
        carried = _carried_together(kernel, size, reach, number, dtype)
    return to_sums.astype(dtype), carried, from_sums.T.astype(dtype)


def _carried_together(
    kernel: Exponential, size: int, reach: int, number: int | None, dtype: str
) -> BlockMatrices:
    """Return the matrices that filter weighted sums, for a kernel of order 2 or higher.

    Each filtered sum depends on several weighted sums of earlier blocks, so all sums are filtered
    together.
    """
    n, lag = kernel.order, np.arange(reach) * size
    decay = np.exp(-lag / kernel.time_constant)
    # The last entry of `weights` remains 0, for lags below 0 and for lags of at least `reach`
    # blocks.
    weights = np.zeros((reach + 1, n, n), dtype)
    for first in range(n):
        for second in range(n - first):
            weights[:-1, first, second] = decay * _choose(lag + n - 1, n - 1 - first - second)

    together = max(_tuning.CARRIED // (2 * n), 1)
    together = together if number is None else min(together, number)
    block = np.arange(together)
    carried = []
    for later in range(-(-reach // together) + 1):
        lag = later * together + block[None, :] - block[:, None]
        square = weights[np.where((lag >= 0) & (lag < reach), lag, reach)]
        if number is None or later * together < number:
            square = square.transpose(0, 2, 1, 3).reshape(together * n, together * n)
            carried.append((later, square))
    return _joined(carried)


def _choose(k: np.ndarray, m: int) -> np.ndarray:
    """Return the binomial coefficients ``C(k, m)``."""
    return math.prod(((k - i) / (i + 1) for i in range(m)), start=np.ones(len(k)))


def _joined(
    edges: list[tuple[int, np.ndarray]],
    to_sums: np.ndarray | None = None,
    carried: BlockMatrices | None = None,
    from_sums: np.ndarray | None = None,
) -> BlockMatrices:
    """Return the matrices of a block filter, joined along axis 0.

    Each entry of `edges` is a pair of a delay, in blocks, and the matrix for the input block with
    this delay.
    """
    delays, (near, *far) = zip(*edges, strict=True)
    below = [near, *far] if from_sums is None else [near, from_sums, *far]
    return BlockMatrices(delays, np.concatenate(below), to_sums, carried)


def _adjoint(made: BlockMatrices) -> BlockMatrices:
    """Return the matrices of the adjoint of a block filter, given the matrices of the filter."""
    size = made.weights.shape[-1]
    number = 0 if made.to_sums is None else made.to_sums.shape[-1]
    near, from_sums, far = np.split(made.weights, [size, size + number])
    turned = [matrix.T for matrix in np.split(far, len(made.delays) - 1)] if len(far) else []
    if made.carried is None or made.to_sums is None:
        return BlockMatrices(made.delays, np.concatenate([near.T, *turned]))
    weights = np.concatenate([near.T, made.to_sums.T, *turned])
    return BlockMatrices(
        made.delays, weights, np.ascontiguousarray(from_sums.T), _adjoint(made.carried)
    )
