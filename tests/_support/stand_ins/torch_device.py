"""A stand-in for a GPU in PyTorch: a device "gpux" with storage of its own, and counts.

`install` registers it in this process, for good: use a process of its own. Its tensors compute on
the CPU. An operation on tensors of both devices raises, and copies between them are counted. What
it cannot show: the kernels of CUDA, its streams, autocast, and memory layouts of its own.
"""

from collections import Counter

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME, DEVICE = "gpux", "gpux:0"
VIEWS = (
    *("_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty", "empty_like"),
    *("empty_strided", "expand", "new_empty_strided", "permute", "select", "slice", "split"),
    *("squeeze", "t", "transpose", "unbind", "unsqueeze", "view"),
)
"""Operations that run nothing on a GPU."""
READS = ("_local_scalar_dense", "equal", "is_nonzero", "item", "nonzero")

LAUNCHES: Counter[str] = Counter()
COPIES: Counter[str] = Counter()
"""Copies from the host."""
WAITS: Counter[str] = Counter()
"""Copies to the host, and reads of a value."""
COUNTS = {"launches": LAUNCHES, "copies": COPIES, "waits": WAITS}


def reset_counts():
    for count in COUNTS.values():
        count.clear()


class GpuTensor(torch.Tensor):
    """A tensor of the device, around one on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values):
        options = {"strides": values.stride(), "storage_offset": values.storage_offset()}
        options |= {"dtype": values.dtype, "device": torch.device(DEVICE)}
        made = torch.Tensor._make_wrapper_subclass(cls, values.size(), **options)
        made.values_on_cpu = values
        return made

    def __repr__(self):
        return f"GpuTensor({self.values_on_cpu})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), options=None):
        return _run(function, args, options or {})


def _is_here(device):
    return device is not None and torch.device(device).type == NAME


def _on_cpu(x):
    return x.values_on_cpu if isinstance(x, GpuTensor) else x


def _on_device(x):
    return GpuTensor(x) if isinstance(x, torch.Tensor) else x


def _run(function, args, options):
    """Run an operation on the CPU, and wrap its results."""
    name = str(function).split(".")[1]
    tensors = [x for x in tree_leaves((args, options)) if isinstance(x, torch.Tensor)]
    here = [isinstance(x, GpuTensor) for x in tensors]
    if name == "_to_copy":
        return _copy(args[0], **options)
    if name == "copy_":
        _count_copy(to=args[0], source=args[1])
        _on_cpu(args[0]).copy_(_on_cpu(args[1]))
        return args[0]
    if any(here) and not all(here):
        places = [f"{tuple(x.shape)} on {x.device}" for x in tensors]
        raise RuntimeError(f"{name} of tensors on two devices: {places}")
    (WAITS if name in READS else LAUNCHES)[name] += name not in VIEWS
    on_cpu = tree_map(_on_cpu, options)
    if _is_here(options.get("device")):
        on_cpu["device"] = torch.device("cpu")
    result = tree_map(_on_device, function(*tree_map(_on_cpu, args), **on_cpu))
    return return_and_correct_aliasing(function, args, options, result) if any(here) else result


def _copy(x, *, device=None, pin_memory=None, **options):
    """Copy a tensor to a device, by default its own, or to another dtype."""
    to_here = isinstance(x, GpuTensor) if device is None else _is_here(device)
    copied = torch.ops.aten._to_copy.default(_on_cpu(x), **options)
    result = GpuTensor(copied) if to_here else copied
    _count_copy(to=result, source=x)
    return result


def _count_copy(*, to, source):
    kinds = isinstance(source, GpuTensor), isinstance(to, GpuTensor)
    {(False, True): COPIES, (True, False): WAITS}.get(kinds, LAUNCHES)["copy"] += 1


_asarray = torch.asarray


def asarray(obj, *, dtype=None, device=None, copy=None, requires_grad=False):
    """Make a tensor as `torch.asarray`, which has no way to the device."""
    if isinstance(obj, GpuTensor):
        return obj if dtype is None else obj.to(dtype)
    if not _is_here(device):
        return _asarray(obj, dtype=dtype, device=device, copy=copy, requires_grad=requires_grad)
    COPIES["asarray"] += 1
    return GpuTensor(_asarray(obj, dtype=dtype).detach().clone())


def install():
    """Register the device, and let the adapter of this library take its tensors for plain ones."""
    from spikeloss_xp.backends import _torch, _torch_state

    _setup_privateuseone_for_python_backend(NAME)
    library = torch.library.Library("_", "IMPL")
    library.fallback(
        lambda function, *args, **options: _run(function, args, options), "PrivateUse1"
    )
    install.library = library  # the registration lives as long as it does
    torch.asarray = asarray
    _torch_state.PLAIN = (*_torch_state.PLAIN, GpuTensor)
    devices = _torch.TorchAdapter.devices
    _torch.TorchAdapter.devices = lambda self: [*devices(self), DEVICE]
