"""PyTorch's state: whether a transform or a compiler is active. All private functions are here."""

import torch

PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_compiling() -> bool:
    """Tell whether `torch.compile` or `torch.export` is tracing."""
    return torch.compiler.is_compiling()


def is_transforming() -> bool:
    """Tell whether a transform of `torch.func` is active."""
    return torch._C._are_functorch_transforms_active()


def is_eager() -> bool:
    """Tell whether operations run at once: no compiler, transform, tracer or dispatch mode."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state()
    )


def is_plain(x: torch.Tensor) -> bool:
    """Tell whether operations on a tensor run at once, and it is not of a subclass."""
    return type(x) in PLAIN and is_eager()


def is_alone(x: torch.Tensor) -> bool:
    """Tell whether only autograd may see the operations on a plain tensor."""
    return type(x) in PLAIN and torch.autograd.forward_ad._current_level < 0 and is_eager()


def has_forward_mode() -> bool:
    """Tell whether a level of forward-mode differentiation is active."""
    return torch.autograd.forward_ad._current_level >= 0


def unwrapped(x: torch.Tensor) -> torch.Tensor:
    """Return the tensor inside all wrappers of `torch.func`."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x


def is_batched(x: torch.Tensor) -> bool:
    """Tell whether ``is_grads_batched`` made one tensor of many."""
    return torch._C._functorch.is_legacy_batchedtensor(x)
