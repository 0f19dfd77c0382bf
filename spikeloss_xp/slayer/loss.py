"""Losses with the interface of `lava.lib.dl.slayer.loss`."""

import sys
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Never

import numpy as np
import torch

from spikeloss_xp import _checks, losses
from spikeloss_xp._arrays import concrete_or_none
from spikeloss_xp._typing import MaxMode, Numerics, Reduction
from spikeloss_xp.filters import exponential_kernel
from spikeloss_xp.slayer import published
from spikeloss_xp.slayer.classifier import FIR, MovingWindow

__all__ = ["SparsityEnforcer", "SpikeMax", "SpikeMoid", "SpikeRate", "SpikeTime"]


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__


OWN = ("spikeloss_xp", "torch")
"""Packages whose stack frames are not the user's code, so that a warning does not point to them."""


@dataclass(frozen=True)
class _SpikeTimeWithTaps(losses.SpikeTime):
    """A `SpikeTime` loss whose kernel is a tensor, which may require a gradient."""

    def __post_init__(self) -> None:
        """Keep the kernel unchanged, instead of converting it to numbers."""


class SpikeTime(torch.nn.Module):
    """The squared difference between filtered spike trains; see `spikeloss_xp.SpikeTime`.

    Parameters
    ----------
    time_constant : float, default 5
        The time constant of the filter, in time steps.
    length : int, default 100
        The length of the filter, in time steps.
    filter_order : int, default 1
        The number of exponentials that are convolved to form the filter.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Whether to return the sum of the loss terms, their mean, their sum divided by the number of
        samples, or all terms as a tensor.

    Attributes
    ----------
    filter : FIR
        The filter that the loss applies to both spike trains. If you change the values of the
        buffer ``filter.filter``, the loss uses the new values.
    reduction
        The value of the constructor argument `reduction`.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> error = slayer.loss.SpikeTime(time_constant=2, length=10)
    >>> error(torch.ones(1, 1, 3), torch.ones(1, 1, 3))
    tensor(0.)
    """

    def __init__(
        self,
        time_constant: float = 5,
        length: int = 100,
        filter_order: int = 1,
        reduction: Reduction = "sum",
    ) -> None:
        super().__init__()
        options: Any = {"length": length, "filter_order": filter_order, "reduction": reduction}
        losses.SpikeTime(time_axis=-1, time_constant=time_constant, **options)  # checks the options
        self.filter: FIR = FIR(exponential_kernel(time_constant, length, filter_order).tolist())
        self.reduction: Reduction = reduction

    def forward(self, input: torch.Tensor, desired: torch.Tensor, **unknown: Never) -> torch.Tensor:
        """Return the loss for two tensors of spikes of shape ``[batch, *space, time]``."""
        _check_none("SpikeTime", unknown)
        taps = self.filter.filter
        loss = _SpikeTimeWithTaps(time_axis=-1, kernel=taps, reduction=self.reduction)
        return loss(input, desired)

    def extra_repr(self) -> str:
        """Return the hyper-parameters to show in the module's repr."""
        return f"reduction={self.reduction!r}"


def _check_none(name: str, unknown: Collection[str]) -> None:
    """Raise an error if a call has arguments that the losses of lava-dl do not accept."""
    if unknown:
        raise TypeError(
            f"a call to slayer.loss.{name} takes only spikes and their target, as in lava-dl; got "
            f"{', '.join(unknown)}: spikeloss_xp.{name} takes where, lengths and weight"
        )


def _room(numerics: Numerics) -> Any:
    """Return the module with the losses for ``numerics="lava"`` or ``numerics="stable"``."""
    rooms = {"lava": published, "stable": losses}
    return rooms[_checks.one_of(rooms)(numerics, "numerics")]


