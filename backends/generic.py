"""The adapter of any library that conforms to the array API standard and has no other."""

import contextlib
import importlib
import importlib.metadata
import math
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from spikeloss_xp import _plain
from spikeloss_xp._kernels import Exponential, blocks
from spikeloss_xp._typing import Array, Evaluate, Namespace

value_and_grad = None  # the standard has no automatic differentiation
mapped = None


def namespace(library: str) -> Namespace:
    return importlib.import_module(library)


def version(library: str) -> str:
    module = importlib.import_module(library)
    return getattr(module, "__version__", None) or importlib.metadata.version(library)


def devices(xp: Namespace) -> list[str]:
    # The default one stands for all: the standard does not say which of them are alike.
    return [str(xp.__array_namespace_info__().default_device())]


def scope(dtype: str) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext()


def from_host(xp: Namespace, values: np.ndarray, device: Any) -> Array:
    if isinstance(device, str):  # as `devices` names it
        device = xp.__array_namespace_info__().default_device()
    return xp.asarray(values, device=device, copy=True)


def to_host(x: Array) -> np.ndarray:
    return np.from_dlpack(x, device="cpu", copy=True)


def device(x: Array) -> Any:
    return array_api_compat.device(x)


def beside(x: Array, like: Array) -> Array:
    place = device(like)
    return x if device(x) == place else array_api_compat.to_device(x, place)


def peek(x: Array) -> np.ndarray | None:
    return None  # a lazy library would compute, a remote one copy


def synchronize(x: Array) -> None:
    """Nothing in the standard can be waited for."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def total(xp: Namespace, x: Array) -> Array:
    return xp.sum(x)


def at_a_time(x: Array) -> int | None:
    return None


def value_of(evaluate: Evaluate, x: Array, options: dict[str, Any], held: tuple[Any, ...]) -> Array:
    value, _ = evaluate(x, **options, differentiate=False)
    return value


def causal_filter(
    xp: Namespace, x: Array, kernel: Array | Exponential, reverse: bool, axis: int = -1
) -> Array:
    if isinstance(kernel, Exponential):
        return in_blocks(xp, x, kernel, reverse, axis)
    return _plain.causal_filter(xp, x, kernel, reverse=reverse, device=device(x))


def moving_sum(xp: Namespace, x: Array, window: int, reverse: bool, axis: int = -1) -> Array:
    return in_blocks(xp, x, Exponential(math.inf, window), reverse, axis)


def in_blocks(
    xp: Namespace,
    x: Array,
    kernel: Exponential,
    reverse: bool,
    axis: int = -1,
    matmul: Callable[[Array, Array], Array] | None = None,
    way: _plain.Way = "joined",
) -> Array:
    """Filter the last axis, or the first, with matrices made on the host for this duration."""
    dtype = f"float{xp.finfo(x.dtype).bits}"
    made = blocks(kernel, x.shape[axis], dtype, reverse=reverse)
    place = device(x)
    moved = made.converted(lambda matrix: xp.asarray(matrix, device=place))
    return _plain.in_blocks(xp, x, moved, axis=axis, reverse=reverse, matmul=matmul, way=way)


def piecewise(
    run: Callable[[Array], Array], xp: Namespace, x: Array, axis: int, entries: int
) -> Array:
    """Run a filter on so many entries at a time that what it makes on the way stays in a cache."""
    steps = x.shape[axis]
    number = math.prod(x.shape) // steps
    together = max(entries // steps, 1)
    if number < 2 * together:
        return run(x)
    rows = xp.reshape(x, (number, steps) if axis == -1 else (steps, number))
    filtered = xp.empty_like(rows)
    for start in range(0, number, together):
        chosen = slice(start, min(start + together, number))
        part = chosen if axis == -1 else (..., chosen)
        filtered[part] = run(rows[part])
    return xp.reshape(filtered, x.shape)
