"""From an array to its library: the adapter, which has the namespace as `xp`.

A public function looks the library up once and hands it on.
"""

from typing import Any

import array_api_compat
import numpy as np

from spikeloss_xp._typing import Array
from spikeloss_xp.backends import ArrayAPIAdapter as Library
from spikeloss_xp.backends._available import adapter_class
from spikeloss_xp.backends.base import library_name

__all__ = ["Library", "find_library", "library_of", "remedy"]

_libraries: dict[type, Library | None] = {}  # by the class of the array
_by_namespace: dict[str, Library] = {}


def find_library(x: Any) -> Library | None:
    """Return the library of `x`, or None if it is not an array.

    The library of a class is cached: the look-up is fast, and a compiler can trace it.
    """
    kind = type(x)
    if kind not in _libraries:
        _libraries[kind] = _library_of_new_class(x)
    return _libraries[kind]


def _library_of_new_class(x: Any) -> Library | None:
    if not array_api_compat.is_array_api_obj(x) or remedy(x):
        return None
    xp = array_api_compat.array_namespace(x)
    name = xp.__name__
    if name not in _by_namespace:
        _by_namespace[name] = adapter_class(library_name(xp))(xp)
    return _by_namespace[name]


def library_of(x: Array, argument: str = "input") -> Library:
    """Return the library of an array, or raise if it has none."""
    kind = type(x)
    found = _libraries[kind] if kind in _libraries else find_library(x)
    if found is None:
        raise TypeError(
            f"{argument} must be an array of a library that conforms to the array API standard; "
            f"got {type(x).__module__}.{type(x).__qualname__}{remedy(x)}"
        )
    library: Library = found
    return library


def remedy(x: Any) -> str:
    """Return how to make an array of an object that holds one and more, or an empty string."""
    if isinstance(x, np.ma.MaskedArray):
        return ": pass x.filled(0), and where=~numpy.ma.getmaskarray(x)"
    if isinstance(x, np.matrix):
        return ": pass numpy.asarray(x)"
    for method in ("to_numpy", "toarray"):  # of tables and labelled arrays, and of sparse arrays
        if hasattr(x, method):
            return f": pass x.{method}()"
    return ""
