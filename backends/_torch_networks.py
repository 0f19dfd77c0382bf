"""Networks of PyTorch modules: record their spikes, scale their weights, group their parameters."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.module_tracker import ModuleTracker

from spikeloss_xp import _checks

# Recording ------------------------------------------------------------------------------------


class Recording:
    """The spikes and gradients of a network, as collected by `record`."""

    def __init__(self, network: Module, modules: Iterable[Module] | None) -> None:
        self._network = network
        self._names = {module: name for name, module in network.named_modules()}
        self._chosen = None if modules is None else {*modules}
        self._outputs: dict[Module, list[Tensor]] = {}  # the outputs of each called module
        # Classes whose modules computed counts from inputs or weights that are not counts.
        self._firing: set[type] = set()
        # PyTorch's own classes, and classes with at least one output that does not hold counts.
        self._others: set[type] = set()
        if not (self._chosen or set()) <= self._names.keys():
            raise ValueError("modules must be modules of the network, such as [network.lif1]")

    @property
    def spikes(self) -> dict[str, Tensor]:
        """The spikes of each spiking module, in the order of the first calls."""
        return {self._names[each]: self._stacked(each) for each in self._spiking()}

    @property
    def hidden(self) -> dict[str, Tensor]:
        """The spikes of the hidden layers: all spikes except those of the output."""
        spikes, called, output = self.spikes, [*self._outputs], self._spiking()[-1]
        if not any(map(_weights_of, called[called.index(output) + 1 :])):
            del spikes[self._names[output]]
        return spikes

    @property
    def gradients(self) -> dict[str, Tensor | None]:
        """The current gradients, in the order in which the modules were called."""
        called = [x for each in self._outputs for x in each.parameters(recurse=False)]
        place = {x: i for i, x in enumerate(called)}
        named = self._network.named_parameters()
        used = [each for each in named if each[1] in place or each[1].grad is not None]
        used.sort(key=lambda each: place.get(each[1], len(called)))
        return {name: x.grad for name, x in used if x.requires_grad}

    @torch.no_grad()  # otherwise, a checkpoint would keep tensors of this function
    def _see(self, module: Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Keep the output of a module; this method is a forward hook."""
        if ModuleTracker().is_bw:  # a checkpoint computes a part of the network again
            return
        outputs, kind = self._outputs.setdefault(module, []), type(module)
        output = _first(output)
        if self._chosen is not None:
            outputs += [output] if module in self._chosen else []
        elif (
            kind.__module__.startswith("torch.") or kind in self._others or not _are_counts(output)
        ):
            self._others.add(kind)
        else:
            outputs.append(output)
            is_known = kind in self._firing or not output.isfinite().any()
            if not is_known and _fires(module, (*args, *kwargs.values())):
                self._firing.add(kind)

    def _spiking(self) -> list[Module]:
        """Return the spiking modules, without containers, in the order of the first calls."""
        if self._chosen is not None:
            found = [each for each in self._outputs if each in self._chosen]
        else:
            kinds = self._firing - self._others
            inside = {each: self._inside(each) for each in self._outputs if type(each) in kinds}
            inside.pop(self._network, None)
            # A spiking module that calls a single module is not a container: it is a neuron, and
            # the inner module computes its surrogate gradient.
            found = [each for each, x in inside.items() if len(x) < 2 or x.isdisjoint(inside)]
            parts = set().union(*(inside[each] for each in found))
            found = [each for each in found if each not in parts]
        if not found:
            raise ValueError(
                "no spiking modules were found: call the network within `with record(network)` or "
                "in `forward`, and pass modules=[...] if its spikes are not whole numbers"
            )
        return found

    def _inside(self, module: Module) -> set[Module]:
        """Return the called submodules of a module."""
        return {each for each in module.modules() if each in self._outputs} - {module}

    def _stacked(self, module: Module) -> Tensor:
        """Return the spikes of a module, with a leading time axis if it was called at each step."""
        outputs = self._outputs[module]
        if len({x.shape for x in outputs}) > 1:
            raise ValueError(
                f"{self._names[module]} returned spikes of different shapes: give each layer its "
                "own spiking module, and call the network for one batch only"
            )
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs)


