"""The base class of all adapters, which uses only functions of the array API standard."""

import contextlib
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import array_api_compat
import numpy as np

from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.backends._fast_paths import FastPaths

ResultT = TypeVar("ResultT")
HASHABLE = (int, float, str, bool, type(None))  # types that cannot refer to arrays
HASHABLE_TYPES = frozenset(HASHABLE)


class ArrayAPIAdapter(FastPaths):
    """An array library's namespace, with additional operations that the array API does not define.

    The base class implements its methods with functions of the array API standard. The adapter for
    a particular library can be a subclass that overrides some of the methods. Other packages can
    register their adapters in the entry-point group ``spikeloss_xp.backends``. The name of the
    entry point must be the import name of the array library.

    If a library deviates from the standard, its adapter must override the affected methods of this
    class. To make losses faster, an adapter may also override the methods that this class inherits
    from `FastPaths`.

    Parameters
    ----------
    xp : module
        The array API namespace of the library.

    Attributes
    ----------
    xp : module
        The array API namespace of the library.
    axes : tuple of Axis
        The axes 0, 1 and 2 of the arrays in a call to a loss. These are the batch, class and time
        axes, in the same order as in the input.
    differentiates : bool
        Whether the library has automatic differentiation. If True, `spikeloss_xp.value_and_grad`
        uses the automatic differentiation of the library.
    is_lazy : bool
        Whether the functions for diagnosis must first compute an array and copy it to the host.
    has_current_device : bool
        Whether the library has a current device, on which it creates new arrays. If True, the
        functions of `spikeloss_xp` set the current device to the device of the input. The adapter's
        method `device` must then return a context manager.

    Examples
    --------
    >>> import numpy as np
    >>> import spikeloss_xp as sx
    >>> adapter = sx.backends.ArrayAPIAdapter(np)
    >>> adapter.to_host(adapter.xp.arange(3)).tolist()
    [0, 1, 2]
    """

    differentiates: ClassVar[bool] = False
    is_lazy: ClassVar[bool] = False
    has_current_device: ClassVar[bool] = False

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp
        self.axes: tuple[Axis, ...] = tuple(Axis(self, index) for index in range(3))

    # Devices and contexts ------------------------------------------------------------------------

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        """Import the library and return its array API namespace."""
        return importlib.import_module(library)

    @property
    def library(self) -> str:
        """The import name of the library."""
        return library_name(self.xp)

    def version(self) -> str:
        """Return the version of the library."""
        module = importlib.import_module(self.library)
        if found := getattr(module, "__version__", None):
            return str(found)
        from importlib import metadata  # this import is slow

        return metadata.version(self.library)

    def devices(self) -> list[str]:
        """Return the names of the devices, beginning with the default device.

        If no device works, the library's own error is raised. The base class returns only the
        default device.
        """
        return [str(self.xp.__array_namespace_info__().default_device())]

    def scope(self, dtype: str) -> contextlib.AbstractContextManager[object]:
        """Return a thread-local context in which arrays of `dtype` can be created."""
        return contextlib.nullcontext()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, compiled with the library's usual compiler, such as `jax.jit`.

        The base class returns the function unchanged.
        """
        return function

    def register_container(self, kind: type, arrays: tuple[str, ...]) -> None:
        """Allow compiled functions to take and return instances of the dataclass `kind`.

        The fields named in `arrays` hold arrays. All other fields are constants. The base class
        does nothing.
        """

    # Reading and copying --------------------------------------------------------------------------

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        """Copy a NumPy array to a device.

        `device` is either the name of a device or an object that the method `device` returned.
        """
        if isinstance(device, str):
            device = self.xp.__array_namespace_info__().default_device()
        return self.xp.asarray(values, device=device, copy=True)

    def from_host_like(self, values: np.ndarray, like: Array) -> Array:
        """Copy a NumPy array to the device of `like`."""
        return self.from_host(values, self.device(like))

    def to_host(self, x: Array) -> np.ndarray:
        """Return a detached copy of `x` as a NumPy array. The dtype bfloat16 becomes float32."""
        return np.from_dlpack(x, device="cpu").copy()  # an array from DLPack may be read-only

    def check_dense(self, x: Array, argument: str) -> None:
        """Raise an error if losses cannot be computed for `x`, for example if `x` is sparse.

        `argument` is the name used for `x` in the error message.
        """

    def device(self, x: Array) -> Any:
        """Return the device of `x`, as a value for the argument ``device=`` of array functions."""
        return array_api_compat.device(x)

    def to_device_of(self, x: Array, like: Array) -> Array:
        """Return `x` on the device of `like`. `x` is copied only if it is on a different device."""
        place = self.device(like)
        return x if self.device(x) == place else array_api_compat.to_device(x, place)

    def sharded_like(self, x: Array, like: Array) -> Array:
        """Return `x`, sharded over devices in the same way as `like`.

        Both arrays have the same number of axes. Axes that are shorter in `x` than in `like` are
        not sharded. The base class returns `x` itself. An adapter must override this method if its
        library cannot combine arrays that are sharded differently.
        """
        return x

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        """Return the values of `x` if reading them is cheap, otherwise None.

        Reading the values is not cheap if the array is not on the host, or if it is lazy and has
        not been computed yet. A traced array has no values. The base class returns None.
        """
        return None

    def synchronize(self, x: Array) -> None:
        """Wait until `x` has been computed.

        The base class does nothing, because the array API standard has no such operation.
        """

    # Computing ------------------------------------------------------------------------------------

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        """Return ``function(x)`` and its gradient, computed by automatic differentiation.

        This method is called only if `differentiates` is True. The cotangent must have the shape of
        the value. If the value is a scalar, the cotangent may be None. The returned value is
        detached, and `x` is not changed.
        """
        raise NotImplementedError(f"{self.library} has no automatic differentiation")

    def scalar(self, like: Array, value: float) -> Array:
        """Return `value` as a 0-d array with the dtype and device of `like`.

        An adapter may cache the array, so the caller must not change the array.
        """
        # Unlike `asarray`, `full` needs no device synchronisation.
        return self.xp.full((), value, dtype=like.dtype, device=self.device(like))

    def arange(self, stop: int, like: Array) -> Array:
        """Return the integers from 0 to ``stop - 1``, on the device of `like`."""
        return self.xp.arange(stop, device=self.device(like))

    def along(self, axis: int, like: Array) -> Array:
        """Return the indices 0, 1, 2, ... along an axis of `like`, as an array.

        The array has as many axes as `like`. All axes except the given axis have length 1, so that
        the array broadcasts to `like`.
        """
        positions = self.arange(like.shape[axis], like)
        axis %= like.ndim
        return self.xp.reshape(positions, (1,) * axis + (-1,) + (1,) * (like.ndim - 1 - axis))

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        """Return `x` with one axis moved to another position.

        This method calls `permute_dims`, because some function transforms do not support
        `moveaxis`.
        """
        source, destination = source % x.ndim, destination % x.ndim
        if source == destination:
            return x
        axes = [axis for axis in range(x.ndim) if axis != source]
        axes.insert(destination, source)
        return self.xp.permute_dims(x, tuple(axes))

    def unstack(self, x: Array, axis: int) -> Sequence[Array]:
        """Split `x` along an axis into arrays without that axis."""
        entries: Sequence[Array] = self.xp.unstack(x, axis=axis)
        return entries

    def sum_all(self, x: Array) -> Array:
        """Return the sum of all entries, computed with a small rounding error."""
        return self.xp.sum(x)

    def matmul(self, a: Array, b: Array) -> Array:
        """Return ``a @ b``, computed in the full precision of the dtype."""
        return self.xp.matmul(a, b)

    def stop_gradient(self, x: Array) -> Array:
        """Return `x`, detached from automatic differentiation."""
        return x

    def without_graph(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the library records no graph for automatic differentiation."""
        return contextlib.nullcontext()

    def lacks_graph(self, x: Array) -> bool:
        """Return whether the library is recording a graph that does not include `x`."""
        return False

    def shielded(self, u: Array, mask: Array) -> Array:
        """Return `u` with the masked entries replaced by 1.

        Loss terms that are computed from masked entries are then finite and have no gradient. The
        loss masks its terms later, so an adapter may return `u` itself if the terms are not
        differentiated automatically.
        """
        return self.xp.where(mask, u, 1.0)


def untraced(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Mark a function so that PyTorch's compiler calls it instead of tracing it.

    The compiler treats the result as a constant. `torch.compiler.assume_constant_result` has the
    same effect, but imports the compiler, which would make the first call to a loss slow.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def library_name(xp: Namespace) -> str:
    """Return the import name of the library that a namespace belongs to."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]


def captured_arrays(loss: Any) -> tuple[Any, ...] | None:
    """Return the arrays among the options of a loss, or None if an option may hide arrays.

    For example, a callable may refer to arrays that cannot be listed.
    """
    held: list[Any] = []
    values = vars(loss).values()
    for value in () if HASHABLE_TYPES.issuperset(map(type, values)) else values:
        if isinstance(value, HASHABLE):
            continue
        if array_api_compat.is_array_api_obj(value):
            held.append(value)
        elif not (isinstance(value, tuple) and all(isinstance(v, HASHABLE) for v in value)):
            return None
    return tuple(held)


@functools.singledispatch
def split_call(loss: Any, input: Array, arguments: dict[str, Any]) -> Any:
    """Return how a call to a loss may be split into blocks, or None if the call cannot be split.

    The module `spikeloss_xp.losses.blocks` registers an implementation for losses that can be
    split.
    """
    return None
