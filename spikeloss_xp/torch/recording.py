"""Record the spikes of PyTorch modules while they run."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parameter import UninitializedParameter
from torch.utils.module_tracker import ModuleTracker

from spikeloss_xp import _checks
from spikeloss_xp._activity import MODULE, Activity, activity
from spikeloss_xp._input.layout import Layout
from spikeloss_xp.diagnosis._layers import named_leaves
from spikeloss_xp.torch.operations import CONVOLUTIONS, COUNTED, Batch, Operations, sums_of

Modules = Module | Iterable[Module]


class Recording:
    """The spikes and gradients of a network, as collected by `record`."""

    def __init__(self, network: Module, modules: Modules | None, operations: bool = False) -> None:
        self._network = check_network(network)
        self._operations = Operations() if operations else None
        self._names = {module: name for name, module in network.named_modules()}
        # A `Sequential` or a `ModuleList` stands for the modules in it.
        one = isinstance(modules, Module) and not isinstance(modules, Iterable)
        chosen: Any = [modules] if one else modules
        self._chosen = None if chosen is None else {*chosen}
        self._outputs: dict[Module, list[Tensor]] = {}  # the outputs of each called module
        self._runs = 0  # the number of calls of the network
        # Modules that returned several arrays of counts, any of which may be the spikes.
        self._unclear: dict[Module, ValueError] = {}
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
        """The spikes of all layers except the output layer."""
        spikes, called, output = self.spikes, [*self._outputs], self._spiking()[-1]
        later = called[called.index(output) + 1 :]
        # A module that contains the output layer and returns counts has no readout.
        around = [x for x in later if type(x) not in self._others and output in x.modules()]
        if not any(weights_of(x) for x in later if x not in around):
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

    def activity(
        self, *, time_axis: int, lengths: Any = None, where: Any = None, samples: int | None = None
    ) -> Activity:
        """Return the sums of the spiking layers and, with ``operations=True``, of the modules."""
        time_axis = _checks.integer(time_axis, "time_axis")
        samples = _checks.optional_count(samples, "samples")
        calls = {} if self._operations is None else self._operations.calls
        masks = {"lengths": lengths, "where": where}
        rows: list[tuple[str, str]] = []
        sums: list[Tensor] = []
        is_masked = lengths is not None or where is not None
        if calls and samples is not None and not is_masked and not self._found():
            batch = Batch(samples)  # the neurons are functions
        else:
            if samples is None and self._runs > 1:
                self._check_one_batch()
            looped = {self._names[x] for x in self._spiking() if len(self._outputs[x]) > 1}
            possible = {
                # The axes of a layer that was called at each step are not ambiguous.
                name: _readings(name, x, time_axis, samples)[: 1 if name in looped else None]
                for name, x in self.spikes.items()
            }
            spikes = _in_batches(possible, time_axis, samples, is_masked)
            layers = activity(spikes, time_axis=time_axis, **masks)
            batch = Batch.of(next(iter(spikes.values())), time_axis, bool(looped), **masks)
            rows, sums = [*layers.rows], [*layers.sums]
        for module, of_module in calls.items():
            rows.append((MODULE, self._names[module]))
            sums.append(sums_of(of_module, self._names[module], batch))
        together = torch.stack([x.to(sums[0].device) for x in sums])
        return Activity(together, tuple(rows), tuple(self._not_counted()))

    def _check_one_batch(self) -> None:
        """Raise an error if the calls of the network seem to be batches instead of time steps."""
        with_pixels = any(isinstance(each, CONVOLUTIONS) for each in self._names)
        for each in self._spiking():
            outputs = self._outputs[each]
            if len(outputs) > self._runs or (outputs[0].ndim > 2 and not with_pixels):
                raise ValueError(
                    f"the network was called {self._runs} times, and {self._names[each]} "
                    f"{len(outputs)} times: record one batch at a time, and add up the activities. "
                    "If each call was one time step, pass samples=, the number of samples"
                )

    def _not_counted(self) -> Iterator[str]:
        """Yield descriptions of modules and functions whose operations are not counted."""
        if self._operations is None:
            return
        parts = {part for each in self._operations.calls for part in each.modules()}
        for module, name in self._names.items():
            if module not in parts and (isinstance(module, COUNTED) or weights_of(module)):
                uncalled = "" if module in self._outputs else ", not called"
                yield f"{name} ({type(module).__name__}{uncalled})"
        yield "functions outside of modules with weights, such as torch.matmul"

    @torch.no_grad()  # otherwise, a checkpoint would keep tensors of this function
    def _see(self, module: Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Store the output of a module. This method is a forward hook."""
        if ModuleTracker().is_bw:  # a checkpoint computes a part of the network again
            return
        self._runs += module is self._network
        if self._operations is not None:
            self._operations.see(module, args, kwargs)
        outputs, kind = self._outputs.setdefault(module, []), type(module)
        output = self._spikes_in(module, output)
        if kind.__module__.startswith("torch.") or not _are_counts(output):
            self._others.add(kind)
        if self._chosen is not None:
            outputs += [output] if module in self._chosen else []
        elif kind not in self._others:
            outputs.append(output)
            is_known = kind in self._firing or not _any_finite([output])
            if not is_known and _fires(module, [args, kwargs]):
                self._firing.add(kind)

    def _spikes_in(self, module: Module, output: Any) -> Any:
        """Return the tensor in a module's output that may hold spikes.

        From a tuple, return the first tensor. From a mapping or an object, return the tensor of
        counts. If no tensor or several tensors may hold spikes, return the output itself.
        """
        output = first_output(output)
        if isinstance(output, Tensor):
            return output
        container = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
        counts = {key: x for key, x in container.items() if _are_counts(x)}
        fired = {key: x for key, x in counts.items() if x.any()} or counts
        if len(fired) == 1 or (fired and fired is counts):
            return next(iter(fired.values()))
        name = f"{self._names[module]} ({type(module).__name__})"
        error = ValueError(
            f"{name} returned a {type(output).__name__}, and it is not clear which part holds the "
            f"spikes, because {', '.join(map(str, fired)) or 'nothing'} may be spikes: let it "
            "return the spikes first, in a tuple, or pass the other spiking modules as "
            "modules=[...]"
        )
        if self._chosen is not None and module in self._chosen:
            raise error
        if fired:
            self._unclear[module] = error
        return output

    def _spiking(self) -> list[Module]:
        """Return the spiking modules, without containers, in the order of the first calls."""
        found = self._found()
        if not found:
            raise ValueError(
                "no spiking modules were found: call the network within `with record(network)` or "
                "in `forward`, and pass modules=[...] if its spikes are not whole numbers. If the "
                "neurons are functions, return their spikes from the network, and scale the "
                "weights with scale_to_rate. Operations can be counted without them: pass samples= "
                "to activity, without lengths and where"
            )
        return found

    def _found(self) -> list[Module]:
        """Return the spiking modules in the order of the first calls, or an empty list."""
        chosen = self._search() if self._chosen is None else self._chosen
        found = [each for each in self._outputs if each in chosen]
        for module, error in self._unclear.items() if self._chosen is None else ():
            if module is not self._network and self._inside(module).isdisjoint(found):
                raise error
        return found

    def _search(self) -> set[Module]:
        """Return the modules that returned spikes, without their containers and their parts."""
        # If all weights are NaN, modules that return only NaN may be spiking modules.
        nan = {type(each) for each, x in self._outputs.items() if x and not _any_finite(x)}
        kinds = (self._firing or nan) - self._others
        inside = {each: self._inside(each) for each in self._outputs if type(each) in kinds}
        inside.pop(self._network, None)
        # A spiking module that calls only one module is a neuron and not a container, because the
        # inner module computes its surrogate gradient.
        found = {each for each, x in inside.items() if len(x) < 2 or x.isdisjoint(inside)}
        return found.difference(*(inside[each] for each in found))

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
        if len({*map(id, outputs)}) < len(outputs):
            raise ValueError(
                f"{self._names[module]} returned the same tensor in several calls, so only its "
                "last spikes are known: let it return a new tensor, such as spikes.clone()"
            )
        return outputs[0] if len(outputs) == 1 else torch.stack(outputs)


