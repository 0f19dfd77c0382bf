"""Find the weights and biases of spiking modules in the autograd graph of one run."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from spikeloss_xp.diagnosis._layers import named_leaves
from spikeloss_xp.torch.recording import hooked, record

# The nodes of operations that multiply by a matrix, by a kernel, or by the scale of a norm, such as
# AddmmBackward0 and NativeBatchNormBackward0.
MATRIX = re.compile("mm|mv|conv|linear|embedding|rnn|(batch|layer|group|rms)norm", re.IGNORECASE)
SUMS = ("Add", "Stack", "Cat", "CopySlices")
WITHOUT_GRADIENTS = (
    "runs without gradients, so its weights cannot be found: forward must not disable gradients, "
    "and a checkpoint needs use_reentrant=False"
)
WITHOUT_WEIGHTS = (
    "has no weights, because no torch.nn.Parameter multiplies its input: check that the input is "
    "not detached"
)
OTHERS = ". To leave this layer as it is, pass the other spiking modules as modules=[...]"
Ends = Mapping[Any, Module | None]  # the nodes at which a search ends, and their modules


class Weights(NamedTuple):
    """The trainable parameters that determine what a layer of neurons receives.

    Attributes
    ----------
    all : set of torch.Tensor
        The parameters that multiply an input of the layer.
    recurrent : set of torch.Tensor
        The weights that multiply earlier spikes of the same layer.
    biases : set of torch.Tensor
        The parameters that are added to the products.
    """

    all: set[Tensor]
    recurrent: set[Tensor]
    biases: set[Tensor]


def weights_of_layers(
    network: Module, forward: Callable[[], Any], modules: Iterable[Module] | None
) -> dict[Module, Weights]:
    """Return the weights of each spiking module, except for modules whose weights are frozen."""
    inputs: dict[Module, list[Any]] = {}
    outputs: dict[Module, list[Any]] = {}
    without_graph: set[Module] = set()

    def see(module: Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        inputs.setdefault(module, []).extend(_nodes([args, kwargs]))
        outputs.setdefault(module, []).extend(_nodes(output))
        if not torch.is_grad_enabled():
            without_graph.add(module)

    # The cache may hold converted weights without gradients.
    torch.clear_autocast_cache()
    with torch.enable_grad(), record(network, modules) as seen, hooked(network, see):
        forward()
    names = {network.get_submodule(name): name for name in seen.spikes}
    ends = {node: module for module in names for node in outputs[module]}
    layers = {x: _weights_of(x, inputs[x], outputs[x], ends) for x in names}
    _check(network, names, layers, without_graph)
    return {module: each for module, each in layers.items() if each.all}


def _nodes(x: Any) -> list[Any]:
    """Return the nodes of the tensors in nested sequences and mappings, without leaves."""
    nodes = [getattr(each, "grad_fn", None) for _, each in named_leaves(x, "")]
    return [each for each in nodes if each is not None]


def _weights_of(module: Module, inputs: list[Any], outputs: list[Any], ends: Ends) -> Weights:
    """Return the weights before a module and inside it, given the nodes of its calls."""
    before = _search(module, inputs, ends)
    starts = [x for node in outputs for x, _ in node.next_functions]
    inside = _search(module, starts, dict.fromkeys(inputs) | ends, inside=True)
    if not inside.all:  # the parameters inside are those of single neurons
        return before
    return Weights(*(a | b for a, b in zip(before, inside, strict=True)))


def _check(
    network: Module, names: dict[Module, str], layers: dict[Module, Weights], unseen: set[Module]
) -> None:
    """Raise an error if a layer has no weights, or the same weight as another layer.

    A frozen weight is no part of the graph, so layers of networks with frozen parameters may have
    no weights, unless a module among the `unseen` ones, which ran without gradients, is trainable.
    """
    may_be_frozen = not all(x.requires_grad for x in network.parameters())
    trainable = any(x.requires_grad for each in unseen for x in each.parameters(recurse=False))
    owners: dict[Tensor, str] = {}
    for module, name in names.items():
        if not layers[module].all and (not may_be_frozen or (trainable and module in unseen)):
            why = WITHOUT_GRADIENTS if module in unseen else WITHOUT_WEIGHTS
            raise ValueError(f"{name} {why}{OTHERS}")
        for x in layers[module].all:
            if owners.setdefault(x, name) != name:
                raise ValueError(
                    f"{owners[x]} and {name} share a weight, which can only have one factor"
                )
    if not owners:
        raise ValueError("no trainable weights were found: the weights of all layers are frozen")


# The graph ------------------------------------------------------------------------------------


def _search(module: Module, starts: list[Any], ends: Ends, *, inside: bool = False) -> Weights:
    """Follow the graph backwards from some nodes, and return the first weights on each path.

    A parameter that multiplies data is a weight, unless the data already depend on the parameter: a
    leak multiplies its own results. `inside` a module of neurons, only matrices and kernels are
    weights, because other parameters belong to single neurons. There, a matrix that multiplies its
    own results is recurrent.
    """
    found, sources = Weights(set(), set(), set()), _sources(starts, ends)
    leaks: set[Tensor] = set()
    todo, seen = [(node, True) for node in starts], set()
    while todo:
        node, is_sum = todo.pop()
        if (node, is_sum) in seen or node in ends or not _holds_data(sources[node]):
            continue
        seen.add((node, is_sum))
        name, (terms, factors) = node.name(), _operands(node)
        is_matrix = MATRIX.search(name)
        data = [x for x in factors if _holds_data(sources[x])]
        below = {y for x in data for y in sources[x]}
        parameters = {y for x in factors if x not in data for y in sources[x]}
        repeats = not below.isdisjoint(parameters)
        if parameters and (is_matrix if inside else not repeats):
            found.all.update(parameters)
            found.recurrent.update(parameters if repeats or module in below else ())
        else:
            leaks.update(parameters if repeats else ())
            todo += [(x, is_sum and not is_matrix and len(data) == 1) for x in data]
        several = len(terms) - terms.count(None) > 1
        for i, x in enumerate(terms):
            if _holds_data(sources[x]):
                stays = not several or name.startswith(SUMS) or (i == 0 and name.startswith("Sub"))
                todo.append((x, is_sum and stays))
            elif is_matrix or (is_sum and name.startswith("Add")):
                found.biases.update(_leaf(x))
    return Weights(*(each - leaks for each in found))


def _operands(node: Any) -> tuple[list[Any], list[Any]]:
    """Return the operands of a node that it adds, and those that it multiplies with each other.

    An operand is None if it needs no gradient.
    """
    name, operands = node.name(), [x for x, _ in node.next_functions]
    if "Rnn" in name:
        is_term = [getattr(getattr(x, "variable", None), "ndim", 2) < 2 for x in operands]
    elif MATRIX.search(name):
        place = 0 if re.search("addb?m", name, re.IGNORECASE) else 2  # of the bias
        is_term = [i == place for i in range(len(operands))]
    else:
        is_term = [not name.startswith("Mul")] * len(operands)
    both = [*zip(operands, is_term, strict=True)]
    return [x for x, term in both if term], [x for x, term in both if not term]


def _sources(starts: list[Any], ends: Ends) -> dict[Any, frozenset[Any]]:
    """Return what each node on the paths from some nodes is computed from.

    The sources are parameters, modules whose output is at an end of the search, and None, which
    stands for any other data. None itself has no sources.
    """
    found: dict[Any, frozenset[Any]] = {None: frozenset()}
    todo = [*starts]
    while todo:
        node = todo.pop()
        if node in found:
            continue
        before = () if node in ends else (x for x, _ in node.next_functions)
        if missing := [x for x in before if x not in found]:
            todo += [node, *missing]
        else:
            found[node] = _sources_of(node, ends, found)
    return found


def _sources_of(node: Any, ends: Ends, found: dict[Any, frozenset[Any]]) -> frozenset[Any]:
    """Return the sources of a node, given those of its operands."""
    if node in ends:
        return frozenset({ends[node]})
    if hasattr(node, "variable"):
        return frozenset({node.variable if isinstance(node.variable, Parameter) else None})
    operands = [x for x, _ in node.next_functions]
    sources = frozenset(y for x in operands for y in found[x])
    _, factors = _operands(node)
    if MATRIX.search(node.name()):
        has_data = None in factors or len(operands) == 1
    elif None in factors and not _holds_data(sources):
        # A constant, such as a mask of the weights, is at most as large as the parameter.
        other = node._saved_self if operands[0] is None else node._saved_other
        sizes = [x.numel() for x in sources if isinstance(x, Parameter)]
        has_data = other is not None and other.numel() > max(sizes, default=0)
    else:
        has_data = False
    return sources | {None} if has_data else sources


def _leaf(node: Any) -> set[Tensor]:
    """Return the parameter that a node reshapes or converts, or nothing if it computes more."""
    while node is not None and len(node.next_functions) == 1:
        [(node, _)] = node.next_functions
    return {node.variable} if hasattr(node, "variable") else set()


def _holds_data(sources: Iterable[Any]) -> bool:
    """Return whether any source is not a parameter."""
    return not all(isinstance(x, Parameter) for x in sources)
