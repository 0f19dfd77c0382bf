"""A loss as a PyTorch module, which keeps the class weights in a buffer."""

from collections.abc import Callable
from typing import Any

import torch

from spikeloss_xp._typing import ArrayLike


class LossModule(torch.nn.Module):
    """A PyTorch module that wraps a loss and keeps the class weights in a buffer.

    A loss object can be called on tensors directly, without this class. As a module, the loss can
    be part of `torch.nn.Sequential`, `torch.nn.ModuleDict` and other modules. The repr of such a
    module includes the loss. As in `torch.nn.CrossEntropyLoss`, the class weights are moved by
    ``.to(device)`` and saved in checkpoints.

    Parameters
    ----------
    loss : callable
        A loss of this library, or any callable with the same arguments.
    weight : array or sequence of float, optional
        Class weights of shape ``[class]``, used in calls that do not pass their own weights.

    Attributes
    ----------
    loss
        The loss object. Use this attribute to call other methods of the loss, for example
        ``module.loss.predict(spikes)``.
    weight : torch.Tensor or None
        The buffer with the class weights.

    Examples
    --------
    >>> import torch
    >>> import spikeloss_xp as sx
    >>> from spikeloss_xp.torch import LossModule
    >>> error = LossModule(sx.SpikeRate(0.5, 0.0, time_axis=-1), weight=[1, 3])
    >>> error(torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]]]), torch.tensor([0]))
    tensor(0.0625)
    >>> torch.nn.ModuleDict({"rate": error}).state_dict()["rate.weight"]
    tensor([1., 3.])
    """

    weight: torch.Tensor | None

    def __init__(self, loss: Callable[..., Any], *, weight: ArrayLike | None = None) -> None:
        super().__init__()
        if isinstance(loss, type) or not callable(loss):
            raise TypeError(
                f"loss must be a loss object, such as SpikeMax(time_axis=0); got {loss!r}"
            )
        if weight is not None and not isinstance(weight, torch.Tensor):
            weight = torch.as_tensor(weight, dtype=torch.get_default_dtype())
        self.loss: Any = loss
        self.register_buffer("weight", weight)

    def forward(self, input: torch.Tensor, *target: Any, **options: Any) -> Any:
        """Return the value of the loss. The arguments are the same as in a call to the loss."""
        return self.loss(input, *target, **self._with_weight(options))

    def sum_and_weight(self, input: torch.Tensor, *target: Any, **options: Any) -> Any:
        """Return the result of the method ``sum_and_weight`` of the loss.

        The result is a tuple of two numbers. The first number is the sum of the loss terms. The
        second number is the weight by which the sum is divided for a mean.
        """
        return self.loss.sum_and_weight(input, *target, **self._with_weight(options))

    def _with_weight(self, options: dict[str, Any]) -> dict[str, Any]:
        given = options.get("weight") is not None or self.weight is None
        return options if given else {**options, "weight": self.weight}

    def extra_repr(self) -> str:
        """Return the repr of the loss, followed by the number of class weights if there are any."""
        shown = repr(self.loss)
        return shown if self.weight is None else f"{shown}, {len(self.weight)} class weights"
