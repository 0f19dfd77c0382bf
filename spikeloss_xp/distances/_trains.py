"""Binned spike trains as vectors, and the inner products of all pairs of them.

With ``a = exp(-1 / tau)`` and the trace ``f[t] = sum(a**k * x[t - k] for k)``, the inner product of
two trains with the kernel ``exp(-|t - u| / tau)`` is that of two vectors:

    sum over t, u of a**|t - u| x[t] y[u]  =  (1 - a**2) sum over t < T of f[t] g[t]
                                              + a**2 f[T - 1] g[T - 1] .

The last term is the sum over all steps after the last one, where both traces decay. So the vector
of a train is its trace, and one number for the tail; a train of one spike has length 1.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from spikeloss_xp._arrays import Library, asarray_like, floating, library_of
from spikeloss_xp._input.layout import Layout
from spikeloss_xp._input.prepared import fill_masked, mask_of
from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array

BLOCK = 1 << 22  # entries of the traces, and of the products, that are computed at a time


class Trains(NamedTuple):
    """Spike trains in the dtype they came in, so that a block at a time is converted.

    Attributes
    ----------
    library : Library
        The library of the trains.
    spikes : array
        ``[train, unit, time]``, in the dtype of the argument.
    dtype : dtype
        The floating dtype to compute in.
    layout : Layout
        The layout of the argument.
    mask : array or None
        Which entries count, with the axes of `spikes`; axes along which it is constant may have
        length 1. None if all entries count.
    factor : array or None
        NaN for trains of impossible length, else 1, with the axes of `spikes`.
    """

    library: Library
    spikes: Array
    dtype: Any
    layout: Layout
    mask: Array | None
    factor: Array | None

    def steps(self, start: int, stop: int) -> Array:
        """Return some steps of the trains, in the dtype to compute in, 0 where masked."""
        xp = self.library.xp
        block = xp.astype(self.spikes[:, :, start:stop], self.dtype, copy=False)
        if self.factor is not None:
            block = block * self.factor
        if self.mask is not None:
            same = self.mask.shape[-1] == 1
            block = fill_masked(
                self.library, block, self.mask if same else self.mask[..., start:stop]
            )
        return block

    def gradient(self, cotangent: Array) -> Array:
        """Return the gradient in the axes and dtype of the argument, given that of the trains."""
        if self.mask is not None:
            cotangent = fill_masked(self.library, cotangent, self.mask)
        if self.factor is not None:
            cotangent = cotangent * self.factor
        cotangent = self.layout.input_axes(self.library, cotangent)
        if self.library.xp.isdtype(self.spikes.dtype, "real floating"):
            return self.library.xp.astype(cotangent, self.spikes.dtype, copy=False)
        return cotangent


def prepare_trains(
    library: Library, x: Array, where: Any, lengths: Any, *, time_axis: int, y: bool = False
) -> Trains:
    """Return the trains of the argument `x`, or of `y`."""
    name = "y" if y else "x"
    library.check_dense(x, name)
    shape = tuple(x.shape)
    if len(shape) not in (2, 3):
        one = f" (one train is {name}[None])" if len(shape) == 1 else ""
        raise ValueError(
            f"{name} must have axes [train, time] or [train, unit, time], in the order that "
            f"time_axis tells; got shape {shape}{one}"
        )
    if not -len(shape) <= time_axis < len(shape):
        raise ValueError(f"time_axis={time_axis} is not an axis of {name} of shape {shape}")
    if 0 in shape:
        raise ValueError(f"{name} has no elements: got shape {shape}")
    layout = Layout.of_shape(shape, time_axis % len(shape))

    spikes = layout.batch_class_time(library, x)
    first = floating(library, spikes[:1, :1, :1], name)
    names = ("y_where", "y_lengths") if y else ("where", "lengths")
    mask, factor = mask_of(library, layout, first, where, lengths, names)
    if mask is not None:
        mask = layout.batch_class_time(library, mask)
    if factor is not None:
        factor = layout.batch_class_time(library, factor)
    return Trains(library, spikes, first.dtype, layout, mask, factor)


def prepare_pair(
    x: Array, y: Any, masks: tuple[Any, Any], y_masks: tuple[Any, Any], time_axis: int
) -> tuple[Trains, Trains | None]:
    """Return the trains of both arguments; None for `y` if `x` is compared with itself."""
    library = library_of(x, "x")
    trains = prepare_trains(library, x, *masks, time_axis=time_axis)
    if y is None:
        if any(mask is not None for mask in y_masks):
            raise ValueError("y_where and y_lengths are masks of y: pass y too")
        return trains, None
    y = asarray_like(library, x, y, "y")
    others = prepare_trains(library, y, *y_masks, time_axis=time_axis, y=True)
    if others.spikes.shape[1:] != trains.spikes.shape[1:] or y.ndim != x.ndim:
        raise ValueError(
            f"y must have the shape of x, but for the number of trains; got {tuple(y.shape)} and "
            f"x of {tuple(x.shape)}"
        )
    return trains, others._replace(dtype=trains.dtype)


class Products(NamedTuple):
    """Inner products of trains with themselves and with each other.

    Attributes
    ----------
    x, y : array
        ``<x, x>`` of each train of `x`, and ``<y, y>`` of each of `y`.
    pairs : array
        ``<x, y>`` of all pairs, ``[train of x, train of y]``.
    """

    x: Array
    y: Array
    pairs: Array


def inner_products(
    x: Trains, y: Trains | None, time_constant: float, cosine: float
) -> tuple[Products, Callable[[Products], Array]]:
    """Return the inner products, and the pullback from them to `x`."""
    library = x.library
    size = _block_size(x, y)
    of_x = _vectors(x, time_constant, cosine, size)
    of_y = None if y is None else _vectors(y, time_constant, cosine, size)
    norm_x: Any = None
    norm_y: Any = None
    pairs: Any = None
    for part in of_x:
        if of_y is None:
            pairs = _plus_product(library, pairs, part, part)
            continue
        other = next(of_y)
        norm_x = _plus(norm_x, library.sum(part * part, -1))
        norm_y = _plus(norm_y, library.sum(other * other, -1))
        pairs = _plus_product(library, pairs, part, other)
    if of_y is None:
        _mirror(library, pairs)
        # So that the distance of a train from itself is exactly 0.
        norm_x = norm_y = _diagonal(library, pairs)

    def pullback(cotangent: Products) -> Array:
        # <x, y> is bilinear: its derivative in x is the kernel applied to y.
        of_norms, of_pairs = cotangent.x, cotangent.pairs
        if y is None:
            of_norms = of_norms + cotangent.y
            of_pairs = of_pairs + library.xp.matrix_transpose(of_pairs)
        spikes = x.steps(0, x.layout.steps)
        others = spikes if y is None else y.steps(0, y.layout.steps)
        rows = library.xp.reshape(others, (others.shape[0], -1))
        pulled = library.xp.reshape(library.matmul(of_pairs, rows), spikes.shape)
        pulled = pulled + 2 * of_norms[:, None, None] * spikes
        return x.gradient(_apply_kernel(library, pulled, time_constant, cosine))

    return Products(norm_x, norm_y, pairs), pullback


def _vectors(trains: Trains, time_constant: float, cosine: float, size: int) -> Iterator[Array]:
    """Yield the vectors of the trains, ``[train, entries]``, those of some steps at a time."""
    library, steps = trains.library, trains.layout.steps
    scale = math.sqrt(-math.expm1(-2 / time_constant))
    carried = None
    for start in range(0, steps, size):
        block = trains.steps(start, min(start + size, steps))
        number = block.shape[-1]
        trace = library.filter_along_axis(block, Exponential(time_constant, number), -1)
        if carried is not None:  # the trace of the steps before
            step = library.xp.astype(library.arange(number, trace) + 1, trace.dtype)
            trace = trace + carried * library.xp.exp(-step / time_constant)
        carried = trace[..., -1:]
        yield _joined(library, trace, scale, cosine)
    yield _joined(library, carried, math.exp(-1 / time_constant), cosine)


def _joined(library: Library, trace: Array, scale: float, cosine: float) -> Array:
    """Return the traces of the units and that of their sum as one row, each with its weight.

    By Houghton and Sen, the inner product is ``1 - cosine`` times that of all units and `cosine`
    times that of the pooled trains.
    """
    xp, trains, units = library.xp, trace.shape[0], trace.shape[1]
    if units == 1:
        cosine = 0.0
    parts = []
    if cosine < 1:
        every = trace * (scale * math.sqrt(1 - cosine))
        parts.append(xp.reshape(every, (trains, units * trace.shape[-1])))
    if cosine > 0:
        parts.append(xp.sum(trace, axis=1) * (scale * math.sqrt(cosine)))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)


def _apply_kernel(library: Library, x: Array, time_constant: float, cosine: float) -> Array:
    """Return ``sum(exp(-|t - u| / tau) * x[u] for u)``, with units mixed by `cosine`."""
    if x.shape[1] > 1 and cosine > 0:
        x = (1 - cosine) * x + cosine * library.xp.sum(x, axis=1, keepdims=True)
    kernel = Exponential(time_constant, x.shape[-1])
    before = library.filter_along_axis(x, kernel, -1)
    after = library.filter_along_axis(x, kernel, -1, reverse=True)
    return before + after - x


def _block_size(x: Trains, y: Trains | None) -> int:
    """Return the number of steps whose traces are computed at a time."""
    steps = x.layout.steps
    trains = x.spikes.shape[0] + (0 if y is None else y.spikes.shape[0])
    entries = trains * x.spikes.shape[1]
    if not isinstance(entries, int) or entries * steps <= BLOCK:  # sizes may be symbols
        return steps
    return max(BLOCK // entries, 1)


def _plus(total: Array | None, x: Array) -> Array:
    return x if total is None else total + x


def _plus_product(library: Library, total: Array | None, x: Array, y: Array) -> Array:
    """Add ``x @ y.T``; of a set with itself, if in blocks, only on and above the diagonal."""
    xp = library.xp
    if not in_row_blocks(library, x.shape[0], y.shape[0]):
        return _plus(total, library.matmul(x, xp.matrix_transpose(y)))
    if total is None:
        total = xp.zeros((x.shape[0], y.shape[0]), dtype=x.dtype, device=library.device(x))
    for rows in row_blocks(library, x.shape[0], y.shape[0]):
        first = rows.start if x is y else 0
        changed = total[rows, first:]
        changed += library.matmul(x[rows, :], xp.matrix_transpose(y[first:, :]))
    return total


def _mirror(library: Library, pairs: Array) -> None:
    """Copy the blocks above the diagonal to those below it, if the products are in blocks."""
    trains = pairs.shape[0]
    if in_row_blocks(library, trains, trains):
        for rows in row_blocks(library, trains, trains):
            pairs[rows.stop :, rows] = pairs[rows, rows.stop :].T


def _diagonal(library: Library, pairs: Array) -> Array:
    """Return a copy of the diagonal.

    Not by ``linalg.diagonal``: its gradient, of a matrix product and compiled by PyTorch 2.15, is
    read from memory that nothing has written.
    """
    xp, trains = library.xp, pairs.shape[0]
    parts = []
    for rows in row_blocks(library, trains, trains):
        block = pairs[rows, rows]
        number = library.arange(block.shape[0], pairs)
        parts.append(xp.sum(xp.where(number[:, None] == number, block, 0.0), axis=1))
    return parts[0] if len(parts) == 1 else xp.concat(parts)


def in_row_blocks(library: Library, rows: int, columns: int) -> bool:
    """Tell whether the pairs are computed in place, some rows at a time, to save memory."""
    return library.accumulate == "in place" and rows * columns > BLOCK


def row_blocks(library: Library, rows: int, columns: int) -> Iterator[slice]:
    """Yield the rows of pairs that are computed at a time."""
    number = max(BLOCK // columns, 1) if in_row_blocks(library, rows, columns) else rows
    for start in range(0, rows, number):
        yield slice(start, min(start + number, rows))