@contextlib.contextmanager
def record(network: Module, modules: Iterable[Module] | None = None) -> Iterator[Recording]:
    """Record the spikes of a network's layers while it runs.

    Within the context, call the network for one batch, in a single call or in a loop over the time
    steps. The network is not changed: forward hooks collect the spikes, and the hooks are removed
    at the end of the context, even if the network raises an error. Calls during `backward` are
    ignored, because they come from checkpoints.

    A module is recognised as a spiking module if its first output holds only counts (whole numbers
    of at least 0), but its inputs or the weights inside it hold other numbers. All modules of the
    same class are then spiking modules, even if they received only zeros, as in a silent network.
    PyTorch's own classes, classes with any output other than counts, and containers of spiking
    modules are left out. Each layer must have its own spiking module.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    modules : sequence of torch.nn.Module, optional
        The spiking modules. Pass them if the search does not find the right modules, for example
        because the spikes are graded. The first output of each of these modules is then recorded,
        whatever its values are.

    Yields
    ------
    Recording
        An object with these attributes, which are computed when they are read:

        - ``spikes``: a dict with the spikes of each spiking module, in the order of the first
          calls, keyed by the names of the modules. If a module is called once, its output is kept
          as it is. If a module is called at every time step, its outputs are stacked along a new
          first axis. The spikes are not detached.
        - ``hidden``: the same dict without the last spiking module, which is the output layer. If a
          module with a ``weight`` is called after the last spiking module, no spiking module is
          left out, because all of them are hidden layers.
        - ``gradients``: a dict with the current gradient of each parameter that requires a
          gradient, in the order in which the modules are called. A parameter is left out if the
          parameter has no gradient and its module is not called.

    Raises
    ------
    ValueError
        If `modules` contains a module that is not in the network. Reading the spikes raises this
        error if no spiking module was called, or if a module returned spikes of different shapes.

    Examples
    --------
    >>> import torch
    >>> import spikeloss_xp as sx
    >>> from spikeloss_xp.backends.torch import record
    >>> class Neurons(torch.nn.Module):
    ...     def forward(self, x):
    ...         soft = torch.sigmoid(x - 1)
    ...         return (x > 1).float() + soft - soft.detach()
    >>> layers = torch.nn.Linear(20, 30), Neurons(), torch.nn.Linear(30, 3), Neurons()
    >>> network, loss = torch.nn.Sequential(*layers), sx.CrossEntropy(time_axis=0)
    >>> inputs, labels = torch.ones(5, 2, 20), torch.tensor([0, 2])
    >>> with record(network) as seen:
    ...     output = network(inputs)
    >>> loss(output, labels).backward()
    >>> list(seen.hidden), list(seen.gradients)
    (['1'], ['0.weight', '0.bias', '2.weight', '2.bias'])
    >>> options = {"hidden": seen.hidden, "gradients": seen.gradients}
    >>> report = sx.diagnose(loss, output, labels, **options)
    """
    recording = Recording(network, modules)
    with _hooked(network, recording._see):
        yield recording


@contextlib.contextmanager
def _hooked(network: Module, hook: Callable[..., None]) -> Iterator[None]:
    """Return a context in which each module of a network has a forward hook."""
    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True))
        yield


def _first(output: Any) -> Any:
    """Return the first output of a module that may also return its state."""
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return output


def _fires(module: Module, inputs: tuple[Any, ...]) -> bool:
    """Return whether any input or weight of a module holds numbers other than counts.

    A recurrent module may contain all weights and receive spikes, so the weights are checked too.
    If all inputs are 0, the weights are not checked, because any module with weights may return
    zeros.
    """
    given = [x for x in inputs if isinstance(x, Tensor)]
    if not all(map(_are_counts, given)):
        return True
    return any(x.any() for x in given) and not all(map(_are_counts, module.parameters()))


def _are_counts(x: Any) -> bool:
    """Return whether all finite values of a tensor are whole numbers of at least 0, up to rounding.

    Some surrogate gradients add a smooth function to the spikes and subtract it again.
    Rounding may change a spike of 1 in this way, but it does not change 0.
    """
    if not isinstance(x, Tensor) or x.is_complex():
        return False
    if x.dtype == torch.bool:
        return True
    count = x.round()
    return not ((x - count).abs() > 0.01 * count).any()


# Scaling --------------------------------------------------------------------------------------


