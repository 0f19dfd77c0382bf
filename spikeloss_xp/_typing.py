"""Type aliases for arrays and options.

Array libraries have no common array type, so internal code uses `Array`, which is `Any`. Public
functions use `ArrayT`, which tells a type checker that the result has the same type as the input,
such as a tensor.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

Array = Any
Adapter = Any  # avoids circular imports in modules that adapters import
Namespace = Any
Pullback = Callable[[Array], Array]
ValueAndPullback = tuple[Array, Pullback]
Axes = tuple[int, ...]
Sums = tuple[tuple[Any, ...], Pullback | None]
ChunkFunction = Callable[..., Sums]


class SupportsArray(Protocol):
    """An array from any library."""

    @property
    def dtype(self) -> Any: ...
    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> Any: ...


ArrayT = TypeVar("ArrayT", bound=SupportsArray)
if TYPE_CHECKING:  # without a default, a type checker infers `Never` for lists of numbers
    import typing_extensions

    TimesT = typing_extensions.TypeVar("TimesT", bound=SupportsArray, default=Any)
else:
    TimesT = ArrayT
Times: TypeAlias = TimesT | Sequence[TimesT | Sequence[float]]
Events: TypeAlias = ArrayT | Sequence["Events[ArrayT]"] | Mapping[Any, "Events[ArrayT]"]
# An array, or a nested list of numbers or arrays. Each level of nesting is listed, because a
# recursive type would include strings.
ArrayLike: TypeAlias = (
    SupportsArray
    | Sequence[float | SupportsArray]
    | Sequence[Sequence[float]]
    | Sequence[Sequence[Sequence[float]]]
)
OptionalArray = ArrayLike | None
HostArray = np.ndarray[Any, np.dtype[Any]]
IntegerArray = np.ndarray[Any, np.dtype[np.integer[Any]]]

PerClass = float | Sequence[float]
Reduction = Literal["sum", "mean", "batchmean", "none"]
Readout = Literal["rate", "count", "max", "last"]
EntropyReadout = Literal["count", "sqrt_count", "rate", "max", "last", "latency", "softmax_sum"]
MaxMode = Literal["probability", "softmax"]
ConfidenceMode = Literal["probability", "softmax", "logsoftmax"]
Numerics = Literal["stable", "lava"]
Per = Literal["all", "neuron", "sample", "sample_neuron"]
ScorePer = Literal["all", "neuron"]
Link = Literal["logit", "hazard"]
RateLink = Literal["log", "identity"]
Power = Literal[1, 2]
Total = Literal["mean", "sum"]


class ValueAndGrad(Protocol):
    """The type of the functions that `spikeloss_xp.value_and_grad` returns."""

    def __call__(
        self, input: ArrayT, *targets: Any, cotangent: Any = None, **options: Any
    ) -> tuple[ArrayT, ArrayT]: ...
