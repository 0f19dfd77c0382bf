"""The causal filter of the modules in `loss` and `classifier`, and the loss that uses its taps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from spikeloss_xp import losses
from spikeloss_xp.filters import causal_filter


class FIR(torch.nn.Module):
    """Finite impulse response filter along the last axis.

    Parameters
    ----------
    fir_response : sequence of float
        The impulse response.

    Attributes
    ----------
    filter : torch.Tensor
        The impulse response, a buffer in float32.
    """

    filter: torch.Tensor

    def __init__(self, fir_response: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("filter", torch.tensor(fir_response, dtype=torch.float32))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the filtered input, in the shape of the input."""
        return causal_filter(input, self.filter)

    def extra_repr(self) -> str:
        """Return the filter length, for the representation of the module."""
        return f"length={len(self.filter)}"


@dataclass(frozen=True)
class SpikeTimeWithTaps(losses.SpikeTime):
    """`SpikeTime` with given filter taps instead of an exponential kernel."""

    taps: Any = field(default=None, kw_only=True)

    def _kernel(self) -> Any:
        return self.taps
