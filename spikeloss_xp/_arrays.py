"""Find the adapter for an array, and convert arguments to the library of the input.

Each public function looks up the adapter once and passes it on.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import array_api_compat
import numpy as np

from spikeloss_xp._checks import WITHOUT_UNIT, has_unit
from spikeloss_xp._typing import Array
from spikeloss_xp.backends import ArrayAPIAdapter
from spikeloss_xp.backends._available import TRACED, adapter, adapter_of_namespace
from spikeloss_xp.backends.base import untraced

Adapter: TypeAlias = ArrayAPIAdapter
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_adapters: dict[type, Adapter | None] = {}  # keyed by array type


@untraced
def _look_up_before_a_trace(kind: type) -> None:
    if kind not in _adapters and hasattr(kind, "__dlpack__"):
        library = kind.__module__.partition(".")[0]
        if library in TRACED:
            _adapters[kind] = adapter(library)


def find_adapter(x: Any) -> Adapter | None:
    """Return the adapter for the library of `x`, or None if `x` is not an array.

    The adapter is cached for the type of `x`, so that the lookup can be traced.
    """
    kind = type(x)
    if kind not in _adapters:
        known = array_api_compat.is_array_api_obj(x) and not remedy(x)
        found = adapter_of_namespace(array_api_compat.array_namespace(x)) if known else None
        _adapters[kind] = found
    return _adapters[kind]


def adapter_of(x: Array, argument: str = "input") -> Adapter:
    """Return the adapter for the library of `x`, or raise an error if `x` is not supported."""
    _look_up_before_a_trace(type(x))
    found = _adapters.get(type(x)) or find_adapter(x)
    if found is None:
        raise TypeError(
            f"{argument} must be an array from a library that conforms to the array API standard; "
            f"got {type(x).__module__}.{type(x).__qualname__}{remedy(x)}"
        )
    return found


def on_device_of(name: str) -> Callable[[FunctionT], FunctionT]:
    """Return a decorator that makes a function compute on the device of the argument `name`.

    The argument is an array, or a sequence or mapping of arrays on the same device. The decorator
    has an effect only for libraries that have a current device, such as CuPy.
    """

    def decorate(function: FunctionT) -> FunctionT:
        position = list(inspect.signature(function).parameters).index(name)

        @functools.wraps(function)
        def run(*args: Any, **options: Any) -> Any:
            x = args[position] if len(args) > position else options.get(name)
            while isinstance(x, list | tuple | dict) and x:
                x = next(iter(x.values() if isinstance(x, dict) else x))
            _look_up_before_a_trace(type(x))
            adapter = find_adapter(x)
            if adapter is None or not adapter.has_current_device:
                return function(*args, **options)
            with adapter.device(x):
                return function(*args, **options)

        return cast(FunctionT, run)

    return decorate


def remedy(x: Any) -> str:
    """Return a hint on how to get a plain array from `x`, or "" if no hint is known."""
    if isinstance(x, np.ma.MaskedArray):
        return ": pass x.filled(0), and where=~numpy.ma.getmaskarray(x)"
    if isinstance(x, np.matrix):
        return ": pass numpy.asarray(x)"
    if has_unit(x):
        return WITHOUT_UNIT
    if isinstance(x, tuple) and any(hasattr(part, "shape") for part in x):
        return ": if a network returned spikes and states, pass the spikes, such as output[0]"
    for method in ("to_numpy", "toarray", "todense"):
        if hasattr(x, method):
            return f": pass x.{method}()"
    return ""


def first_array(values: Any, argument: str) -> Array:
    """Return the first array in a sequence or, without arrays, the first entry as a NumPy array."""
    arrays = (each for each in values if find_adapter(each) is not None)
    found = next(arrays, None)
    return host(values[0], f"{argument}[0]") if found is None else found


def floating(adapter: Adapter, x: Array, argument: str = "input") -> Array:
    """Convert `x` to the floating-point dtype used for computation.

    16-bit floats become float32, because a 16-bit sum may overflow or lose precision.
    """
    adapter.check_dense(x, argument)
    xp, dtype = adapter.xp, x.dtype
    if dtype in (xp.float32, getattr(xp, "float64", xp.float32)):  # some libraries lack float64
        return x
    if xp.isdtype(dtype, "real floating"):
        return x if xp.finfo(dtype).bits >= 32 else xp.astype(x, xp.float32)
    if xp.isdtype(dtype, ("bool", "integral")):
        defaults = xp.__array_namespace_info__().default_dtypes(device=adapter.device(x))
        return xp.astype(x, defaults["real floating"])
    raise TypeError(f"{argument} must be bool, integer or real floating-point; got {dtype}")


def asarray_like(adapter: Adapter, like: Array, values: Any, argument: str) -> Array:
    """Return `values` as an array from the library of `like`, on the device of `like`.

    An array from a different library raises a `TypeError`, because a silent copy would lose its
    gradient.
    """
    if type(values) is type(like):
        adapter.check_dense(values, argument)
    elif not _is_own(adapter, values, argument):
        return adapter.from_host_like(host(values, argument), like)
    return adapter.to_device_of(values, like)


def read_values(adapter: Adapter, values: Any, argument: str) -> np.ndarray:
    """Return the values of an argument as a NumPy array, waiting for a device if necessary."""
    if not _is_own(adapter, values, argument):
        return host(values, argument)
    try:
        return adapter.to_host(values)
    except (TypeError, ValueError, RuntimeError) as error:
        # Libraries raise these errors for traced arrays.
        raise TypeError(
            f"{argument} must be an array whose values can be read; got a traced array, which has "
            "no values while a function is compiled or transformed: make this call outside that "
            f"function ({type(error).__name__})"
        ) from error


def host_values(values: Any, argument: str) -> np.ndarray:
    """Convert an array from any library, a Python sequence or a number to a NumPy array."""
    found = find_adapter(values)
    return host(values, argument) if found is None else read_values(found, values, argument)


def _is_own(adapter: Adapter, values: Any, argument: str) -> bool:
    """Return whether `values` is an array from the adapter's library, or raise an error."""
    theirs = find_adapter(values)
    if theirs is not None and theirs.xp is adapter.xp:
        adapter.check_dense(values, argument)
        return True
    if theirs is not None and not isinstance(values, np.ndarray | np.generic):
        raise TypeError(
            f"{argument} must be a NumPy array, a Python sequence or an array from "
            f"{adapter.library}, the library of the input; got an array from {theirs.library}"
        )
    return False


