"""Classifiers with the interface of `lava.lib.dl.slayer.classifier`."""

from collections.abc import Sequence
from typing import cast, get_args

import torch

from spikeloss_xp import _checks, losses
from spikeloss_xp._typing import ConfidenceMode
from spikeloss_xp.criteria import EPSILON
from spikeloss_xp.filters import causal_filter, moving_average

__all__ = ["MovingWindow", "Rate"]


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


RATE = losses.SpikeMax(time_axis=-1)  # the scores of this loss are rates over all time steps
check_mode = _checks.one_of(get_args(ConfidenceMode))


def confidence(rate: torch.Tensor, mode: str, eps: float) -> torch.Tensor:
    """Return the confidence in each class, given rates whose class axis is axis 1."""
    if check_mode(mode, "mode") == "probability":
        return rate / (rate.sum(1, keepdim=True) + _checks.not_negative(eps, "eps"))
    return rate.softmax(1) if mode == "softmax" else rate.log_softmax(1)


class FIR(torch.nn.Module):
    """A finite impulse response (FIR) filter along the last axis.

    Parameters
    ----------
    fir_response : sequence of float
        The impulse response.

    Attributes
    ----------
    filter : torch.Tensor
        The impulse response, which is stored in a float32 buffer.
    """

    filter: torch.Tensor

    def __init__(self, fir_response: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("filter", torch.tensor(fir_response, dtype=torch.float32))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the filtered input, which has the same shape as `input`."""
        return causal_filter(input, self.filter, time_axis=-1)

    def extra_repr(self) -> str:
        """Return the filter length to show in the module's repr."""
        return f"length={len(self.filter)}"


class Rate(torch.nn.Module):
    """Classify spike trains by their rates over the whole duration.

    Spikes have shape ``[batch, *space, time]``. The spatial axes are flattened into one class axis.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> slayer.classifier.Rate()(torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]]]))
    tensor([0])
    """

    def forward(self, spike: torch.Tensor) -> torch.Tensor:
        """Return the index of the predicted class, as a tensor of shape ``[batch]``."""
        return Rate.predict(spike)

    @staticmethod
    def rate(spike: torch.Tensor) -> torch.Tensor:
        """Return the mean rates over time, with shape ``[batch, *space]``."""
        return RATE.scores(spike).reshape(spike.shape[:-1])

    @staticmethod
    def confidence(
        spike: torch.Tensor, mode: ConfidenceMode = "probability", eps: float = EPSILON
    ) -> torch.Tensor:
        """Return the confidence in each class, with shape ``[batch, class]``.

        Parameters
        ----------
        spike : torch.Tensor
            The spikes, ``[batch, *space, time]``.
        mode : {"probability", "softmax", "logsoftmax"}, default "probability"
            Whether to return the normalised rates, the softmax of the rates, or the logarithm of
            the softmax.
        eps : float, default 1e-6
            The number that is added to the sum of the rates with ``mode="probability"``.
        """
        return confidence(RATE.scores(spike), mode, eps)

    @staticmethod
    def predict(spike: torch.Tensor) -> torch.Tensor:
        """Return the index of the class with the highest rate, as a tensor of shape ``[batch]``."""
        return RATE.predict(spike)


class MovingWindow(torch.nn.Module):
    """Classify spike trains at each time step by their rates in a moving window.

    Parameters
    ----------
    time_window : int
        The length of the window, in time steps.
    mode : {"probability", "softmax", "logsoftmax"}, default "probability"
        Whether `confidence` returns the normalised rates, the softmax of the rates, or the
        logarithm of the softmax.
    eps : float, default 1e-6
        The number that is added to the sum of the rates with ``mode="probability"``.

    Attributes
    ----------
    filter : FIR
        The moving-average filter. The length of the filter is the length of the window.
    mode, eps
        The values of the constructor arguments `mode` and `eps`.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> slayer.classifier.MovingWindow(2)(torch.tensor([[[1.0, 0, 0, 0], [0, 0, 1, 1]]]))
    tensor([[0, 0, 1, 1]])
    """

    def __init__(
        self, time_window: int, mode: ConfidenceMode = "probability", eps: float = EPSILON
    ) -> None:
        super().__init__()
        window = _checks.count(time_window, "time_window")
        self.filter: FIR = FIR([1 / window] * window)
        self.mode = cast(ConfidenceMode, check_mode(mode, "mode"))
        self.eps = eps

    @property
    def time_window(self) -> int:
        """The length of the window, in time steps."""
        return len(self.filter.filter)

    def forward(self, spike: torch.Tensor) -> torch.Tensor:
        """Return the predicted class at each step, as a tensor of shape ``[batch, time]``."""
        return self.predict(spike)

    def rate(self, spike: torch.Tensor) -> torch.Tensor:
        """Return the rate at each time step, with the same shape as the spikes."""
        return moving_average(spike, self.time_window, time_axis=-1)

    def confidence(self, spike: torch.Tensor, mode: ConfidenceMode | None = None) -> torch.Tensor:
        """Return the confidence in each class at each step, with shape ``[batch, class, time]``."""
        rate = self._loss().scores(spike, per_step=True)
        return confidence(rate, self.mode if mode is None else mode, self.eps)

    def predict(self, spike: torch.Tensor) -> torch.Tensor:
        """Return the class with the highest rate at each step, with shape ``[batch, time]``."""
        return self._loss().predict(spike, per_step=True)

    def _loss(self) -> losses.SpikeMax:
        """Return a loss whose class scores are the rates in the moving window."""
        return losses.SpikeMax(time_axis=-1, moving_window=self.time_window)

    def extra_repr(self) -> str:
        """Return the hyper-parameters to show in the module's repr."""
        return f"time_window={self.time_window}, mode={self.mode!r}, eps={self.eps}"
