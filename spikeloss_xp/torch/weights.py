"""Find the weights and biases of spiking modules in the autograd graph of one run."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from spikeloss_xp.diagnosis._layers import named_leaves
from spikeloss_xp.torch.recording import Modules, first_output, hooked, record

# The nodes of operations that multiply by a matrix, by a kernel, or by the scale of a norm, such as
# AddmmBackward0 and NativeBatchNormBackward0. The names of autograd functions in Python, such as
# surrogate gradients, do not end with a digit.
MATRIX = re.compile(r"(?i)(m[mv]|conv|linear|embedding|rnn|(batch|layer|group|rms)norm).*d\d")
ADDED = re.compile("(?i)addb?m")  # operations that add their first operand to a product
Ends = Mapping[Any, Module | None]  # the nodes at which a search ends, and their modules


NONE: frozenset[Any] = frozenset()


class Weights(NamedTuple):
    """The parameters and data from which a node of the autograd graph is computed.

    Attributes
    ----------
    sources : frozenset
        The parameters, other tensors and modules from which the node is computed. A module stands
        for the data that it returned. None stands for data without a node.
    all : frozenset of torch.Tensor
        The weights, which are the last parameters that multiplied data on each path.
    recurrent : frozenset of torch.Tensor
        The weights that multiplied earlier spikes of the same layer.
    biases : frozenset of torch.Tensor
        The parameters that were added to products.
    leaks : frozenset of torch.Tensor
        The parameters that multiplied their own results, such as the decay of a membrane.
    """

    sources: frozenset[Any] = NONE
    all: frozenset[Tensor] = NONE
    recurrent: frozenset[Tensor] = NONE
    biases: frozenset[Tensor] = NONE
    leaks: frozenset[Tensor] = NONE

    @property
    def has_data(self) -> bool:
        """Whether any source is not a parameter."""
        return not all(isinstance(x, Parameter) for x in self.sources)


def _united(several: Iterable[Weights]) -> Weights:
    return Weights(*(NONE.union(*each) for each in zip(Weights(), *several, strict=True)))


class _Run:
    """The nodes of the autograd graph that are seen while a network runs.

    Each module passes on a copy of its spikes, so that the graph shows whether anything outside of
    the module depends on the spikes. States inside the module depend on the spikes themselves.

    Attributes
    ----------
    inputs, outputs : dict of torch.nn.Module to list
        The nodes of the tensors that each module received and returned.
    copies : dict
        The nodes of the copies of spikes, in the order of the calls. The values are pairs: the node
        that computed the spikes, and the index of the spikes in the results of this node.
    spikes : dict of torch.nn.Module to set
        For each module, the pairs of its spikes, as in `copies`.
    """

    def __init__(self) -> None:
        self.inputs: dict[Module, list[Any]] = {}
        self.outputs: dict[Module, list[Any]] = {}
        self.without_graph: set[Module] = set()
        self.copies: dict[Any, tuple[Any, int]] = {}
        self.spikes: dict[Module, set[tuple[Any, int]]] = {}

    def see(self, module: Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """Store the nodes of a call, and return its output with a copy of the spikes."""
        self.inputs.setdefault(module, []).extend(_nodes([args, kwargs]))
        self.outputs.setdefault(module, []).extend(_nodes(output))
        spikes = first_output(output)
        if not torch.is_grad_enabled():
            self.without_graph.add(module)
        elif getattr(spikes, "grad_fn", None) is not None:
            copy, source = spikes.clone(), (spikes.grad_fn, spikes.output_nr)
            self.copies[copy.grad_fn] = source
            self.spikes.setdefault(module, set()).add(source)
            return _with_first_output(output, copy)
        return None

    def remove_unused(self, names: dict[Module, str], result: Any) -> None:
        """Remove the last layers if the result of the run does not depend on their spikes."""
        nodes = _ancestors(_nodes(result))
        used = {self.copies[node] for node in nodes & self.copies.keys()}
        while nodes and names:
            *_, (last, name) = names.items()
            if last not in self.spikes or not used.isdisjoint(self.spikes[last]):
                return
            del names[last]
        if not names:
            raise ValueError(
                f"the result of forward does not depend on the spikes of {name}, the only layer: "
                "return its spikes, or pass it as modules=[...]"
            )

    def ends(self, modules: Iterable[Module]) -> Ends:
        """Return the nodes of module outputs and of their copies, mapped to the modules."""
        ends = {node: module for module in modules for node in self.outputs[module]}
        for copy, (node, _) in self.copies.items():  # in the order of the calls
            if node in ends:
                ends[copy] = ends[node]
        return ends


def weights_of_layers(
    network: Module, forward: Callable[[], Any], modules: Modules | None
) -> dict[Module, Weights]:
    """Return the weights of each spiking module whose weights are not all frozen.

    Without `modules`, the last layers are left out if the result of `forward` does not depend on
    their spikes, as with a readout of membrane potentials.
    """
    run = _Run()
    # The autocast cache may hold converted weights without gradients.
    torch.clear_autocast_cache()
    with torch.enable_grad(), record(network, modules) as seen, hooked(network, run.see):
        result = forward()
    names = {network.get_submodule(name): name for name in seen.spikes}
    if modules is None:
        run.remove_unused(names, result)
    ends = run.ends(names)
    layers = {x: _weights_of(x, run.inputs[x], run.outputs[x], ends) for x in names}
    _check(network, names, layers, run.without_graph)
    _check_owners(names, layers)
    return {module: each for module, each in layers.items() if each.all}


def _with_first_output(output: Any, x: Tensor) -> Any:
    """Return the output of a module, with its first output replaced by another tensor."""
    if isinstance(output, Tensor):
        return x
    first, *others = output
    items = [_with_first_output(first, x), *others]
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)


def _ancestors(nodes: list[Any]) -> set[Any]:
    """Return the given nodes of a graph, and all nodes from which they were computed."""
    found, todo = {*nodes}, [*nodes]
    while todo:
        new = {x for x, _ in todo.pop().next_functions if x is not None} - found
        found |= new
        todo += new
    return found


def _nodes(x: Any) -> list[Any]:
    """Return the autograd node of each tensor in nested sequences and mappings."""
    nodes = [getattr(each, "grad_fn", None) for _, each in named_leaves(x, "")]
    return [each for each in nodes if each is not None]


def _weights_of(module: Module, inputs: list[Any], outputs: list[Any], ends: Ends) -> Weights:
    """Return the weights before a module and inside it, given the nodes of its calls."""
    before = _search(module, inputs, ends, inside=False)
    starts = [x for node in outputs for x, _ in node.next_functions]
    inside = _search(module, starts, {**dict.fromkeys(inputs), **ends}, inside=True)
    # If there are no weights inside, all parameters inside belong to single neurons.
    return _united([before, inside]) if inside.all else before


def _check(
    network: Module, names: dict[Module, str], layers: dict[Module, Weights], unseen: set[Module]
) -> None:
    """Raise an error if a layer has no weights.

    Frozen weights are not part of the graph, so a layer without weights is allowed if the network
    has frozen parameters. No such layer is allowed if a module in `unseen`, which ran without
    gradients, has trainable parameters.
    """
    trainable = {x for x in network.parameters() if x.requires_grad}
    may_be_frozen = len(trainable) < len([*network.parameters()])
    may_be_frozen &= all(trainable.isdisjoint(x.parameters(recurse=False)) for x in unseen)
    without = [module for module in names if not layers[module].all]
    if without and not may_be_frozen:
        why = "runs without gradients" if without[0] in unseen else "has no weights"
        raise ValueError(
            f"{names[without[0]]} {why}, or its weights cannot be found: forward must not disable "
            "gradients or detach the input of a layer, a checkpoint needs use_reentrant=False, and "
            "a weight must be a torch.nn.Parameter. To leave this layer as it is, pass the other "
            "spiking modules as modules=[...]"
        )
    if len(without) == len(names):
        raise ValueError("no trainable weights were found: the weights of all layers are frozen")


def _check_owners(names: dict[Module, str], layers: dict[Module, Weights]) -> None:
    """Raise an error if two layers have the same weight."""
    owners: dict[Tensor, str] = {}
    for module, name in names.items():
        for x in layers[module].all:
            if owners.setdefault(x, name) != name:
                raise ValueError(
                    f"{owners[x]} and {name} share a weight, which can only have one factor"
                )


# The graph ------------------------------------------------------------------------------------


def _search(module: Module, starts: list[Any], ends: Ends, *, inside: bool) -> Weights:
    """Return the weights on all paths from the nodes `starts` back to the nodes `ends`."""
    found, todo = {None: Weights()}, [*starts]
    while todo:
        node = todo.pop()
        if node in found:
            continue
        source = ends.get(node, getattr(node, "variable", node))
        operands = [x for x, _ in node.next_functions] if source is node else []
        if missing := [x for x in operands if x not in found]:
            todo += [node, *missing]
        elif source is node:
            found[node] = _of_node(node, operands, found, module, inside=inside)
        else:
            found[node] = Weights(frozenset([source]))
    everything = _united(map(found.__getitem__, starts))
    return Weights(*(each - everything.leaks for each in everything))


def _of_node(
    node: Any, operands: list[Any], found: dict[Any, Weights], module: Module, *, inside: bool
) -> Weights:
    """Return the weights of a node, given the weights of its operands."""
    name = node.name()
    factors, terms = _factors_and_terms(name, operands)
    product = _of_product(node, factors, found, module, inside=inside)
    whole = _united([product, *(found[x] for x in terms)])
    if name == "SubBackward0":
        # A subtracted term may be a threshold. A threshold is not a bias, even if it is a sum.
        return whole._replace(biases=found[terms[0]].biases)
    if not (whole.has_data and (factors or name == "AddBackward0")):
        return whole
    biases = {x for each in terms if not found[each].has_data for x in _leaf(each)}
    return whole._replace(biases=whole.biases | biases)


def _factors_and_terms(name: str, operands: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return the operands that an operation multiplies, and the operands that it adds."""
    if name == "MulBackward0":
        return operands, []
    if not MATRIX.search(name):
        return [], operands
    if "Rnn" in name:
        is_term = [any(x.ndim < 2 for x in _leaf(each)) for each in operands]
    else:
        bias = 0 if ADDED.search(name) else 2
        is_term = [place == bias for place in range(len(operands))]
    factors = [x for x, added in zip(operands, is_term, strict=True) if not added]
    return factors, [*itertools.compress(operands, is_term)]


