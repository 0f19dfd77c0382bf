"""Scale the weights of a PyTorch network, and choose learning rates relative to the weights."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from spikeloss_xp import _checks
from spikeloss_xp.diagnosis import scale_to_rate
from spikeloss_xp.torch.recording import Modules, check_network, record, weights_of
from spikeloss_xp.torch.weights import weights_of_layers

# Recurrent weights are multiplied by RECURRENT before a layer is scaled. Otherwise, the recurrent
# current of many layers would be larger than their input current.
RECURRENT = 0.3


def scale_network(
    network: Module,
    forward: Callable[[], Any],
    rate: float | Sequence[float] = 0.05,
    *,
    modules: Modules | None = None,
    **options: Any,
) -> dict[str, float]:
    """Scale the weights of a network in place, so that its layers fire at a given rate.

    The layers are the spiking modules that `record` finds. The weights of a layer are multiplied by
    a factor, and its biases become 0. Recurrent weights, which multiply earlier spikes of the same
    layer, are also multiplied by 0.3.

    The weights and biases of a layer are found in the autograd graph. A weight is a parameter that
    multiplies the input of a layer, on the way from other neurons or from the input of the network.
    If several parameters multiply the input one after the other, as with a norm after a linear
    layer, only the last of them is scaled. A bias is a parameter that is added to a product of
    inputs and weights. Inside a spiking module, only matrices and kernels are weights. The function
    does not change parameters of single neurons (such as leaks and thresholds), frozen parameters
    and buffers (such as running statistics). The last layer is not scaled if `forward` returns its
    membrane potentials and not its spikes.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    forward : callable
        Runs the network on one batch and returns the input of the loss, for example
        ``lambda: network(inputs)``. `forward` must reset the states of the neurons first, and must
        not disable gradients.
    rate : float or sequence of float, optional
        The firing rate, in spikes per neuron and time step. Pass one number for all layers, or a
        sequence with one number for each layer that is scaled. The first number is for the layer
        that is closest to the input. Layers whose weights are frozen are not scaled.
    modules : torch.nn.Module or sequence of torch.nn.Module, optional
        The spiking modules, as for `record`. All modules that you pass are scaled, and no other
        modules. For example, leave out neurons that encode the input and have no weights.
    **options
        The arguments ``time_axis``, ``lengths`` and ``progress`` of `spikeloss_xp.scale_to_rate`.

    Returns
    -------
    dict of str to float
        The factor of each layer, keyed by the name of its spiking module. Layers whose weights are
        frozen are left out.

    Raises
    ------
    ValueError
        If a layer does not reach its rate (see `spikeloss_xp.scale_to_rate`), has no weights,
        shares a weight with another layer, or runs without gradients (in ``no_grad`` or in a
        checkpoint with ``use_reentrant=True``). After an error, the network is unchanged.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp.torch import parameter_groups, record, scale_network
    >>> class Neurons(torch.nn.Module):
    ...     def forward(self, x):
    ...         soft = torch.sigmoid(x - 1)
    ...         return (x > 1).float() + soft - soft.detach()
    >>> torch.manual_seed(0) and None
    >>> layers = torch.nn.Linear(20, 30), Neurons(), torch.nn.Linear(30, 30), Neurons()
    >>> network, inputs = torch.nn.Sequential(*layers), torch.rand(50, 16, 20).round()
    >>> list(scale_network(network, lambda: network(inputs)))
    ['1', '3']
    >>> optimizer = torch.optim.Adam(parameter_groups(network))
    """

    def scale(factors: list[float]) -> None:
        for found, factor in zip(layers.values(), factors, strict=True):
            for x in found.all:
                x.copy_(factor * (RECURRENT if x in found.recurrent else 1) * initial[x])
            for x in found.biases:
                x.zero_()
        torch.clear_autocast_cache()  # the cache holds converted copies of the previous weights

    def run(factors: list[float]) -> dict[str, Tensor]:
        with record(network, layers) as seen:
            scale(factors)
            forward()
        return seen.spikes

    with restored(check_network(network)) as initial:
        layers = weights_of_layers(network, forward, modules)
        outside = {x for found in layers.values() for x in found.all | found.biases} - {*initial}
        initial.update({x: x.clone() for x in outside})
        factors = scale_to_rate(run, len(layers), rate, **options)
    with torch.no_grad():
        scale(factors)
    names = {module: name for name, module in network.named_modules()}
    return {names[module]: factor for module, factor in zip(layers, factors, strict=True)}


@contextlib.contextmanager
def restored(network: Module) -> Iterator[dict[Tensor, Tensor]]:
    """Return a context that restores the parameters and buffers of a network when it ends.

    The context disables gradients, and yields the initial values.
    """
    initial = {x: x.detach().clone() for x in (*network.parameters(), *network.buffers())}
    with torch.no_grad():
        try:
            yield initial
        finally:
            for x, value in initial.items():
                if not torch.equal(x, value):  # an expanded parameter cannot be written to
                    x.copy_(value)
            torch.clear_autocast_cache()


# Learning rates -------------------------------------------------------------------------------


def parameter_groups(
    network: Module, relative_step: float = 0.03, *, momentum: float | None = None
) -> list[dict[str, Any]]:
    """Return groups of parameters with learning rates proportional to the size of the weights.

    The learning rate of a weight is `relative_step` times the root mean square of its values. With
    Adam, an update is about as large as the learning rate. Each update therefore changes a weight
    by a fraction of about `relative_step`, whatever the width of the layer. A bias has the learning
    rate of the weight in the same module, because all values of the bias may be 0. All other
    parameters, such as the decays and thresholds of neurons, have the learning rate
    ``relative_step / 10``. Larger learning rates could raise a decay above 1, so that potentials
    grow instead of decaying.

    By default, the groups are for optimizers whose updates do not depend on the size of the
    gradients, such as `torch.optim.Adam`, `torch.optim.AdamW` and `torch.optim.RMSprop`. For
    `torch.optim.SGD`, call `backward` on the loss of one batch first, and pass the `momentum` of
    the optimizer. Each learning rate is then multiplied by ``1 - momentum`` and divided by the root
    mean square of the gradient of the weight.

    Parameters
    ----------
    network : torch.nn.Module
        The network, with its initial weights.
    relative_step : float, optional
        The size of an update relative to the weights.
    momentum : float, optional
        The momentum of SGD, which may be 0. By default, the groups are for optimizers such as Adam.

    Returns
    -------
    list of dict
        A group for each parameter that requires a gradient, to pass to an optimizer.

    Raises
    ------
    ValueError
        If all values of a weight are 0, or if any value is NaN or infinite. If `momentum` is
        passed, the gradients of the weights must also be finite and not all 0.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp.torch import parameter_groups
    >>> network = torch.nn.Linear(10, 10)
    >>> _ = torch.nn.init.constant_(network.weight, 0.2)
    >>> [round(group["lr"], 4) for group in parameter_groups(network)]
    [0.006, 0.006]
    >>> optimizer = torch.optim.Adam(parameter_groups(network))
    """
    step = _checks.positive(relative_step, "relative_step")
    if momentum is not None:
        step *= 1 - _checks.fraction(momentum, "momentum")
    rates: dict[Tensor, float] = {}
    for name, module in check_network(network).named_modules():
        for key, x in module.named_parameters(recurse=False):
            if x.requires_grad and x not in rates:
                size, gradient = _sizes(module, key, name or "the network", momentum is not None)
                rates[x] = step * size / gradient
    return [{"params": [x], "lr": rate} for x, rate in rates.items()]


def _sizes(module: Module, key: str, name: str, with_gradient: bool) -> tuple[float, float]:
    """Return the size to which the learning rate is proportional, and the size of the gradient."""
    weights = weights_of(module)
    of_bias = next(iter(weights), key) if "bias" in key else key
    weight = key if key in weights else of_bias
    x, place = module.get_parameter(weight), f"{weight} in {name}"
    size, gradient = 0.1, 1.0
    if weight in weights:
        size = _size(x, place, "initialise it with finite values other than 0")
    if with_gradient:
        remedy = "for SGD, call backward on the loss of a batch first"
        gradient = _size(x.grad, f"the gradient of {place}", remedy)
    return size, gradient


def _size(x: Tensor | None, name: str, remedy: str) -> float:
    """Return the root mean square of a tensor, which must be finite and above 0."""
    size = math.nan if x is None else x.float().square().mean().sqrt().item()
    if not 0 < size < math.inf:
        raise ValueError(
            f"the root mean square of {name} is {size}, which gives no learning rate: {remedy}"
        )
    return size
