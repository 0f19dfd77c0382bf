"""The methods that an adapter may override to make a library faster."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array, Axes, ChunkFunction, Namespace, Sums, ValueAndPullback
from spikeloss_xp.primitives import block_filter, survival
from spikeloss_xp.primitives.block_filter import BlockMatrices
from spikeloss_xp.primitives.kernels import Exponential, block_matrices, window_band

if TYPE_CHECKING:
    from spikeloss_xp.backends._axis import Axis


class FastPaths:
    """Methods that work for every library, and that an adapter may replace with faster ones.

    `ArrayAPIAdapter` inherits them. To write an adapter, you do not have to read this class.
    """

    compiles_loops: ClassVar[bool] = False
    """Whether `scan` compiles its step function only once. If so, the arrays must have the same
    shape at every step."""

    joins_blocks: ClassVar[bool] = True
    """Whether the block filter joins its blocks and computes a single matrix product, instead of
    adding a separate product for each block."""

    on_host: bool = False
    """Whether intermediate results of a call can be read for free."""

    # `ArrayAPIAdapter` defines the following attributes and methods.
    differentiates: ClassVar[bool]
    xp: Namespace
    device: Callable[[Array], Any]
    along: Callable[[int, Array], Array]
    moveaxis: Callable[[Array, int, int], Array]
    unstack: Callable[[Array, int], Sequence[Array]]
    matmul: Callable[[Array, Array], Array]
    sum_all: Callable[[Array], Array]

    # Calls and chunks -----------------------------------------------------------------------------

    def evaluate(self, loss: Any, input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss. Every call to a loss object goes through this method.

        If only the gradient with respect to `input` is needed, the adapter of a library with
        automatic differentiation may register the closed-form gradient, which
        ``loss.value_and_pullback`` computes, with the library.
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

    def specialized_for(self, x: Array) -> Self:
        """Return the adapter for a call on `x`.

        An adapter can use this method to check, once per call, whether any transform or graph sees
        the arrays. If there is none, the method can return an adapter that does not repeat the
        check.
        """
        return self

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        """Evaluate a function of arrays, in chunks along one of the `axes` if chunks are faster.

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
            The axes along which the arrays may be split into independent chunks. The tuple is empty
            if chunks are not worth their overhead.
        batch : int
            The batch axis, along which samples are always independent.

        Returns
        -------
        tuple
            The sums over all chunks, and the pullback of the first sum. The pullback may be called
            only once.
        """
        return function(*arrays)

    def are_within(self, x: Array, lowest: float, stop: float) -> bool:
        """Return whether ``lowest <= x < stop`` for all entries, or False if checking is costly."""
        return False

    def masked(self, x: Array, mask: Array) -> Array:
        """Return `x` with its masked entries set to 0.

        If `on_host` is True, the mask may hold numbers instead of bools. An adapter may multiply
        by the mask instead of selecting entries. The adapter must then check that `x` contains no
        NaN or infinity, because multiplying by 0 does not remove them.
        """
        return self.xp.where(mask, x, self.operand(x, 0.0))

    def masked_sum(self, axis: int, x: Array, mask: Array) -> Array:
        """Return the sum of the unmasked entries over one axis, which is kept with length 1."""
        return self.sum(axis, self.masked(x, mask))

    def operand(self, like: Array, value: float) -> Any:
        """Return a number as an operand for `where`.

        The result is a cached array if `where` would otherwise create an array at each call.
        """
        return value

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        """Return constants as an array with the dtype and device of `like`.

        An adapter may cache the result and return it again for an equal tuple or for the same NumPy
        array. The caller must therefore change neither `values` nor the result.
        """
        return self.xp.asarray(values, dtype=like.dtype, device=self.device(like))

    def sign(self, x: Array) -> Array:
        """Return the sign of `x`, or 0 where `x` is NaN."""
        # `xp.sign` may check for NaN, which would wait for a device.
        return self.xp.astype(x > 0, x.dtype) - self.xp.astype(x < 0, x.dtype)

    def isfinite(self, x: Array) -> Array:
        """Return whether each entry is neither NaN nor infinite."""
        return self.xp.isfinite(x)

    # Sums and entries -----------------------------------------------------------------------------

    def sum(self, axis: int, x: Array) -> Array:
        """Return the sum over one axis, which is kept with length 1."""
        return self.xp.sum(x, axis=axis, keepdims=True)

    def number(self, mask: Array, dtype: Any, axis: int | None = None) -> Array:
        """Return the number of True entries over one axis, which is kept, or over all axes.

        As in `masked`, the mask may hold numbers on the host.
        """
        numbers = self.xp.astype(mask, dtype, copy=False)
        return self.sum_all(numbers) if axis is None else self.sum(axis, numbers)

    def spread(self, axis: int, x: Array, number: int) -> Array:
        """Return `x` repeated `number` times along an axis of length 1."""
        return self.xp.repeat(x, number, axis=axis)

    def in_place(self, x: Array) -> bool:
        """Return whether arrays that are computed from `x` may be changed in place.

        In-place changes are safe if no transform or graph sees `x`.
        """
        return False

    def is_vectorized(self, x: Array) -> bool:
        """Return whether `x` stands for one of several arrays in a `vmap`, as far as can be seen.

        In a function that is compiled inside of `vmap`, this cannot be seen.
        """
        return False

    def at(self, axis: int, x: Array, index: Array) -> Array:
        """Return the entries of `x` at an index along an axis, which is kept with length 1.

        The index has length 1 along the axis. `x` may have length 1 along all other axes.
        """
        return self.sum(axis, self.xp.where(index == self.along(axis, x), x, 0.0))

    def entries_at(self, axis: int, x: Array, index: Array) -> Any:
        """Convert an index to the form that `gather` and `scatter` expect.

        The index has length 1 along the axis, and broadcasts to `x` along the other axes.
        """
        return index == self.along(axis, x)

    def gather(self, axis: int, x: Array, entries: Any) -> Array:
        """Return the entry that the index selects along an axis, which is kept with length 1."""
        return self.sum(axis, self.xp.where(entries, x, 0.0))

    def scatter(self, axis: int, x: Array, entries: Any, values: Any) -> None:
        """Set the entry that the index selects along an axis.

        This method is called only if `in_place` returns True.
        """
        raise NotImplementedError

    def exp_of_difference(self, x: Array, y: Array) -> Array:
        """Return ``exp(x - y)`` as a new array, without a warning on overflow."""
        difference = x - y
        return self.xp.exp(difference, out=difference)

    def logaddexp(self, x: Array, y: Array) -> Array:
        """Return ``log(exp(x) + exp(y))``; where autodiff sees it, with precise derivatives.

        Libraries differentiate their own function in terms of its result. The second derivative is
        then a difference of almost equal numbers, and in PyTorch's forward mode, it may be NaN.
        """
        if not self.differentiates:
            return self.xp.logaddexp(x, y)
        first = x > y
        larger, smaller = self.xp.where(first, x, y), self.xp.where(first, y, x)
        return larger + self.xp.log1p(self.xp.exp(smaller - larger))

    def cross_entropy(
        self,
        default: Callable[..., Any],
        classes: "Axis",
        logit: Array,
        index: Array,
        q: Array | None,
    ) -> ValueAndPullback:
        """Return the terms of a cross entropy and their pullback, computed by `default`.

        Instead of calling `default`, an adapter may use operations that its compiler can fuse
        better. See `spikeloss_xp.softmax.cross_entropy_of_logits`.
        """
        return default(classes, logit, index, q)  # type: ignore[no-any-return]

    def bernoulli(
        self, default: Callable[..., Any], logit: Array, spike: Array
    ) -> ValueAndPullback:
        """Return negative log-likelihoods of spikes and their pullback, computed by `default`.

        See `spikeloss_xp.criteria.bernoulli_of_logits`.
        """
        return default(self, logit, spike)  # type: ignore[no-any-return]

    def scan(
        self, step: Callable[[Any, Any], Any], carry: Any, entries: Any, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        """Apply ``carry, output = step(carry, entry)`` to each entry in turn.

        Return the last carry and all outputs, in the order of the entries. `entries` is either an
        array, which is split along its first axis, or an iterable. If `reverse` is True, it must be
        an array or a list, and its last entry comes first.
        """
        entries = self.unstack(entries, 0) if hasattr(entries, "shape") else entries
        outputs = []
        for entry in reversed(entries) if reverse else entries:
            carry, output = step(carry, entry)
            outputs.append(output)
        return carry, outputs[::-1] if reverse else outputs

    def survival_sum(self, factors: Array, weight: Array | None, axis: int) -> survival.SurvivalSum:
        """Return three results: a sum of cumulative products, the full product, and the pullback.

        The cumulative products of `factors` are multiplied by `weight` and summed along the axis.
        """
        if self.in_place(factors) and not self.on_host:
            return survival.survival_sum_by_doubling(self, factors, weight, axis)
        return survival.survival_sum(self, factors, weight, axis)

    # Filters --------------------------------------------------------------------------------------

    def causal_filter(
        self, x: Array, kernel: Array | Exponential, axis: int = -1, *, reverse: bool = False
    ) -> Array:
        """Apply `spikeloss_xp.causal_filter` along an axis, or its adjoint if `reverse` is True.

        The filter treats all values before the first step as 0, and the adjoint treats all values
        after the last step as 0. The kernel is an array of taps with the dtype of `x`, or an
        `Exponential`, for which there is a faster algorithm.
        """
        if isinstance(kernel, Exponential):
            matrices = self.block_matrices(x, kernel, axis, reverse)
            return block_filter.block_filter(self, x, matrices, axis=axis, reverse=reverse)
        x = self.moveaxis(x, axis, -1)
        filtered = block_filter.toeplitz_filter(self, x, kernel, reverse=reverse)
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

        If `reverse` is True, return the adjoint, which is the sum over the next `window` steps.
        """
        if window == 1:
            return x
        steps = x.shape[axis]
        if window > _tuning.SHORT_WINDOW or not self.sums_in_blocks(x, steps):
            return self.causal_filter(x, Exponential(math.inf, window), axis, reverse=reverse)
        window = min(window, steps)
        band = self.constants(window_band(window, f"float{self.xp.finfo(x.dtype).bits}"), x)
        return block_filter.sum_in_blocks(self, x, band, window, axis % x.ndim, reverse=reverse)

    def sums_in_blocks(self, x: Array, steps: Any) -> bool:
        """Return whether `moving_sum` is faster one block of steps at a time than by a filter."""
        return False
