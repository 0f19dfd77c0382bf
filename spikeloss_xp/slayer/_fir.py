"""The causal filter that the modules hold."""

from collections.abc import Sequence
from typing import Any

import torch

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

    def forward(self, input: torch.Tensor) -> Any:
        """Return the filtered input, of the same shape."""
        return causal_filter(input, self.filter)

    def extra_repr(self) -> str:
        """Return the length for the module's representation."""
        return f"length={len(self.filter)}"
