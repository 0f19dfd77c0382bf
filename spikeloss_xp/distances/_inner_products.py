"""Comparisons of all pairs of binned spike trains, which follow from their inner products.

With ``a = exp(-1 / tau)`` and the trace ``f[t] = sum(a**k * x[t - k] for k)``, the inner product of
two trains with the kernel ``exp(-|t - u| / tau)`` is that of two vectors:

    sum over t, u of a**|t - u| x[t] y[u]  =  (1 - a**2) sum over t < T of f[t] g[t]
                                              + a**2 f[T - 1] g[T - 1] .

The last term is the sum over all steps after the last one, where both traces decay. So the vector
of a train is its trace, and one number for the tail; a train of one spike has length 1.
"""

import math
from abc import ABC as ClosedForm
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from spikeloss_xp import _checks, _tuning
from spikeloss_xp._arrays import Adapter, adapter_of, asarray_like, floating, on_device_of, sign
from spikeloss_xp._input.prepared import Layout, Prepared, fill_masked, mask_of
from spikeloss_xp._spike_pairs import kernels, replace_padding, symmetric
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, Pullback
from spikeloss_xp.distances._edit_distances import padded_times
from spikeloss_xp.primitives.chunks import slices
from spikeloss_xp.primitives.kernels import Exponential

ROUNDINGS = 16  # of the norms, by which the squared distance of two equal trains may differ from 0


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


Comparison = tuple[Array, Callable[[Array], Products]]  # of all pairs, and its pullback
# The adapter, the products, and the pullback to `x` from its norms and from the pairs.
ProductsAndPullback = tuple[Adapter, Products, Callable[[Array, Array], Array]]


class Trains(NamedTuple):
    """Spike trains ``[train, unit, time]`` in the dtype they came in, and the one to compute in.

    A chunk at a time is converted.
    """

    prepared: Prepared
    dtype: Any

    def steps(self, steps: slice) -> Array:
        """Return some steps of the trains, in the dtype to compute in, 0 where masked."""
        trains, adapter, axis = self.prepared, self.prepared.adapter, self.prepared.layout.time
        index = (*[slice(None)] * axis, steps, ...)
        chunk = adapter.xp.astype(trains.values[index], self.dtype, copy=False)
        if trains.valid_or_nan is not None:
            chunk = chunk * trains.layout.collapsed(adapter, trains.valid_or_nan)
        if trains.mask is not None:
            same = trains.mask.shape[axis] == 1
            chunk = fill_masked(adapter, chunk, trains.mask if same else trains.mask[index])
        return adapter.moveaxis(chunk, axis, -1)


def prepare_trains(
    adapter: Adapter, x: Array, where: Any, lengths: Any, time_axis: int, prefix: str = ""
) -> Trains:
    """Return the trains of the argument `x`; the prefix ``"y_"`` names those of `y` in errors."""
    name = "y" if prefix else "x"
    adapter.check_dense(x, name)
    shape = tuple(x.shape)
    if len(shape) not in (2, 3):
        one = f" (one train is {name}[None])" if len(shape) == 1 else ""
        raise ValueError(
            f"{name} must have axes [train, time] or [train, unit, time], in the order that "
            f"time_axis tells; got shape {shape}{one}"
        )
    layout = Layout.of(shape, time_axis, name)

    spikes = layout.collapsed(adapter, x)
    first = floating(adapter, spikes[:1, :1, :1], name)
    names = (f"{prefix}where", f"{prefix}lengths")
    mask, valid_or_nan = mask_of(adapter, layout, first, where, lengths, names)
    if mask is not None:
        mask = layout.collapsed(adapter, mask)
    prepared = Prepared(adapter, spikes, mask, layout, x.dtype, valid_or_nan)
    return Trains(prepared, first.dtype)


