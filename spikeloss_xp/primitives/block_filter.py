"""The causal filter and the moving sum, computed with matrix products on blocks of time steps.

The array to filter must already have the floating-point dtype used for computation. Functions
without an argument `axis` filter along the last axis.

A filter treats all values before the first time step as 0. The adjoint of a filter runs backwards
in time, and treats all values after the last step as 0.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Adapter, Array, Namespace


class BlockMatrices(NamedTuple):
    """The matrices that `block_filter` multiplies by blocks of time steps.

    Attributes
    ----------
    delays : tuple of int
        The delay of each input block that contributes to an output block, counted in blocks. The
        first delay is 0.
    weights : array
        All matrices, joined along axis 0: first the matrix for delay 0, then the matrix for the
        filtered sums, then the matrices for the other delays.
    to_sums : array or None
        The matrix that maps a block to a few weighted sums over its time steps.
    carried : BlockMatrices or None
        The matrices of a second block filter, which filters the weighted sums.
    """

    delays: tuple[int, ...]
    weights: Array
    to_sums: Array | None = None
    carried: "BlockMatrices | None" = None

    def converted(self, convert: Callable[[Array], Array]) -> "BlockMatrices":
        """Return a copy in which each matrix has been converted by `convert`."""
        if self.to_sums is None or self.carried is None:
            return BlockMatrices(self.delays, convert(self.weights))
        carried = self.carried.converted(convert)
        return BlockMatrices(self.delays, convert(self.weights), convert(self.to_sums), carried)


def block_filter(
    adapter: Adapter, x: Array, matrices: BlockMatrices, *, axis: int, reverse: bool
) -> Array:
    """Filter an array along an axis, with matrix products on blocks of time steps.

    If the kernel is long, most of the earlier input blocks contribute only through a few weighted
    sums over their steps. The weighted sums are filtered by a second block filter. If `reverse` is
    True, the filter runs backwards in time.
    """
    xp, axis = adapter.xp, axis % x.ndim
    last = axis == x.ndim - 1
    columns = x if last else xp.reshape(x, (*x.shape[: axis + 1], math.prod(x.shape[axis + 1 :])))
    blocks = _Blocks(adapter, xp, -1 if last else -2, reverse)
    return xp.reshape(blocks.filter(columns, matrices), x.shape)


class _Blocks(NamedTuple):
    """The options of `block_filter`, with the time axis given as a negative number."""

    adapter: Adapter
    xp: Namespace
    axis: int
    reverse: bool

    def filter(self, x: Array, matrices: BlockMatrices) -> Array:
        xp, axis = self.xp, self.axis
        batch, steps, rest = x.shape[:axis], x.shape[axis], x.shape[axis:][1:]
        size = matrices.weights.shape[-1]
        blocks = -(-steps // size)

        missing = blocks * size - steps
        split = xp.concat([x, zero_steps(xp, x, missing, axis)], axis=axis) if missing else x
        split = xp.reshape(split, (*batch, blocks, size, *rest))
        near = [(split, 0)]
        if matrices.to_sums is not None and matrices.carried is not None:
            number = matrices.to_sums.shape[-1]
            sums = self._product(split, matrices.to_sums)
            sums = xp.reshape(sums, (*batch, blocks * number, *rest))
            carried = self.filter(sums, matrices.carried)
            near.append((xp.reshape(carried, (*batch, blocks, number, *rest)), 1))

        filtered = self._sum_of_products(near, split, matrices)
        filtered = xp.reshape(filtered, (*batch, blocks * size, *rest))
        return filtered[_index(axis, 0, steps)] if missing else filtered

    def _sum_of_products(
        self, near: list[tuple[Array, int]], split: Array, matrices: BlockMatrices
    ) -> Array:
        """Return the sum of the delayed blocks, each multiplied by its matrix.

        Each entry of `near` is a pair of an array of blocks and its delay.
        """
        terms = [*near, *((split, delay) for delay in matrices.delays[1:])]
        blocks = [self._later(x, delay) for x, delay in terms]
        if len(blocks) == 1:
            return self._product(blocks[0], matrices.weights)
        if self.adapter.joins_blocks:
            return self._product(self.xp.concat(blocks, axis=self.axis), matrices.weights)
        products, start = [], 0
        for x in blocks:
            end = start + x.shape[self.axis]
            products.append(self._product(x, matrices.weights[start:end, :]))
            start = end
        return functools.reduce(operator.add, products)

    def _product(self, blocks: Array, matrix: Array) -> Array:
        factors = (blocks, matrix) if self.axis == -1 else (matrix.T, blocks)
        return self.adapter.matmul(*factors)

    def _later(self, x: Array, delay: int) -> Array:
        """Move the blocks later by `delay` positions, and fill the gap with zeros.

        If `reverse` is True, move the blocks earlier by `delay` positions.
        """
        if delay == 0:
            return x
        axis, blocks = self.axis - 1, x.shape[self.axis - 1]
        delay = _smaller(delay, blocks)
        zeros = self.xp.zeros_like(x[_index(axis, 0, delay)])
        if self.reverse:
            return self.xp.concat([x[_index(axis, delay, blocks)], zeros], axis=axis)
        return self.xp.concat([zeros, x[_index(axis, 0, blocks - delay)]], axis=axis)


def _index(axis: int, start: int, stop: int) -> tuple[object, ...]:
    """Return an index that selects the entries from `start` to `stop` along an axis.

    `axis` must be a negative number.
    """
    return (..., slice(start, stop), *[slice(None)] * (-1 - axis))


def toeplitz_filter(adapter: Adapter, x: Array, kernel: Array, *, reverse: bool) -> Array:
    """Return ``y[t] = sum(kernel[k] * x[t - k] for k in range(len(kernel)))``.

    If `reverse` is True, return the adjoint, which has ``x[t + k]`` instead of ``x[t - k]``.
    """
    xp, device, steps = adapter.xp, adapter.device(x), x.shape[-1]
    taps = _smaller(kernel.shape[0], steps)
    size = max(_tuning.SMALLEST_TOEPLITZ, _smaller(taps, _tuning.LARGEST_TOEPLITZ))
    size = _smaller(size, steps)
    blocks = -(-steps // size)
    # `reach` is the number of earlier blocks that contribute to a block.
    reach = _smaller(-(-(taps - 1) // size), blocks - 1)

    def zeros(number: int) -> Array:
        return xp.zeros(number, dtype=x.dtype, device=device)

    first, second = xp.arange(size, device=device), xp.arange(size, device=device)
    lag = first[:, None] - second[None, :] if reverse else second[None, :] - first[:, None]
    lag = xp.reshape(lag + (size - 1), (-1,))
    taps_by_lag = xp.concat([zeros(size - 1), kernel[:taps], zeros((reach + 1) * size - taps)])
    lacking = reach * size, blocks * size - steps
    beyond, filling = ([zero_steps(xp, x, n)] if n else [] for n in lacking)
    padded = [x, *filling, *beyond] if reverse else [*beyond, x, *filling]
    split = xp.reshape(xp.concat(padded, axis=-1), (*x.shape[:-1], reach + blocks, size))

    def contribution(m: int) -> Array:
        toeplitz = xp.reshape(xp.take(taps_by_lag, lag + m * size), (size, size))
        start = m if reverse else reach - m
        return adapter.matmul(split[..., start : start + blocks, :], toeplitz)

    filtered = functools.reduce(operator.add, map(contribution, range(reach + 1)))
    return xp.reshape(filtered, (*x.shape[:-1], blocks * size))[..., :steps]


def zero_steps(xp: Namespace, x: Array, steps: int, axis: int = -1) -> Array:
    """Return zeros with `steps` time steps, and with the device, sharding and other axes of `x`."""
    shape = (*x.shape[:axis], steps, *x.shape[axis:][1:])
    return xp.broadcast_to(xp.zeros_like(x[_index(axis, 0, 1)]), shape)


def _smaller(a: int, b: int) -> int:
    """Return the smaller of two sizes.

    If the sizes are symbolic, the compiler records the result of the comparison, and compiles the
    function again if the result changes.
    """
    return a if a <= b else b


def sum_in_blocks(
    adapter: Adapter, x: Array, band: Array, window: int, axis: int, *, reverse: bool
) -> Array:
    """Return ``y[t] = sum(x[t - k] for k in range(window))`` along an axis.

    If `reverse` is True, ``x[t + k]`` is summed instead of ``x[t - k]``.
    """
    xp, steps, size = adapter.xp, x.shape[axis], band.shape[1]
    last = axis == x.ndim - 1
    rows = xp.reshape(x, (-1, steps) if last else (*x.shape[: axis + 1], -1))
    summed, blocks = xp.empty_like(rows) if adapter.in_place(x) else None, []
    for start in range(0, steps, size):
        stop = min(start + size, steps)
        lowest = start if reverse else start - window + 1
        first, end = max(lowest, 0), min(lowest + stop - start + window - 1, steps)
        part = band[first - lowest : end - lowest, : stop - start]
        covered = rows[:, first:end] if last else rows[..., first:end, :]
        factors = (covered, part) if last else (part.T, covered)
        if summed is None:
            blocks.append(adapter.matmul(*factors))
        else:
            xp.matmul(*factors, out=summed[:, start:stop] if last else summed[..., start:stop, :])
    if summed is None:
        summed = blocks[0] if len(blocks) == 1 else xp.concat(blocks, axis=-1 if last else -2)
    return xp.reshape(summed, x.shape)