def scale_network(
    network: Module,
    forward: Callable[[], Any],
    rate: float | Sequence[float] = 0.05,
    *,
    modules: Iterable[Module] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Scale the weights of a network in place, so that its layers fire at a given rate.

    The biases become 0, and the weights of each layer are multiplied by a factor. If the weights
    are followed by a norm with weights, the weights of the norm are scaled instead. The layers are
    the spiking modules that `record` finds. The autograd graph of a layer's input shows which
    weights belong to the layer. Weights inside the spiking module, such as recurrent weights, also
    belong to the layer. Frozen parameters, buffers (such as running statistics) and the parameters
    of single neurons (such as time constants) are not changed.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    forward : callable
        Runs the network on one batch, for example ``lambda: network(inputs)``. It must reset the
        states of the neurons first, and must not disable gradients.
    rate : float or sequence of float, optional
        One rate for all layers, or a sequence with the rate of each layer that has weights, from
        input to output.
    modules : sequence of torch.nn.Module, optional
        The spiking modules, as for `record`.
    **options
        The arguments ``time_axis``, ``lengths`` and ``progress`` of `spikeloss_xp.scale_to_rate`.

    Returns
    -------
    dict of str to float
        The factor of each layer, keyed by the name of its spiking module. Spiking modules without
        weights are left out.

    Raises
    ------
    ValueError
        If a layer does not reach its rate (see `spikeloss_xp.scale_to_rate`), if no layer has
        weights, or if several layers share a weight. The network is then left unchanged.

    Examples
    --------
    >>> import torch
    >>> from spikeloss_xp.backends.torch import parameter_groups, record, scale_network
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
    from spikeloss_xp.diagnosis import scale_to_rate  # imported here because it imports backends

    def scale(factors: list[float]) -> None:
        for (weights, biases), factor in zip(layers.values(), factors, strict=True):
            for x in biases:
                x.zero_()
            for x in weights:
                x.copy_(factor * initial[x])
        torch.clear_autocast_cache()  # the cache holds converted copies of the previous weights

    def run(factors: list[float]) -> dict[str, Tensor]:
        with record(network, layers) as seen:
            scale(factors)
            forward()
        return seen.spikes

    with _restored(network) as initial:
        layers = _layers_of(network, forward, modules)
        factors = scale_to_rate(run, len(layers), rate, **options)
    with torch.no_grad():
        scale(factors)
    names = {module: name for name, module in network.named_modules()}
    return {names[module]: factor for module, factor in zip(layers, factors, strict=True)}


@contextlib.contextmanager
def _restored(network: Module) -> Iterator[dict[Tensor, Tensor]]:
    """Return a context that restores the parameters and buffers of a network when it ends.

    Within the context, gradients are disabled. The context yields the initial values.
    """
    initial = {x: x.detach().clone() for x in (*network.parameters(), *network.buffers())}
    with torch.no_grad():
        try:
            yield initial
        finally:
            for x, value in initial.items():
                x.copy_(value)
            torch.clear_autocast_cache()


def _weights_of(module: Module) -> dict[str, Tensor]:
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


def _layers_of(
    network: Module, forward: Callable[[], Any], modules: Iterable[Module] | None
) -> dict[Module, tuple[list[Tensor], list[Tensor]]]:
    """Return the trainable weights and biases of each spiking module that has such weights."""
    inputs: dict[Module, list[Any]] = {}
    outputs: dict[Module, list[Any]] = {}

    def see(module: Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        inputs.setdefault(module, []).append(getattr(given, "grad_fn", None))
        outputs.setdefault(module, []).append(getattr(_first(output), "grad_fn", None))

    # The cache may hold converted weights without gradients.
    torch.clear_autocast_cache()
    with torch.enable_grad(), record(network, modules) as seen, _hooked(network, see):
        forward()
    spiking, ends = seen._spiking(), dict[Any, Module]()
    layers: dict[Module, tuple[list[Tensor], list[Tensor]]] = {}
    for module, nodes in outputs.items():
        if module in spiking or any(x.requires_grad for x in _weights_of(module).values()):
            ends |= dict.fromkeys(nodes, module)
    ends.pop(None, None)  # modules that ran without gradients have no node
    for module in spiking:
        parts = [x for x in _nearest(inputs[module], ends) if x not in spiking]
        parts += module.modules()
        weights = [x for part in parts for x in _weights_of(part).values() if x.requires_grad]
        biases = [part._parameters.get("bias") for part in parts]
        if weights:
            layers[module] = weights, [x for x in biases if x is not None and x.requires_grad]
    everything = [x for weights, _ in layers.values() for x in weights]
    if not everything:
        raise ValueError("no trainable weights were found: forward must not disable gradients")
    if len({*everything}) < len(everything):
        raise ValueError("several layers share a weight, which can only have one factor")
    return layers


def _nearest(nodes: list[Any], ends: dict[Any, Module]) -> set[Module]:
    """Follow an autograd graph backwards from `nodes`, and return the first modules on each path.

    `ends` maps each node at which a path ends to the module of that node.
    """
    todo, seen = [*nodes], {None}
    while todo:
        if (node := todo.pop()) not in seen:
            seen.add(node)
            todo += [] if node in ends else [each for each, _ in node.next_functions]
    return {ends[node] for node in seen & ends.keys()}


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
        weights = _weights_of(module)
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


def _size(x: Tensor) -> float:
    """Return the root mean square of a tensor."""
    return x.float().square().mean().sqrt().item()
