"""The base of the comparisons that follow from the inner products of trains."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Unpack, overload

from spikeloss_xp import _checks
from spikeloss_xp._arrays import Library
from spikeloss_xp._typing import (
    Array,
    ArrayLike,
    ArrayT,
    FloatArray,
    HostArray,
    PairOptions,
    Pullback,
)
from spikeloss_xp.distances import _trains
from spikeloss_xp.distances._trains import Products
from spikeloss_xp.gradients import ClosedForm


@dataclass(frozen=True)
class Pairwise(ClosedForm):
    """A function of all pairs of trains, which follows from their inner products."""

    time_constant: float
    _: KW_ONLY
    cosine: float = 0.0
    time_axis: int = -1

    def __post_init__(self) -> None:
        _checks.check_fields(
            self, time_constant=_checks.scale, cosine=_share, time_axis=_checks.integer
        )

    @overload
    def __call__(
        self, x: HostArray, y: ArrayLike | None = None, **options: Unpack[PairOptions]
    ) -> FloatArray: ...
    @overload
    def __call__(
        self, x: ArrayT, y: ArrayLike | None = None, **options: Unpack[PairOptions]
    ) -> ArrayT: ...
    def __call__(
        self,
        x: Array,
        y: Any = None,
        *,
        where: Any = None,
        lengths: Any = None,
        y_where: Any = None,
        y_lengths: Any = None,
    ) -> Array:
        """Return the matrix of all pairs; see the function of the same name for the arguments."""
        return self.value(x, y, where=where, lengths=lengths, y_where=y_where, y_lengths=y_lengths)

    @overload
    def value(
        self, x: HostArray, y: ArrayLike | None = None, **options: Unpack[PairOptions]
    ) -> FloatArray: ...
    @overload
    def value(
        self, x: ArrayT, y: ArrayLike | None = None, **options: Unpack[PairOptions]
    ) -> ArrayT: ...
    def value(
        self,
        x: Array,
        y: Any = None,
        *,
        where: Any = None,
        lengths: Any = None,
        y_where: Any = None,
        y_lengths: Any = None,
    ) -> Array:
        """Return the matrix of all pairs, with operations that the library can differentiate."""
        masks, y_masks = (where, lengths), (y_where, y_lengths)
        trains, others = _trains.prepare_pair(x, y, masks, y_masks, self.time_axis)
        library = trains.library
        products, _ = _trains.inner_products(trains, others, self.time_constant, self.cosine)
        del trains, others
        shape = products.pairs.shape
        if not _trains.in_row_blocks(library, *shape):
            return self._compare(library, products)[0]
        for rows in _trains.row_blocks(library, *shape):
            part = Products(products.x[rows], products.y, products.pairs[rows, :])
            products.pairs[rows, :], _ = self._compare(library, part)
        return products.pairs

    @overload
    def value_and_pullback(
        self, x: HostArray, y: ArrayLike | None = None, **options: Unpack[PairOptions]
    ) -> tuple[FloatArray, Pullback]: ...
    @overload
    def value_and_pullback(
        self, x: ArrayT, y: ArrayLike | None = None, **options: Unpack[PairOptions]
    ) -> tuple[ArrayT, Pullback]: ...
    def value_and_pullback(
        self,
        x: Array,
        y: Any = None,
        *,
        where: Any = None,
        lengths: Any = None,
        y_where: Any = None,
        y_lengths: Any = None,
    ) -> tuple[Array, Pullback]:
        """Return the matrix of all pairs, and the pullback from it to `x`, in closed form."""
        masks, y_masks = (where, lengths), (y_where, y_lengths)
        trains, others = _trains.prepare_pair(x, y, masks, y_masks, self.time_axis)
        library = trains.library
        products, to_trains = _trains.inner_products(
            trains, others, self.time_constant, self.cosine
        )
        value, to_products = self._compare(library, products)
        return value, lambda cotangent: to_trains(to_products(cotangent))

    @abstractmethod
    def _compare(
        self, library: Library, products: Products
    ) -> tuple[Array, Callable[[Array], Products]]:
        """Return the comparison of all pairs, and the pullback from it to the inner products."""


def _share(value: Any, argument: str) -> float:
    """Return a number from 0 to 1."""
    result = _checks.number(value, argument)
    if not 0 <= result <= 1:
        raise ValueError(f"{argument} must be between 0 and 1; got {value!r}")
    return result
