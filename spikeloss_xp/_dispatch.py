"""From an array to its namespace, and from the namespace to its adapter."""

import array_api_compat

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends._available import adapter as _adapter_by_name
from spikeloss_xp.backends._protocol import Adapter


def namespace(x: Array, argument: str = "input") -> Namespace:
    """Return the array API namespace of `x`, or say that it has none."""
    if not array_api_compat.is_array_api_obj(x):
        raise TypeError(
            f"{argument} must be an array of a library that conforms to the array API standard; "
            f"got {type(x).__module__}.{type(x).__qualname__}"
        )
    return array_api_compat.array_namespace(x)


def library(xp: Namespace) -> str:
    """Return the import name of the array library behind a namespace."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]


def adapter(xp: Namespace) -> Adapter:
    """Return the adapter that serves a namespace."""
    return _adapter_by_name(library(xp))
