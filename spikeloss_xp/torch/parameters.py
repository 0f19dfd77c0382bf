"""Tell weights from other parameters of PyTorch modules, and return their learning rates."""

import math
from typing import Any

from torch import Tensor
from torch.nn import Module

from spikeloss_xp import _checks


def parameter_groups(
    network: Module, step: float = 0.03, *, momentum: float | None = None
) -> list[dict[str, Any]]:
    """Return groups of parameters with learning rates proportional to the size of the weights.

    The learning rate of a weight is `step` times the root mean square of its values. With an
    optimizer such as Adam, whose updates are about as large as the learning rate, each update then
    changes a weight by a fraction of about `step`, whatever the width of the layer. A bias has the
    learning rate of the weight in the same module, because its own values may be 0. All other
    parameters, such as the decays and thresholds of neurons, have the learning rate ``step / 10``.
    With larger steps, decays may rise above 1, so that potentials grow instead of decaying.

    By default, the groups are for optimizers whose updates do not depend on the size of the
    gradients, such as `torch.optim.Adam`, `torch.optim.AdamW` and `torch.optim.RMSprop`. For
    `torch.optim.SGD`, call `backward` on the loss of one batch first, and pass the `momentum` of
    the optimizer. Each learning rate is then multiplied by ``1 - momentum`` and divided by the root
    mean square of the gradient of the weight.

    Parameters
    ----------
    network : torch.nn.Module
        The network, with its initial weights.
    step : float, optional
        The size of an update relative to the weights.
    momentum : float, optional
        The momentum of SGD, which may be 0. None, the default, stands for optimizers such as Adam.

    Returns
    -------
    list of dict
        A group for each parameter that requires a gradient, to pass to an optimizer.

    Raises
    ------
    ValueError
        If all values of a weight are 0, or if any value is NaN or infinite. The same holds for
        gradients if a `momentum` is passed.
    """
    step = _checks.positive(step, "step")
    if momentum is not None:
        step *= 1 - _checks.fraction(momentum, "momentum")
    groups: dict[Tensor, dict[str, Any]] = {}
    for name, module in network.named_modules():
        weights = weights_of(module)
        for key, x in module.named_parameters(recurse=False):
            if not x.requires_grad or x in groups:
                continue
            of_bias = next(iter(weights), None) if "bias" in key else None
            weight = key if key in weights else of_bias
            size = 0.1 if weight is None else _size(weights[weight])
            if not 0 < size < math.inf:
                raise ValueError(
                    f"the root mean square of {weight} in {name or 'the network'} is {size}, which "
                    "gives no learning rate: initialise it with finite values other than 0"
                )
            if momentum is not None:
                of_weight = x if weight is None else weights[weight]
                gradient = math.nan if of_weight.grad is None else _size(of_weight.grad)
                if not 0 < gradient < math.inf:
                    raise ValueError(
                        f"the gradient of {weight or key} in {name or 'the network'} has a root "
                        f"mean square of {gradient}, which gives no learning rate for SGD: call "
                        "backward on the loss of a batch first"
                    )
                size /= gradient
            groups[x] = {"params": [x], "lr": step * size}
    return [*groups.values()]


def weights_of(module: Module) -> dict[str, Tensor]:
    """Return the weights of a module itself, without those of its submodules."""
    return {name: x for name, x in module.named_parameters(recurse=False) if _is_weight(name, x)}


def _is_weight(name: str, x: Tensor) -> bool:
    """Return whether a parameter is a weight, which its name or its shape shows.

    Thresholds and time constants with three or more axes, such as ``(neurons, 1, 1)``, have only
    one axis that is longer than 1. PyTorch's parametrizations use names such as ``original0``.
    """
    if x.ndim < 2 or "bias" in name:
        return name == "weight"
    named = "weight" in name or "original" in name
    return named or x.ndim == 2 or sum(n > 1 for n in x.shape) > 1


def _size(x: Tensor) -> float:
    """Return the root mean square of a tensor."""
    return x.float().square().mean().sqrt().item()
