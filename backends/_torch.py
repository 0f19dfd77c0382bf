"""The PyTorch adapter. In eager mode, a loss is one graph node with a closed-form gradient."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import array_api_compat.torch
import numpy as np
import torch

from spikeloss_xp import _tuning
from spikeloss_xp._typing import (
    Array,
    Axes,
    ChunkFunction,
    Namespace,
    Sums,
    ValueAndPullback,
)
from spikeloss_xp.backends import _torch_state
from spikeloss_xp.backends._axis import Axis
from spikeloss_xp.backends._torch_distributed import is_distributed, map_local, replicated
from spikeloss_xp.backends._torch_filters import TorchFilters
from spikeloss_xp.backends.base import captured_arrays
from spikeloss_xp.primitives import single_use, sum_of_products, sums_in_chunks


class TorchAdapter(TorchFilters):
    """The adapter for PyTorch tensors, in eager mode and in compiled or transformed functions."""

    differentiates: ClassVar[bool] = True

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.torch

    def devices(self) -> list[str]:
        # `device_count` also counts GPUs that PyTorch cannot use, for example with an old driver.
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        names = ["cpu", *(f"cuda:{i}" for i in range(count))]
        return [*names, "mps"] if torch.backends.mps.is_available() else names

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        # PyTorch does not support the negative strides that `values` may have.
        return torch.asarray(values.copy(), device=device)

    def to_host(self, x: Array) -> np.ndarray:
        return _as_numpy(x.detach().cpu()).copy()

    def check_dense(self, x: Array, argument: str) -> None:
        masked = isinstance(x, torch.masked.MaskedTensor)
        if x.layout is torch.strided and not (masked or x.is_nested or x.is_quantized):
            return
        kind, remedy = str(x.layout), "x.to_dense()"
        if masked:
            kind, remedy = "masked", "x.get_data(), and where=x.get_mask()"
        elif x.is_nested:
            kind = "nested"
            remedy = "torch.nested.to_padded_tensor(x, 0), and lengths=..."
        elif x.is_quantized:
            kind, remedy = "quantized", "x.dequantize()"
        raise TypeError(f"{argument} must be a dense tensor; got a {kind} tensor: pass {remedy}")

    def device(self, x: Array) -> Any:
        return x.device

    def to_device_of(self, x: Array, like: Array) -> Array:
        return replicated(x if x.device == like.device else x.to(like.device), like)

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        if not (x.is_cpu and _torch_state.is_plain(x)):
            return None
        return _as_numpy(x.detach() if x.requires_grad else x)

    def synchronize(self, x: Array) -> None:
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        elif x.device.type == "mps":
            torch.mps.synchronize()

    def from_host_like(self, values: np.ndarray, like: Array) -> Array:
        return replicated(self.from_host(values, like.device), like)

    def scalar(self, like: Array, value: float) -> Array:
        def make() -> Array:
            return torch.full((), value, dtype=like.dtype, device=like.device)

        return self._made_once(make, like, like.dtype, ("full", value))

    def arange(self, stop: int, like: Array) -> Array:
        make = functools.partial(torch.arange, stop, device=like.device)
        return self._made_once(make, like, None, ("arange", stop))

    def along(self, axis: int, like: Array) -> Array:
        make = functools.partial(super().along, axis, like)
        key = "along", like.shape[axis], axis % like.ndim, like.ndim
        return self._made_once(make, like, None, key)

    def operand(self, like: Array, value: float) -> Any:
        return value if like.is_cpu else self.scalar(like, value)

    def shielded(self, u: Array, mask: Array) -> Array:
        # On a CPU, a loss checks all spike counts, including masked counts. Masked counts are
        # therefore replaced by a valid count.
        needed = u.is_cpu or not self.in_place(u)
        return super().shielded(u, mask) if needed else u

    def spread(self, axis: int, x: Array, number: int) -> Array:
        return x.expand(*x.shape[:axis], number, *x.shape[axis + 1 :])

    def unstack(self, x: Array, axis: int) -> Sequence[Array]:
        # The backward pass of `unbind` creates one array, but indexing would create an array for
        # each entry.
        return torch.unbind(x, axis)

    def stop_gradient(self, x: Array) -> Array:
        return x.detach()

    def without_graph(self) -> contextlib.AbstractContextManager[object]:
        return torch.no_grad()

    def lacks_graph(self, x: Array) -> bool:
        return torch.is_grad_enabled() and not x.requires_grad

    # `torch.sum` has less overhead than the `sum` of the array API namespace.
    def sum(self, axis: int, x: Array) -> Array:
        return torch.sum(x, axis, keepdim=True)

    def sum_all(self, x: Array) -> Array:
        return torch.sum(x)

    def sign(self, x: Array) -> Array:
        # Without `detach`, an infinite tangent of `x` would give NaN in forward mode.
        return torch.sign(x.detach())

    def isfinite(self, x: Array) -> Array:
        # `torch.isfinite` runs more kernels than this comparison.
        return x.abs() < math.inf

    def number(self, mask: Array, dtype: Any, axis: int | None = None) -> Array:
        return torch.sum(mask, axis, keepdim=axis is not None, dtype=dtype)

    def at(self, axis: int, x: Array, index: Array) -> Array:
        if torch.compiler.is_compiling():
            return super().at(axis, x, index)
        shape = (*index.shape[:axis], x.shape[axis], *index.shape[axis + 1 :])
        return torch.gather(x.expand(shape), axis, index.long())

    def entries_at(self, axis: int, x: Array, index: Array) -> Any:
        # PyTorch's compiler can fuse the `where` of the base method with other operations, but
        # cannot fuse the gradient of `gather`.
        if torch.compiler.is_compiling():
            return super().entries_at(axis, x, index)
        index = index if index.dtype == torch.int64 else index.long()
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        return index if index.shape == shape else index.expand(shape)

    def gather(self, axis: int, x: Array, entries: Any) -> Array:
        if entries.dtype == torch.bool:
            return super().gather(axis, x, entries)
        return torch.gather(x, axis, entries)

    def scatter(self, axis: int, x: Array, entries: Any, values: Any) -> None:
        x.scatter_(axis, entries, values)

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        if is_distributed(arrays[0]):
            return map_local(function, arrays, (batch, *axes))
        return function(*arrays)  # evaluating chunks would add nodes to the graph

    def specialized_for(self, x: Array) -> "TorchAdapter":
        if torch.is_grad_enabled() or not _torch_state.is_alone(x):
            return self
        return PLAIN if x.is_cpu else PLAIN_ON_DEVICE

    def is_vectorized(self, x: Array) -> bool:
        return _torch_state.is_vectorized(x)

    def evaluate(self, loss: Any, input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss.

        If `input` is the only tensor that needs a gradient, the loss is a single graph node.
        """
        if loss.reduction == "none" and is_distributed(input):
            raise ValueError(
                "reduction='none' cannot be used with a DTensor, because only sums are combined "
                "across processes: call the loss with input.to_local(), which holds the samples of "
                "this process, and with the target of these samples"
            )
        alone = loss._has_closed_form and _torch_state.is_alone(input)
        captured = captured_arrays(loss) if alone else None
        if captured is None:
            return loss.value(input, **options)
        recorded, tensors = torch.is_grad_enabled(), []
        for x in (*options.values(), *captured):
            if isinstance(x, torch.Tensor):
                if recorded and x.requires_grad:
                    return loss.value(input, **options)
                tensors.append(x)
        if recorded and input.requires_grad:
            apply: Any = _ClosedForm.apply  # `apply` is untyped in some versions of PyTorch
            return apply(loss, options, input, *tensors)
        with torch.no_grad():
            return loss.value(input, **options)

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            value = function(leaf)
            (gradient,) = torch.autograd.grad(value, leaf, cotangent)
        return value.detach(), gradient


