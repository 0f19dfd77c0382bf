"""The van Rossum distance and the similarity, which are based on inner products of trains."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from spikeloss_xp import _checks
from spikeloss_xp._arrays import FunctionT, on_device_of
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, ValueAndPullback
from spikeloss_xp.distances._inner_products import Products, inner_products, row_slices

# Two trains are treated as equal if their squared distance is at most ROUNDINGS_OF_EQUAL rounding
# errors. A rounding error is the machine epsilon times ``<x, x> + <y, y>``.
ROUNDINGS_OF_EQUAL = 16

# A matrix of distances or similarities, and its pullback to the fields `x`, `y` and `pairs` of
# `Products`.
Comparison = tuple[Array, Callable[[Array], tuple[Array, Array, Array]]]
Compare = Callable[[Products], Comparison]


def _matrix(compare: Compare, input: ArrayT, other: Any, **options: Any) -> ArrayT:
    """Return the matrix of the distances or similarities between all pairs of trains.

    If there are many pairs, the result overwrites the inner products in memory.
    """
    products, _ = inner_products(input, other, **options)
    pairs: ArrayT = products.pairs
    chunks = row_slices(products.adapter, pairs, *pairs.shape)
    if len(chunks) == 1:
        pairs, _ = compare(products)
        return pairs
    for rows in chunks:
        # The name `_` keeps each pullback in memory until the next chunk has been computed, because
        # freeing the pullback immediately is slower.
        part = products._replace(x=products.x[rows], pairs=products.pairs[rows, :])
        products.pairs[rows, :], _ = compare(part)
    return pairs


def _matrix_and_pullback(
    compare: Compare, input: Array, other: Any, **options: Any
) -> ValueAndPullback:
    """Return the matrix of distances or similarities, and its closed-form pullback to `input`."""
    products, to_trains = inner_products(input, other, **options)
    xp = products.adapter.xp
    value, to_products = compare(products)

    def pullback(cotangent: Array) -> Array:
        of_x, of_y, of_pairs = to_products(cotangent)
        if other is None:  # each train has both a row and a column in the matrix
            of_x, of_pairs = of_x + of_y, of_pairs + xp.matrix_transpose(of_pairs)
        return to_trains(of_x, of_pairs)

    return value, pullback


def _with_closed_form(form: Callable[..., ValueAndPullback]) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that lets `value_and_grad` compute a gradient in closed form.

    `form` takes the arguments of the decorated function, and returns the value and its pullback.
    """

    def decorate(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)

        def value_and_pullback(*args: Any, **options: Any) -> ValueAndPullback:
            call = signature.bind(*args, **options)
            call.apply_defaults()
            return form(**call.arguments)

        attributes = {"value": function, "value_and_pullback": value_and_pullback}
        vars(function).update(_has_closed_form=True, **attributes)
        return function

    return decorate


def _distances(squared: Any, products: Products) -> Comparison:
    xp = products.adapter.xp
    norms = products.x[:, None] + products.y[None, :]
    square = norms - 2 * products.pairs
    # A squared distance that is smaller than the rounding errors of the norms is set to 0.
    # Otherwise, the square root would turn a rounding error into a distance far from 0.
    equal = square <= norms * (ROUNDINGS_OF_EQUAL * float(xp.finfo(norms.dtype).eps))
    del norms
    if squared:
        distance = xp.where(equal, 0.0, square)
    else:  # the square root must not be applied to 0, where it has no derivative
        distance = xp.where(equal, 0.0, xp.sqrt(xp.where(equal, 1.0, square)))

    def pullback(cotangent: Array) -> tuple[Array, Array, Array]:
        if not squared:
            cotangent = cotangent / (2 * xp.where(equal, 1.0, distance))
        cotangent = xp.where(equal, 0.0, cotangent)
        return xp.sum(cotangent, axis=1), xp.sum(cotangent, axis=0), -2 * cotangent

    return distance, pullback


