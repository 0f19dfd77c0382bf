"""From an array to its namespace, and from the namespace to its adapter."""

from typing import Any

import array_api_compat

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends._available import adapter as _adapter_by_name
from spikeloss_xp.backends._protocol import Adapter

_namespaces: dict[type, Namespace | None] = {}  # what array_api_compat said of a class before
_adapters: dict[str, Adapter] = {}  # by the name of the namespace


def find_namespace(x: Any) -> Namespace | None:
    """Return the array API namespace of `x`, or None if it is not an array.

    A class keeps its namespace: asking once is quicker, and a compiler that traces the question
    only sees a look-up.
    """
    kind = type(x)
    if kind not in _namespaces:
        is_array = array_api_compat.is_array_api_obj(x)
        _namespaces[kind] = array_api_compat.array_namespace(x) if is_array else None
    return _namespaces[kind]


def namespace(x: Array, argument: str = "input") -> Namespace:
    """Return the array API namespace of `x`, or say that it has none."""
    found = find_namespace(x)
    if found is None:
        raise TypeError(
            f"{argument} must be an array of a library that conforms to the array API standard; "
            f"got {type(x).__module__}.{type(x).__qualname__}"
        )
    return found


def library(xp: Namespace) -> str:
    """Return the import name of the array library behind a namespace."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]


def adapter(xp: Namespace) -> Adapter:
    """Return the adapter that serves a namespace."""
    name = xp.__name__
    if name not in _adapters:
        _adapters[name] = _adapter_by_name(library(xp))
    return _adapters[name]