class _RateLoss(torch.nn.Module):
    window: MovingWindow | None
    numerics: Numerics = "lava"

    def __init__(self, loss: losses.ClassLoss) -> None:
        super().__init__()
        self.window = MovingWindow(window) if (window := loss.moving_window) else None
        self.reduction = loss.reduction
        self._name = type(loss).__name__

    @property
    def moving_window(self) -> int | None:
        """The length of the moving window, in time steps."""
        return None if self.window is None else self.window.time_window

    def loss(self) -> losses.ClassLoss:
        """Return the `spikeloss_xp` loss that uses the current attributes of the module."""
        kind = getattr(_room(self.numerics), self._name)
        loss: losses.ClassLoss = kind(
            time_axis=-1, moving_window=self.moving_window, **self._options()
        )
        return loss

    def _options(self) -> dict[str, Any]:
        given, kind = vars(self), getattr(losses, self._name)
        return {name: given[name] for name in kind.__dataclass_fields__ if name in given}

    def forward(self, input: torch.Tensor, label: torch.Tensor, **unknown: Never) -> torch.Tensor:
        """Return the loss for spikes ``[batch, *space, time]`` and their labels."""
        _check_none(self._name, unknown)
        return self.loss()(input, label)

    def extra_repr(self) -> str:
        """Return the hyper-parameters to show in the module's repr."""
        shown = self._options()
        if "numerics" in vars(self):
            shown["numerics"] = self.numerics
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class SpikeRate(_RateLoss):
    """The squared difference between rates and target rates; see `spikeloss_xp.SpikeRate`.

    Parameters
    ----------
    true_rate, false_rate : float
        The target rates of the labelled class and of the other classes, in spikes per time step.
    moving_window : int, optional
        The length of the moving window, in time steps.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Whether to return the sum of the loss terms, their mean, their sum divided by the number of
        samples, or all terms as a tensor.

    Attributes
    ----------
    window : MovingWindow or None
        A classifier that computes rates in the moving window, or None if `moving_window` is None.
    true_rate, false_rate, reduction
        The values of the constructor arguments with these names.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> error = slayer.loss.SpikeRate(true_rate=0.5, false_rate=0.0)
    >>> error(torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]]]), torch.tensor([0]))
    tensor(0.1250)
    """

    def __init__(
        self,
        true_rate: float,
        false_rate: float,
        moving_window: int | None = None,
        reduction: Reduction = "sum",
    ) -> None:
        options: Any = {"moving_window": moving_window, "reduction": reduction}
        super().__init__(published.SpikeRate(true_rate, false_rate, time_axis=-1, **options))
        self.true_rate = true_rate
        self.false_rate = false_rate


class SpikeMax(_RateLoss):
    """The negative log-likelihood of the label; see `spikeloss_xp.SpikeMax`.

    Parameters
    ----------
    moving_window : int, optional
        The length of the moving window, in time steps.
    mode : {"probability", "softmax"}, default "probability"
        Whether the class probabilities are the normalised rates or the softmax of the rates.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Whether to return the sum of the loss terms, their mean, their sum divided by the number of
        samples, or all terms as a tensor.
    numerics : {"lava", "stable"}, default "lava"
        With ``"lava"``, the loss may be infinite if the labelled neuron is silent, as in lava-dl.
        With ``"stable"``, the loss is finite if the labelled neuron is silent.

    Attributes
    ----------
    window : MovingWindow or None
        A classifier that computes rates in the moving window, or None if `moving_window` is None.
    mode, reduction, numerics
        The values of the constructor arguments with these names.

    Warns
    -----
    RuntimeWarning
        If `numerics` is ``"lava"`` and the value of the loss is NaN or infinite. The value is
        checked only in eager mode on a CPU.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> error = slayer.loss.SpikeMax()
    >>> error(torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]]]), torch.tensor([0]))
    tensor(0.2877)
    """

    def __init__(
        self,
        moving_window: int | None = None,
        mode: MaxMode = "probability",
        reduction: Reduction = "sum",
        *,
        numerics: Numerics = "lava",
    ) -> None:
        options = {"moving_window": moving_window, "mode": mode, "reduction": reduction}
        super().__init__(_room(numerics).SpikeMax(time_axis=-1, **options))
        self.mode: MaxMode = mode
        self.numerics: Numerics = numerics

    def forward(self, input: torch.Tensor, label: torch.Tensor, **unknown: Never) -> torch.Tensor:
        """Return the loss for spikes ``[batch, *space, time]`` and their labels."""
        value = super().forward(input, label, **unknown)
        # `known` is None if the value is traced, or if reading it would wait for a device.
        known = concrete_or_none(value) if self.numerics == "lava" else None
        if known is not None and not np.isfinite(known).all():
            warnings.warn(
                "SpikeMax is not finite: with numerics='lava' it is infinite where the labelled "
                "neuron is silent, as in lava-dl, and its gradient cannot be used. Pass "
                "numerics='stable' for a finite value and gradient. If the value is still not "
                "finite, the spikes contain NaN or infinity.",
                RuntimeWarning,
                stacklevel=_level_of_caller(),
            )
        return value


