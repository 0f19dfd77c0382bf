"""An array and its library: find the adapter, and convert arguments to the library of the input.

A public function looks the adapter up once and hands it on. It has the array namespace as `xp`.
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

_adapters: dict[type, Adapter | None] = {}  # by the class of the array


@untraced
def _look_up_before_a_trace(kind: type) -> None:
    if kind not in _adapters and hasattr(kind, "__dlpack__"):
        library = kind.__module__.partition(".")[0]
        if library in TRACED:
            _adapters[kind] = adapter(library)


def find_adapter(x: Any) -> Adapter | None:
    """Return the adapter of `x`, or None if it is not an array.

    The adapter of a class is cached: the look-up is fast, and a compiler can trace it.
    """
    kind = type(x)
    if kind not in _adapters:
        known = array_api_compat.is_array_api_obj(x) and not remedy(x)
        found = adapter_of_namespace(array_api_compat.array_namespace(x)) if known else None
        _adapters[kind] = found
    return _adapters[kind]


def adapter_of(x: Array, argument: str = "input") -> Adapter:
    """Return the adapter of an array, or raise if its library has no array API."""
    _look_up_before_a_trace(type(x))
    found = _adapters.get(type(x)) or find_adapter(x)
    if found is None:
        raise TypeError(
            f"{argument} must be an array of a library that conforms to the array API standard; "
            f"got {type(x).__module__}.{type(x).__qualname__}{remedy(x)}"
        )
    return found


def on_device_of(name: str) -> Callable[[FunctionT], FunctionT]:
    """Let a function compute on the device of an argument: an array, or several of one device.

    A library may have a current device, on which it computes and makes arrays.
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
    """Return how to make an array of an object that holds one and more, or an empty string."""
    if isinstance(x, np.ma.MaskedArray):
        return ": pass x.filled(0), and where=~numpy.ma.getmaskarray(x)"
    if isinstance(x, np.matrix):
        return ": pass numpy.asarray(x)"
    if has_unit(x):
        return WITHOUT_UNIT
    if isinstance(x, tuple) and any(hasattr(part, "shape") for part in x):
        return ": if a network returned spikes and states, pass the spikes, such as output[0]"
    for method in ("to_numpy", "toarray"):  # of tables and labelled arrays, and of sparse arrays
        if hasattr(x, method):
            return f": pass x.{method}()"
    return ""


def floating(adapter: Adapter, x: Array, argument: str = "input") -> Array:
    """Return `x` in the dtype to compute in.

    Real floating types of 32 bits and more stay. Those of 16 bits, whose sums overflow or stall,
    become float32; bool and integers become the library's default floating dtype.
    """
    adapter.check_dense(x, argument)
    xp, dtype = adapter.xp, x.dtype
    if dtype in (xp.float32, getattr(xp, "float64", xp.float32)):  # some lack float64
        return x
    if xp.isdtype(dtype, "real floating"):
        return x if xp.finfo(dtype).bits >= 32 else xp.astype(x, xp.float32)
    if xp.isdtype(dtype, ("bool", "integral")):
        defaults = xp.__array_namespace_info__().default_dtypes(device=adapter.device(x))
        return xp.astype(x, defaults["real floating"])
    raise TypeError(f"{argument} must be bool, integer or real floating; got {dtype}")


def asarray_like(adapter: Adapter, like: Array, values: Any, argument: str) -> Array:
    """Return `values` as an array of the library of `like`, on its device.

    NumPy arrays and Python sequences and numbers are copied there. Arrays of another library
    raise: copying them would be silent and would lose their gradient.
    """
    if _is_own(adapter, values, argument):
        return adapter.to_device_of(values, like)
    return adapter.from_host_like(host(values, argument), like)


def read(adapter: Adapter, values: Any, argument: str) -> np.ndarray:
    """Return the values of an argument as a NumPy array, which may wait for a device.

    The argument may be what `asarray_like` takes, but not an array without values.
    """
    if not _is_own(adapter, values, argument):
        return host(values, argument)
    try:
        return adapter.to_host(values)
    except (TypeError, ValueError, RuntimeError) as error:  # of libraries, in a trace
        raise TypeError(
            f"{argument} must be an array whose values can be read, which they cannot be while a "
            f"function is compiled or transformed: read it before ({type(error).__name__})"
        ) from error


def on_host(values: Any, argument: str) -> np.ndarray:
    """Return the values of an array of any library, of a Python sequence or of a number."""
    found = find_adapter(values)
    return host(values, argument) if found is None else read(found, values, argument)


def _is_own(adapter: Adapter, values: Any, argument: str) -> bool:
    """Return whether an argument is an array of a library, and raise if it is of another one."""
    theirs = find_adapter(values)
    if theirs is not None and theirs.xp is adapter.xp:
        adapter.check_dense(values, argument)
        return True
    if theirs is not None and not isinstance(values, np.ndarray | np.generic):
        raise TypeError(
            f"{argument} must come from the library of the input, {adapter.library}, or "
            f"be a NumPy array or a Python sequence; got an array of {theirs.library}"
        )
    return False


