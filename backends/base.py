"""The base adapter: plain array API code, which serves every library without an adapter."""

import contextlib
import functools
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
from spikeloss_xp.primitives import block_filter, chunks, survival
from spikeloss_xp.primitives.block_filter import Accumulate, BlockMatrices
from spikeloss_xp.primitives.kernels import Exponential, block_matrices, window_band

ResultT = TypeVar("ResultT")


class Axis:
    """An axis of the arrays with the axes batch, class and time, and what is computed along it.

    Results keep the axis, with length 1.

    Attributes
    ----------
    adapter : ArrayAPIAdapter
        The adapter of the arrays.
    index : int
        The position of the axis.
    sum, spread, entries_at, gather, scatter : callable
        The methods of the adapter, along this axis.
    """

    def __init__(self, adapter: "ArrayAPIAdapter", index: int) -> None:
        self.adapter, self.index = adapter, index
        self.sum = functools.partial(adapter.sum, axis=index, keepdims=True)
        self.spread = functools.partial(adapter.spread, axis=index)
        self.entries_at = functools.partial(adapter.entries_at, axis=index)
        self.gather = functools.partial(adapter.gather, axis=index)
        self.scatter = functools.partial(adapter.scatter, axis=index)

    def length(self, x: Array) -> int:
        """Return the length of an array along the axis."""
        return x.shape[self.index]  # type: ignore[no-any-return]

    def max(self, x: Array) -> Array:
        """Return the maximum along the axis."""
        return self.adapter.xp.max(x, axis=self.index, keepdims=True)

    def any(self, x: Array) -> Array:
        """Return whether any entry along the axis is True."""
        return self.adapter.xp.any(x, axis=self.index, keepdims=True)

    def argmax(self, x: Array) -> Array:
        """Return the position of the first maximum along the axis."""
        return self.adapter.xp.argmax(x, axis=self.index, keepdims=True)

    def positions(self, like: Array) -> Array:
        """Return the positions along the axis, with length 1 along the other axes of `like`."""
        return self.adapter.along(self.index, like)


