"""Names for types: of arrays, which no library defines for all of them, and of options.

`Array` is for the code of this library, and `ArrayT` for its public functions, where a type checker
then knows that a tensor goes in and a tensor comes out. `HostArray`, a NumPy array, has overloads
of its own, because its type includes the dtype, and the dtype of the result differs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar, overload

import numpy as np

Array = Any
Namespace = Any
Pullback = Callable[[Array], Array]
ChunkFunction = Callable[..., tuple[tuple[Any, ...], Pullback | None]]


class SupportsArray(Protocol):
    """An array of any library."""

    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> Any: ...


ArrayT = TypeVar("ArrayT", bound=SupportsArray)
Events: TypeAlias = ArrayT | Sequence[ArrayT] | Mapping[Any, ArrayT]
ArrayLike = SupportsArray | Sequence[Any]
HostArray = np.ndarray[Any, np.dtype[Any]]
FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntegerArray = np.ndarray[Any, np.dtype[np.integer[Any]]]

PerClass = float | Sequence[float]
Reduction = Literal["sum", "mean", "batchmean", "none"]
Readout = Literal["rate", "count", "max", "last"]
MaxReadout = Literal["rate", "count", "max", "last", "latency", "softmax_sum"]
MaxMode = Literal["probability", "softmax"]
ConfidenceMode = Literal["probability", "softmax", "logsoftmax"]
Numerics = Literal["stable", "lava"]
Per = Literal["array", "neuron"]


class MaskOptions(TypedDict, total=False):
    """The keyword arguments of a classifier."""

    where: ArrayLike | None
    lengths: ArrayLike | None


class CallOptions(MaskOptions, total=False):
    """The keyword arguments of a loss."""

    weight: ArrayLike | None


class SumOptions(CallOptions, total=False):
    """The keyword arguments of `Loss.sum_and_weight`."""

    context: int


class EventOptions(MaskOptions, total=False):
    """The keyword arguments of `SparsityEnforcer`."""

    others: tuple[ArrayLike, ArrayLike] | None


class PairOptions(MaskOptions, total=False):
    """The keyword arguments of a comparison of all pairs of trains."""

    y_where: ArrayLike | None
    y_lengths: ArrayLike | None


class ValueAndGrad(Protocol):
    """The function that `spikeloss_xp.value_and_grad` returns."""

    @overload
    def __call__(
        self, input: HostArray, *targets: Any, cotangent: Any = None, **options: Any
    ) -> tuple[FloatArray, FloatArray]: ...
    @overload
    def __call__(
        self, input: ArrayT, *targets: Any, cotangent: Any = None, **options: Any
    ) -> tuple[ArrayT, ArrayT]: ...
