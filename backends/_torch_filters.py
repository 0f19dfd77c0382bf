"""The causal filter and the moving sum for eager, transformed and compiled PyTorch code."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from spikeloss_xp import _tuning
from spikeloss_xp._typing import Array, Namespace
from spikeloss_xp.backends import _torch_state
from spikeloss_xp.backends._copies import Copies
from spikeloss_xp.backends._torch_distributed import replicated
from spikeloss_xp.backends.base import ArrayAPIAdapter, untraced
from spikeloss_xp.primitives.block_filter import BlockMatrices
from spikeloss_xp.primitives.kernels import Exponential, block_matrices

# The kinds of devices that support autocast. The list is computed at import, because the compiler
# of PyTorch 2.10 and earlier cannot trace `is_autocast_available`.
AUTOCAST = [
    kind
    for kind in ("cpu", "cuda", "hpu", "mps", "mtia", "xla", "xpu")
    if torch.amp.is_autocast_available(kind)
]


class TorchFilters(ArrayAPIAdapter):
    """The base class of the PyTorch adapter, with the methods that filters use."""

    def __init__(self, xp: Namespace) -> None:
        super().__init__(xp)
        self._copies = Copies()

    def constants(self, values: np.ndarray | tuple[float, ...], like: Array) -> Array:
        make = functools.partial(torch.asarray, values, dtype=like.dtype, device=like.device)
        return self._made_once(make, like, like.dtype, values)

    def _keeps(self, like: torch.Tensor) -> bool:
        return not like.is_cpu and _torch_state.is_plain(like)  # traced tensors are not cached

    def _made_once(self, make: Callable[[], Array], like: Array, dtype: Any, key: Any) -> Array:
        """Return a tensor that `make` creates, or the cached tensor if `_keeps` returns True."""
        if not self._keeps(like):
            return replicated(make(), like)

        def make_and_wait() -> Array:
            with torch.inference_mode(False):  # inference tensors cannot be saved for a gradient
                made = make()
            self.synchronize(made)
            return made

        return self._copies.get(key, dtype, like.device, make_and_wait)

    def sums_in_blocks(self, x: Array, steps: Any) -> bool:
        # In a compiled function, the number of steps may be symbolic.
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return False
        if _rounds_factors(x):
            return False
        few = steps <= _tuning.FEW_BLOCKS * _tuning.WINDOW_BLOCK
        return bool(few or x.numel() >= _tuning.TRAINS_IN_BLOCKS * steps)

    def in_place(self, x: Array) -> bool:
        recorded = torch.is_grad_enabled() and x.requires_grad
        return not (recorded or _torch_state.has_forward_mode()) and _torch_state.is_plain(x)

    def matmul(self, a: Array, b: Array) -> Array:
        kind = a.device.type
        if _rounds_factors(a):
            return torch.matmul(a.double(), b.double()).float()
        if kind in AUTOCAST and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # autocast would round to 16 bits
                return torch.matmul(a, b)
        return torch.matmul(a, b)

    def block_matrices(
        self, x: Array, kernel: Exponential, axis: int, reverse: bool
    ) -> BlockMatrices:
        if not torch.compiler.is_compiling():
            return super().block_matrices(x, kernel, axis, reverse)
        made = _constant_matrices(
            *map(_guarded, kernel), str(x.dtype).removeprefix("torch."), reverse, x.device
        )
        # PyTorch's compiler treats the matrices as constants, and traces only this copy to the
        # device.
        return made.converted(lambda matrix: matrix.to(x.device))


def _rounds_factors(x: torch.Tensor) -> bool:
    """Return whether PyTorch may round the factors of a float32 matrix product to fewer bits."""
    return x.dtype == torch.float32 and not _has_full_products(x.device.type)


# PyTorch's compiler may treat the result as a constant, because it compiles again if the user
# changes the precision of matrix products.
@untraced
def _has_full_products(kind: str) -> bool:
    library = torch.backends.cuda if kind == "cuda" else torch.backends.mkldnn
    return library.matmul.fp32_precision in ("ieee", "none")


def _guarded(number: int | float) -> float | tuple[int, int]:
    """Return a number in a form that is constant for PyTorch's compiler.

    If a number is symbolic, the compiler adds guards, and compiles again for a different number.
    """
    if isinstance(number, float):
        return math.inf if number == math.inf else number.as_integer_ratio()
    constant = 0
    for bit in range(31, -1, -1):
        if constant + (1 << bit) <= number:  # each comparison adds a guard
            constant += 1 << bit
    return constant


@untraced
def _constant_matrices(
    time: float | tuple[int, int],
    length: int,
    order: int,
    dtype: str,
    reverse: bool,
    device: torch.device,
) -> BlockMatrices:
    """Return the block filter's matrices, which are computed outside the compiler's trace."""
    time_constant = time[0] / time[1] if isinstance(time, tuple) else time
    kernel = Exponential(time_constant, length, order)

    def plain(values: np.ndarray) -> torch.Tensor:
        # Inside a `torch.func` transform, a new tensor may have a wrapper.
        made = _torch_state.unwrapped(torch.from_numpy(values))
        return made if made.device == device else _torch_state.unwrapped(made.to(device))

    return block_matrices(kernel, None, dtype, reverse=reverse).converted(plain)
