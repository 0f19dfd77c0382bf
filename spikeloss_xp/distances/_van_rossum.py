"""The van Rossum distance of binned spike trains."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Unpack, overload

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Library
from spikeloss_xp._typing import Array, ArrayLike, ArrayT, FloatArray, HostArray, PairOptions
from spikeloss_xp.distances._pairwise import Pairwise
from spikeloss_xp.distances._trains import Products

ROUNDINGS = 16  # of the norms, by which the squared distance of two equal trains may differ from 0


@dataclass(frozen=True)
class VanRossum(Pairwise):
    r"""The van Rossum distance of all pairs of trains, as an object with a gradient.

    ``VanRossum(time_constant, ...)(x, y)`` is ``van_rossum(x, y, time_constant=time_constant,
    ...)``. `value_and_grad` of the object has the gradient with respect to `x` on every library.

    Parameters
    ----------
    time_constant : float
        Time constant of the exponential, in time steps; at least 1e-6.
    cosine : float, default 0
        The cosine of the angle between units, from 0 (separate units) to 1 (pooled units).
    time_axis : int, default -1
        The axis of `x` and `y` that is time.
    squared : bool, default False
        Whether to return the squared distance.

    Raises
    ------
    ValueError, TypeError
        If a parameter is outside its range or of the wrong type.

    See Also
    --------
    van_rossum : The function, with the formula and the arguments of a call.

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

    _: KW_ONLY
    squared: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.check_fields(self, squared=_checks.flag)

    def _compare(
        self, library: Library, products: Products
    ) -> tuple[Array, Callable[[Array], Products]]:
        xp = library.xp
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


@overload
def van_rossum(
    x: HostArray,
    y: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    squared: bool = False,
    time_axis: int = -1,
    **options: Unpack[PairOptions],
) -> FloatArray: ...
@overload
def van_rossum(
    x: ArrayT,
    y: ArrayLike | None = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    squared: bool = False,
    time_axis: int = -1,
    **options: Unpack[PairOptions],
) -> ArrayT: ...
def van_rossum(
    x: Array,
    y: Any = None,
    *,
    time_constant: float,
    cosine: float = 0.0,
    squared: bool = False,
    time_axis: int = -1,
    where: Any = None,
    lengths: Any = None,
    y_where: Any = None,
    y_lengths: Any = None,
) -> Array:
    r"""Return the van Rossum distance between all pairs of binned spike trains.

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
        Time constant :math:`\tau` of the exponential, in time steps; at least 1e-6.
    cosine : float, default 0
        The cosine :math:`c` of the angle between units: :math:`\langle x, y \rangle` is
        :math:`1 - c` times its sum over the units, and :math:`c` times that of the pooled trains.
    squared : bool, default False
        Whether to return the squared distance.
    time_axis : int, default -1
        The axis of `x` and `y` that is time.
    where, lengths : array or sequence, optional
        The mask of `x`, as for the losses. Masked entries are read as silence.
    y_where, y_lengths : array or sequence, optional
        The mask of `y`.

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
    The distance includes the tail of the filtered trains after the last step. If the squared
    distance of a pair is within its rounding error, the distance and its gradient are 0. In float32
    the distance of long trains that differ in a few spikes loses digits: use float64 for those.

    References
    ----------
    .. [1] Mark van Rossum, "A novel spike distance", Neural Computation 13(4), 2001.
    .. [2] Conor Houghton and Kamal Sen, "A new multineuron spike train metric", Neural
       Computation 20(6), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> sx.distances.van_rossum(np.eye(3), np.zeros((1, 3)), time_constant=2)
    array([[1.],
           [1.],
           [1.]])
    """
    distance = VanRossum(time_constant, cosine=cosine, squared=squared, time_axis=time_axis)
    return distance(x, y, where=where, lengths=lengths, y_where=y_where, y_lengths=y_lengths)