def _similarities(products: Products) -> Comparison:
    xp = products.adapter.xp
    silent = (products.x == 0)[:, None] | (products.y == 0)[None, :]
    square_x = xp.where(products.x == 0, 1.0, products.x)
    square_y = xp.where(products.y == 0, 1.0, products.y)
    lengths = xp.sqrt(square_x)[:, None] * xp.sqrt(square_y)[None, :]
    value = xp.where(silent, 0.0, products.pairs / lengths)

    def pullback(cotangent: Array) -> tuple[Array, Array, Array]:
        cotangent = xp.where(silent, 0.0, cotangent)
        lost = -0.5 * cotangent * value
        of_x, of_y = xp.sum(lost, axis=1) / square_x, xp.sum(lost, axis=0) / square_y
        return of_x, of_y, cotangent / lengths

    return value, pullback


def _distances_and_pullback(
    input: Array, other: Any, *, squared: bool, **options: Any
) -> ValueAndPullback:
    compare = partial(_distances, _checks.flag(squared, "squared"))
    return _matrix_and_pullback(compare, input, other, **options)


@_with_closed_form(_distances_and_pullback)
@on_device_of("input")
def van_rossum(
    input: ArrayT,
    other: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    squared: bool = False,
    time_axis: int = -1,
    times: bool = False,
    where: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    other_where: ArrayLike | None = None,
    other_lengths: ArrayLike | None = None,
) -> ArrayT:
    r"""Return the van Rossum distance between all pairs of spike trains.

    .. math::
        d(x, y)^2 = \langle x, x \rangle + \langle y, y \rangle - 2 \langle x, y \rangle,
        \qquad \langle x, y \rangle = \sum_{t, u} x_t \, y_u \, e^{-|t - u| / \tau}

    Here, :math:`x` is a train of `input`, and :math:`y` is a train of `other`. The distance between
    a train with one spike and a silent train is 1.

    Parameters
    ----------
    input : array
        Spike trains of shape ``[train, time]``. If each train has several units, the shape is
        ``[train, unit, time]``.
    other : array or sequence, optional
        Other trains, with the same number of units and steps as `input`. By default, the trains of
        `input` are compared with each other.
    time_constant : float
        The time constant :math:`\tau`, in time steps or in the unit of the spike times (at least
        1e-6).
    cosine : float, default 0
        The cosine :math:`c` of the angle between units, from 0 (separate units) to 1 (pooled
        units). The inner product :math:`\langle x, y \rangle` is :math:`1 - c` times the sum of the
        inner products of the units, plus :math:`c` times the inner product of the pooled trains
        [2]_.
    squared : bool, default False
        Whether to return squared distances.
    time_axis : int, default -1
        The time axis of `input` and `other`.
    times : bool, default False
        Whether `input` and `other` contain spike times instead of bins. Pass spike times in the
        formats that `victor_purpura` accepts. If a binned train contains NaN, all results for that
        train are NaN.
    where, lengths, other_where, other_lengths : array or sequence, optional
        The masks of `input` and of `other`, in the form that the losses accept. Masked entries are
        treated as silent. Masks are not supported for spike times.

    Returns
    -------
    array
        An array with a row for each train of `input` and a column for each train of `other`. The
        array has the dtype of `input`. If the trains are float16 or bfloat16, the dtype is float32.
        If the trains are bool or integer, the dtype is the library's default floating-point dtype.
        If `input` is compared with itself, the diagonal is exactly 0.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, has the wrong shape or dtype, or comes neither from NumPy
        nor from the library of `input`.

    See Also
    --------
    spikeloss_xp.SpikeTime : A loss that compares each train with its own target.

    Notes
    -----
    The distance includes the steps after the end of the trains, where the filtered trains decay. If
    a distance is so small that it may be a rounding error, the distance and its gradient are set to
    0.

    To compute the gradient with respect to `input`, apply `value_and_grad` to this function, or to
    a `functools.partial` that sets its options.

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

    A gradient step moves the spike of `x` towards the spike of `y`:

    >>> x, y = np.zeros((1, 50)), np.zeros((1, 50))
    >>> x[0, 20] = y[0, 22] = 1
    >>> evaluate = sx.value_and_grad(sx.distances.van_rossum)
    >>> options = {"time_constant": 10, "squared": True}
    >>> value, gradient = evaluate(x, y, **options, cotangent=[[1.0]])
    >>> value.round(3), gradient[0, 18:25].round(3)
    (array([[0.363]]), array([ 0.297,  0.328,  0.363,  0.   , -0.363, -0.328, -0.297]))
    """
    compare = partial(_distances, _checks.flag(squared, "squared"))
    kernel = {"time_constant": time_constant, "cosine": cosine, "time_axis": time_axis}
    masks = {"where": where, "lengths": lengths}
    masks |= {"other_where": other_where, "other_lengths": other_lengths}
    return _matrix(compare, input, other, times=times, **kernel, **masks)


