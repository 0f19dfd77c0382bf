"""The NumPy adapter, which computes gradients in closed form."""

from typing import Any

import array_api_compat.numpy
import numpy as np

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array, Axes, ChunkFunction, Namespace, Sums
from spikeloss_xp.backends.base import ArrayAPIAdapter
from spikeloss_xp.primitives import sum_of_products, sums_in_chunks


class NumPyAdapter(ArrayAPIAdapter):
    """The adapter for NumPy arrays, which evaluates losses on large arrays in chunks."""

    on_host = True

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.numpy

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        return values.copy()

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x)

    def to_device_of(self, x: Array, like: Array) -> Array:
        return x

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        return np.asarray(x)

    def are_within(self, x: Array, lowest: float, stop: float) -> bool:
        return bool(
            lowest <= np.minimum.reduce(x, axis=None) <= np.maximum.reduce(x, axis=None) < stop
        )

    def masked(self, x: Array, mask: Array) -> Array:
        # In NumPy, multiplying by the mask is faster than `where`.
        with np.errstate(all="ignore"):
            if np.isfinite(np.sum(x)):
                return x * mask.astype(x.dtype, copy=False)
        return np.where(mask.astype(bool, copy=False), x, x.dtype.type(0))

    def masked_sum(self, axis: int, x: Array, mask: Array) -> Array:
        with np.errstate(all="ignore"):
            total = sum_of_products(self, axis, x, mask.astype(x.dtype, copy=False))
            is_finite = np.isfinite(np.sum(total))
        return total if is_finite else super().masked_sum(axis, x, mask)

    def shielded(self, u: Array, mask: Array) -> Array:
        return self.masked(u, mask) + ~mask

    def scalar(self, like: Array, value: float) -> Array:
        return like.dtype.type(value)

    def arange(self, stop: int, like: Array) -> Array:
        return np.arange(stop)

    def sum(self, axis: int, x: Array) -> Array:
        # `einsum` has less overhead per row than `sum`. The rounding error of `einsum` grows with
        # the length of the row, so `einsum` is used only for short rows.
        last = axis in (-1, x.ndim - 1) and type(x) is np.ndarray
        if last and x.shape[-1] <= _tuning.SHORT_SUM and x.strides[-1] == x.itemsize:
            summed: np.ndarray = np.einsum("...t->...", x)
            return summed[..., None]
        return self.xp.sum(x, axis=axis, keepdims=True)

    def matmul(self, a: Array, b: Array) -> Array:
        if b.ndim > 2:
            return a @ b
        # The leading axes are merged, so that one matrix product is computed for all samples.
        return np.reshape(np.reshape(a, (-1, a.shape[-1])) @ b, (*a.shape[:-1], b.shape[-1]))

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        return np.asarray(values, like.dtype)

    def sums_in_blocks(self, x: Array, steps: Any) -> bool:
        return True

    def in_place(self, x: Array) -> bool:
        return True

    def entries_at(self, axis: int, x: Array, index: Array) -> Any:
        # Indexing `x` with this tuple has less overhead than `take_along_axis`.
        along = (self.along(i, x) for i in range(x.ndim))
        return tuple(index if i == axis else steps for i, steps in enumerate(along))

    def gather(self, axis: int, x: Array, entries: Any) -> Array:
        return x[entries]

    def scatter(self, axis: int, x: Array, entries: Any, values: Any) -> None:
        x[entries] = values

    def exp_of_difference(self, x: Array, y: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return super().exp_of_difference(x, y)

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        return sums_in_chunks(self, function, arrays, axes, _tuning.CHUNK)
