"""The base adapter: plain array API code, used for every library without its own adapter."""

import contextlib
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import array_api_compat
import numpy as np

from spikeloss_xp import _tuning
from spikeloss_xp._typing import (
    Array,
    Axes,
    ChunkFunction,
    Namespace,
    Sums,
    ValueAndPullback,
)
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.primitives import block_filter, survival
from spikeloss_xp.primitives.block_filter import BlockMatrices
from spikeloss_xp.primitives.kernels import Exponential, block_matrices, window_band

ResultT = TypeVar("ResultT")


class ArrayAPIAdapter:
    """An array library's namespace, together with the operations that the array API leaves out.

    The base class implements every method in terms of the array API standard. A library
    that needs or offers more has its own adapter: a subclass that overrides some of the methods.
    Other packages register their adapters under the entry-point group ``spikeloss_xp.backends``.
    The name of the entry point is the import name of the array library.

    Parameters
    ----------
    xp : module
        The array API namespace of the library.

    Attributes
    ----------
    xp : module
        The array API namespace of the library.
    axes : tuple of Axis
        Axes 0, 1 and 2 of the arrays in a call. They are the batch, class and time axes, in the
        same order as in the input.
    differentiates : bool
        Whether the library has automatic differentiation. If so, `value_and_grad` uses it.
    compiles_loops : bool
        Whether `scan` compiles its step function only once. If so, the arrays must have the same
        shape at every step.
    on_host : bool
        Whether intermediate results of a call can be read for free.
    is_lazy : bool
        Whether the library computes an array only when its values are requested.
    has_current_device : bool
        Whether the library creates arrays on a current device. If so, each call makes its
        input's device the current device, and `device` must return a context manager that does
        this.
    joins_blocks : bool
        Whether the block filter joins its blocks and computes a single matrix product, instead of
        adding a separate product for each block.
    """

    differentiates: ClassVar[bool] = False
    compiles_loops: ClassVar[bool] = False
    is_lazy: ClassVar[bool] = False
    has_current_device: ClassVar[bool] = False
    joins_blocks: ClassVar[bool] = True
    on_host: bool = False

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp
        self.axes = tuple(Axis(self, index) for index in range(3))

    # Overrides needed for correctness: names, devices and contexts --------------------------------

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
        from importlib import metadata  # imported here because it loads 50 modules

        return metadata.version(self.library)

    def devices(self) -> list[str]:
        """Return the names of the devices, beginning with the default device.

        If no device works, the library's own error is raised. The base class returns only the
        default device, because the standard does not say which devices are interchangeable.
        """
        return [str(self.xp.__array_namespace_info__().default_device())]

    def scope(self, dtype: str) -> contextlib.AbstractContextManager[object]:
        """Return a thread-local context in which arrays of `dtype` can be created."""
        return contextlib.nullcontext()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, compiled the way users of the library would compile it.

        The base class returns the function unchanged.
        """
        return function

    # Overrides needed for correctness: moving and reading arrays ----------------------------------

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        """Copy a NumPy array to a device, given by name or as returned by the `device` method."""
        if isinstance(device, str):
            device = self.xp.__array_namespace_info__().default_device()
        return self.xp.asarray(values, device=device, copy=True)

    def from_host_like(self, values: np.ndarray, like: Array) -> Array:
        """Copy a NumPy array to the device of `like`."""
        return self.from_host(values, self.device(like))

    def to_host(self, x: Array) -> np.ndarray:
        """Return a detached copy of `x` as a NumPy array; bfloat16 is converted to float32."""
        return np.from_dlpack(x, device="cpu").copy()  # an array from DLPack may be read-only

    def check_dense(self, x: Array, argument: str) -> None:
        """Raise an error if losses cannot be computed for `x`, for example because it is sparse.

        `argument` is the name used for `x` in the error message.
        """

    def device(self, x: Array) -> Any:
        """Return the ``device=`` argument that creates arrays on the device of `x`."""
        return array_api_compat.device(x)

    def to_device_of(self, x: Array, like: Array) -> Array:
        """Return `x` on the device of `like`: `x` itself if it is already there, else a copy."""
        place = self.device(like)
        return x if self.device(x) == place else array_api_compat.to_device(x, place)

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        """Return the values of `x` if they can be read for free, otherwise None.

        The values cannot be read for free if the array is not on the host, has not been computed
        yet, or is being traced. The base class returns None.
        """
        return None

    def synchronize(self, x: Array) -> None:
        """Wait until `x` has been computed.

        The base class does nothing, because the standard has no such operation.
        """

    # Overrides needed for correctness: computing --------------------------------------------------

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        """Return ``function(x)`` and its gradient, computed by automatic differentiation.

        This is called only if `differentiates` is True. The cotangent has the shape of the value,
        or is None for a scalar value. The returned value is detached, and `x` is not changed.
        """
        raise NotImplementedError(f"{self.library} has no automatic differentiation")

    def scalar(self, like: Array, value: float) -> Array:
        """Return a 0-d array with the dtype and device of `like`.

        An adapter may cache the array, so the caller must not change it.
        """
        # Unlike `asarray`, `full` needs no device synchronisation.
        return self.xp.full((), value, dtype=like.dtype, device=self.device(like))

    def arange(self, stop: int, like: Array) -> Array:
        """Return the integers from 0 to ``stop - 1``, on the device of `like`."""
        return self.xp.arange(stop, device=self.device(like))

    def along(self, axis: int, like: Array) -> Array:
        """Return the positions along an axis, as an array with the rank of `like`.

        The other axes have length 1, so that the result broadcasts to `like`.
        """
        positions = self.arange(like.shape[axis], like)
        axis %= like.ndim
        return self.xp.reshape(positions, (1,) * axis + (-1,) + (1,) * (like.ndim - 1 - axis))

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        """Return `x` with one axis moved to another position.

        This uses `permute_dims`, because some transforms do not support `moveaxis`.
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
        """Return the sum of all entries, in an order that does not accumulate rounding errors."""
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

    def shielded(self, u: Array, mask: Array, value: float) -> Array:
        """Return the readings `u` with the masked entries replaced by a constant.

        The terms of these entries are then finite and have no gradient. All terms are masked again
        later. An adapter may therefore return `u` itself if it does not differentiate the terms
        automatically.
        """
        return self.xp.where(mask, u, value)

    # Overrides for speed: calls and chunks --------------------------------------------------------

    def evaluate(self, loss: Any, input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss. Calling a loss object calls this method.

        If only the gradient with respect to `input` is needed, the adapter of a library with
        automatic differentiation may obtain it from the closed form, ``loss.value_and_pullback``.
        """
        return loss.value(input, **options)

    def value_and_pullback(
        self, loss: Any, input: Array, *targets: Any, **options: Any
    ) -> ValueAndPullback:
        """Return the value of a loss and its closed-form pullback.

        `spikeloss_xp.value_and_grad` calls this method if the library has no automatic
        differentiation.
        """
        found: ValueAndPullback = loss.value_and_pullback(input, *targets, **options)
        return found

    def of_call(self, x: Array) -> "ArrayAPIAdapter":
        """Return the adapter for a call on `x`.

        An adapter can use this method to check once per call whether any transform or graph sees
        the arrays. It can then return an adapter that does not check again.
        """
        return self

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        """Evaluate a function of arrays, in chunks along one of the `axes` if that is faster.

        Parameters
        ----------
        function : callable
            Takes the arrays, or a chunk of each, and returns ``(sums, pullback)``. The sums are a
            tuple of arrays, Python numbers or None, and are added over all chunks. The pullback
            maps a cotangent of the first sum to the gradient with respect to the first array; it is
            None if no gradient is wanted.
        arrays : tuple
            Arrays, tuples of arrays, or None. An array with length 1 along the chunked axis is
            shared by all chunks.
        axes : tuple of int
            The axes along which chunks are independent and chunking may be worth its overhead.
        batch : int
            The batch axis, along which samples are always independent.

        Returns
        -------
        tuple
            The sums over all chunks, and the pullback of the first sum, which may be called only
            once.
        """
        return function(*arrays)

    def are_within(self, x: Array, lowest: float, stop: float) -> bool:
        """Return whether ``lowest <= x < stop`` for all entries; False if the check is not free."""
        return False

    def operand(self, like: Array, value: float) -> Any:
        """Return a number as an operand for `where`.

        The result is a cached array if `where` would otherwise create an array at each call.
        """
        return value

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        """Return constant numbers as an array with the dtype and device of `like`.

        An adapter may cache the result and return it again for an equal tuple or for the same NumPy
        array. The caller must therefore change neither `values` nor the result.
        """
        return self.xp.asarray(values, dtype=like.dtype, device=self.device(like))

    # Overrides for speed: sums and entries --------------------------------------------------------

    def sum(self, axis: int, x: Array) -> Array:
        """Return the sum over one axis, which is kept with length 1."""
        return self.xp.sum(x, axis=axis, keepdims=True)

    def spread(self, axis: int, x: Array, number: int) -> Array:
        """Return `x` repeated `number` times along an axis of length 1."""
        return self.xp.repeat(x, number, axis=axis)

    def in_place(self, x: Array) -> bool:
        """Return whether arrays that are computed from `x` may be changed in place.

        They may be changed if no transform or graph sees `x`.
        """
        return False

    def entries_at(self, axis: int, x: Array, index: Array) -> Any:
        """Convert an index to the form that `gather` and `scatter` expect.

        The index has length 1 along the axis, and broadcasts to `x` along the other axes.
        """
        return index == self.along(axis, x)

    def gather(self, axis: int, x: Array, entries: Any) -> Array:
        """Return the entry at the index along an axis, which is kept with length 1."""
        return self.sum(axis, self.xp.where(entries, x, 0.0))

    def scatter(self, axis: int, x: Array, entries: Any, values: Any) -> None:
        """Set the entry at the index along an axis, in an array for which `in_place` is True."""
        raise NotImplementedError

    def exp_of_difference(self, x: Array, y: Array) -> Array:
        """Return ``exp(x - y)`` as a new array, without a warning on overflow."""
        difference = x - y
        return self.xp.exp(difference, out=difference)

    def cross_entropy(
        self,
        known: Callable[..., Any],
        classes: Axis,
        logit: Array,
        index: Array,
        q: Array | None,
    ) -> ValueAndPullback:
        """Return the terms of a cross entropy and their pullback; by default, call `known`.

        An adapter may use operations that the compiler can fuse more effectively. See
        `spikeloss_xp.criteria.cross_entropy_of_logits`.
        """
        return known(classes, logit, index, q)  # type: ignore[no-any-return]

    def bernoulli(self, known: Callable[..., Any], logit: Array, spike: Array) -> ValueAndPullback:
        """Return negative log-likelihoods of spikes and their pullback; by default, call `known`.

        See `spikeloss_xp.criteria.bernoulli_of_logits`.
        """
        return known(self, logit, spike)  # type: ignore[no-any-return]

    def scan(
        self, step: Callable[[Any, Any], Any], carry: Any, entries: Any, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        """Apply ``carry, output = step(carry, entry)`` to each entry in turn.

        Return the last carry and all outputs. `entries` is either an array, which is split along
        its first axis, or the outputs of another scan.
        """
        entries = entries if isinstance(entries, list) else self.unstack(entries, 0)
        outputs = []
        for entry in reversed(entries) if reverse else entries:
            carry, output = step(carry, entry)
            outputs.append(output)
        return carry, outputs

    def survival_sum(self, factors: Array, weight: Array | None, axis: int) -> survival.SurvivalSum:
        """Return the weighted sum of cumulative products, the full product, and the pullback."""
        return survival.survival_sum(self, factors, weight, axis)

    # Overrides for speed: filters -----------------------------------------------------------------

    def causal_filter(
        self, x: Array, kernel: Array | Exponential, axis: int = -1, *, reverse: bool = False
    ) -> Array:
        """Apply `spikeloss_xp.causal_filter` along an axis, or its adjoint if `reverse` is True.

        The array is taken to be zero before the first step and, for the adjoint, also after the
        last step. The kernel is an array of taps with the dtype of `x`, or an `Exponential`, for
        which there is a faster algorithm.
        """
        if isinstance(kernel, Exponential):
            return block_filter.block_filter(
                self.xp,
                x,
                self.block_matrices(x, kernel, axis, reverse),
                axis=axis,
                reverse=reverse,
                matmul=self.matmul,
                joins_blocks=self.joins_blocks,
            )
        filtered = block_filter.toeplitz_filter(
            self.xp,
            self.moveaxis(x, axis, -1),
            kernel,
            reverse=reverse,
            device=self.device(x),
            matmul=self.matmul,
        )
        return self.moveaxis(filtered, -1, axis)

    def block_matrices(
        self, x: Array, kernel: Exponential, axis: int, reverse: bool
    ) -> BlockMatrices:
        """Compute the block filter's matrices on the host, and return them on the device of `x`."""
        dtype = f"float{self.xp.finfo(x.dtype).bits}"
        matrices = block_matrices(kernel, x.shape[axis], dtype, reverse=reverse)
        return matrices.converted(lambda matrix: self.constants(matrix, x))

    def moving_sum(self, x: Array, window: int, axis: int = -1, *, reverse: bool = False) -> Array:
        """Return, at each step along an axis, the sum over the last `window` steps.

        If `reverse` is True, sum over the next `window` steps instead, which is the adjoint.
        """
        if window == 1:
            return x
        steps = x.shape[axis]
        if window > _tuning.SHORT_WINDOW or not self.sums_in_blocks(x, steps):
            return self.causal_filter(x, Exponential(math.inf, window), axis, reverse=reverse)
        return self.sum_in_blocks(x, min(window, steps), axis % x.ndim, reverse)

    def sums_in_blocks(self, x: Array, steps: Any) -> bool:
        """Return whether `sum_in_blocks` can be used for `x` and is faster than a filter."""
        return False

    def sum_in_blocks(self, x: Array, window: int, axis: int, reverse: bool) -> Array:
        """Return the moving sum over a short window, computed one block of steps at a time."""
        xp, dtype, in_place = self.xp, f"float{self.xp.finfo(x.dtype).bits}", self.in_place(x)
        band = self.constants(window_band(window, dtype), x)
        matmul = xp.matmul if in_place else self.matmul
        return block_filter.sum_in_blocks(
            xp, x, band, window, axis, reverse=reverse, matmul=matmul, in_place=in_place
        )


def untraced(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Mark a function so that PyTorch's compiler calls it instead of tracing it.

    The compiler treats the result as a constant. `torch.compiler.assume_constant_result` does the
    same, but imports the compiler, which takes longer than any other part of the first call to a
    loss.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def library_name(xp: Namespace) -> str:
    """Return the import name of the library that a namespace belongs to."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]
