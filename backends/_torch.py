"""PyTorch: gradients by its autograd, of a loss in eager mode as one node with the closed form."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import array_api_compat.torch
import numpy as np
import torch

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array, ChunkFunction, Namespace, Pullback
from spikeloss_xp.backends import _torch_state, chunks
from spikeloss_xp.backends._torch_distributed import is_distributed, map_local, replicated
from spikeloss_xp.backends._torch_filters import TorchFilters

if TYPE_CHECKING:
    from spikeloss_xp.losses.base import Loss

Evaluate = Callable[["Loss", torch.Tensor, dict[str, Any]], tuple[torch.Tensor, Pullback]]
HOST_DTYPES = {torch.float32, torch.float64, torch.bool, torch.int32, torch.int64}


class TorchAdapter(TorchFilters):
    """Tensors: differentiated by autograd, compiled and transformed by PyTorch."""

    differentiates: ClassVar[bool] = True

    @classmethod
    def namespace(cls, library: str) -> Namespace:
        return array_api_compat.torch

    def devices(self) -> list[str]:
        names = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        return [*names, "mps"] if torch.backends.mps.is_available() else names

    def from_host(self, values: np.ndarray, device: Any) -> Array:
        return torch.asarray(values.copy(), device=device)  # the copy has no negative strides

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
            remedy = "torch.nested.to_padded_tensor(x, 0) and lengths="
        elif x.is_quantized:
            kind, remedy = "quantized", "x.dequantize()"
        raise TypeError(f"{argument} must be a dense tensor; got one that is {kind}: pass {remedy}")

    def device(self, x: Array) -> Any:
        return x.device

    def to_device_of(self, x: Array, like: Array) -> Array:
        return replicated(x if x.device == like.device else x.to(like.device), like)

    def concrete_or_none(self, x: Array) -> np.ndarray | None:
        if type(x) is not torch.Tensor or not x.is_cpu or not _torch_state.is_eager():
            return None
        return _as_numpy(x.detach() if x.requires_grad else x)

    def synchronize(self, x: Array) -> None:
        if x.device.type == "cuda":
            torch.cuda.synchronize(x.device)
        elif x.device.type == "mps":
            torch.mps.synchronize()

    def from_host_like(self, values: np.ndarray, like: Array) -> Array:
        return replicated(self.from_host(values, like.device), like)

    def constant(self, like: Array, value: float) -> Array:
        return replicated(super().constant(like, value), like)

    def arange(self, stop: int, like: Array) -> Array:
        return replicated(torch.arange(stop, device=like.device), like)

    def repeat_last(self, x: Array, number: int) -> Array:
        return x[..., None].expand(*x.shape, number)  # a view, as autograd's own gradient of a sum

    def unstack(self, x: Array, axis: int) -> Sequence[Array]:
        return torch.unbind(x, axis)  # its gradient is one array; that of an index is as large

    def sum_all(self, x: Array) -> Array:
        return torch.sum(x)

    def map_chunks(
        self,
        function: ChunkFunction,
        arrays: tuple[Any, ...],
        axes: tuple[int, ...],
        batch_axis: int,
    ) -> tuple[tuple[Any, ...], Pullback | None]:
        x = arrays[0]
        if is_distributed(x):
            return map_local(function, arrays, (batch_axis, *axes))
        recorded = torch.is_grad_enabled() and x.requires_grad  # each chunk would add nodes
        if recorded or not x.is_cpu or not _torch_state.is_plain(x):
            return function(*arrays)
        return chunks.map_chunks(self, function, arrays, axes, _tuning.AUTOGRAD_CHUNK)

    def evaluate(self, loss: "Loss", input: Array, options: dict[str, Any]) -> Array:
        """Return the value of a loss as one node of the graph, if only its gradient is wanted."""
        if loss.reduction == "none" and is_distributed(input):
            raise ValueError(
                "reduction='none' has no sum over processes: call the loss with the samples of "
                "this process, input.to_local(), and their target"
            )
        evaluate = None
        if input.requires_grad and torch.is_grad_enabled() and _torch_state.is_plain(input):
            evaluate = _closed_form_for(input, options)
        captured = loss.captured_arrays() if evaluate is not None else None
        if captured is None or _torch_state.has_forward_mode():
            return loss.value(input, **options)
        if captured and evaluate is _value_and_pullback_by_numpy:
            return loss.value(input, **options)
        tensors = [x for x in (*options.values(), *captured) if isinstance(x, torch.Tensor)]
        if any(x.requires_grad for x in tensors):
            return loss.value(input, **options)
        apply: Any = _ClosedForm.apply  # some versions of PyTorch do not give its type
        return apply(evaluate, loss, options, input, *tensors)

    def value_and_grad(
        self, function: Callable[[Array], Array], x: Array, cotangent: Array | None
    ) -> tuple[Array, Array]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            value = function(leaf)
            (gradient,) = torch.autograd.grad(value, leaf, cotangent)
        return value.detach(), gradient


def _closed_form_for(x: torch.Tensor, options: dict[str, Any]) -> "Evaluate | None":
    """Return the closed form that is faster than autograd for a tensor of this size, or None."""
    entries = x.numel()
    if entries >= _tuning.CLOSED_FORM:
        return _value_and_pullback
    small = _tuning.BY_HOST
    if torch.get_num_threads() == 1:
        small = _tuning.BY_HOST_ONE_THREAD
    if entries < small and _is_on_host(x) and all(map(_is_on_host, options.values())):
        return _value_and_pullback_by_numpy
    return None


def _is_on_host(x: Any) -> bool:
    if isinstance(x, torch.Tensor):
        return x.is_cpu and x.dtype in HOST_DTYPES and type(x) in _torch_state.PLAIN
    return x is None or isinstance(x, np.ndarray | list | tuple)


def _as_numpy(x: torch.Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


class _ClosedForm(torch.autograd.Function):
    """A loss as one node of the graph, whose gradient is the closed form.

    A second derivative, or a second backward pass, starts anew from the spikes. The saved pullback
    is freed after the first backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        evaluate: Evaluate,
        loss: "Loss",
        options: dict[str, Any],
        x: torch.Tensor,
        *others: torch.Tensor,
    ) -> torch.Tensor:
        value, ctx.pullback = evaluate(loss, x, options)
        ctx.evaluate, ctx.loss, ctx.options = evaluate, loss, options
        ctx.save_for_backward(x, *others)  # so that autograd detects a change in place
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, *others = ctx.saved_tensors
        if torch.is_grad_enabled() or _torch_state.is_batched(cotangent):
            with torch.enable_grad():  # the operations of the closed form are in the graph
                _, pullback = ctx.loss.value_and_pullback(x, **ctx.options)
                gradient = pullback(cotangent)
        else:
            pullback, ctx.pullback = ctx.pullback, None
            if pullback is None:
                _, pullback = ctx.evaluate(ctx.loss, x, ctx.options)
            gradient = pullback(cotangent)
        return None, None, None, gradient, *(None for _ in others)


