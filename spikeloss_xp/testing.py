"""An assertion for your own tests: a loss has the same results on every array library.

The command ``compare`` makes the same comparison and prints it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloss_xp._arrays import adapter_of, on_host
from spikeloss_xp._typing import Array, ArrayLike, SupportsArray
from spikeloss_xp.backends._available import adapter, available, describe, problem_in_words
from spikeloss_xp.gradients import value_and_grad

__all__ = ["assert_consistent"]

PRECISION = {  # the machine epsilon and the smallest number of each dtype
    "float64": (2.0**-52, 2.0**-1074),
    "float32": (2.0**-23, 2.0**-149),
    "float16": (2.0**-10, 2.0**-24),
    "bfloat16": (2.0**-7, 2.0**-133),
}
ROUNDINGS = 100  # the reference cases of the published losses need 15


def assert_consistent(
    loss: Callable[..., Array],
    input: SupportsArray,
    target: ArrayLike | None = None,
    *,
    where: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    backends: Sequence[str] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Check that a loss has the same value and gradient on every array library.

    The function evaluates value and gradient on each backend, in the dtype of `input` and on the
    first device of each kind, and compares them with an evaluation by NumPy in float64. With
    ``reduction="none"`` it compares the terms, and the gradient of their sum with fixed random
    weights.

    Parameters
    ----------
    loss : callable
        A loss of this library.
    input : array
        Spikes of any array library.
    target, where, lengths, weight : array or sequence, optional
        The other arguments of the loss. `SparsityEnforcer` has no target.
    backends : sequence of str, optional
        Import names of array libraries, with or without an adapter. By default all libraries that
        `spikeloss_xp.backends.available` reports as usable and that have the dtype of `input`.
    rtol : float, optional
        The allowed difference, as a fraction of the largest entry of the reference. By default 100
        times the epsilon of the dtype that is computed in, and for a gradient of 16 bits also the
        epsilon of its dtype.
    atol : float, optional
        The allowed difference in addition to that. By default the smallest number of the dtype.

    Raises
    ------
    AssertionError
        If a backend differs. The message names it, with the largest difference and its index.
    ValueError
        If `backends` is empty, or names one that cannot be used or lacks the dtype of `input`.
    TypeError
        If `input` is not an array.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]], dtype=np.float32)
    >>> sx.testing.assert_consistent(sx.SpikeMax(), spikes, [0], backends=["numpy"])
    """
    adapter_of(input)  # raises if it is no array
    if backends is not None and (isinstance(backends, str) or not backends):
        raise ValueError(f"backends must be a sequence of names, at least one; got {backends!r}")
    host_input, dtype = on_host(input, "input"), _dtype_name(input)
    targets = () if target is None else (on_host(target, "target"),)
    found, _ = select_places(backends, dtype)
    given = {"where": where, "lengths": lengths, "weight": weight}
    options: dict[str, Any] = {k: on_host(x, k) for k, x in given.items() if x is not None}
    if getattr(loss, "reduction", None) == "none":
        terms = loss(host_input.astype(float), *targets, **options)
        options["cotangent"] = np.random.default_rng(0).uniform(0.5, 1.5, terms.shape)
    expected = reference(loss, host_input, *targets, **options)
    more: dict[str, Any] = {"rtol": rtol, "atol": atol, "expected": expected}
    arrays = host_input, dtype, *targets
    results = [compare(loss, place, *arrays, **more, **options)[0] for place in found]
    complaints = [f"{result.place}: {result.problem}" for result in results if result.problem]
    if complaints:
        raise AssertionError(
            f"{loss!r} on {dtype} spikes of shape {host_input.shape} differs from the float64 "
            "evaluation by NumPy\n  " + "\n  ".join(complaints)
        )


def _dtype_name(x: Any) -> str:
    """Return the name of the dtype of an array, without the name of its library."""
    return str(x.dtype).rpartition(".")[2]


@dataclass(frozen=True)
class Place:
    """An array library, and one of its devices."""

    library: str
    version: str
    device: str

    def __str__(self) -> str:
        return f"{self.library} {self.version} on {self.device}"

    def put(self, values: np.ndarray, dtype: str | None = None) -> Any:
        """Copy a NumPy array here, in the dtype of this name; its scope must be active."""
        found = adapter(self.library)
        array = found.from_host(values, self.device)
        return array if dtype is None else found.xp.astype(array, getattr(found.xp, dtype))