class SpikeMoid(_RateLoss):
    """The binary cross-entropy of the sigmoid of the rates; see `spikeloss_xp.SpikeMoid`.

    Parameters
    ----------
    moving_window : int, optional
        The length of the moving window, in time steps.
    reduction : {"sum", "mean", "batchmean", "none"}, default "sum"
        Whether to return the sum of the loss terms, their mean, their sum divided by the number of
        samples, or all terms as a tensor.
    alpha : float, default 1
        The number by which the difference between the rate and `theta` is divided.
    theta : float, default 0
        The rate at which the probability of a class is 0.5.
    numerics : {"lava", "stable"}, default "lava"
        With ``"lava"``, the gradient may be 0 where the sigmoid saturates, as in lava-dl. With
        ``"stable"``, the gradient is not 0 where the sigmoid saturates.

    Attributes
    ----------
    window : MovingWindow or None
        A classifier that computes rates in the moving window, or None if `moving_window` is None.
    alpha, theta, reduction, numerics
        The values of the constructor arguments with these names.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> error = slayer.loss.SpikeMoid(alpha=0.25, theta=0.5)
    >>> error(torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]]]), torch.tensor([[1.0, 0]]))
    tensor(0.6265)
    """

    def __init__(
        self,
        moving_window: int | None = None,
        reduction: Reduction = "sum",
        alpha: float = 1,
        theta: float = 0,
        *,
        numerics: Numerics = "lava",
    ) -> None:
        options = {"moving_window": moving_window, "reduction": reduction}
        loss = _room(numerics).SpikeMoid(time_axis=-1, alpha=alpha, theta=theta, **options)
        super().__init__(loss)
        self.alpha = alpha
        self.theta = theta
        self.numerics: Numerics = numerics


class SparsityEnforcer:
    """The squared excess of mean event rates over a limit; see `spikeloss_xp.SparsityEnforcer`.

    Parameters
    ----------
    max_rate : float, default 0.01
        The mean event rate above which an array is penalised.
    lam : float, default 1.0
        The factor by which the sum of the collected penalties is multiplied.

    Attributes
    ----------
    loss_list : list of torch.Tensor
        The collected penalties, with one tensor for each call of `append`. The collected penalties
        are not multiplied by `lam`.
    max_rate, lam
        The values of the constructor arguments with these names.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp import slayer
    >>> sparsity = slayer.loss.SparsityEnforcer(max_rate=0.25, lam=2.0)
    >>> sparsity.append(torch.tensor([1.0, 0, 1, 1]))
    >>> sparsity.loss
    tensor(0.5000)
    """

    def __init__(self, max_rate: float = 0.01, lam: float = 1.0) -> None:
        published.SparsityEnforcer(max_rate)  # checks `max_rate`
        _checks.not_negative(lam, "lam")
        self.max_rate = max_rate
        self.lam = lam
        self.loss_list: list[Any] = []

    def append(self, x: torch.Tensor) -> None:
        """Compute the penalty for one tensor of spikes, and append it to `loss_list`."""
        self.loss_list.append(published.SparsityEnforcer(self.max_rate)(x))

    def clear(self) -> None:
        """Remove all penalties from `loss_list`."""
        self.loss_list = []

    @property
    def loss(self) -> Any:
        """`lam` times the sum of `loss_list`, or a zero tensor if the list is empty."""
        return self.lam * sum(self.loss_list, start=torch.zeros(()))


def _level_of_caller() -> int:
    """Return the `stacklevel` that makes the calling function's warning point to the user's code.

    The user's code is in the first stack frame outside the packages that are listed in `OWN`.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in OWN:
        frame, level = frame.f_back, level + 1
    return level
