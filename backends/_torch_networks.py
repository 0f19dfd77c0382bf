"""Networks of PyTorch modules: record their spikes, scale their weights, group their parameters."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.module_tracker import ModuleTracker


class Recording:
    """The spikes and gradients of a network, as `record` collects them."""

    def __init__(self, network: Module, modules: Iterable[Module] | None) -> None:
        self._network = network
        self._names = {module: name for name, module in network.named_modules()}
        self._chosen = None if modules is None else {*modules}
        self._outputs: dict[Module, list[Tensor]] = {}  # of each module that was called
        self._firing: set[type] = set()  # classes that turned other inputs into whole numbers
        self._others: set[type] = set()  # classes with other outputs
        if not (self._chosen or set()) <= self._names.keys():
            raise ValueError("modules must be modules of the network, such as [network.lif1]")

    @property
    def spikes(self) -> dict[str, Tensor]:
        """The spikes of each spiking module, in the order of the first calls."""
        return {self._names[each]: self._stacked(each) for each in self._spiking()}

    @property
    def hidden(self) -> dict[str, Tensor]:
        """The spikes without those of the output."""
        spikes, called, output = self.spikes, [*self._outputs], self._spiking()[-1]
        later = called[called.index(output) + 1 :]
        if not any("weight" in each._parameters for each in later):
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

    def _see(self, module: Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Keep the output of a call, as a forward hook."""
        if ModuleTracker().is_bw:  # a checkpoint computes a part of the network again
            return
        outputs, kind = self._outputs.setdefault(module, []), type(module)
        while isinstance(output, list | tuple) and output:
            output = output[0]
        if self._chosen is not None:
            outputs += [output] if module in self._chosen else []
        elif (
            kind.__module__.startswith("torch.") or kind in self._others or not _are_counts(output)
        ):
            self._others.add(kind)
            outputs.clear()
        else:
            outputs.append(output)
            if kind not in self._firing and _fires(module, (*args, *kwargs.values())):
                self._firing.add(kind)

    def _spiking(self) -> list[Module]:
        """Return the spiking modules, without containers, in the order of the first calls."""
        if self._chosen is not None:
            found = [each for each in self._outputs if each in self._chosen]
        else:
            kinds = self._firing - self._others
            inside = {each: self._inside(each) for each in self._outputs if type(each) in kinds}
            inside.pop(self._network, None)
            # A module with a single module inside is a neuron with its surrogate gradient.
            found = [each for each, x in inside.items() if len(x) < 2 or x.isdisjoint(inside)]
            parts = set().union(*(inside[each] for each in found))
            found = [each for each in found if each not in parts]
        if not found:
            raise ValueError(
                "no spiking modules were found: call the network within `with record(network)`, "
                "and pass modules=[...] if its neurons are not modules whose outputs are counts"
            )
        return found

    def _inside(self, module: Module) -> set[Module]:
        """Return the modules inside a module that were called."""
        return {each for each in module.modules() if each in self._outputs} - {module}

    def _stacked(self, module: Module) -> Tensor:
        """Return the spikes of a module, with time first if it was called at every step."""
        outputs = self._outputs[module]
        shapes = {tuple(x.shape) for x in outputs}
        if len(shapes) > 1:
            raise ValueError(
                f"{self._names[module]} returned spikes of different shapes, "
                f"{' and '.join(map(str, sorted(shapes)))}: give each layer a module of its own, "
                "and call the network for one batch only"
            )
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs)


@contextlib.contextmanager
def record(network: Module, modules: Iterable[Module] | None = None) -> Iterator[Recording]:
    """Record the spikes of the layers of a network while it runs.

    Within the context, call the network for one batch, in a single call or in a loop over the time
    steps. The network is not changed: forward hooks collect the spikes, and the hooks are removed
    at the end of the context, even if the network raises an error. Calls during `backward`, which
    are those of checkpoints, are ignored.

    A module is a spiking module if all values of its first output are whole numbers of at least 0,
    and some values of its inputs are not. All other modules of the same class are then spiking
    modules too, because the layers of a silent network receive only zeros. Classes of PyTorch,
    classes with any other output, and containers of spiking modules are left out. Each layer must
    have its own spiking module.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    modules : iterable of torch.nn.Module, optional
        The spiking modules, if the search does not find the right ones, for example because the
        spikes are graded. The first output of each module is recorded, whatever it is.

    Yields
    ------
    Recording
        An object with these attributes, which are computed when they are read:

        - ``spikes``: a dict with the spikes of each spiking module, in the order of the first
          calls, keyed by the names of the modules. If a module is called once, its output is kept
          as it is. If a module is called at every time step, its outputs are stacked along a new
          first axis. The spikes are not detached.
        - ``hidden``: the same dict without the output of the network, which is the last spiking
          module unless a module with a ``weight`` is called after it.
        - ``gradients``: a dict with the current gradient of each parameter that requires one, in
          the order in which the modules are called. Parameters of modules that are not called and
          that have no gradient are left out.

    Raises
    ------
    ValueError
        If `modules` contains a module that is not in the network. When the spikes are read: if no
        spiking module was called, or if a module returned spikes of different shapes.

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
    recording, hooks = Recording(network, modules), contextlib.ExitStack()
    with hooks:
        for module in network.modules():
            hooks.enter_context(module.register_forward_hook(recording._see, with_kwargs=True))
        yield recording


def _fires(module: Module, inputs: tuple[Any, ...]) -> bool:
    """Return whether a module has made its output, which is whole numbers, from other numbers.

    Recurrent neurons may contain all weights, and receive spikes. If the spikes are all 0, other
    modules with weights may return zeros too.
    """
    given = [x for x in inputs if isinstance(x, Tensor)]
    if not all(map(_are_counts, given)):
        return True
    return any(x.any() for x in given) and not all(map(_are_counts, module.parameters()))


def _are_counts(x: Any) -> bool:
    """Return whether all values of a tensor are whole numbers of at least 0, up to rounding.

    A surrogate gradient may be written so that it adds a smooth function to the spikes and
    subtracts it again, which rounds 1 but not 0.
    """
    if not isinstance(x, Tensor) or x.is_complex():
        return False
    if x.dtype == torch.bool:
        return True
    x = x.detach()  # or a checkpoint would keep tensors of this function
    count = x.round()
    return bool(((x - count).abs() <= 0.01 * count).all())
