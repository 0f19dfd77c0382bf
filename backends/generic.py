"""The adapter of any library that conforms to the array API standard and has no other."""

import contextlib
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from spikeloss_xp import _plain
from spikeloss_xp._typing import Array, Namespace

value_and_grad = None  # the standard has no automatic differentiation


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


def causal_filter(xp: Namespace, x: Array, kernel: Array) -> Array:
    return _plain.causal_filter(xp, x, kernel, device=device(x))


def moving_sum(xp: Namespace, x: Array, window: int) -> Array:
    return _plain.moving_sum(xp, x, window)