def products_of_bins(
    x: Trains, y: Trains | None, time_constant: float, cosine: float
) -> ProductsAndPullback:
    """Return the inner products of trains in bins, and the pullback from them to `x`.

    Without `y`, the trains of `x` are compared with each other.
    """
    adapter, layout, sets = x.prepared.adapter, x.prepared.layout, [x] if y is None else [x, y]
    entries = sum(trains.prepared.layout.batch for trains in sets) * layout.neurons
    known = isinstance(entries, int)  # sizes may be symbols
    steps = slices(layout.steps, _tuning.PAIRS_CHUNK // entries if known else layout.steps)
    vectors = [_vectors(trains, time_constant, cosine, steps) for trains in sets]
    chunks = _row_slices(adapter, layout.batch, sets[-1].prepared.layout.batch)
    norms, pairs = [0.0, 0.0], None
    for part in vectors[0]:
        parts = [part, *map(next, vectors[1:])]  # `zip` would keep the first ones in memory
        if y is not None:
            squares = [adapter.sum(part * part, -1) for part in parts]
            norms = [norm + square for norm, square in zip(norms, squares, strict=True)]
        pairs = _plus_product(adapter, pairs, parts[0], parts[-1], chunks)
    products = _of_one_set(adapter, pairs) if y is None else Products(norms[0], norms[1], pairs)

    def pullback(of_norms: Array, of_pairs: Array) -> Array:
        # <x, y> is bilinear: its derivative in x is the kernel applied to y.
        spikes = x.steps(slice(None))
        others = spikes if y is None else y.steps(slice(None))
        rows = adapter.xp.reshape(others, (others.shape[0], -1))
        pulled = adapter.xp.reshape(adapter.matmul(of_pairs, rows), spikes.shape)
        pulled = pulled + 2 * of_norms[:, None, None] * spikes
        pulled = _apply_kernel(adapter, pulled, time_constant, cosine)
        return x.prepared.gradient(adapter.moveaxis(pulled, -1, layout.time))

    return adapter, products, pullback


def products_of_times(x: Any, y: Any, time_constant: float) -> ProductsAndPullback:
    """Return the same for spike times. Each pair of spikes adds ``exp(-|t - u| / tau)``."""
    times = padded_times(x, "x", None)
    others = times if y is None else padded_times(y, "y", times)
    adapter = adapter_of(times)
    prepared = Prepared(adapter, times, None, None, getattr(x, "dtype", times.dtype))
    xp, tau = adapter.xp, time_constant
    rows = replace_padding(adapter, times, math.inf)[:, :, None, None]
    own = replace_padding(adapter, times, -math.inf)[:, None, None, :]
    columns = replace_padding(adapter, others, -math.inf)[None, None, :, :]
    entries = times.shape[1] * math.prod(others.shape)
    chunks = slices(times.shape[0], _tuning.PAIRS_CHUNK // max(entries, 1))
    parts = []
    for some in chunks:
        parts.append(xp.sum(kernels(adapter, rows[some, ...], columns, tau), axis=(1, 3)))
    pairs = xp.concat(parts, axis=0)
    if y is None:
        products = _of_one_set(adapter, pairs)
    else:
        products = Products(_norms(adapter, times, tau), _norms(adapter, others, tau), pairs)

    def slopes(a: Array, b: Array) -> Array:
        return kernels(adapter, a, b, tau) * (sign(adapter, b - a) / tau)  # 0 for equal times

    def pullback(of_norms: Array, of_pairs: Array) -> Array:
        gradient = []
        for some in chunks:
            each = rows[some, ...]
            total = xp.sum(slopes(each, columns) * of_pairs[some, None, :, None], axis=(2, 3))
            norms = xp.sum(slopes(each, own[some, ...]), axis=(2, 3))
            gradient.append(total + 2 * of_norms[some, None] * norms)
        return prepared.gradient(xp.concat(gradient, axis=0))

    return adapter, products, pullback


def _norms(adapter: Adapter, times: Array, time_constant: float) -> Array:
    """Return the inner product of each train of spike times with itself."""
    rows, columns = (replace_padding(adapter, times, value) for value in (math.inf, -math.inf))
    pairs = kernels(adapter, rows[:, :, None], columns[:, None, :], time_constant)
    return adapter.xp.sum(pairs, axis=(1, 2))


def _vectors(
    trains: Trains, time_constant: float, cosine: float, steps: list[slice]
) -> Iterator[Array]:
    """Yield the vectors of the trains, ``[train, entries]``, those of some steps at a time."""
    adapter, carried = trains.prepared.adapter, None
    scale = math.sqrt(-math.expm1(-2 / time_constant))
    for some in steps:
        chunk = trains.steps(some)
        trace = adapter.causal_filter(chunk, Exponential(time_constant, chunk.shape[-1]), -1)
        if carried is not None:  # the trace of the steps before
            step = adapter.xp.astype(adapter.along(-1, trace) + 1, trace.dtype)
            trace = trace + carried * adapter.xp.exp(-step / time_constant)
        carried = trace[..., -1:]
        yield _joined(adapter, trace, scale, cosine)
    yield _joined(adapter, carried, math.exp(-1 / time_constant), cosine)


def _joined(adapter: Adapter, trace: Array, scale: float, cosine: float) -> Array:
    """Return the traces of the units and that of their sum as one row, each with its weight.

    By Houghton and Sen, the inner product is ``1 - cosine`` times that of all units and `cosine`
    times that of the pooled trains.
    """
    xp, trains, units = adapter.xp, trace.shape[0], trace.shape[1]
    if units == 1:
        cosine = 0.0
    parts = []
    if cosine < 1:
        every = trace * (scale * math.sqrt(1 - cosine))
        parts.append(xp.reshape(every, (trains, units * trace.shape[-1])))
    if cosine > 0:
        parts.append(xp.sum(trace, axis=1) * (scale * math.sqrt(cosine)))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=-1)


def _apply_kernel(adapter: Adapter, x: Array, time_constant: float, cosine: float) -> Array:
    """Return ``sum(exp(-|t - u| / tau) * x[u] for u)``, with units mixed by `cosine`."""
    if x.shape[1] > 1 and cosine > 0:
        x = (1 - cosine) * x + cosine * adapter.xp.sum(x, axis=1, keepdims=True)
    kernel = Exponential(time_constant, x.shape[-1])
    before = adapter.causal_filter(x, kernel, -1)
    after = adapter.causal_filter(x, kernel, -1, reverse=True)
    return before + after - x


def _row_slices(adapter: Adapter, rows: int, columns: int) -> list[slice]:
    """Return the rows of pairs that are computed at a time: if several, in place to save memory."""
    if adapter.accumulate != "in place":
        return [slice(None)]
    return slices(rows, _tuning.PAIRS_CHUNK // columns)


def _plus_product(
    adapter: Adapter, total: Array | None, x: Array, y: Array, chunks: list[slice]
) -> Array:
    """Add ``x @ y.T``; of a set with itself, if in chunks, only on and above the diagonal."""
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
    """Return the products of a set with itself, given the blocks on and above the diagonal.

    The norms are a copy of the diagonal, so that the distance of a train from itself is exactly 0.
    Not by ``linalg.diagonal``: its gradient, of a matrix product and compiled by PyTorch 2.15, is
    read from memory that nothing has written.
    """
    xp, chunks = adapter.xp, _row_slices(adapter, *pairs.shape)
    if len(chunks) == 1:
        pairs = symmetric(adapter, pairs)
    diagonal = []
    for rows in chunks:
        block = pairs[rows, rows]
        if len(chunks) > 1:  # in place
            block[...] = symmetric(adapter, block)
            pairs[rows.stop :, rows] = pairs[rows, rows.stop :].T
        number = adapter.arange(block.shape[0], pairs)
        diagonal.append(xp.sum(xp.where(number[:, None] == number[None, :], block, 0.0), axis=1))
    norms = xp.concat(diagonal)
    return Products(norms, norms, pairs)


@dataclass(frozen=True)
class Pairwise(ClosedForm):
    """A function of all pairs of trains, which follows from their inner products."""

    time_constant: float
    _: KW_ONLY
    cosine: float = 0.0
    time_axis: int = -1
    times: bool = False
    has_closed_form = True

    def captured_arrays(self):
        return ()

    def __post_init__(self) -> None:
        _checks.check_fields(
            self,
            time_constant=_checks.scale,
            cosine=_checks.share,
            time_axis=_checks.integer,
            times=_checks.flag,
        )

    @on_device_of("x")
    def __call__(self, x: ArrayT, y: ArrayLike | None = None, **masks: ArrayLike | None) -> ArrayT:
        """Return the matrix of all pairs; see the function of the same name for the arguments."""
        return self.value(x, y, **masks)

    def value(  # type: ignore[override]
        self, x: ArrayT, y: ArrayLike | None = None, **masks: ArrayLike | None
    ) -> ArrayT:
        """Return the matrix of all pairs, with operations that the library can differentiate."""
        adapter, products, _ = self._products(x, y, **masks)
        pairs: ArrayT = products.pairs
        chunks = _row_slices(adapter, *pairs.shape)
        if len(chunks) == 1:
            pairs, _ = self._compare(adapter, products)
            return pairs
        for rows in chunks:
            # To free the pullback only after the next block is computed keeps its memory in use:
            # freed at once, the system takes it back, and 4,000 trains took 1.15 times as long.
            part = Products(products.x[rows], products.y, products.pairs[rows, :])
            products.pairs[rows, :], _ = self._compare(adapter, part)
        return pairs

    def value_and_pullback(  # type: ignore[override]
        self, x: ArrayT, y: ArrayLike | None = None, **masks: ArrayLike | None
    ) -> tuple[ArrayT, Pullback]:
        """Return the matrix of all pairs, and the pullback from it to `x`, in closed form."""
        adapter, products, to_trains = self._products(x, y, **masks)
        value, to_products = self._compare(adapter, products)

        def pullback(cotangent: Array) -> Array:
            of_x, of_y, of_pairs = to_products(cotangent)
            if y is None:  # each train is in a row and in a column
                of_x, of_pairs = of_x + of_y, of_pairs + adapter.xp.matrix_transpose(of_pairs)
            return to_trains(of_x, of_pairs)

        return value, pullback

    def _products(
        self,
        x: Array,
        y: Any,
        where: Any = None,
        lengths: Any = None,
        y_where: Any = None,
        y_lengths: Any = None,
    ) -> ProductsAndPullback:
        """Return the inner products of the arguments of a call, and the pullback to `x`."""
        if self.times:
            if any(mask is not None for mask in (where, lengths, y_where, y_lengths)):
                raise ValueError("masks are for trains in bins: pad spike times with NaN")
            return products_of_times(x, y, self.time_constant)
        if isinstance(x, list | tuple):
            raise TypeError(
                "x must be one array of trains in bins; for spike times, a list with an array for "
                "each train, pass times=True"
            )
        adapter = adapter_of(x, "x")
        trains, others = prepare_trains(adapter, x, where, lengths, self.time_axis), None
        if y is not None:
            y = asarray_like(adapter, x, y, "y")
            others = prepare_trains(adapter, y, y_where, y_lengths, self.time_axis, "y_")
            own, other = trains.prepared.layout, others.prepared.layout
            if (own.neurons, own.steps) != (other.neurons, other.steps) or y.ndim != x.ndim:
                raise ValueError(
                    f"y must have the shape of x, but for the number of trains; got "
                    f"{tuple(y.shape)} and x of {tuple(x.shape)}"
                )
            others = others._replace(dtype=trains.dtype)
        elif y_where is not None or y_lengths is not None:
            raise ValueError("y_where and y_lengths are masks of y: pass y too")
        return products_of_bins(trains, others, self.time_constant, self.cosine)

    @abstractmethod
    def _compare(self, adapter: Adapter, products: Products) -> Comparison:
        """Return the comparison of all pairs, and the pullback from it to the inner products."""


@dataclass(frozen=True, kw_only=True)
class VanRossum(Pairwise):
    """The van Rossum distance of all pairs of trains, as an object with a gradient.

    ``VanRossum(time_constant, ...)(x, y)`` is ``van_rossum(x, y, time_constant=time_constant,
    ...)``. Parameters, arguments of a call and errors are those of `van_rossum`. `value_and_grad`
    of the object has the gradient with respect to `x` on every library.

    See Also
    --------
    van_rossum : The function, with the formula and the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> x, y = np.zeros((1, 50)), np.zeros((1, 50))
    >>> x[0, 20] = y[0, 22] = 1
    >>> distance = sx.distances.VanRossum(10, squared=True)
    >>> value, gradient = sx.value_and_grad(distance)(x, y, cotangent=[[1.0]])
    >>> value.round(3), gradient[0, 18:25].round(3)
    (array([[0.363]]), array([ 0.297,  0.328,  0.363,  0.   , -0.363, -0.328, -0.297]))
    """

    squared: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, squared=_checks.flag)

    def _compare(self, adapter: Adapter, products: Products) -> Comparison:
        xp = adapter.xp
        norms = products.x[:, None] + products.y[None, :]
        square = norms - 2 * products.pairs
        # Less than rounding errors of the norms is no distance, whose root would be far from 0.
        equal = square <= norms * (ROUNDINGS * float(xp.finfo(norms.dtype).eps))
        del norms
        if self.squared:
            distance = xp.where(equal, 0.0, square)
        else:  # the root has no derivative at 0: it must not see a 0
            distance = xp.where(equal, 0.0, xp.sqrt(xp.where(equal, 1.0, square)))

        def pullback(cotangent: Array) -> Products:
            if not self.squared:
                cotangent = cotangent / (2 * xp.where(equal, 1.0, distance))
            cotangent = xp.where(equal, 0.0, cotangent)
            of_x, of_y = xp.sum(cotangent, axis=1), xp.sum(cotangent, axis=0)
            return Products(of_x, of_y, -2 * cotangent)

        return distance, pullback


def van_rossum(
    x: ArrayT,
    y: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    squared: bool = False,
    time_axis: int = -1,
    times: bool = False,
    where: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    y_where: ArrayLike | None = None,
    y_lengths: ArrayLike | None = None,
) -> ArrayT:
    r"""Return the van Rossum distance between all pairs of spike trains.

    .. math::
        d(x, y)^2 = \langle x, x \rangle + \langle y, y \rangle - 2 \langle x, y \rangle,
        \qquad \langle x, y \rangle = \sum_{t, u} x_t \, y_u \, e^{-|t - u| / \tau}

    It is normalised so that the distance of one spike from silence is 1.

    Parameters
    ----------
    x : array
        Trains, ``[train, time]``, or with several units each, ``[train, unit, time]``.
    y : array or sequence, optional
        Other trains, with as many units and steps. By default `x` is compared with itself.
    time_constant : float
        Time constant :math:`\tau`, in time steps or the unit of the times; at least 1e-6.
    cosine : float, default 0
        The cosine :math:`c` of the angle between units: :math:`\langle x, y \rangle` is
        :math:`1 - c` times its sum over the units, and :math:`c` times that of the pooled trains.
    squared : bool, default False
        Whether to return the squared distance.
    time_axis : int, default -1
        The axis of `x` and `y` that is time.
    times : bool, default False
        Whether `x` and `y` are lists of spike times, or padded ones, as for `victor_purpura`.
    where, lengths, y_where, y_lengths : array or sequence, optional
        The masks of `x` and of `y`, as for the losses. Masked entries are read as silence. Spike
        times have no masks.

    Returns
    -------
    array
        ``[train of x, train of y]``, in the dtype of `x`, or float32 if that has 16 bits. The
        diagonal is exactly 0 if `x` is compared with itself.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, library or range.

    Notes
    -----
    It includes the tail of the filtered trains. A distance that is smaller than the rounding errors
    is returned as 0, with the gradient 0.

    References
    ----------
    .. [1] Mark van Rossum, "A novel spike distance", Neural Computation 13(4), 2001.
    .. [2] Conor Houghton and Kamal Sen, "A new multineuron spike train metric", Neural
       Computation 20(6), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.distances.van_rossum(np.eye(2), np.zeros((1, 2)), time_constant=2).T
    array([[1., 1.]])
    """
    compare = VanRossum(
        time_constant, cosine=cosine, squared=squared, time_axis=time_axis, times=times
    )
    return compare(x, y, where=where, lengths=lengths, y_where=y_where, y_lengths=y_lengths)


@dataclass(frozen=True)
class Similarity(Pairwise):
    """The similarity of all pairs of trains, as an object with a gradient.

    ``Similarity(time_constant, ...)(x, y)`` is ``similarity(x, y, time_constant=time_constant,
    ...)``. Parameters, arguments of a call and errors are those of `similarity`. `value_and_grad`
    of the object has the gradient with respect to `x` on every library.

    See Also
    --------
    similarity : The function, with the formula and the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> trains = np.eye(3)
    >>> sx.distances.Similarity(2)(trains).round(2)
    array([[1.  , 0.61, 0.37],
           [0.61, 1.  , 0.61],
           [0.37, 0.61, 1.  ]])
    """

    def _compare(self, adapter: Adapter, products: Products) -> Comparison:
        xp = adapter.xp
        silent = (products.x == 0)[:, None] | (products.y == 0)[None, :]
        square_x = xp.where(products.x == 0, 1.0, products.x)
        square_y = xp.where(products.y == 0, 1.0, products.y)
        lengths = xp.sqrt(square_x)[:, None] * xp.sqrt(square_y)[None, :]
        value = xp.where(silent, 0.0, products.pairs / lengths)

        def pullback(cotangent: Array) -> Products:
            cotangent = xp.where(silent, 0.0, cotangent)
            lost = -0.5 * cotangent * value
            of_x, of_y = xp.sum(lost, axis=1) / square_x, xp.sum(lost, axis=0) / square_y
            return Products(of_x, of_y, cotangent / lengths)

        return value, pullback


def similarity(
    x: ArrayT,
    y: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    time_axis: int = -1,
    times: bool = False,
    where: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    y_where: ArrayLike | None = None,
    y_lengths: ArrayLike | None = None,
) -> ArrayT:
    r"""Return the similarity of all pairs of spike trains, their normalised inner product.

    .. math::
        s(x, y) = \frac{\langle x, y \rangle}
        {\sqrt{\langle x, x \rangle \langle y, y \rangle}},
        \qquad \langle x, y \rangle = \sum_{t, u} x_t \, y_u \, e^{-|t - u| / \tau}

    It is 1 for equal trains, and 0 if a train is silent.

    Parameters
    ----------
    x : array
        Trains, ``[train, time]``, or with several units each, ``[train, unit, time]``.
    y : array or sequence, optional
        Other trains, with as many units and steps. By default `x` is compared with itself.
    time_constant : float
        Time constant :math:`\tau`, in time steps or the unit of the times; at least 1e-6.
    cosine : float, default 0
        The cosine of the angle between units, from 0 (separate units) to 1 (pooled units), as for
        `van_rossum`.
    time_axis : int, default -1
        The axis of `x` and `y` that is time.
    times : bool, default False
        Whether `x` and `y` are lists of spike times, or padded ones, as for `victor_purpura`.
    where, lengths, y_where, y_lengths : array or sequence, optional
        The masks of `x` and of `y`, as for the losses. Masked entries are read as silence. Spike
        times have no masks.

    Returns
    -------
    array
        ``[train of x, train of y]``, in the dtype of `x`, or float32 if that has 16 bits.

    Raises
    ------
    ValueError, TypeError
        If an argument has the wrong shape, dtype, library or range.

    Notes
    -----
    The similarity has no derivative at a silent train. The gradient there is 0.

    References
    ----------
    .. [1] S. Schreiber, J. M. Fellous, D. Whitmer, P. Tiesinga and T. J. Sejnowski, "A new
       correlation-based measure of spike timing reliability", Neurocomputing 52-54, 2003. There
       the trains are filtered with a Gaussian.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> trains = np.asarray([[1, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 0]])
    >>> sx.distances.similarity(trains, time_constant=2).round(2)
    array([[1.  , 0.85, 0.  ],
           [0.85, 1.  , 0.  ],
           [0.  , 0.  , 0.  ]])
    """
    compare = Similarity(time_constant, cosine=cosine, time_axis=time_axis, times=times)
    return compare(x, y, where=where, lengths=lengths, y_where=y_where, y_lengths=y_lengths)