def _as_numpy(x: torch.Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


class _ClosedForm(torch.autograd.Function):
    """A loss as a single graph node with a closed-form gradient.

    The first backward pass uses the saved pullback and frees it. Any later backward pass evaluates
    the loss again. If second derivatives are needed, every backward pass evaluates the loss again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        loss: Any,
        options: dict[str, Any],
        x: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        value: torch.Tensor
        value, ctx.pullback = loss.value_and_pullback(x, **options)
        ctx.loss, ctx.options = loss, dict(options)
        # NumPy arrays and lists are copied, because the caller may change them before the backward
        # pass reads them.
        for name, given in options.items():
            if isinstance(given, HOST):
                ctx.options[name] = np.array(given)
        ctx.save_for_backward(x, *others)  # saved so that autograd detects in-place changes
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        if torch.is_grad_enabled() or _torch_state.is_batched(cotangent):
            with torch.enable_grad():
                _, pullback = ctx.loss.value_and_pullback(x, **ctx.options)
                gradient = pullback(cotangent)
        else:
            pullback, ctx.pullback = ctx.pullback, None
            if pullback is None:
                _, pullback = ctx.loss.value_and_pullback(x, **ctx.options)
            gradient = pullback(cotangent)
        return None, None, gradient, *[None] * len(others)


class PlainTorchAdapter(TorchAdapter):
    """The adapter for calls on plain tensors that are neither traced nor recorded in a graph.

    The methods do not check whether a tensor is traced or recorded, because
    `TorchAdapter.specialized_for` has already done so.
    """

    def in_place(self, x: Array) -> bool:
        return True

    def _keeps(self, like: torch.Tensor) -> bool:
        return True

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        return _as_numpy(x.detach()) if type(x) in _torch_state.PLAIN and x.is_cpu else None

    def are_within(self, x: Array, lowest: float, stop: float) -> bool:
        if type(x) not in _torch_state.PLAIN or not x.is_cpu or x.dtype not in ORDERED:
            return False
        low, high = torch.aminmax(x)  # `aminmax` is faster than NumPy's minimum and maximum
        return lowest <= low.item() and high.item() < stop

    def masked(self, x: Array, mask: Array) -> Array:
        # On a CPU, multiplying by the mask is faster than `torch.where`.
        if self._multiplies(x) and math.isfinite(x.sum().item()):
            return x * mask.to(x.dtype)
        return super().masked(x, mask.bool())

    def masked_sum(self, axis: int, x: Array, mask: Array) -> Array:
        if self._multiplies(x):
            total = sum_of_products(self, axis, x, mask.to(x.dtype))
            if math.isfinite(total.sum().item()):
                return total
        return super().masked_sum(axis, x, mask.bool())

    def _multiplies(self, x: Array) -> bool:
        return x.is_cpu and type(x) in _torch_state.PLAIN

    def shielded(self, u: Array, mask: Array) -> Array:
        if not self._multiplies(u):
            return super().shielded(u, mask)
        return torch.addcmul((~mask).to(u.dtype), u, mask.to(u.dtype))

    def to_device_of(self, x: Array, like: Array) -> Array:
        return x if x.device == like.device else x.to(like.device)

    def logaddexp(self, x: Array, y: Array) -> Array:
        return torch.logaddexp(x, y)

    def cross_entropy(
        self,
        default: Callable[..., Any],
        classes: Axis,
        logit: Array,
        index: Array,
        q: Array | None,
    ) -> ValueAndPullback:
        # If the probability p of the label is above 0.5, log(p) is computed as log1p(-s), which is
        # more precise than `log_softmax`. The number s is the sum of the other probabilities.
        axis = classes.index
        if logit.shape[axis] == 1:  # for a single class, the formula below would hide a NaN
            return super().cross_entropy(default, classes, logit, index, q)
        label = self.entries_at(axis, logit, index)
        own = torch.gather(torch.log_softmax(logit, axis), axis, label)
        each = torch.softmax(logit, axis).scatter_(axis, label, 0.0)
        minus_others = -each.sum(axis, keepdim=True)
        terms = torch.where(minus_others > -0.5, torch.log1p(minus_others), own)

        def pullback(cotangent: Array) -> Array:
            return each.scatter_(axis, label, minus_others).mul_(cotangent)

        return -terms, single_use(pullback)

    def bernoulli(
        self, default: Callable[..., Any], logit: Array, spike: Array
    ) -> ValueAndPullback:
        # The operations work in place, because allocating an array may take longer than filling it.
        x = torch.rsub(spike, 1, alpha=2).mul_(logit)

        def pullback(cotangent: Array) -> Array:
            return x.sigmoid_().mul_(torch.rsub(spike, 1, alpha=2)).mul_(cotangent)

        # Above the threshold, `softplus` returns its argument. With a threshold of 40, the
        # resulting error is smaller than the rounding error.
        return torch.nn.functional.softplus(x, threshold=40), single_use(pullback)

    def map_chunks(self, function: ChunkFunction, arrays: Any, axes: Axes, batch: int) -> Sums:
        if not (axes and arrays[0].is_cpu):
            return function(*arrays)
        return sums_in_chunks(self, function, arrays, axes, _tuning.AUTOGRAD_CHUNK)


HOST = (np.ndarray, list, tuple)
ORDERED = (torch.int64, torch.int32, torch.float32, torch.float64)
PLAIN = PlainTorchAdapter(array_api_compat.torch)
PLAIN.on_host = True
PLAIN_ON_DEVICE = PlainTorchAdapter(array_api_compat.torch)