def _value_and_pullback(
    loss: "Loss", x: torch.Tensor, options: dict[str, Any]
) -> tuple[torch.Tensor, Pullback]:
    return loss.value_and_pullback(x, **options)


def _value_and_pullback_by_numpy(
    loss: "Loss", x: torch.Tensor, options: dict[str, Any]
) -> tuple[torch.Tensor, Pullback]:
    """Evaluate a loss on the NumPy arrays that share the memory of its tensors.

    An operation of NumPy on a small array takes a third of the time of one of PyTorch. NumPy's
    warnings of infinities and NaN are off, because PyTorch has none.
    """
    arrays = {name: _shared_memory(option) for name, option in options.items()}
    with np.errstate(all="ignore"):
        value, to_input = loss.value_and_pullback(_shared_memory(x), **arrays)

    def pullback(cotangent: torch.Tensor) -> torch.Tensor:
        with np.errstate(all="ignore"):
            gradient = to_input(_shared_memory(cotangent))
        return torch.from_numpy(gradient if gradient.flags.writeable else gradient.copy())

    return torch.from_numpy(np.asarray(value)), pullback


def _shared_memory(x: Any) -> Any:
    # A tensor that is negated lazily has no array: it is copied.
    return x.detach().resolve_neg().numpy() if isinstance(x, torch.Tensor) else x