def host(values: Any, argument: str) -> np.ndarray:
    """Return a NumPy array of a NumPy array, a Python sequence or a number."""
    if isinstance(values, list | tuple) and values:
        held = find_adapter(values[0])
        if held is not None and not isinstance(values[0], np.ndarray | np.generic):
            raise TypeError(
                f"{argument} is a {type(values).__name__} of {held.library} arrays: stack them "
                "into one, and pass an array to a compiled function, which takes lists apart"
            )
    if isinstance(values, np.ma.MaskedArray | np.matrix) or has_unit(values):
        raise TypeError(f"{argument} must be an array; got {type(values).__name__}{remedy(values)}")
    try:
        array = np.asarray(values)
    except ValueError as error:  # a ragged sequence
        raise ValueError(f"{argument} is not a rectangular sequence: {error}") from None
    if array.dtype.kind not in "biuf":
        kind = type(values).__qualname__
        raise TypeError(
            f"{argument} must hold numbers; got {kind} of {array.dtype}{remedy(values)}"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:  # only NumPy has such dtypes
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def sign(adapter: Adapter, x: Array) -> Array:
    """Return the sign of numbers, 0 for NaN: `xp.sign` may wait for a GPU to look for NaN."""
    return adapter.xp.astype(x > 0, x.dtype) - adapter.xp.astype(x < 0, x.dtype)


def concrete_or_none(values: Any) -> np.ndarray | None:
    """Return the values of an argument if reading them is free, else None."""
    adapter = find_adapter(values)
    return np.asarray(values) if adapter is None else adapter.concrete_or_none(values)


def shape_of(values: Any) -> tuple[int, ...]:
    """Return the shape of an array or of a nested sequence; that of None is empty."""
    return tuple(values.shape if hasattr(values, "shape") else np.shape(values))


def rank(values: Any) -> int:
    """Return the number of axes of an array or of a nested sequence."""
    if isinstance(values, list | tuple):
        return 1 + rank(values[0]) if values else 1
    return getattr(values, "ndim", 0)


def or_one(adapter: Adapter, divisor: Array) -> Array:
    """Return a divisor with 1 in place of 0: its numerator is 0 there, and so is the quotient."""
    return adapter.xp.where(divisor > 0, divisor, adapter.operand(divisor, 1.0))


def check_size(adapter: Adapter, values: Array, given: Any, argument: str) -> None:
    """Raise if concrete finite numbers would be infinite in the dtype of `values`."""
    known, limits = concrete_or_none(given), adapter.xp.finfo(values.dtype)
    if known is None or known.dtype.kind != "f" or known.dtype.itemsize * 8 <= limits.bits:
        return
    size = np.abs(known)
    if bool(((size > limits.max) & (size < math.inf)).any()):
        raise ValueError(
            f"{argument} has a number of size {size[size < math.inf].max():g}, which is infinite "
            f"in the dtype that the loss computes in, {values.dtype}"
        )


def check_shape(
    given: Array,
    argument: str,
    what: str,
    expected: dict[str, tuple[int, ...]],
    hint: Callable[[tuple[int, ...]], str] = lambda shape: "",
) -> None:
    """Raise if the shape of an argument is none of the expected ones; hint at the mistake."""
    shape = tuple(given.shape)
    if shape not in expected.values():
        shapes = " or ".join(f"{shape} ({meaning})" for meaning, shape in expected.items())
        raise ValueError(f"{argument} must hold {what} of shape {shapes}; got {shape}{hint(shape)}")


def lowest_below(known: np.ndarray | None, limit: float) -> float | None:
    """Return the lowest of concrete values if it is below a limit, else None.

    Finding it takes a second look only if there is such a value or NaN.
    """
    if known is None or not known.size or known.min() >= limit:  # a process may have no sample
        return None
    below = known[known < limit]
    return float(below.min()) if below.size else None


def check_range(
    values: np.ndarray | None, highest: int, argument: str, ignored: int | None = None
) -> bool:
    """Raise if concrete integers are below 0 or too large; ignored values may be.

    Return whether all values are known to be within the range.
    """
    if values is None:
        return False
    inside = (values >= 0) & (values <= highest)
    if bool(inside.all()):
        return True
    if ignored is not None:
        inside |= values == ignored
    if not bool(inside.all()):
        others = values if ignored is None else values[values != ignored]
        left_out = f" (what is to be left out is {ignored})" if ignored is not None else ""
        raise ValueError(
            f"{argument} must be between 0 and {highest}; "
            f"got values from {others.min()} to {others.max()}"
            f"{left_out if others.min() < 0 else ''}"
        )
    return False
