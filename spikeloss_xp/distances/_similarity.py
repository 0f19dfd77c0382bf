"""The similarity of binned spike trains: their normalised inner product."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack, overload

from spikeloss_xp._arrays import Library
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, FloatArray, HostArray, PairOptions
from spikeloss_xp.distances._pairwise import Pairwise
from spikeloss_xp.distances._trains import Products


@dataclass(frozen=True)
class Similarity(Pairwise):
    """The similarity of all pairs of trains, as an object with a gradient.

    ``Similarity(time_constant, ...)(x, y)`` is ``similarity(x, y, time_constant=time_constant,
    ...)``. `value_and_grad` of the object has the gradient with respect to `x` on every library.

    Parameters
    ----------
    time_constant : float
        Time constant of the exponential, in time steps; at least 1e-6.
    cosine : float, default 0
        The cosine of the angle between units, from 0 (separate units) to 1 (pooled units).
    time_axis : int, default -1
        The axis of `x` and `y` that is time.

    Raises
    ------
    ValueError, TypeError
        If a parameter is outside its range or of the wrong type.

    See Also
    --------
    similarity : The function, with the formula and the arguments of a call.

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

    def _compare(
        self, library: Library, products: Products
    ) -> tuple[Array, Callable[[Array], Products]]:
        xp = library.xp
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


@overload
def similarity(
    x: HostArray,
    y: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    time_axis: int = -1,
    **options: Unpack[PairOptions],
) -> FloatArray: ...
@overload
def similarity(
    x: ArrayT,
    y: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    time_axis: int = -1,
    **options: Unpack[PairOptions],
) -> ArrayT: ...
def similarity(
    x: Array,
    y: Any = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    time_axis: int = -1,
    where: Any = None,
    lengths: Any = None,
    y_where: Any = None,
    y_lengths: Any = None,
) -> Array:
    r"""Return the similarity of all pairs of binned spike trains, their normalised inner product.

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
        Time constant :math:`\tau` of the exponential, in time steps; at least 1e-6.
    cosine : float, default 0
        The cosine of the angle between units, from 0 to 1, as for `van_rossum`.
    time_axis : int, default -1
        The axis of `x` and `y` that is time.
    where, lengths : array or sequence, optional
        The mask of `x`, as for the losses. Masked entries are read as silence.
    y_where, y_lengths : array or sequence, optional
        The mask of `y`.

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
    compare = Similarity(time_constant, cosine=cosine, time_axis=time_axis)
    return compare(x, y, where=where, lengths=lengths, y_where=y_where, y_lengths=y_lengths)
