"""Default methods that an adapter may override with faster versions for its library."""

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
    """Default methods that an adapter may override with faster versions for its library.

    `ArrayAPIAdapter` inherits these methods. You can write an adapter without reading this class.
    """

    compiles_loops: ClassVar[bool] = False
    """Whether `scan` compiles its step function once and runs the compiled function for every step.
    If `compiles_loops` is True, the arrays must have the same shape at every step."""

    joins_blocks: ClassVar[bool] = True
    """Whether the block filter joins its input blocks into one array and computes a single matrix
    product. If False, it computes a matrix product for each input block, and adds the products."""

    on_host: bool = False
    """Whether the values of intermediate arrays can be read without waiting for a device. If
    `on_host` is True, the arrays are not traced either."""

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

        If the library has automatic differentiation, its adapter may override this method to use
        the closed-form gradient from ``loss.value_and_pullback``. The closed form is valid only if
        no argument except `input` needs a gradient.
        """
        return loss.value(input, **options)

    def value_and_pullback(
        self, loss: Any, input: Array, *targets: Any, **options: Any
    ) -> ValueAndPullback:
        """Return the value of a loss and its closed-form pullback.

        The pullback maps a cotangent of the value to the gradient with respect to `input`. The
        function `spikeloss_xp.value_and_grad` calls this method if the library has no automatic
        differentiation.
        """
        found: ValueAndPullback = loss.value_and_pullback(input, *targets, **options)
        return found

    def specialized_for(self, x: Array) -> Self:
        """Return the adapter to use for one call to a loss, whose input is `x`.

        An adapter can override this method to check, once per call, whether arrays are traced or
        recorded in a graph. If no array is traced or recorded, the method can return an adapter
        whose other methods do not repeat this check.
        """
        return self

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        """Evaluate a function of arrays, either in one call or in chunks along one of the `axes`.

        An adapter may evaluate the function in chunks if chunks are faster.

        Parameters
        ----------
        function : callable
            Takes the arrays, or a chunk of each array, and returns ``(sums, pullback)``. ``sums``
            is a tuple, whose entries are arrays, Python numbers or None. Each entry of ``sums`` is
            added up over all chunks. ``pullback`` maps a cotangent of the first sum to the gradient
            with respect to the first array. ``pullback`` is None if no gradient is wanted.
        arrays : tuple
            Arrays, tuples of arrays, or None. An array with length 1 along the chunked axis is
            shared by all chunks.
        axes : tuple of int
            The axes along which the arrays may be split into independent chunks. The tuple is empty
            if evaluating chunks would not be faster than a single call.
        batch : int
            The batch axis. The samples along this axis never depend on each other.

        Returns
        -------
        tuple
            The sums over all chunks, and the pullback of the first sum. The pullback may be called
            only once.
        """
        return function(*arrays)

    def are_within(self, x: Array, lowest: float, stop: float) -> bool:
        """Return True if all entries are known to satisfy ``lowest <= x < stop``, else False.

        An adapter may return False without checking the entries if the check would be slow.
        """
        return False

    def masked(self, x: Array, mask: Array) -> Array:
        """Return `x` with its masked entries set to 0.

        If `on_host` is True, the mask may hold the numbers 0 and 1 instead of bools. If `x`
        contains neither NaN nor infinity, an adapter may multiply `x` by the mask.
        """
        return self.xp.where(mask, x, self.operand(x, 0.0))

    def masked_sum(self, axis: int, x: Array, mask: Array) -> Array:
        """Return the sum of the unmasked entries over one axis, which is kept with length 1."""
        return self.sum(axis, self.masked(x, mask))

    def operand(self, like: Array, value: float) -> Any:
        """Return `value` as an operand for `where`.

        The base class returns the number itself. In some libraries, `where` copies a Python number
        to the device at each call. The adapters for these libraries should return a cached array.
        """
        return value

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        """Return constants as an array with the dtype and device of `like`.

        An adapter may cache the result, so the caller must change neither the result nor `values`.
        """
        return self.xp.asarray(values, dtype=like.dtype, device=self.device(like))

    def sign(self, x: Array) -> Array:
        """Return the sign of `x`, or 0 where `x` is NaN."""
        # `xp.sign` may check for NaN, which requires a device synchronisation.
        return self.xp.astype(x > 0, x.dtype) - self.xp.astype(x < 0, x.dtype)

    def isfinite(self, x: Array) -> Array:
        """Return, for each entry of `x`, whether the entry is finite."""
        return self.xp.isfinite(x)

    # Sums and entries -----------------------------------------------------------------------------

    def sum(self, axis: int, x: Array) -> Array:
        """Return the sum over one axis, which is kept with length 1."""
        return self.xp.sum(x, axis=axis, keepdims=True)

    def number(self, mask: Array, dtype: Any, axis: int | None = None) -> Array:
        """Return the number of True entries of a mask.

        If `axis` is given, the entries are counted along this axis, which is kept with length 1. If
        `on_host` is True, the mask may hold the numbers 0 and 1 instead of bools.
        """
        numbers = self.xp.astype(mask, dtype, copy=False)
        return self.sum_all(numbers) if axis is None else self.sum(axis, numbers)

    def spread(self, axis: int, x: Array, number: int) -> Array:
        """Return `x` repeated `number` times along an axis of length 1."""
        return self.xp.repeat(x, number, axis=axis)

    def in_place(self, x: Array) -> bool:
        """Return whether arrays that are computed from `x` may be changed in place.

        In-place changes are safe if `x` is neither traced nor recorded in a graph.
        """
        return False

    def is_vectorized(self, x: Array) -> bool:
        """Return whether `x` is known to be batched by `vmap`.

        If a compiled function is called inside `vmap`, the method may return False.
        """
        return False

    def at(self, axis: int, x: Array, index: Array) -> Array:
        """Return the entries of `x` that an index array selects along an axis.

        The index array and the result have length 1 along `axis`. Along any other axis, `x` may
        have length 1.
        """
        return self.sum(axis, self.xp.where(index == self.along(axis, x), x, 0.0))

    def entries_at(self, axis: int, x: Array, index: Array) -> Any:
        """Convert an index array to the form that `gather` and `scatter` take as `entries`.

        `index` has length 1 along `axis`, and broadcasts to `x` along the other axes.
        """
        return index == self.along(axis, x)

    def gather(self, axis: int, x: Array, entries: Any) -> Array:
        """Return the entries of `x` that an index selects along an axis.

        `entries` is a result of `entries_at`. The returned array has length 1 along `axis`.
        """
        return self.sum(axis, self.xp.where(entries, x, 0.0))

    def scatter(self, axis: int, x: Array, entries: Any, values: Any) -> None:
        """Assign `values` to the entries of `x` that an index selects along an axis.

        `entries` is a result of `entries_at`. This method is called only if `in_place` returns
        True.
        """
        raise NotImplementedError

    def exp_of_difference(self, x: Array, y: Array) -> Array:
        """Return ``exp(x - y)`` as a new array, without a warning on overflow."""
        difference = x - y
        return self.xp.exp(difference, out=difference)

    def logaddexp(self, x: Array, y: Array) -> Array:
        """Return ``log(exp(x) + exp(y))``, with precise first and second derivatives.

        If a library has automatic differentiation, the second derivative of its own `logaddexp` may
        be imprecise or NaN.
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
        """Return the terms of a cross entropy, and their pullback.

        An adapter may replace `default` by operations that are faster in its library. For the
        formula, see `spikeloss_xp.softmax.cross_entropy_of_logits`.
        """
        return default(classes, logit, index, q)  # type: ignore[no-any-return]

    def bernoulli(
        self, default: Callable[..., Any], logit: Array, spike: Array
    ) -> ValueAndPullback:
        """Return the negative log-likelihoods of binary spikes, and their pullback.

        For the formula, see `spikeloss_xp.criteria.bernoulli_of_logits`.
        """
        return default(self, logit, spike)  # type: ignore[no-any-return]

    def scan(
        self, step: Callable[[Any, Any], Any], carry: Any, entries: Any, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        """Apply ``carry, output = step(carry, entry)`` to each entry in turn.

        Return the last carry and all outputs, in the order of the entries. `entries` is either an
        array, which is split along its first axis, or an iterable. If `reverse` is True, `step` is
        applied from the last entry to the first, and `entries` must be an array or a list.
        """
        entries = self.unstack(entries, 0) if hasattr(entries, "shape") else entries
        outputs = []
        for entry in reversed(entries) if reverse else entries:
            carry, output = step(carry, entry)
            outputs.append(output)
        return carry, outputs[::-1] if reverse else outputs

    def survival_sum(self, factors: Array, weight: Array | None, axis: int) -> survival.SurvivalSum:
        """Return the sum of cumulative products, the product of all factors, and a pullback.

        The cumulative products of `factors` are multiplied by `weight` before they are summed. The
        pullback maps cotangents of the sum and of the product to the gradient with respect to
        `factors`.
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
        after the last step as 0. The kernel is either an array of taps with the dtype of `x`, or an
        `Exponential`.
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
        """Return, at each step along an axis, the sum over a window of `window` steps.

        The window ends with the current step. If `reverse` is True, return the adjoint, whose
        window begins with the current step.
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
        """Return whether `moving_sum` should sum one block of steps at a time."""
        return False
