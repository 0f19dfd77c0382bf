"""Everything follows the input: the dtype to compute in, and the library and device to be on."""

from typing import Any

import numpy as np

from spikeloss_xp import _dispatch
from spikeloss_xp._typing import Array, Namespace, Pullback


def floating(xp: Namespace, x: Array, argument: str = "input") -> tuple[Array, Pullback]:
    """Return `x` in the dtype to compute in, and the pullback to the dtype it came in.

    Real floating types of 32 bits and more stay. Those of 16 bits, whose sums overflow or stall,
    become float32; bool and integers, which have no gradient, the library's default.
    """
    given = x.dtype
    if xp.isdtype(given, "real floating"):
        if xp.finfo(given).bits >= 32:
            return x, lambda cotangent: cotangent
        return xp.astype(x, xp.float32), lambda cotangent: xp.astype(cotangent, given)
    if xp.isdtype(given, ("bool", "integral")):
        device = _dispatch.adapter(xp).device(x)
        defaults = xp.__array_namespace_info__().default_dtypes(device=device)
        return xp.astype(x, defaults["real floating"]), lambda cotangent: cotangent
    raise TypeError(f"{argument} must be bool, integer or real floating; got {given}")


def follow(xp: Namespace, like: Array, values: Any, argument: str) -> Array:
    """Return `values` as an array of the library of `like`, on its device.

    NumPy arrays and Python sequences and numbers are moved there. Arrays of another library are
    refused: moving those would be a copy that nobody asked for, and lose their gradient.
    """
    adapter = _dispatch.adapter(xp)
    theirs = _dispatch.find_namespace(values)
    if theirs is not None:
        if theirs is xp:
            return adapter.beside(values, like)
        if not isinstance(values, np.ndarray | np.generic):
            raise TypeError(
                f"{argument} must come from the library of the input, {_dispatch.library(xp)}, or "
                f"be a NumPy array or a Python sequence; got an array of "
                f"{_dispatch.library(theirs)}"
            )
    return adapter.from_host(xp, host(values, argument), adapter.device(like))


def host(values: Any, argument: str) -> np.ndarray:
    """Return a NumPy array of what is a NumPy array, or a Python sequence or number."""
    if isinstance(values, list | tuple) and values:
        held = _dispatch.find_namespace(values[0])
        if held is not None and not isinstance(values[0], np.ndarray | np.generic):
            raise TypeError(
                f"{argument} is a {type(values).__name__} of {_dispatch.library(held)} arrays: "
                "stack them into one"
            )
    try:
        array = np.asarray(values)
    except ValueError as error:  # a ragged sequence
        raise ValueError(f"{argument} is not a rectangular sequence: {error}") from None
    if array.dtype.kind not in "biuf":
        kind = type(values).__qualname__
        raise TypeError(f"{argument} must hold numbers; got {kind} of {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # of NumPy only, and of some machines
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def moved(xp: Namespace, x: Array, source: int, destination: int) -> Array:
    """Return `x` with one axis elsewhere, as ``moveaxis``, which not every transform knows."""
    source, destination = source % x.ndim, destination % x.ndim
    if source == destination:
        return x
    axes = [axis for axis in range(x.ndim) if axis != source]
    axes.insert(destination, source)
    return xp.permute_dims(x, tuple(axes))


def constant(xp: Namespace, like: Array, values: Any) -> Array:
    """Return numbers of our own as an array with the dtype and device of `like`."""
    device = _dispatch.adapter(xp).device(like)
    if isinstance(values, float | int):  # a GPU fills without waiting
        return xp.full((), values, dtype=like.dtype, device=device)
    return xp.asarray(values, dtype=like.dtype, device=device)


def peek(values: Any) -> np.ndarray | None:
    """Return values where reading them is free: of the host, outside any trace. Else None."""
    xp = _dispatch.find_namespace(values)
    return np.asarray(values) if xp is None else _dispatch.adapter(xp).peek(values)


def or_one(xp: Namespace, number: Array) -> Array:
    """Return numbers to divide by: 1 in place of 0, where what is divided is 0 and stays so."""
    return xp.where(number > 0, number, constant(xp, number, 1.0))