def _in_batches(
    possible: dict[str, list[Tensor]], time_axis: int, samples: int | None, is_masked: bool
) -> dict[str, Tensor]:
    """Choose one of the possible readings of each layer's axes."""
    # If the shape of a layer is ambiguous, the number of time steps is taken from the other layers.
    steps = {x[0].shape[time_axis] for x in possible.values() if len(x) == 1}
    found = {}
    for name, readings in possible.items():
        likely = [x for x in readings if x.shape[time_axis] in steps] or readings
        if len(likely) > 1 and is_masked:
            shape = tuple(readings[0].shape)
            raise ValueError(
                f"{name} returned spikes of shape {shape}, and samples={samples}: it is not clear "
                "whether samples and steps share the first axis. If they do not, leave out "
                "samples. If they do, use a batch with a different number of samples"
            )
        found[name] = likely[0]
    layouts = {name: Layout.of(tuple(x.shape), time_axis, name) for name, x in found.items()}
    pairs = {name: (each.batch, each.steps) for name, each in layouts.items()}
    if samples is None and len({*pairs.values()}) > 1:
        raise ValueError(
            f"the layers have different numbers of samples and steps, {pairs}: pass samples=, the "
            "number of samples in the batch"
        )
    return found


def _readings(name: str, x: Tensor, time_axis: int, samples: int | None) -> list[Tensor]:
    """Return the spikes of a layer with separate batch and time axes, in each possible way."""
    batch = x.shape[1 if time_axis % x.ndim == 0 else 0] if x.ndim > 2 else None
    found = [x] if batch is not None and samples in (None, batch) else []
    if samples is not None and time_axis in (0, 1) and len(x) % samples == 0:
        # A single time step is assumed only if nothing else is possible.
        is_likely = samples > 1 and (len(x) > samples or time_axis == 0)
        if is_likely or not found:
            sizes = (-1, samples) if time_axis == 0 else (samples, -1)
            found.append(x.reshape(*sizes, *x.shape[1:]))
    if not found:
        raise ValueError(
            f"the samples of {name}, which returned spikes of shape {tuple(x.shape)}, are not "
            "known: if samples and steps share the first axis, pass samples=, the number of "
            "samples, and time_axis=0 if the samples of a step are neighbours or time_axis=1 if "
            "the steps of a sample are"
        )
    return found


