"""Evaluate a loss in several places, and measure by how much the results differ."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloss_xp.backends._available import BackendInfo, adapter
from spikeloss_xp.gradients import value_and_grad

MACHINE_EPSILON = {
    "float64": 2.0**-52,
    "float32": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}
SMALLEST = {"float64": 2.0**-1074, "float32": 2.0**-149, "float16": 2.0**-24, "bfloat16": 2.0**-133}
ROUNDINGS = 100  # the reference cases of the published losses need 15


@dataclass(frozen=True)
class Place:
    """An array library, and one of its devices."""

    library: str
    version: str
    device: str

    def __str__(self) -> str:
        return f"{self.library} {self.version} on {self.device}"

    def holds(self, dtype: str) -> bool:
        """Tell whether the library has a dtype of this name."""
        return hasattr(adapter(self.library).xp, dtype)

    def put(self, values: np.ndarray, dtype: str | None = None) -> Any:
        """Copy a NumPy array here, in the dtype of this name; its scope must be active."""
        found = adapter(self.library)
        array = found.from_host(values, self.device)
        return array if dtype is None else found.xp.astype(array, getattr(found.xp, dtype))


def places(info: BackendInfo, device: str | None = None) -> list[Place]:
    """Return the first device of each kind of a library, or those of one name or kind."""
    chosen: dict[str, Place] = {}
    for name in info.devices:
        kind = name.partition(":")[0]
        if device is None or device in (name, kind):
            chosen.setdefault(kind, Place(info.library, str(info.version), name))
    return list(chosen.values())


@dataclass(frozen=True)
class Evaluation:
    """Value and gradient on the host in float64, and the names of the dtypes they came in."""

    value: np.ndarray
    gradient: np.ndarray
    value_dtype: str
    gradient_dtype: str


def evaluate(
    loss: Callable[..., Any],
    place: Place,
    input: np.ndarray,
    dtype: str,
    *targets: np.ndarray,
    **options: np.ndarray | None,
) -> tuple[Evaluation, Callable[[], None]]:
    """Return value and gradient in one place, and a function that repeats this and synchronizes."""
    found = adapter(place.library)
    given = {name: option for name, option in options.items() if option is not None}
    with found.scope(dtype):
        spikes, *placed = place.put(input, dtype), *(place.put(target) for target in targets)
        beside = {name: place.put(option) for name, option in given.items()}
        run = found.compiled(value_and_grad(loss))
        value, gradient = run(spikes, *placed, **beside)
        result = Evaluation(
            found.to_host(value).astype(np.float64),
            found.to_host(gradient).astype(np.float64),
            dtype_name(value),
            dtype_name(gradient),
        )

    def again() -> None:
        with found.scope(dtype):
            for result in run(spikes, *placed, **beside):
                found.synchronize(result)

    return result, again


def reference(
    loss: Callable[..., Any],
    input: np.ndarray,
    *targets: np.ndarray,
    **options: np.ndarray | None,
) -> Evaluation:
    """Return value and gradient by NumPy in float64."""
    widened = [t.astype(np.float64) if t.dtype.kind == "f" else t for t in targets]
    value, gradient = value_and_grad(loss)(input.astype(np.float64), *widened, **options)
    return Evaluation(np.asarray(value), gradient, "float64", "float64")


def dtype_name(x: Any) -> str:
    """Return the name of the dtype of an array, without the name of its library."""
    return str(x.dtype).rpartition(".")[2]


@dataclass(frozen=True)
class Difference:
    """The difference of an array from a reference.

    Attributes
    ----------
    largest : float
        The largest difference of an entry; infinite if one entry is NaN or infinite and the other
        is not equal to it.
    scale : float
        The largest finite magnitude of the reference.
    where : tuple of int
        The index of the largest difference.
    got, expected : float
        The entries of the array and of the reference at that index.
    allowed : float
        The tolerance.
    """

    largest: float
    scale: float
    where: tuple[int, ...]
    got: float
    expected: float
    allowed: float

    @classmethod
    def of(cls, got: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> "Difference":
        """Compare two arrays of the same shape, relative to the largest entry expected."""
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        with np.errstate(invalid="ignore"):
            distance = np.where(same, 0.0, np.abs(got - expected))
        distance = np.where(np.isnan(distance), np.inf, distance)
        where = np.unravel_index(np.argmax(distance), distance.shape)
        scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
        return cls(
            float(distance[where]),
            scale,
            tuple(int(i) for i in where),
            float(got[where]),
            float(expected[where]),
            atol + rtol * scale,
        )

    def __str__(self) -> str:
        entry = f" at {list(self.where)}" if self.where else ""
        return (
            f"is {self.got!r}{entry} where {self.expected!r} is expected; relative to the largest "
            f"entry that is a difference of {self.relative:.2g}, and {self.allowed_relative:.2g} "
            "is allowed"
        )

    @property
    def relative(self) -> float:
        """The largest difference as a fraction of the largest entry expected."""
        if self.largest == 0:
            return 0.0
        return self.largest / self.scale if self.scale else math.inf

    @property
    def allowed_relative(self) -> float:
        """The tolerance as a fraction of the largest entry expected."""
        return self.allowed / self.scale if self.scale else math.inf

    @property
    def agrees(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.largest <= self.allowed


def differences(
    got: Evaluation, expected: Evaluation, rtol: float | None = None, atol: float | None = None
) -> dict[str, Difference]:
    """Compare value and gradient with the reference, by tolerances that follow their dtypes.

    Both are computed in the dtype of the value, with an error of up to `ROUNDINGS` roundings; a
    gradient in 16 bits is rounded once more, and may underflow.
    """
    if got.gradient.shape != expected.gradient.shape or got.value.shape != expected.value.shape:
        raise AssertionError(
            f"value and gradient have shapes {got.value.shape} and {got.gradient.shape}; "
            f"expected {expected.value.shape} and {expected.gradient.shape}"
        )
    computing = ROUNDINGS * MACHINE_EPSILON[got.value_dtype]
    storing = MACHINE_EPSILON[got.gradient_dtype] if got.gradient_dtype != got.value_dtype else 0.0
    result = {}
    for what, dtype, extra in (
        ("value", got.value_dtype, 0.0),
        ("gradient", got.gradient_dtype, storing),
    ):
        result[what] = Difference.of(
            getattr(got, what),
            getattr(expected, what),
            computing + extra if rtol is None else rtol,
            SMALLEST[dtype] if atol is None else atol,
        )
    return result