def host(values: Any, argument: str) -> np.ndarray:
    """Convert a NumPy array, a Python sequence or a number to a plain NumPy array of numbers."""
    if isinstance(values, list | tuple) and values:
        held = find_adapter(values[0])
        if held is not None and not isinstance(values[0], np.ndarray | np.generic):
            raise TypeError(
                f"{argument} is a {type(values).__name__} of {held.library} arrays: stack them "
                "into one array. If you passed a list of numbers to a compiled function, pass an "
                "array instead, because such a function splits a list into its entries"
            )
    special = isinstance(values, np.ma.MaskedArray | np.matrix) or hasattr(values, "todense")
    if special or has_unit(values):
        raise TypeError(f"{argument} must be an array; got {type(values).__name__}{remedy(values)}")
    try:
        array = np.asarray(values)
    except ValueError as error:  # NumPy raises an error for a ragged sequence
        raise ValueError(f"{argument} is not a rectangular sequence: {error}") from None
    if array.dtype.kind not in "biuf":
        kind = type(values).__qualname__
        raise TypeError(
            f"{argument} must hold numbers; got {kind} of {array.dtype}{remedy(values)}"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # other libraries lack wider dtypes
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def concrete_or_none(values: Any) -> np.ndarray | None:
    """Return the values of an argument if reading them is cheap, otherwise None."""
    adapter = find_adapter(values)
    return np.asarray(values) if adapter is None else adapter.concrete_or_none(values)


def shape_of(values: Any) -> tuple[int, ...]:
    """Return the shape of an array or a nested sequence, or an empty tuple for None."""
    return tuple(values.shape if hasattr(values, "shape") else np.shape(values))


def rank(values: Any) -> int:
    """Return the number of axes of an array or a nested sequence."""
    if isinstance(values, list | tuple):
        return 1 + rank(values[0]) if values else 1
    return getattr(values, "ndim", 0)


def both(mask: Array | None, other: Array | None) -> Array | None:
    """Return the logical AND of two masks. None stands for a mask that is True everywhere."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def or_one(adapter: Adapter, divisor: Array) -> Array:
    """Return `divisor` with each 0 replaced by 1.

    The numerator must be 0 wherever the divisor is 0.
    """
    return adapter.xp.where(divisor > 0, divisor, adapter.operand(divisor, 1.0))


def at_least_one(adapter: Adapter, number: Array) -> Array:
    """Return a number of entries, with 0 replaced by 1, so that the mean of no entries is 0."""
    return adapter.xp.maximum(number, adapter.scalar(number, 1.0))


def divisor_of(adapter: Adapter, weight: Array | int, *, counts: bool = False) -> Any:
    """Return the number by which a sum of loss terms is divided.

    If `counts` is True, `weight` is a number of terms. If `counts` is False, a weight of 0 is
    replaced by infinity, so that the loss is 0 even if label smoothing makes the sum of the terms
    positive.
    """
    if isinstance(weight, int) or not hasattr(weight, "dtype"):
        return weight  # `torch.export` passes a symbolic size
    if counts:
        return at_least_one(adapter, weight)
    return adapter.xp.where(weight > 0, weight, adapter.operand(weight, math.inf))