@contextlib.contextmanager
def record(
    network: Module, modules: Modules | None = None, *, operations: bool = False
) -> Iterator[Recording]:
    """Record the spikes of a network's layers while it runs.

    Within the context, call the network for one batch, in a single call or in a loop over the time
    steps. The network is not changed. Forward hooks collect the spikes, and are removed at the end
    of the context, even if the network raises an error. Calls during `backward` are ignored,
    because they come from activation checkpointing.

    A class is recognised as spiking if one of its modules returns only counts (whole numbers of at
    least 0), although its inputs or weights hold other numbers. All modules of such a class are
    spiking modules, even if they received only zeros. PyTorch's own classes, classes with any
    output other than counts, and containers of spiking modules are left out. Each layer must have
    its own spiking module. A spiking module may return its spikes alone, as the first entry of a
    tuple, or as the only tensor of counts in a dict or in another object.

    Parameters
    ----------
    network : torch.nn.Module
        The network.
    modules : torch.nn.Module or sequence of torch.nn.Module, optional
        The spiking modules. Pass the modules if the search does not find them, for example because
        the spikes are graded. The first output of each module that you pass is recorded, whatever
        its values are.
    operations : bool, optional
        Whether to count the operations of the modules with weights, for ``activity``. The
        operations are counted while the network runs, and no inputs are kept.

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
          left out, because all of them are hidden layers. This rule ignores a module that contains
          the last spiking module and returns counts.
        - ``gradients``: a dict with the current gradient of each parameter that requires a
          gradient, in the order in which the modules are called. A parameter is left out if it has
          no gradient and its module is not called.

        Its method ``activity(*, time_axis, lengths=None, where=None, samples=None)`` returns a
        `spikeloss_xp.Activity` with the sums of the spiking modules. With ``operations=True``, the
        `Activity` also has the sums of each `Linear`, `Conv1d` to `Conv3d` and `ConvTranspose1d` to
        `ConvTranspose3d`. The arguments are the same as for `spikeloss_xp.activity`; `where` must
        not have a neuron axis if operations are counted. Pass the number of `samples` if the inputs
        of the modules have a single axis for samples and steps. All weights count as connections,
        including weights of 0. Biases do not count as connections.

    Raises
    ------
    ValueError
        If `modules` contains a module that is not in the network, or a module whose output holds
        no spikes. Reading the spikes raises this error in three more cases: no spiking module was
        called, a module returned spikes of different shapes, or it is not clear which of several
        tensors holds the spikes.

    Examples
    --------
    >>> import torch
    >>> import spikeloss_xp as sx
    >>> from spikeloss_xp.torch import record
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
    >>> with record(network, operations=True) as seen:
    ...     output = network(inputs)
    >>> seen.activity(time_axis=0).modules["0"]
    ModuleOperations(accumulates=6000, multiply_accumulates=0, dense=6000, samples=2)
    """
    recording = Recording(network, modules, _checks.flag(operations, "operations"))
    with hooked(network, recording._see):
        yield recording
    if recording._operations is not None:
        recording._operations.finish()