@_with_closed_form(partial(_matrix_and_pullback, _similarities))
@on_device_of("input")
def similarity(
    input: ArrayT,
    other: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    time_axis: int = -1,
    times: bool = False,
    where: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    other_where: ArrayLike | None = None,
    other_lengths: ArrayLike | None = None,
) -> ArrayT:
    r"""Return the similarity, a normalised inner product, between all pairs of spike trains.

    .. math::
        s(x, y) = \frac{\langle x, y \rangle}
        {\sqrt{\langle x, x \rangle \langle y, y \rangle}},
        \qquad \langle x, y \rangle = \sum_{t, u} x_t \, y_u \, e^{-|t - u| / \tau}

    Here, :math:`x` is a train of `input`, and :math:`y` is a train of `other`. The similarity is 1
    for equal trains, and 0 if either train is silent.

    Parameters
    ----------
    input : array
        Spike trains of shape ``[train, time]``. If each train has several units, the shape is
        ``[train, unit, time]``.
    other : array or sequence, optional
        Other trains, with the same number of units and steps as `input`. By default, the trains of
        `input` are compared with each other.
    time_constant : float
        The time constant :math:`\tau`, in time steps or in the unit of the spike times (at least
        1e-6).
    cosine : float, default 0
        The cosine of the angle between units, from 0 (separate units) to 1 (pooled units), as for
        `van_rossum`.
    time_axis : int, default -1
        The time axis of `input` and `other`.
    times : bool, default False
        Whether `input` and `other` contain spike times instead of bins. Pass spike times in the
        formats that `victor_purpura` accepts. If a binned train contains NaN, all results for that
        train are NaN.
    where, lengths, other_where, other_lengths : array or sequence, optional
        The masks of `input` and of `other`, in the form that the losses accept. Masked entries are
        treated as silent. Masks are not supported for spike times.

    Returns
    -------
    array
        An array with a row for each train of `input` and a column for each train of `other`. The
        array has the dtype of `input`. If the trains are float16 or bfloat16, the dtype is float32.
        If the trains are bool or integer, the dtype is the library's default floating-point dtype.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, has the wrong shape or dtype, or comes neither from NumPy
        nor from the library of `input`.

    Notes
    -----
    If a train is silent, the similarity is not differentiable, and the gradient is set to 0.

    To compute the gradient with respect to `input`, apply `value_and_grad` to this function, or to
    a `functools.partial` that sets its options.

    References
    ----------
    .. [1] S. Schreiber, J. M. Fellous, D. Whitmer, P. Tiesinga and T. J. Sejnowski, "A new
       correlation-based measure of spike timing reliability", Neurocomputing 52-54, 2003. The
       authors filter the trains with a Gaussian.

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
    kernel = {"time_constant": time_constant, "cosine": cosine, "time_axis": time_axis}
    masks = {"where": where, "lengths": lengths}
    masks |= {"other_where": other_where, "other_lengths": other_lengths}
    return _matrix(_similarities, input, other, times=times, **kernel, **masks)
