"""An assertion for your own tests: a loss has the same results on every array library."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from spikeloss_xp._arrays import adapter_of, find_adapter, host
from spikeloss_xp._consistency import (
    Place,
    differences,
    dtype_name,
    evaluate,
    places,
    reference,
)
from spikeloss_xp._typing import Array, ArrayLike, SupportsArray
from spikeloss_xp.backends._available import available, describe

__all__ = ["assert_consistent"]


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
    host_input, dtype = _on_host(input, "input"), dtype_name(input)
    targets = () if target is None else (_on_host(target, "target"),)
    found = _all_places(dtype) if backends is None else _named_places(backends, dtype)

    given = {"where": where, "lengths": lengths, "weight": weight}
    options: dict[str, Any] = {k: _on_host(x, k) for k, x in given.items() if x is not None}
    options["cotangent"] = _random_weights(loss, host_input.astype(float), *targets, **options)
    expected = reference(loss, host_input, *targets, **options)
    complaints = []
    for place in found:
        got, _ = evaluate(loss, place, host_input, dtype, *targets, **options)
        for what, difference in differences(got, expected, rtol, atol).items():
            if not difference.agrees:
                complaints.append(f"{place}: the {what} {difference}")
    if complaints:
        raise AssertionError(
            f"{loss!r} on {dtype} spikes of shape {host_input.shape} differs from the float64 "
            "evaluation by NumPy\n  " + "\n  ".join(complaints)
        )


def _on_host(values: Any, argument: str) -> np.ndarray:
    library = find_adapter(values)
    return host(values, argument) if library is None else library.to_host(values)


def _random_weights(
    loss: Callable[..., Any], *arrays: np.ndarray, **options: np.ndarray
) -> np.ndarray | None:
    if getattr(loss, "reduction", None) != "none":
        return None
    terms: np.ndarray = loss(*arrays, **options)
    return np.random.default_rng(0).uniform(0.5, 1.5, terms.shape)


def _all_places(dtype: str) -> list[Place]:
    usable = (places(info) for info in available().values() if info.usable)
    return [place for found in usable for place in found if place.holds(dtype)]


def _named_places(backends: Sequence[str], dtype: str) -> list[Place]:
    found = []
    for name in backends:
        info = describe(name)
        if not info.usable:
            raise ValueError(f"backend {name!r} cannot be used: {info.problem}")
        found += places(info)
        if not found[-1].holds(dtype):
            raise ValueError(f"backend {name!r} has no dtype {dtype}")
    return found