class ArrayAPIAdapter:
    """One array library: its namespace, and the operations that the array API leaves out.

    Every method is implemented in terms of the array API standard. An adapter for a library that
    can do more is a subclass that overrides the methods in which the library differs. A third
    party registers its subclass under the entry-point group ``spikeloss_xp.backends``; the name of
    the entry point is the import name of the array library.

    Parameters
    ----------
    xp : module
        The array API namespace of the library.

    Attributes
    ----------
    xp : module
        The same.
    axes : tuple of Axis
        The three axes of the arrays in a call of a loss.
    differentiates : bool
        Whether the library has automatic differentiation, by `value_and_grad`.
    compiles_loops : bool
        Whether `scan` compiles a step once, for which all steps have arrays of the same shape.
    on_host : bool
        Whether the values of the arrays that are computed in a call can be read for free.
    has_current_device : bool
        Whether the library makes arrays on a current device, which a call makes that of its input.
        Then `device` returns a context in which a device is current.
    accumulate : {"join", "separate", "in place"}
        How the block filter adds up products of blocks: as one product of joined blocks, as a sum
        of products, or in place.
    """

    differentiates: ClassVar[bool] = False
    compiles_loops: ClassVar[bool] = False
    has_current_device: ClassVar[bool] = False
    on_host: bool = False
    accumulate: ClassVar[Accumulate] = "join"

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp
        self.axes = tuple(Axis(self, index) for index in range(3))

    # What a library answers: its names, devices and states ----------------------------------------

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
        from importlib import metadata  # imports 50 modules, which few programs need

        return metadata.version(self.library)

    def devices(self) -> list[str]:
        """Name the devices, the default one first; raise the library's own error if none works.

        The base class names the default device only: the standard has no notion of devices that
        are alike.
        """
        return [str(self.xp.__array_namespace_info__().default_device())]

    def scope(self, dtype: str) -> contextlib.AbstractContextManager[object]:
        """Return a context in which arrays of `dtype` exist, for this thread only."""
        return contextlib.nullcontext()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function compiled as users of the library would compile it."""
        return function

    # What a library answers: moving and reading arrays --------------------------------------------

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        """Copy a NumPy array to a device: a name from `devices`, or a result of `device`."""
        if isinstance(device, str):
            device = self.xp.__array_namespace_info__().default_device()
        return self.xp.asarray(values, device=device, copy=True)

    def from_host_like(self, values: np.ndarray, like: Array) -> Array:
        """Copy a NumPy array to the device of `like`."""
        return self.from_host(values, self.device(like))

    def to_host(self, x: Array) -> np.ndarray:
        """Copy an array to NumPy, without its gradient; bfloat16 becomes float32."""
        return np.from_dlpack(x, device="cpu").copy()  # an array of DLPack may be read-only

    def check_dense(self, x: Array, argument: str) -> None:
        """Raise a `TypeError` if an array is sparse or has another layout without strides."""

    def device(self, x: Array) -> Any:
        """Return the ``device=`` argument that creates arrays on the device of `x`."""
        return array_api_compat.device(x)

    def to_device_of(self, x: Array, like: Array) -> Array:
        """Return `x` on the device of `like`: `x` itself if it is there, else a copy."""
        place = self.device(like)
        return x if self.device(x) == place else array_api_compat.to_device(x, place)

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        """Return the values of `x` if reading them is free, else None.

        Reading is not free for arrays on another device, arrays that are not computed yet, and
        arrays of a trace. The base class returns None.
        """
        return None

    def synchronize(self, x: Array) -> None:
        """Wait until `x` has been computed. The standard has no such operation."""

    # What a library answers: computing ------------------------------------------------------------

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        """Return ``function(x)`` and its gradient, by automatic differentiation.

        Called only if `differentiates`, with a cotangent of the shape of the value, or None for a
        scalar value. The value is detached from any graph, and `x` is not changed.
        """
        raise NotImplementedError(f"{self.library} has no automatic differentiation")

    def scalar(self, like: Array, value: float) -> Array:
        """Return a 0-d array with the dtype and device of `like`, which must not change."""
        # Unlike `asarray`, `full` does not make a GPU wait for the host.
        return self.xp.full((), value, dtype=like.dtype, device=self.device(like))

    def arange(self, stop: int, like: Array) -> Array:
        """Return the integers from 0 to before `stop`, on the device of `like`."""
        return self.xp.arange(stop, device=self.device(like))

    def along(self, axis: int, like: Array) -> Array:
        """Return the positions along an axis, with the rank of `like`."""
        positions = self.arange(like.shape[axis], like)
        axis %= like.ndim
        return self.xp.reshape(positions, (1,) * axis + (-1,) + (1,) * (like.ndim - 1 - axis))

    def moveaxis(self, x: Array, source: int, destination: int) -> Array:
        """Return `x` with one axis moved, by `permute_dims`: some transforms lack `moveaxis`."""
        source, destination = source % x.ndim, destination % x.ndim
        if source == destination:
            return x
        axes = [axis for axis in range(x.ndim) if axis != source]
        axes.insert(destination, source)
        return self.xp.permute_dims(x, tuple(axes))

    def unstack(self, x: Array, axis: int) -> Sequence[Array]:
        """Return the entries along an axis, without that axis."""
        entries: Sequence[Array] = self.xp.unstack(x, axis=axis)
        return entries

    def sum_all(self, x: Array) -> Array:
        """Sum all entries, in an order in which rounding errors do not accumulate."""
        return self.xp.sum(x)

    def matmul(self, a: Array, b: Array) -> Array:
        """Multiply blocks by a matrix, in the full precision of their dtype."""
        return self.xp.matmul(a, b)

    def stop_gradient(self, x: Array) -> Array:
        """Return `x` as a number that has no derivative."""
        return x

    def shielded(self, u: Array, mask: Array, value: float) -> Array:
        """Return readings with a value in the masked entries: finite terms, without a gradient.

        The terms are selected later, so an adapter may return `u` if nothing differentiates them.
        """
        return self.xp.where(mask, u, value)

    # What only makes a library faster: calls and chunks -------------------------------------------

    def evaluate(self, loss: Any, input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss: this is the call of a loss object.

        A library with automatic differentiation may register ``loss.value_and_pullback`` as the
        gradient where only the gradient with respect to `input` is wanted.
        """
        return loss.value(input, **options)

    def value_and_pullback(
        self, loss: Any, input: Array, *targets: Any, **options: Any
    ) -> ValueAndPullback:
        """Return the value of a loss and its pullback, in closed form.

        Called by `spikeloss_xp.value_and_grad` if the library does not differentiate.
        """
        found: ValueAndPullback = loss.value_and_pullback(input, *targets, **options)
        return found

    def of_call(self, x: Array) -> "ArrayAPIAdapter":
        """Return the adapter of a call: it need not ask again what transforms and graphs see."""
        return self

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        """Evaluate a function of arrays, in chunks along one of `axes` if that is faster.

        Parameters
        ----------
        function : callable
            Takes the arrays, or a chunk of each, and returns ``(sums, pullback)``: a tuple of
            arrays, Python numbers or None, of which chunks add up, and the pullback from the first
            of the sums to the first of the arrays, or None if no gradient is wanted.
        arrays : tuple
            Arrays, tuples of arrays, or None. Entries of length 1 along an axis serve all chunks.
        axes : tuple of int
            Axes along which chunks are independent, and may be worth it.
        batch : int
            The axis of the samples, which are always independent.

        Returns
        -------
        tuple
            The sums of all chunks, and the pullback of their first, which may be called once.
        """
        return function(*arrays)

    def are_within(self, x: Array, lowest: float, stop: float) -> bool:
        """Tell whether numbers are known, for free, to be from `lowest` to below `stop`."""
        return False

    def operand(self, like: Array, value: float) -> Any:
        """Return a number as `where` takes it, an array if `where` would make one at each call."""
        return value

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        """Return numbers that do not change as an array with the dtype and device of `like`.

        An adapter may keep the result for later calls, which pass the same object or equal tuples.
        """
        return self.xp.asarray(values, dtype=like.dtype, device=self.device(like))

    # What only makes a library faster: sums and entries -------------------------------------------

    def sum(self, x: Array, axis: int, *, keepdims: bool = False) -> Array:
        """Sum over one axis."""
        return self.xp.sum(x, axis=axis, keepdims=keepdims)

    def spread(self, x: Array, number: int, axis: int) -> Array:
        """Repeat `x` along an axis that has length 1."""
        return self.xp.repeat(x, number, axis=axis)

    def in_place(self, x: Array) -> bool:
        """Tell whether results may be written into an array: no transform and no graph sees it."""
        return False

    def entries_at(self, x: Array, index: Array, axis: int) -> Any:
        """Return what `gather` and `scatter` take for an index.

        The index has length 1 along the axis, and broadcasts to `x` along the others.
        """
        return index == self.along(axis, x)

    def gather(self, x: Array, entries: Any, axis: int) -> Array:
        """Return one entry along an axis."""
        return self.sum(self.xp.where(entries, x, 0.0), axis, keepdims=True)

    def scatter(self, x: Array, entries: Any, values: Any, axis: int) -> None:
        """Write one entry along an axis of an array that is `in_place`."""
        raise NotImplementedError

    def exp_of_difference(self, x: Array, y: Array) -> Array:
        """Return ``exp(x - y)``, which may overflow, in an array that may be written into."""
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
        """Return a cross entropy as it is `known`, or by operations that a compiler merges better.

        See `spikeloss_xp.criteria.cross_entropy_of_logits`.
        """
        return known(classes, logit, index, q)  # type: ignore[no-any-return]

    def scan(
        self, step: Callable[[Any, Any], Any], carry: Any, entries: Any, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        """Return the last ``carry`` of ``carry, output = step(carry, entry)``, and the outputs.

        The entries are those of an array along its first axis, or outputs of another scan.
        """
        entries = entries if isinstance(entries, list) else self.unstack(entries, 0)
        outputs = []
        for entry in reversed(entries) if reverse else entries:
            carry, output = step(carry, entry)
            outputs.append(output)
        return carry, outputs

    def survival_sum(self, factors: Array, weight: Array | None, axis: int) -> survival.SurvivalSum:
        """Return the sum of the cumulative products along an axis, the product, their pullback."""
        return survival.survival_sum(self, factors, weight, axis)

    # What only makes a library faster: filters ----------------------------------------------------

    def causal_filter(
        self, x: Array, kernel: Array | Exponential, axis: int = -1, *, reverse: bool = False
    ) -> Array:
        """Filter along an axis as `spikeloss_xp.causal_filter`; with `reverse`, the adjoint.

        There are zeros before the first step, so the filter has seen fewer steps there; the adjoint
        has zeros after the last step. The kernel is an array of taps with the dtype of `x`, or an
        `Exponential`, for which there is a faster algorithm.
        """
        if isinstance(kernel, Exponential):
            return self.exponential_filter(x, kernel, axis, reverse)
        filtered = block_filter.toeplitz_filter(
            self.xp,
            self.moveaxis(x, axis, -1),
            kernel,
            reverse=reverse,
            device=self.device(x),
            matmul=self.matmul,
        )
        return self.moveaxis(filtered, -1, axis)

    def exponential_filter(
        self,
        x: Array,
        kernel: Exponential,
        axis: int,
        reverse: bool,
        accumulate: Accumulate | None = None,
        entries: int | None = None,
    ) -> Array:
        """Filter block by block, at a cost that does not grow with the kernel.

        In chunks of about so many entries, if a number of them is given, here or by `filter_chunk`.
        """

        def run(chunk: Array, axis: int) -> Array:
            return block_filter.block_filter(
                self.xp,
                chunk,
                self.block_matrices(chunk, kernel, axis, reverse),
                axis=axis,
                reverse=reverse,
                matmul=self.matmul,
                accumulate=accumulate or self.accumulate,
            )

        entries = entries or self.filter_chunk()
        if entries is None or math.prod(x.shape) < 2 * entries:
            return run(x, axis)
        return chunks.filter_in_chunks(self, run, x, axis, entries)

    def filter_chunk(self) -> int | None:
        """Return the entries of a chunk of a filter; None to filter everything at once."""
        return None

    def block_matrices(
        self, x: Array, kernel: Exponential, axis: int, reverse: bool
    ) -> BlockMatrices:
        """Return the matrices of the block filter, made on the host, on the device of `x`."""
        dtype = f"float{self.xp.finfo(x.dtype).bits}"
        matrices = block_matrices(kernel, x.shape[axis], dtype, reverse=reverse)
        return matrices.converted(lambda matrix: self.constants(matrix, x))

    def moving_sum(self, x: Array, window: int, axis: int = -1, *, reverse: bool = False) -> Array:
        """Sum the last `window` steps along an axis; with `reverse`, the next ones: the adjoint."""
        if window == 1:
            return x
        steps = x.shape[axis]
        if window > _tuning.SHORT_WINDOW or not self.sums_in_blocks(x, steps):
            return self.causal_filter(x, Exponential(math.inf, window), axis, reverse=reverse)
        return self.sum_in_blocks(x, min(window, steps), axis % x.ndim, reverse)

    def sums_in_blocks(self, x: Array, steps: Any) -> bool:
        """Tell whether a product for each block of steps is fast, and the blocks are known."""
        return False

    def sum_in_blocks(self, x: Array, window: int, axis: int, reverse: bool) -> Array:
        """Sum over a short window, a block of steps at a time."""
        xp, dtype, in_place = self.xp, f"float{self.xp.finfo(x.dtype).bits}", self.in_place(x)
        band = self.constants(window_band(window, dtype), x)
        matmul = xp.matmul if in_place else self.matmul
        return block_filter.sum_in_blocks(
            xp, x, band, window, axis, reverse=reverse, matmul=matmul, in_place=in_place
        )


USES = 500
"""The number of look-ups in a row. A copy that a whole row of them does not use is dropped."""


class Copies:
    """A cache of copies on devices, which drops those that are not used any more."""

    def __init__(self) -> None:
        self._uses = 0
        self._recent: dict[Any, Any] = {}
        self._older: dict[Any, Any] = {}

    def get(self, values: Any, dtype: Any, device: Any, copy: Callable[[], Array]) -> Array:
        """Return the copy of an array or tuple, which must not change, on a device."""
        self._uses += 1
        if self._uses % USES == 0:
            self._older, self._recent = self._recent, {}
        key = values if isinstance(values, tuple) else id(values), dtype, device
        found = self._recent.get(key) or self._older.get(key) or (values, copy())
        self._recent[key] = found  # with the array, so that no other one gets its identity
        return found[1]


def untraced(function: Callable[..., ResultT]) -> Callable[..., ResultT]:
    """Mark a function that PyTorch's compiler calls, with constants, where it would trace it.

    `torch.compiler.assume_constant_result` does the same, and imports the compiler, which takes
    longer than any other part of the first call of a loss.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def library_name(xp: Namespace) -> str:
    """Return the import name of the library behind a namespace."""
    return str(xp.__name__).removeprefix("array_api_compat.").partition(".")[0]