def select_places(
    backends: Sequence[str] | None, dtype: str, device: str | None = None
) -> tuple[list[Place], dict[str, str]]:
    """Return the places that have a dtype, and why each of the other array libraries has none.

    They are the first device of each kind, or those of one name or kind. Raise a `ValueError`
    unless every library in `backends` has one; if `backends` is None, any library will do.
    """
    infos = available() if backends is None else {name: describe(name) for name in backends}
    found: list[Place] = []
    unused: dict[str, str] = {}
    for name, info in infos.items():
        here: dict[str, Place] = {}
        for place in info.devices:
            kind = place.rpartition(":")[0] or place  # "cuda" of "cuda:1"
            if device in (None, place, *kind.split(":")):
                here.setdefault(kind, Place(name, str(info.version), place))
        if not info.usable:
            unused[name] = problem_in_words(info)
        elif not here:
            unused[name] = f"it has no device {device!r}; its devices: {', '.join(info.devices)}"
        elif not hasattr(adapter(name).xp, dtype):
            unused[name] = f"it has no {dtype}"
        else:
            found += here.values()
    if not found or (backends is not None and unused):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unused.items())
        raise ValueError(f"no result for {reasons}")
    return found, unused


@dataclass(frozen=True)
class Comparison:
    """Value and gradient of a loss in one place, and by how much they differ from the reference.

    Differences are relative to the largest entry of the reference. `problem` describes those that
    exceed the tolerance, or why there is no result; it is None if the result agrees.
    """

    loss: str
    place: Place
    value: float | None = None
    gradient_norm: float | None = None
    value_difference: float | None = None
    gradient_difference: float | None = None
    seconds: float | None = None
    problem: str | None = None


def reference(
    loss: Callable[..., Any], input: np.ndarray, *targets: np.ndarray, **options: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return value and gradient by NumPy in float64."""
    widened = [t.astype(np.float64) if t.dtype.kind == "f" else t for t in targets]
    value, gradient = value_and_grad(loss)(input.astype(np.float64), *widened, **options)
    return np.asarray(value), gradient


def compare(
    loss: Callable[..., Any],
    place: Place,
    input: np.ndarray,
    dtype: str,
    /,
    *targets: np.ndarray,
    expected: tuple[np.ndarray, np.ndarray],
    rtol: float | None = None,
    atol: float | None = None,
    **options: np.ndarray,
) -> tuple[Comparison, Callable[[], None]]:
    """Evaluate a loss in one place and compare value and gradient with the reference.

    The function in the result repeats the evaluation and synchronizes. Tolerances follow the dtypes
    unless they are given. Value and gradient are computed in the dtype of the value, with an error
    of up to `ROUNDINGS` roundings; a gradient in 16 bits is rounded once more, and may underflow.
    """
    found = adapter(place.library)
    with found.scope(dtype):
        arrays = [place.put(input, dtype), *map(place.put, targets)]
        beside = {name: place.put(option) for name, option in options.items()}
        run = found.compiled(value_and_grad(loss))
        results = run(*arrays, **beside)
        value, gradient = arrived = [found.to_host(x).astype(np.float64) for x in results]

    def again() -> None:
        with found.scope(dtype):
            for result in run(*arrays, **beside):
                found.synchronize(result)

    epsilon, _ = PRECISION[_dtype_name(results[0])]
    differences, problems = {}, []
    for name, x, got, right in zip(("value", "gradient"), results, arrived, expected, strict=True):
        stored, smallest = PRECISION[_dtype_name(x)]
        allowed = ROUNDINGS * epsilon + (stored if stored != epsilon else 0.0)
        tolerances = allowed if rtol is None else rtol, smallest if atol is None else atol
        differences[f"{name}_difference"], text = _difference(got, right, *tolerances)
        problems += [f"the {name} {text}"] if text else []
    numbers = float(value.sum()), float(np.linalg.norm(gradient))
    problem = "; ".join(problems) or None
    return Comparison(repr(loss), place, *numbers, **differences, problem=problem), again


def _difference(
    got: np.ndarray, expected: np.ndarray, rtol: float, atol: float
) -> tuple[float, str | None]:
    """Return the largest difference relative to the largest entry expected, and a text about it.

    The difference is infinite if one entry is NaN or infinite and the other is not equal to it. The
    text is None if the difference is within the tolerance.
    """
    if got.shape != expected.shape:
        return math.inf, f"has shape {got.shape} where {expected.shape} is expected"
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(got - expected), nan=np.inf, posinf=np.inf)
    distance = np.where(same, 0.0, distance)
    where = np.unravel_index(np.argmax(distance), distance.shape)
    scale = float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected)))
    largest, allowed = float(distance[where]), atol + rtol * scale
    relative, most = (x / scale if scale else x and math.inf for x in (largest, allowed))
    if largest <= allowed:
        return relative, None
    entry = f" at {[int(i) for i in where]}" if where else ""
    return relative, (
        f"is {float(got[where])!r}{entry} where {float(expected[where])!r} is expected; relative "
        f"to the largest entry that is a difference of {relative:.2g}, and {most:.2g} is allowed"
    )