def _of_product(
    node: Any, factors: list[Any], found: dict[Any, Weights], module: Module, *, inside: bool
) -> Weights:
    """Return the weights of a product of factors.

    A matrix or kernel that multiplies data is a weight. Any other parameter that multiplies data is
    a weight only outside of spiking modules, and only if the data do not depend on the parameter.
    For example, a leak multiplies potentials, which depend on the leak, so a leak is not a weight.
    A weight inside a module is recurrent if it multiplies its own results.
    """
    data = _united(found[x] for x in factors if found[x].has_data)
    parameters = _united(found[x] for x in factors if not found[x].has_data).sources
    unseen = frozenset([None]) if _has_unseen_data(node, factors, parameters) else NONE
    sources = data.sources | parameters | unseen
    repeats = parameters & data.sources
    may_be_weights = MATRIX.search(node.name()) or not (inside or repeats)
    if not (parameters and may_be_weights and Weights(sources).has_data):
        return data._replace(sources=sources, leaks=data.leaks | repeats)
    returns = module in data.sources or (inside and repeats)
    return Weights(sources, parameters, parameters if returns else NONE)


def _has_unseen_data(node: Any, factors: list[Any], parameters: frozenset[Tensor]) -> bool:
    """Return whether a product multiplies parameters by data that have no gradient.

    A factor without a gradient may also be a constant, such as a mask. A constant has at most as
    many entries as the parameter that it multiplies.
    """
    if MATRIX.search(node.name()):
        return None in factors or len(factors) == 1  # an embedding has one factor, its table
    if None not in factors or not parameters:
        return False
    constant = node._saved_self if factors[0] is None else node._saved_other
    return constant is not None and constant.numel() > max(x.numel() for x in parameters)


def _leaf(node: Any) -> set[Tensor]:
    """Return the parameter that a node reshapes or converts, or an empty set for any other node."""
    while node is not None and len(node.next_functions) == 1:
        [(node, _)] = node.next_functions
    return {node.variable} if hasattr(node, "variable") else set()
