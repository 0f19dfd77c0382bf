"""PyTorch: the two primitives, outside of a compiler and in it."""

import math
from typing import Any

import array_api_compat.torch
import numpy as np
import torch

from spikeloss_xp import _plain
from spikeloss_xp._kernels import Exponential, blocks
from spikeloss_xp._plain import Blocks
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends import generic

SMALL = 1 << 17  # entries up to which the calls take longer than the work
CACHED = 1 << 19  # entries that are filtered, and that losses are evaluated of, at a time
SHORT, MANY = 32, 1 << 20  # a window up to which, and entries below which, doubling is quicker


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
    transformed = torch._C._are_functorch_transforms_active()  # which want another kind of function
    if torch.compiler.is_compiling():
        if not (torch.compiler.is_exporting() or transformed or _is_small(x)):
            return _opaque_filter(x, *kernel, reverse, axis)
        settled = map(_settled, kernel)
        made = _constant(*settled, str(x.dtype).removeprefix("torch."), reverse)
        moved = made.converted(lambda matrix: matrix.to(x.device))
        return _plain.in_blocks(xp, x, moved, axis=axis, reverse=reverse)
    if transformed or _is_small(x):
        return generic.in_blocks(xp, x, kernel, reverse, axis)
    return _Filter.apply(x, kernel, reverse, axis)  # type: ignore[no-untyped-call]


def _is_small(x: torch.Tensor) -> bool:
    """Tell whether parts do not pay; not to be asked of what is exported for any number of samples.

    On a GPU, which has no use for parts, nothing is large.
    """
    return x.device.type != "cpu" or x.numel() < SMALL


@torch.library.custom_op("spikeloss_xp::causal_filter", mutates_args=(), device_types="cpu")
def _opaque_filter(
    x: torch.Tensor, time_constant: float, length: int, order: int, reverse: bool, axis: int
) -> torch.Tensor:
    """Filter large tensors in a compiled function as outside of it: the compiler calls this.

    What it would make of the blocks itself took three times as long, on two CPU cores.
    """
    filtered: torch.Tensor = _in_parts(x, Exponential(time_constant, length, order), reverse, axis)
    return filtered.contiguous()


@_opaque_filter.register_fake
def _(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    ctx.options = inputs[1:]


def _adjoint(
    ctx: Any, cotangent: torch.Tensor
) -> tuple[torch.Tensor, None, None, None, None, None]:
    *kernel, reverse, axis = ctx.options
    return _opaque_filter(cotangent, *kernel, not reverse, axis), None, None, None, None, None


_opaque_filter.register_autograd(_adjoint, setup_context=_remember)


def _in_parts(x: torch.Tensor, kernel: Exponential, reverse: bool, axis: int) -> torch.Tensor:
    xp = array_api_compat.torch

    def run(part: torch.Tensor) -> Array:
        return generic.in_blocks(xp, part, kernel, reverse, axis, way="in place")

    filtered: torch.Tensor = generic.piecewise(run, xp, x, axis, CACHED)
    return filtered


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
        return _in_parts(x, kernel, reverse, axis)

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
    return blocks(kernel, None, dtype, reverse=reverse).converted(_bare)


def _bare(values: np.ndarray) -> torch.Tensor:
    """Return a tensor that no transform has wrapped, as one that is being traced would."""
    tensor = torch.from_numpy(values)
    while in_function_transform(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def in_function_transform(x: torch.Tensor) -> bool:
    """Tell whether `torch.func` has wrapped the tensor, for which there is no public question."""
    return torch._C._functorch.is_functorch_wrapped_tensor(x)
