"""PyTorch: gradients by its own automatic differentiation."""

import functools
from collections.abc import Callable
from typing import Any

import array_api_compat.torch
import numpy as np
import torch

from spikeloss_xp._typing import Array, Evaluate, Namespace
from spikeloss_xp.backends import generic
from spikeloss_xp.backends._torch_filters import (
    CACHED,
    causal_filter,
    in_function_transform,
    moving_sum,
)
from spikeloss_xp.backends.generic import compiled, mapped, scope, total, version

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


LARGE = 1 << 20  # entries from which there are parts, and the closed form is worth its calls


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
    return None if in_function_transform(values) else _as_numpy(values)


def synchronize(x: Array) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)
    elif x.device.type == "mps":
        torch.mps.synchronize()


def at_a_time(x: Array) -> int | None:
    recorded = torch.is_grad_enabled() and x.requires_grad  # then each part would be a node
    if recorded or not _is_plain(x) or x.device.type != "cpu":
        return None
    return CACHED


def _is_plain(x: torch.Tensor) -> bool:
    """Tell whether operations on a tensor do just what they say, outside every transform."""
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    return type(x) in (torch.Tensor, torch.nn.Parameter)


def value_of(evaluate: Evaluate, x: Array, options: dict[str, Any], held: tuple[Any, ...]) -> Array:
    others = [*options.values(), *held]
    tensors = [other for other in others if isinstance(other, torch.Tensor)]
    if _is_plain(x) and x.numel() >= LARGE and _wants_gradient_only(x, tensors):
        bound = functools.partial(evaluate, **options)
        return _ClosedForm.apply(bound, x, *tensors)  # type: ignore[no-untyped-call]
    return generic.value_of(evaluate, x, options, held)


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
                value, _ = ctx.evaluate(x, differentiate=False)
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