@contextlib.contextmanager
def hooked(network: Module, hook: Callable[..., None]) -> Iterator[None]:
    """Return a context in which each module of a network has a forward hook."""
    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True))
        yield


def check_network(network: Any) -> Module:
    """Return the network, or raise an error if it is not an initialised PyTorch module."""
    if not isinstance(network, Module):
        raise TypeError(
            f"network must be a torch.nn.Module; got {type(network).__qualname__}: if your network "
            "is a function, use spikeloss_xp.scale_to_rate and spikeloss_xp.diagnose"
        )
    for name, x in network.named_parameters():
        if isinstance(x, UninitializedParameter):
            raise ValueError(f"{name} has no values yet: run the network on one batch first")
    return network


def first_output(output: Any) -> Any:
    """Return the first output of a module that may also return its state."""
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return output


def _any_finite(outputs: list[Tensor]) -> bool:
    return any(x.isfinite().any() for x in outputs)


def _fires(module: Module, inputs: list[Any]) -> bool:
    """Return whether a module has an input or a weight that is not a tensor of spike counts.

    The weights are checked because a recurrent module may receive only spikes, and multiply them by
    its own weights. If all inputs are 0, the weights are not checked, because any module with
    weights may return zeros.
    """
    given = [x for _, x in named_leaves(inputs, "") if isinstance(x, Tensor)]
    if not all(_are_counts(x) and x.isfinite().all() for x in given):
        return True
    return any(x.any() for x in given) and not all(map(_are_counts, module.parameters()))


def _are_counts(x: Any) -> bool:
    """Return whether all finite values of a tensor are whole numbers of at least 0, up to rounding.

    Some surrogate gradients return spikes such as 0.9999999, but entries without a spike stay 0.
    """
    if not isinstance(x, Tensor) or x.is_complex():
        return False
    if x.dtype == torch.bool:
        return True
    count = x.round()
    return not ((x - count).abs() > 0.01 * count).any()


def weights_of(module: Module) -> dict[str, Tensor]:
    """Return the weights of a module itself, without the weights of its submodules."""
    return {name: x for name, x in module.named_parameters(recurse=False) if _is_weight(name, x)}


def _is_weight(name: str, x: Tensor) -> bool:
    """Return whether the name or the shape of a parameter shows that it is a weight.

    Thresholds and time constants may have shapes such as ``(neurons, 1, 1)`` and ``(1, neurons)``,
    so that they broadcast. PyTorch's parametrizations use names such as ``original0``.
    """
    if x.ndim < 2 or "bias" in name:
        return name == "weight"
    named = "weight" in name or "original" in name
    return named or sum(n > 1 for n in x.shape) > 1 or (x.ndim == 2 and len(x) > 1)
