"""JAX: gradients by its own automatic differentiation, matrix products in full precision."""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from spikeloss_xp import _plain
from spikeloss_xp._kernels import Exponential
from spikeloss_xp._typing import Array, Evaluate, Namespace
from spikeloss_xp.backends import generic
from spikeloss_xp.backends.generic import version

__all__ = [
    "at_a_time",
    "beside",
    "causal_filter",
    "compiled",
    "device",
    "devices",
    "from_host",
    "mapped",
    "moving_sum",
    "namespace",
    "peek",
    "scope",
    "synchronize",
    "to_host",
    "total",
    "value_and_grad",
    "value_of",
    "version",
]


CACHED = 1 << 20  # entries that losses are evaluated of at a time
LARGE = 3 << 20  # entries from which that pays: of 2.6e6 it took 1.3 of the time, of 3.2e6 0.4


def namespace(library: str) -> Namespace:
    return jnp


def devices(xp: Namespace) -> list[str]:
    return list(_devices())


def _devices() -> dict[str, jax.Device]:
    default = jax.devices()
    host = [] if default[0].platform == "cpu" else jax.devices("cpu")
    return {f"{d.platform}:{d.id}": d for d in (*default, *host)}


def scope(dtype: str) -> contextlib.AbstractContextManager[object]:
    return jax.enable_x64(True) if dtype.endswith("64") else contextlib.nullcontext()


def from_host(xp: Namespace, values: np.ndarray, device: Any) -> Array:
    array = jnp.array(values)  # `asarray` may share the memory
    return jax.device_put(array, _devices()[device]) if isinstance(device, str) else array


def to_host(x: Array) -> np.ndarray:
    return np.array(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)


def device(x: Array) -> Any:
    """None: what is created without a device goes where the arrays it meets are."""


def beside(x: Array, like: Array) -> Array:
    if isinstance(x, jax.core.Tracer) or isinstance(like, jax.core.Tracer):
        return x  # the compiler places it
    if x.devices() == like.devices():
        return x
    if isinstance(like.sharding, jax.sharding.NamedSharding):  # on each device of the mesh
        whole = jax.sharding.PartitionSpec()  # type: ignore[no-untyped-call]
        return jax.device_put(x, jax.sharding.NamedSharding(like.sharding.mesh, whole))
    return jax.device_put(x, like.sharding)


def peek(x: Array) -> np.ndarray | None:
    traced = isinstance(x, jax.core.Tracer)
    if traced or any(place.platform != "cpu" for place in x.devices()):
        return None
    return np.asarray(x) if x.is_fully_addressable else None


def synchronize(x: Array) -> None:
    x.block_until_ready()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(function)


def value_and_grad(
    function: Callable[[Array], Array], x: Array, cotangent: Array | None
) -> tuple[Array, Array]:
    value, pullback = jax.vjp(function, x)
    (gradient,) = pullback(jnp.ones_like(value) if cotangent is None else cotangent)
    return value, gradient


def total(xp: Namespace, x: Array) -> Array:
    # XLA adds small arrays up on a CPU one entry after the other, and would merge sums of sums.
    while x.ndim:
        x = jax.lax.optimization_barrier(jnp.sum(x, axis=-1))  # type: ignore[no-untyped-call]
    return x


def at_a_time(x: Array) -> int | None:
    if not isinstance(x.size, int) or x.size < LARGE:  # a symbol, in what is exported
        return None
    # What is made while a function is compiled is part of it. Outside, each map would be compiled.
    compiling = isinstance(jnp.zeros(()), jax.core.Tracer)
    alone = jax.default_backend() == "cpu" and jax.device_count() == 1
    return CACHED if compiling and alone and not _is_spread(x) else None


def _is_spread(x: Array) -> bool:
    """Tell whether an array is typed as spread over a mesh, be it of one device."""
    return any(axis is not None for axis in jax.typeof(x).sharding.spec)


