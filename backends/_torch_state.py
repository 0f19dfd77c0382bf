"""Functions that query PyTorch's state. Only this module calls private functions of PyTorch."""

import torch

PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_plain(x: torch.Tensor) -> bool:
    """Return whether operations run eagerly and `x` is a plain tensor or a parameter."""
    return type(x) in PLAIN and not (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state()
    )


def is_alone(x: torch.Tensor) -> bool:
    """Return whether `is_plain(x)` is True and no forward-mode differentiation is active."""
    return torch.autograd.forward_ad._current_level < 0 and is_plain(x)


def has_forward_mode() -> bool:
    """Return whether forward-mode differentiation is active."""
    return torch.autograd.forward_ad._current_level >= 0


def unwrapped(x: torch.Tensor) -> torch.Tensor:
    """Return the tensor without its `torch.func` wrappers."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x


def is_vectorized(x: torch.Tensor) -> bool:
    """Return whether any of the `torch.func` wrappers of a tensor comes from `vmap`."""
    while torch._C._functorch.is_functorch_wrapped_tensor(x):
        if torch._C._functorch.is_batchedtensor(x):
            return True
        x = torch._C._functorch.get_unwrapped(x)
    return False


def is_batched(x: torch.Tensor) -> bool:
    """Return whether `x` is a batch of cotangents created by ``is_grads_batched=True``."""
    return torch._C._functorch.is_legacy_batchedtensor(x)
