"""The inner products of all pairs of spike trains, and their pullback to the trains.

Let ``a = exp(-1 / tau)``. The trace of a train ``x`` is ``f[t] = sum(a**k * x[t - k] for k)``, and
the trace of another train ``y`` is ``g``. With the kernel ``exp(-|t - u| / tau)``, the inner
product of the two trains equals the inner product of two vectors:

    sum over t, u of a**|t - u| x[t] y[u]  =  (1 - a**2) sum over t < T of f[t] g[t]
                                              + a**2 f[T - 1] g[T - 1] .

The last summand is the sum over all steps after the end of the trains, where both traces decay. The
vector of a train therefore consists of the trace, multiplied by ``sqrt(1 - a**2)``, and of one
number for the steps after the end.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from spikeloss_xp import _checks, _tuning
from spikeloss_xp._arrays import Adapter, adapter_of
from spikeloss_xp._input.prepared import Trains
from spikeloss_xp._spike_pairs import kernels, replace_padding, symmetric
from spikeloss_xp._typing import Array
from spikeloss_xp.distances._trains import BinnedTrains, binned_sets, padded_sets
from spikeloss_xp.primitives import slices
from spikeloss_xp.primitives.kernels import Exponential


class Products(NamedTuple):
    """The inner products of each train x of `input` with each train y of `other`.

    The arrays `x` and `y` hold the inner product of each train with itself. The array `pairs` has a
    row for each train of `input` and a column for each train of `other`.
    """

    adapter: Adapter
    x: Array
    y: Array
    pairs: Array


# The pullback takes the cotangents of the fields `x` and `pairs` of `Products`, and returns the
# gradient with respect to `input`.
ProductsAndPullback = tuple[Products, Callable[[Array, Array], Array]]


def inner_products(
    input: Any,
    other: Any,
    time_constant: float,
    cosine: float,
    time_axis: int,
    times: bool,
    **masks: Any,
) -> ProductsAndPullback:
    """Return the inner products of the trains that were passed to a metric, and their pullback.

    If `other` is None, each train has both a row and a column in the matrix of inner products. The
    pullback returns only the gradient that results from the row, so the caller must add the
    gradient that results from the column.
    """
    time_constant = _checks.scale(time_constant, "time_constant")
    cosine = _checks.share(cosine, "cosine")
    time_axis = _checks.integer(time_axis, "time_axis")
    if _checks.flag(times, "times"):
        if any(mask is not None for mask in masks.values()):
            raise ValueError("masks are not supported for spike times: pad spike times with NaN")
        return products_of_times(input, other, time_constant)
    return products_of_bins(binned_sets(input, other, time_axis, **masks), time_constant, cosine)


def products_of_bins(
    sets: list[BinnedTrains], time_constant: float, cosine: float
) -> ProductsAndPullback:
    """Return the inner products of the trains within one set, or between two sets."""
    x, y, alone = sets[0], sets[-1], len(sets) == 1
    adapter, layout = x.prepared.adapter, x.prepared.layout
    entries = sum(trains.prepared.layout.batch for trains in sets) * layout.neurons
    known = isinstance(entries, int)  # False for symbolic sizes
    steps = slices(layout.steps, _tuning.PAIRS_CHUNK // entries if known else layout.steps)
    vectors = [_vectors(trains, time_constant, cosine, steps) for trains in sets]
    chunks = row_slices(adapter, x.prepared.values, layout.batch, y.prepared.layout.batch)
    norms, pairs = [0.0, 0.0], None
    for part in vectors[0]:
        parts = [part, *map(next, vectors[1:])]  # `zip` would keep earlier parts in memory
        if not alone:
            squares = [adapter.sum(-1, part * part)[:, 0] for part in parts]
            norms = [norm + square for norm, square in zip(norms, squares, strict=True)]
        pairs = _plus_product(adapter, pairs, parts[0], parts[-1], chunks)

    def to_trains(of_x: Array, of_pairs: Array) -> Array:
        # <x, y> is bilinear, so its derivative with respect to x is y, filtered with the kernel.
        spikes = x.steps(slice(None))
        others = spikes if alone else y.steps(slice(None))
        rows = adapter.xp.reshape(others, (others.shape[0], -1))
        pulled = adapter.xp.reshape(adapter.matmul(of_pairs, rows), spikes.shape)
        pulled = pulled + 2 * of_x[:, None, None] * spikes
        pulled = _apply_kernel(adapter, pulled, time_constant, cosine)
        gradient, mask = adapter.moveaxis(pulled, -1, layout.time), x.prepared.mask
        return x.prepared.to_input()(gradient if mask is None else adapter.masked(gradient, mask))

    if alone:
        return _of_one_set(adapter, pairs), to_trains
    return Products(adapter, norms[0], norms[1], pairs), to_trains


def products_of_times(input: Any, other: Any, time_constant: float) -> ProductsAndPullback:
    """Return the inner products of trains of spike times, and their pullback.

    Each pair of a spike at ``t`` and a spike at ``u`` adds ``exp(-|t - u| / tau)`` to the product.
    """
    sets = padded_sets(input, other)
    times, others, adapter = sets[0], sets[-1], adapter_of(sets[0])
    prepared = Trains(adapter, times, None, None, getattr(input, "dtype", times.dtype))
    xp, columns = adapter.xp, others[None, :, :]
    entries = times.shape[1] * math.prod(others.shape)
    chunks = slices(times.shape[0], _tuning.PAIRS_CHUNK // max(entries, 1))

    def products(a: Array, b: Array) -> Array:
        pairs = kernels(adapter, *_facing(adapter, a, b), time_constant)
        return xp.sum(pairs, axis=(-2, -1))

    def slopes(a: Array, b: Array) -> Array:  # derivatives with respect to the times `a`
        a, b = _facing(adapter, a, b)
        direction = adapter.sign(b - a)  # 0 if the two times are equal
        return xp.sum(kernels(adapter, a, b, time_constant) * direction, axis=-1) / time_constant

    def to_trains(of_x: Array, of_pairs: Array) -> Array:
        gradient = []
        for some in chunks:
            own = times[some, :]
            across = slopes(own[:, None, :], columns) * of_pairs[some, :, None]
            gradient.append(xp.sum(across, axis=1) + 2 * of_x[some, None] * slopes(own, own))
        return prepared.to_input()(xp.concat(gradient, axis=0))

    pairs = xp.concat([products(times[some, None, :], columns) for some in chunks], axis=0)
    if other is None:
        return _of_one_set(adapter, pairs), to_trains
    return Products(adapter, products(times, times), products(others, others), pairs), to_trains


def _facing(adapter: Adapter, a: Array, b: Array) -> tuple[Array, Array]:
    """Return `a` and `b` with an additional axis each, so that they broadcast to pairs of spikes.

    Padding is replaced by the values that `kernels` requires.
    """
    a, b = replace_padding(adapter, a, math.inf), replace_padding(adapter, b, -math.inf)
    return a[..., :, None], b[..., None, :]


def _vectors(
    trains: BinnedTrains, time_constant: float, cosine: float, steps: list[slice]
) -> Iterator[Array]:
    """Yield the vectors of all trains in parts: a part for each slice in `steps`, and a last part.

    The last part holds the entries for the steps after the end of the trains.
    """
    adapter, carried = trains.prepared.adapter, None
    scale = math.sqrt(-math.expm1(-2 / time_constant))
    for some in steps:
        chunk = trains.steps(some)
        trace = adapter.causal_filter(chunk, Exponential(time_constant, chunk.shape[-1]), -1)
        if carried is not None:  # add the decaying trace of the previous steps
            step = adapter.xp.astype(adapter.along(-1, trace) + 1, trace.dtype)
            trace = trace + carried * adapter.xp.exp(-step / time_constant)
        carried = trace[..., -1:]
        yield _joined(adapter, trace, scale, cosine)
    yield _joined(adapter, carried, math.exp(-1 / time_constant), cosine)


def _joined(adapter: Adapter, trace: Array, scale: float, cosine: float) -> Array:
    """Return a row for each train, with the weighted traces of its units and of the pooled train.

    Houghton and Sen define the inner product of two trains as the sum of two parts. The first part
    is the sum of the inner products of the units, multiplied by ``1 - cosine``. The second part is
    the inner product of the pooled trains, multiplied by `cosine`.
    """
    xp, (trains, units, steps), parts = adapter.xp, trace.shape, []
    if units == 1:
        cosine = 0.0
    if cosine < 1:
        every = trace * (scale * math.sqrt(1 - cosine))
        parts.append(xp.reshape(every, (trains, units * steps)))
    if cosine > 0:
        parts.append(xp.sum(trace, axis=1) * (scale * math.sqrt(cosine)))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)


def _apply_kernel(adapter: Adapter, x: Array, time_constant: float, cosine: float) -> Array:
    """Mix the units of each train, and filter the result with the kernel.

    The filter replaces the value at each step t by ``sum(exp(-|t - u| / tau) * x[u])`` over all
    steps u.
    """
    if x.shape[1] > 1 and cosine > 0:
        x = (1 - cosine) * x + cosine * adapter.xp.sum(x, axis=1, keepdims=True)
    kernel = Exponential(time_constant, x.shape[-1])
    before = adapter.causal_filter(x, kernel, -1)
    after = adapter.causal_filter(x, kernel, -1, reverse=True)
    return before + after - x


def row_slices(adapter: Adapter, like: Array, rows: int, columns: int) -> list[slice]:
    """Split the rows of the matrix of all pairs of trains into slices.

    A single slice covers all rows if arrays computed from `like` must not be changed in place.
    """
    if not adapter.in_place(like):
        return [slice(None)]
    return slices(rows, _tuning.PAIRS_CHUNK // columns)


def _plus_product(
    adapter: Adapter, total: Array | None, x: Array, y: Array, chunks: list[slice]
) -> Array:
    """Return ``total + x @ y.T``, or ``x @ y.T`` if `total` is None.

    If there are several chunks, `total` is changed in place, and blocks below the diagonal of a
    symmetric product are not computed.
    """
    xp = adapter.xp
    if len(chunks) == 1:
        product = adapter.matmul(x, xp.matrix_transpose(y))
        return product if total is None else total + product
    if total is None:
        total = xp.zeros((x.shape[0], y.shape[0]), dtype=x.dtype, device=adapter.device(x))
    for rows in chunks:
        first = rows.start if x is y else 0
        changed = total[rows, first:]
        changed += adapter.matmul(x[rows, :], xp.matrix_transpose(y[first:, :]))
    return total


def _of_one_set(adapter: Adapter, pairs: Array) -> Products:
    """Return the inner products of the trains within one set.

    The inner product of each train with itself is copied from the diagonal, so that the distance of
    a train from itself is exactly 0. The function does not use ``linalg.diagonal``, because PyTorch
    2.15 compiles the gradient of ``linalg.diagonal`` incorrectly.
    """
    xp, chunks = adapter.xp, row_slices(adapter, pairs, *pairs.shape)
    if len(chunks) == 1:
        pairs = symmetric(adapter, pairs)
    diagonal = []
    for rows in chunks:
        block = pairs[rows, rows]
        if len(chunks) > 1:  # change `pairs` in place
            block[...] = symmetric(adapter, block)
            pairs[rows.stop :, rows] = pairs[rows, rows.stop :].T
        number = adapter.arange(block.shape[0], pairs)
        diagonal.append(xp.sum(xp.where(number[:, None] == number[None, :], block, 0.0), axis=1))
    norms = xp.concat(diagonal)
    return Products(adapter, norms, norms, pairs)