def mapped(
    function: Callable[..., Any], whole: tuple[Any, ...], axis: int, parts: list[slice]
) -> tuple[list[Any], Array | None]:
    """Evaluate one part after the other.

    Parts of several samples each, and none left over, which would be copied; or else all at once:
    of single ones it took as long or longer.
    """
    leaves, structure = jax.tree.flatten(whole)
    end, most = parts[-1].stop, parts[0].stop
    length = next(n for n in range(most, 0, -1) if end % n == 0)
    if axis != 0 or length == 1 or any(map(_is_spread, leaves)):
        sums, gradient = function(*whole)
        return [sums], gradient
    changing = [leaf.shape[0] != 1 for leaf in leaves]

    def run(part: list[Array]) -> tuple[tuple[Array, Array | None], Array | None]:
        cuts = iter(part)
        arrays = [next(cuts) if cut else leaf for leaf, cut in zip(leaves, changing, strict=True)]
        (value, divisor), gradient = function(*jax.tree.unflatten(structure, arrays))
        return (value, None if divisor is None else jnp.asarray(divisor, value.dtype)), gradient

    stacked = [
        jnp.reshape(leaf, (end // length, length, *leaf.shape[1:]))
        for leaf in itertools.compress(leaves, changing)
    ]
    sums, gradient = jax.lax.map(run, stacked)
    sums = jax.tree.map(functools.partial(total, jnp), sums)
    return [sums], None if gradient is None else jnp.reshape(gradient, leaves[0].shape)


def value_of(evaluate: Evaluate, x: Array, options: dict[str, Any], held: tuple[Any, ...]) -> Array:
    holds_arrays = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(held))
    # A gradient in 16 bits would be rounded before a loss is scaled up.
    if at_a_time(x) is None or holds_arrays or x.dtype not in (jnp.float32, jnp.float64):
        return generic.value_of(evaluate, x, options, held)
    arrays = {name: value for name, value in options.items() if isinstance(value, jax.Array)}
    others = {name: value for name, value in options.items() if name not in arrays}
    return _closed_form(functools.partial(evaluate, **others), x, arrays)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _closed_form(evaluate: Evaluate, x: Array, arrays: dict[str, Array]) -> Array:
    """Evaluate a loss of large arrays, whose gradient is the closed form.

    That of a part is computed with its value, where JAX would keep something of every part and
    start again. On two CPU cores value and gradient took 0.4 to 0.6 of the time that they take
    as a whole. All other derivatives, second ones too, are JAX's own.
    """
    return _native(evaluate, x, arrays)


@functools.partial(_closed_form.defjvp, symbolic_zeros=True)
def _slope(evaluate: Evaluate, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    native = functools.partial(_native, evaluate)
    changing = [not isinstance(t, SymbolicZero) for t in jax.tree.leaves(tangents)]
    if changing[0] and not any(changing[1:]) and not jax.eval_shape(native, *primals).shape:
        value, gradient = _value_and_gradient(evaluate, *primals)
        return value, jnp.sum(gradient * tangents[0])
    return jax.jvp(native, primals, jax.tree.map(_zeros, tangents))


def _native(evaluate: Evaluate, x: Array, arrays: dict[str, Array]) -> Array:
    value, _ = evaluate(x, **arrays, differentiate=False)
    return value


def _zeros(tangent: Any) -> Any:
    if not isinstance(tangent, SymbolicZero):
        return tangent
    of = np if tangent.dtype == jax.dtypes.float0 else jnp
    return of.zeros(tangent.shape, tangent.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_gradient(
    evaluate: Evaluate, x: Array, arrays: dict[str, Array]
) -> tuple[Array, Array]:
    value, pullback = evaluate(x, **arrays)
    return value, pullback(jnp.ones_like(value))


@_value_and_gradient.defjvp
def _curvature(evaluate: Evaluate, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    return jax.jvp(jax.value_and_grad(functools.partial(_native, evaluate)), primals, tangents)


# Left to its default, a GPU would round the factors to TF32.
_exact = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def causal_filter(
    xp: Namespace, x: Array, kernel: Array | Exponential, reverse: bool, axis: int = -1
) -> Array:
    if isinstance(kernel, Exponential):
        return generic.in_blocks(xp, x, kernel, reverse, axis, matmul=_exact, way="apart")
    return _plain.causal_filter(xp, x, kernel, reverse=reverse, matmul=_exact)


def moving_sum(xp: Namespace, x: Array, window: int, reverse: bool, axis: int = -1) -> Array:
    return causal_filter(xp, x, Exponential(math.inf, window), reverse, axis)
