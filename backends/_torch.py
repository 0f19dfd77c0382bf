"""PyTorch: gradients by its own automatic differentiation."""

import math
from collections.abc import Callable
from typing import Any

import array_api_compat.torch
import numpy as np
import torch

from spikeloss_xp import _plain
from spikeloss_xp._kernels import Exponential, blocks
from spikeloss_xp._plain import Blocks
from spikeloss_xp._typing import Array, Evaluate, Namespace
from spikeloss_xp.backends import generic
from spikeloss_xp.backends.generic import compiled, scope, total, version

__all__ = [
    "at_a_time",
    "beside",
    "causal_filter",
    "compiled",
    "device",
    "devices",
    "from_host",
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


SMALL = 1 << 17  # entries up to which the calls take longer than the work
CACHED = 1 << 18  # entries that are filtered at a time; terms are computed of twice as many
LARGE = 1 << 20  # entries from which there are parts, and the closed form is worth its calls
SHORT, MANY = 32, 1 << 20  # a window up to which, and entries below which, doubling is quicker


def namespace(library: str) -> Namespace:
    return array_api_compat.torch


def devices(xp: Namespace) -> list[str]:
    names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def from_host(xp: Namespace, values: np.ndarray, device: Any) -> Array:
    return torch.asarray(values.copy(), device=device)  # the copy has no negative strides


def to_host(x: Array) -> np.ndarray:
    return _as_numpy(x.detach().cpu()).copy()


def _as_numpy(x: torch.Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def device(x: Array) -> Any:
    return x.device


def beside(x: Array, like: Array) -> Array:
    return x.to(like.device)


def peek(x: Array) -> np.ndarray | None:
    if type(x) is not torch.Tensor or x.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    values = x.detach()  # within a transform of `torch.func`, this wraps even what was not wrapped
    return None if _in_function_transform(values) else _as_numpy(values)


def _in_function_transform(x: torch.Tensor) -> bool:
    """Tell whether `torch.func` has wrapped the tensor, for which there is no public question."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)


def synchronize(x: Array) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    elif x.device.type == "mps":
        torch.mps.synchronize()


def at_a_time(x: Array) -> int | None:
    recorded = torch.is_grad_enabled() and x.requires_grad  # then each part would be a node
    if recorded or not _is_plain(x) or x.device.type != "cpu":
        return None
    return 2 * CACHED


def _is_plain(x: torch.Tensor) -> bool:
    """Tell whether operations on a tensor do just what they say, outside every transform."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return type(x) in (torch.Tensor, torch.nn.Parameter)


def causal_filter(
    xp: Namespace, x: Array, kernel: Array | Exponential, reverse: bool, axis: int = -1
) -> Array:
    kind = x.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        with torch.autocast(kind, enabled=False):  # it would round the factors to 16 bits
            return _causal_filter(xp, x, kernel, reverse, axis)
    return _causal_filter(xp, x, kernel, reverse, axis)


def moving_sum(xp: Namespace, x: Array, window: int, reverse: bool, axis: int = -1) -> Array:
    if x.device.type != "cpu":  # to which nothing would have to be sent from the host
        return _by_doubling(xp, x, window, reverse, axis)
    if window <= SHORT and not torch.compiler.is_compiling() and x.numel() < MANY:
        return _by_doubling(xp, x, window, reverse, axis)
    return causal_filter(xp, x, Exponential(math.inf, window), reverse, axis)


def _by_doubling(xp: Namespace, x: torch.Tensor, window: int, reverse: bool, axis: int) -> Array:
    moved = x.movedim(axis, -1)
    return _plain.moving_sum(xp, moved, window, reverse=reverse).movedim(-1, axis)


def _causal_filter(
    xp: Namespace, x: torch.Tensor, kernel: Array | Exponential, reverse: bool, axis: int
) -> Array:
    if not isinstance(kernel, Exponential):
        return _plain.causal_filter(xp, x, kernel, reverse=reverse, device=x.device)
    if torch.compiler.is_compiling():
        settled = map(_settled, kernel)
        made = _constant(*settled, str(x.dtype).removeprefix("torch."), reverse)
        moved = made.converted(lambda matrix: matrix.to(x.device))
        return _plain.in_blocks(xp, x, moved, axis=axis, reverse=reverse)
    transformed = torch._C._are_functorch_transforms_active()  # which want another kind of function
    if x.device.type != "cpu" or x.numel() < SMALL or transformed:
        return generic.in_blocks(xp, x, kernel, reverse, axis)
    return _Filter.apply(x, kernel, reverse, axis)  # type: ignore[no-untyped-call]


class _Filter(torch.autograd.Function):
    """The filter of large tensors outside any transform, a part of the batch at a time.

    So what is made on the way stays in a cache, where autograd would make each of it whole. Value
    and gradient of `SpikeTime` took 0.6 of the time on 4e5 entries, on two CPU cores, and 0.4 on
    8e6; on 1e5 they took as long, so `SMALL` lies between. The derivative of a linear
    operation is the operation itself, and its gradient the adjoint.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, kernel: Exponential, reverse: bool, axis: int
    ) -> torch.Tensor:
        ctx.kernel, ctx.reverse, ctx.axis = kernel, reverse, axis
        xp = array_api_compat.torch

        def run(part: torch.Tensor) -> Array:
            return generic.in_blocks(xp, part, kernel, reverse, axis)

        filtered: torch.Tensor = generic.piecewise(run, xp, x, axis, CACHED)
        return filtered

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        xp = array_api_compat.torch
        filtered = causal_filter(xp, cotangent, ctx.kernel, not ctx.reverse, ctx.axis)
        return filtered, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: None) -> torch.Tensor:
        xp = array_api_compat.torch
        filtered: torch.Tensor = causal_filter(xp, tangent, ctx.kernel, ctx.reverse, ctx.axis)
        return filtered


def _settled(number: float) -> float | tuple[int, int]:
    """Return a number that a compiler may have for a symbol, as constants that it guards."""
    if isinstance(number, float):
        return math.inf if number == math.inf else number.as_integer_ratio()
    known = 0
    for bit in range(31, -1, -1):
        if known + (1 << bit) <= number:  # a comparison is decided for good
            known += 1 << bit
    return known


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _constant(
    time: float | tuple[int, int], length: int, order: int, dtype: str, reverse: bool
) -> Blocks:
    """Return matrices that serve any duration, which a compiler need not trace the making of."""
    time_constant = time[0] / time[1] if isinstance(time, tuple) else time
    kernel = Exponential(time_constant, length, order)
    return blocks(kernel, None, dtype, reverse=reverse).converted(torch.from_numpy)


def value_of(evaluate: Evaluate, x: Array, others: tuple[Any, ...]) -> Array:
    tensors = [other for other in others if isinstance(other, torch.Tensor)]
    if _is_plain(x) and x.numel() >= LARGE and _wants_gradient_only(x, tensors):
        return _ClosedForm.apply(evaluate, x, *tensors)  # type: ignore[no-untyped-call]
    return generic.value_of(evaluate, x, others)


def _wants_gradient_only(x: torch.Tensor, others: list[torch.Tensor]) -> bool:
    """Tell whether the gradient of `x` will be asked for, and nothing else before it."""
    if not x.requires_grad or not torch.is_grad_enabled():
        return False
    if any(other.requires_grad for other in others):
        return False
    dual = torch.autograd.forward_ad.unpack_dual(x)  # type: ignore[no-untyped-call]
    return dual.tangent is None


class _ClosedForm(torch.autograd.Function):
    """A loss of large tensors as one node of the graph, whose gradient is the closed form.

    A second derivative, or a second run backward, starts anew from the spikes. What the closed
    form holds on to is let go of after the first.
    """

    @staticmethod
    def forward(
        ctx: Any, evaluate: Evaluate, x: torch.Tensor, *others: torch.Tensor
    ) -> torch.Tensor:
        value: torch.Tensor
        value, ctx.pullback = evaluate(x)
        ctx.evaluate = evaluate
        ctx.save_for_backward(x, *others)  # so that a change in place is noticed
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        further = torch.is_grad_enabled()  # the gradient is to be differentiated in its turn
        if further or _is_batched(cotangent):
            with torch.enable_grad():
                value = generic.value_of(ctx.evaluate, x, ())
                (gradient,) = torch.autograd.grad(value, x, cotangent, create_graph=further)
        else:
            pullback, ctx.pullback = ctx.pullback, None
            gradient = (pullback or ctx.evaluate(x)[1])(cotangent)
        return None, gradient, *(None for _ in others)


def _is_batched(x: torch.Tensor) -> bool:
    """Tell whether ``is_grads_batched`` made many tensors one, of which there is no public sign."""
    return torch._C._functorch.is_legacy_batchedtensor(x)


def value_and_grad(
    function: Callable[[Array], Array], x: Array, cotangent: Array | None
) -> tuple[Array, Array]:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value, leaf, cotangent)
    return value.detach(), gradient
