"""The JAX adapter, with automatic differentiation and full-precision matrix products."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array, Axes, ChunkFunction, Namespace, Sums, ValueAndPullback
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.backends.base import ArrayAPIAdapter
from spikeloss_xp.primitives import survival


class JAXAdapter(ArrayAPIAdapter):
    """The adapter for JAX arrays and tracers, which may be differentiated, compiled or sharded."""

    differentiates: ClassVar[bool] = True
    compiles_loops: ClassVar[bool] = True
    joins_blocks: ClassVar[bool] = False  # XLA joins arrays slowly

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return jnp

    def devices(self) -> list[str]:
        return list(_devices())

    def scope(self, dtype: str) -> contextlib.AbstractContextManager[object]:
        return jax.enable_x64(True) if dtype.endswith("64") else contextlib.nullcontext()

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(function)

    def register_container(self, kind: type, arrays: tuple[str, ...]) -> None:
        _register(kind, arrays)

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        with np.errstate(over="ignore"):  # float64 values may overflow in float32
            array = jnp.array(values)  # `asarray` may share the memory of `values`
        return jax.device_put(array, _devices()[device]) if isinstance(device, str) else array

    def to_host(self, x: Array) -> np.ndarray:
        return np.array(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)

    def device(self, x: Array) -> Any:
        """Return None, so that new arrays are created without a device.

        JAX moves an array without a device to the device of the other operands.
        """

    def to_device_of(self, x: Array, like: Array) -> Array:
        if isinstance(x, jax.core.Tracer) or isinstance(like, jax.core.Tracer):
            return x  # JAX chooses the device of a traced array
        if x.devices() == like.devices():
            return x
        if isinstance(like.sharding, jax.sharding.NamedSharding):  # replicate over the mesh
            return jax.device_put(x, _replicated(like.sharding.mesh))
        return jax.device_put(x, like.sharding)

    def sharded_like(self, x: Array, like: Array) -> Array:
        if not _is_sharded(like):
            return x
        sharding = jax.typeof(like).sharding
        sizes = zip(sharding.spec, x.shape, like.shape, strict=True)
        names = (name if n == m else None for name, n, m in sizes)
        spec = jax.sharding.PartitionSpec(*names)  # type: ignore[no-untyped-call]
        place = jax.sharding.NamedSharding(sharding.mesh, spec)
        return jax.sharding.reshard(x, place)  # type: ignore[no-untyped-call]

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        traced = isinstance(x, jax.core.Tracer)
        if traced or any(place.platform != "cpu" for place in x.devices()):
            return None
        return np.asarray(x) if x.is_fully_addressable else None

    def is_vectorized(self, x: Array) -> bool:
        # JAX's tracer classes are private, so tracers are recognised by their attributes. Only
        # `vmap` tracers have `batch_dim`, and only tracers of derivatives have `primal`.
        while not hasattr(x, "batch_dim"):
            if (x := getattr(x, "primal", None)) is None:
                return False
        return True

    def synchronize(self, x: Array) -> None:
        x.block_until_ready()

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        """Evaluate a few samples at a time, in a loop that JAX can differentiate.

        The arrays are split only along the first axis, because JAX would have to copy the arrays to
        split them along another axis.
        """
        x = arrays[0]
        leaves, structure = jax.tree.flatten(arrays)
        length = _samples_in_a_chunk(x) if batch == 0 and 0 in axes else 0
        if not length or any(map(_is_sharded, leaves)):
            return function(*arrays)
        split = [leaf.shape[0] > 1 for leaf in leaves]
        number: Any = None

        def evaluate(*leaves: Array) -> Any:
            nonlocal number
            (total, weight), pullback = function(*jax.tree.unflatten(structure, leaves))
            # JAX would convert an int to an array, so an int weight is stored in `number` instead.
            if isinstance(weight, int):
                number = weight * (x.shape[0] // leaves[0].shape[0])
                weight = None
            one = jnp.ones((1,) * x.ndim, x.dtype)
            return total, weight, None if pullback is None else pullback(one)

        def in_chunks(*leaves: Array) -> Any:
            def run(own: list[Array]) -> Any:
                parts = iter(own)
                shared = zip(leaves, split, strict=True)
                return evaluate(*(next(parts) if is_split else leaf for leaf, is_split in shared))

            parts = itertools.compress(leaves, split)
            chunks = [jnp.reshape(leaf, (-1, length, *leaf.shape[1:])) for leaf in parts]
            total, weight, gradient = jax.lax.map(run, chunks)
            weight = None if weight is None else jnp.sum(weight)
            gradient = None if gradient is None else jnp.reshape(gradient, x.shape)
            return jnp.sum(total), weight, gradient

        # A function that is exported on this CPU may later run on a different platform, where it
        # should not use chunks.
        results = jax.lax.platform_dependent(*leaves, cpu=in_chunks, default=evaluate)
        total, weight, gradient = results
        sums = total, number if weight is None else weight
        return sums, None if gradient is None else lambda cotangent: gradient * cotangent

    def sums_in_blocks(self, x: Array, steps: Any) -> bool:
        # XLA compiles the operations of each block separately, which takes a long time for many
        # blocks.
        return _is_short(steps)

    def sum(self, axis: int, x: Array) -> Array:
        if axis != 0 or not isinstance(x.size, int):
            return jnp.sum(x, axis=axis, keepdims=True)
        wide = x.size >= _tuning.WIDE_SUM * x.shape[0] and jax.default_backend() == "cpu"
        if wide and not _is_sharded(x):
            summed = _sum_over_first(x)
        else:
            summed = jnp.sum(x, axis=0, keepdims=True)
        # This `take` selects all entries. Without `take`, XLA would compute the cotangent of the
        # sum again at each time step.
        every = jnp.arange(x.shape[-1])
        options: Any = {"mode": "clip", "unique_indices": True, "indices_are_sorted": True}
        return jnp.take(summed, every, axis=-1, **options)

    def sum_all(self, x: Array) -> Array:
        # On a CPU, XLA adds the entries of a small array one after the other, which accumulates
        # rounding errors. The array is therefore summed over one axis at a time. The barrier
        # prevents XLA from fusing the sums over different axes.
        x = jnp.squeeze(x, tuple(axis for axis, n in enumerate(x.shape) if n == 1))
        while x.ndim > 1:
            x = jax.lax.optimization_barrier(jnp.sum(x, axis=-1))  # type: ignore[no-untyped-call]
        return jnp.sum(x)

    def cross_entropy(
        self,
        default: Callable[..., Any],
        classes: Axis,
        logit: Array,
        index: Array,
        q: Array | None,
    ) -> ValueAndPullback:
        def pullback(cotangent: Array) -> Array:
            _, to_logit = default(classes, logit, index, q)
            return to_logit(cotangent)

        return _default_terms(default, classes, logit, index, q), pullback

    def scan(
        self, step: Callable[[Any, Any], Any], carry: Any, entries: Any, *, reverse: bool = False
    ) -> tuple[Any, Any]:
        result: tuple[Any, Any] = jax.lax.scan(step, carry, entries, reverse=reverse)
        return result

    def survival_sum(self, factors: Array, weight: Array | None, axis: int) -> survival.SurvivalSum:
        # On a CPU, a loop is as fast as the base method, and XLA compiles the loop faster.
        short = _is_short(factors.shape[axis]) and jax.default_backend() == "cpu"
        if not (short and _is_compiling()):
            return super().survival_sum(factors, weight, axis)

        def merged(factors: Array) -> tuple[Array, Array]:
            return super(JAXAdapter, self).survival_sum(factors, weight, axis)[:2]

        run = functools.partial(_sum_and_product, weight=weight, axis=axis)
        by_platform = functools.partial(jax.lax.platform_dependent, cpu=run, default=merged)
        (total, product), pullback = jax.vjp(by_platform, factors)
        return total, product, lambda *cotangents: pullback(cotangents)[0]

    def stop_gradient(self, x: Array) -> Array:
        return jax.lax.stop_gradient(x)

    def shielded(self, u: Array, mask: Array) -> Array:
        # In a traced function, only the gradient is masked here, because the loss masks its terms
        # later.
        traced = isinstance(u, jax.core.Tracer)
        return _without_masked_gradient(u, mask) if traced else super().shielded(u, mask)

    def entries_at(self, axis: int, x: Array, index: Array) -> Any:
        shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
        return jnp.broadcast_to(index, shape)

    def gather(self, axis: int, x: Array, entries: Any) -> Array:
        return jnp.take_along_axis(x, entries, axis, mode="clip")

    def matmul(self, a: Array, b: Array) -> Array:
        # On a GPU, JAX by default rounds the factors of a matrix product to TF32.
        options: dict[str, Any] = {}
        if _is_sharded(a) and _is_sharded(b):  # JAX requires `out_sharding` for sharded factors
            options["out_sharding"] = _replicated(jax.typeof(a).sharding.mesh)
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST, **options)

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        value, pullback = jax.vjp(function, x)
        (gradient,) = pullback(jnp.ones_like(value) if cotangent is None else cotangent)
        return value, gradient


@functools.cache  # JAX raises an error if a class is registered twice
def _register(kind: type, arrays: tuple[str, ...]) -> None:
    others = [each.name for each in dataclasses.fields(kind) if each.name not in arrays]
    jax.tree_util.register_dataclass(kind, data_fields=[*arrays], meta_fields=others)


def _sum_and_product(factors: Array, weight: Array | None, axis: int) -> tuple[Array, Array]:
    each = jnp.moveaxis(factors, axis, 0)
    weights = jnp.ones(len(each), each.dtype) if weight is None else jnp.moveaxis(weight, axis, 0)
    start = jnp.zeros_like(each[0]), jnp.ones_like(each[0])
    results, _ = jax.lax.scan(_one_step_earlier, start, (each, weights), reverse=True)
    return jnp.expand_dims(results[0], axis), jnp.expand_dims(results[1], axis)


def _one_step_earlier(after: tuple[Array, Array], now: tuple[Array, Array]) -> Any:
    (total, product), (factor, weight) = after, now
    return (factor * (weight + total), factor * product), None


@jax.custom_jvp
def _without_masked_gradient(u: Array, mask: Array) -> Array:
    return u


@_without_masked_gradient.defjvp
def _selected(primals: tuple[Array, Array], tangents: tuple[Array, Any]) -> tuple[Array, Array]:
    return primals[0], jnp.where(primals[1], tangents[0], 0.0)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _default_terms(
    default: Any, classes: Axis, logit: Array, index: Array, q: Array | None
) -> Array:
    """Return the terms of the cross entropy, which the function `default` computes.

    The derivative is written in closed form, because XLA can fuse the closed form better.
    """
    return default(classes, logit, index, q)[0]


@functools.partial(_default_terms.defjvp, symbolic_zeros=True)
def _derivative_of_terms(
    default: Any, classes: Axis, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> Any:
    logit, index, q = primals
    of_logit, _, of_q = tangents
    terms, pullback = default(classes, logit, index, q)
    change = jnp.zeros_like(terms)
    if not isinstance(of_logit, SymbolicZero):
        change = jnp.sum(pullback(1.0) * of_logit, axis=classes.index, keepdims=True)
    if q is not None and not isinstance(of_q, SymbolicZero):
        # The terms are linear in `q`. The coefficient of a class with predicted probability p is
        # -log(p).
        log_p = jax.nn.log_softmax(logit, axis=classes.index)
        change = change - jnp.sum(of_q * log_p, axis=classes.index, keepdims=True)
    return terms, change


@jax.custom_jvp
def _sum_over_first(x: Array) -> Array:
    """Return the sum over the first axis, computed with a matrix product.

    If the first axis is short and the other axes are long, the matrix product is faster on a CPU
    than XLA's own sum.
    """
    steps, size = x.shape[0], 32
    blocks = np.arange(steps) // size == np.arange(-(-steps // size))[:, None]
    products = jnp.matmul(
        jnp.asarray(blocks, x.dtype), jnp.reshape(x, (steps, -1)), precision="highest"
    )
    return jnp.reshape(jnp.sum(products, axis=0), (1, *x.shape[1:]))


_sum_over_first.defjvps(lambda tangent, _, x: jnp.sum(tangent, axis=0, keepdims=True))


def _samples_in_a_chunk(x: Array) -> int:
    """Return the number of samples in a chunk, or 0 if `x` is not evaluated in chunks.

    Chunks are faster only for large arrays in a function that is compiled for a single CPU.
    """
    if not isinstance(x.size, int) or x.size < _tuning.COMPILED_LARGE:
        return 0
    alone = jax.default_backend() == "cpu" and jax.device_count() == 1
    if not (alone and _is_compiling()):
        return 0
    most = max(_tuning.COMPILED_CHUNK * x.shape[0] // x.size, 1)
    length = next(n for n in range(most, 0, -1) if x.shape[0] % n == 0)
    return length if length < x.shape[0] else 0


def _is_short(steps: Any) -> bool:
    """Return whether `steps` is a known number, not above ``FEW_BLOCKS * WINDOW_BLOCK``."""
    return isinstance(steps, int) and steps <= _tuning.FEW_BLOCKS * _tuning.WINDOW_BLOCK


def _devices() -> dict[str, jax.Device]:
    default = jax.devices()
    host = [] if default[0].platform == "cpu" else jax.devices("cpu")
    return {f"{d.platform}:{d.id}": d for d in (*default, *host)}


def _is_compiling() -> bool:
    return isinstance(jnp.zeros(()), jax.core.Tracer)


def _replicated(mesh: Any) -> Any:
    """Return the sharding that replicates an array over the devices of a mesh."""
    whole = jax.sharding.PartitionSpec()  # type: ignore[no-untyped-call]
    return jax.sharding.NamedSharding(mesh, whole)


def _is_sharded(x: Array) -> bool:
    """Return whether any axis of `x` is sharded over a mesh."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)
