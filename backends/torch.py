"""A PyTorch module around a loss, for containers, devices and checkpoints of modules."""

from collections.abc import Callable
from typing import Any

import torch

from spikeloss_xp._typing import ArrayLike

__all__ = ["LossModule"]


class LossModule(torch.nn.Module):
    """A loss as a module, with class weights as a buffer.

    You can call a loss object on tensors without it. As a module, the loss can be a part of
    `torch.nn.Sequential`, `torch.nn.ModuleDict` and other modules, and is printed with them. Its
    class weights follow ``.to(device)`` and are saved in checkpoints, as in
    `torch.nn.CrossEntropyLoss`.

    Parameters
    ----------
    loss : callable
        A loss of this library, or any callable with the same arguments.
    weight : array or sequence of float, optional
        The class weights of each call that passes none: ``[class]``.

    Attributes
    ----------
    loss
        The loss object, with its hyper-parameters.
    weight : torch.Tensor or None
        The buffer of class weights.

    Examples
    --------
    >>> import torch
    >>> import spikeloss_xp as sx
    >>> from spikeloss_xp.backends.torch import LossModule
    >>> error = LossModule(sx.SpikeRate(0.5, 0.0, reduction="mean"), weight=[1, 3])
    >>> error(torch.tensor([[[1.0, 0, 1, 1], [0, 0, 1, 0]]]), torch.tensor([0]))
    tensor(0.0625)
    >>> torch.nn.ModuleDict({"rate": error}).state_dict()["rate.weight"]
    tensor([1., 3.])
    """

    weight: torch.Tensor | None

    def __init__(self, loss: Callable[..., Any], *, weight: ArrayLike | None = None) -> None:
        super().__init__()
        if not callable(loss) or isinstance(loss, type):
            raise TypeError(f"loss must be a loss object, such as SpikeMax(); got {loss!r}")
        if weight is not None and not isinstance(weight, torch.Tensor):
            weight = torch.as_tensor(weight, dtype=torch.get_default_dtype())
        self.loss: Any = loss
        self.register_buffer("weight", weight)

    def forward(self, input: torch.Tensor, *target: Any, **options: Any) -> Any:
        """Return the value of the loss; the arguments are those of a call of the loss."""
        return self.loss(input, *target, **self._with_weight(options))

    def sum_and_weight(self, input: torch.Tensor, *target: Any, **options: Any) -> Any:
        """Return the sum of the terms, and the weight that the reduction divides it by."""
        return self.loss.sum_and_weight(input, *target, **self._with_weight(options))

    def predict(self, input: torch.Tensor, **options: Any) -> Any:
        """Return the predicted classes; the arguments are those of the loss."""
        return self.loss.predict(input, **options)

    def scores(self, input: torch.Tensor, **options: Any) -> Any:
        """Return the scores of the classes; the arguments are those of the loss."""
        return self.loss.scores(input, **options)

    def confusion(self, input: torch.Tensor, target: Any, **masks: Any) -> Any:
        """Return how often each class was predicted for each label."""
        return self.loss.confusion(input, target, **masks)

    def accuracy(self, input: torch.Tensor, target: Any, **masks: Any) -> Any:
        """Return the fraction of the labels that are predicted."""
        return self.loss.accuracy(input, target, **masks)

    def _with_weight(self, options: dict[str, Any]) -> dict[str, Any]:
        given = options.get("weight") is not None or self.weight is None
        return options if given else {**options, "weight": self.weight}

    def extra_repr(self) -> str:
        """Return the loss and the number of class weights, for the representation."""
        shown = repr(self.loss)
        return shown if self.weight is None else f"{shown}, weight of {len(self.weight)} classes"
