"""The spikes and gradients of networks of PyTorch modules are recorded."""

import types

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

import spikeloss_xp as sx
from _support.networks import (
    BATCH,
    INPUTS,
    LABEL,
    STEPS,
    Loop,
    Neurons,
    has_hooks,
    heaviside,
    layers,
    module_of,
    network_of,
    recorded,
    recurrent,
    sequence,
    with_a_named_argument,
)
from spikeloss_xp.torch import diagnose_network, parameter_groups, record, scale_network

LOSS = sx.CrossEntropy(time_axis=0)


def test_spikes_and_gradients_go_into_diagnose():
    network = network_of(20, 30, 25, 3)
    seen, output = recorded(network)
    LOSS(output, LABEL).backward()
    assert list(seen.hidden) == ["1", "3"]
    assert torch.equal(seen.hidden["1"], network[:2](INPUTS))
    assert torch.equal(seen.spikes["5"], output)
    assert list(seen.gradients) == [name for name, _ in network.named_parameters()]
    assert seen.gradients["2.weight"] is network[2].weight.grad
    report = sx.diagnose(LOSS, output, LABEL, hidden=seen.hidden, gradients=seen.gradients)
    assert [layer.name for layer in report.layers] == ["hidden.1", "hidden.3", "output"]
    assert report.layers[0].rate == pytest.approx(seen.hidden["1"].mean().item(), rel=1e-6)
    assert len(report.gradients) == 6


def test_steps_of_a_loop_are_stacked():
    torch.manual_seed(0)
    seen, output = recorded(Loop())
    assert list(seen.spikes) == ["neurons", "output"]
    assert list(seen.hidden) == ["neurons"]
    assert seen.hidden["neurons"].shape == (STEPS, BATCH, 30)
    assert torch.equal(seen.spikes["output"], output)
    assert all(x is None for x in seen.gradients.values())
    LOSS(output, LABEL).backward()
    order = ["first.weight", "first.bias", "again.weight", "last.weight", "last.bias"]
    assert list(seen.gradients) == order
    assert all(x is not None for x in seen.gradients.values())


def test_spikes_keep_their_graph():
    network = network_of(20, 30, 3)
    recorded(network)[0].hidden["1"].sum().backward()
    assert network[0].weight.grad.abs().sum() > 0


class Block(nn.Sequential):
    """A container, whose class is not one of PyTorch's own."""


class Surrogate(nn.Module):
    def forward(self, x):
        return heaviside(x)


class Wrapped(nn.Module):
    """Neurons that call a module to compute the spikes and their surrogate gradient."""

    def __init__(self):
        super().__init__()
        self.surrogate = Surrogate()

    def forward(self, x):
        return self.surrogate(x - 1)


def with_activations(low, high):
    smooth = module_of(lambda self, x: low + (high - low) * torch.sigmoid(x))
    return sequence(nn.Linear(20, 20), smooth, layers(20, 30, 3))


def with_complex_numbers():
    transform = module_of(lambda self, x: torch.complex(x, x))
    back = module_of(lambda self, x: x.abs())
    return sequence(nn.Linear(20, 20), transform, back, layers(20, 30, 3))


def with_neurons_that_receive_spikes_and_currents():
    def run(self, inputs):
        found = [torch.zeros(BATCH, 30)]
        for x in inputs:
            found.append(self.neurons(3 * self.linear(x), found[-1]))
        return torch.stack(found[1:])

    inhibited = module_of(lambda self, current, spikes: heaviside(current - spikes - 1))
    return module_of(run, linear=nn.Linear(20, 30), neurons=inhibited)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (recurrent, ["0", "1", "2"]),
        (lambda: sequence(Block(*layers(20, 30)), Block(*layers(30, 3))), ["0.1", "1.1"]),
        (lambda: sequence(sequence(Block(*layers(20, 30, 3)))), ["0.0.1", "0.0.3"]),
        (lambda: sequence(layers(20, 30, 3, neurons=Wrapped)), ["1", "3"]),
        (lambda: with_activations(0.0, 0.4), ["3", "5"]),
        (lambda: with_activations(0.9, 0.95), ["3", "5"]),
        (with_complex_numbers, ["4", "6"]),
        (with_neurons_that_receive_spikes_and_currents, ["neurons"]),
        (with_a_named_argument, ["neurons"]),
    ],
)
def test_only_spiking_modules_are_recorded(make, names):
    torch.manual_seed(0)
    seen, output = recorded(make())
    assert list(seen.spikes) == names
    assert list(seen.hidden) == names[:-1]
    assert torch.equal(seen.spikes[names[-1]], output)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: network_of(20, 30, 25, 3), ["1", "3", "5"]),
        (Loop, ["neurons", "output"]),
        (recurrent, ["0", "1", "2"]),
    ],
)
def test_silent_network_is_recorded(make, names):
    """The deep layers receive only zeros, as in the first steps of any loop."""
    torch.manual_seed(0)
    network = make()
    for name, x in network.named_parameters():
        x.data *= 0 if "bias" in name else 1e-3
    seen, output = recorded(network)
    assert list(seen.spikes) == names
    assert not any(x.any() for x in seen.spikes.values())
    report = sx.diagnose(LOSS, output, LABEL, hidden=seen.hidden)
    assert report.findings[0].code == "silent-hidden"


def test_modules_between_are_no_spiking_modules():
    class Scaled(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def forward(self, x):
            return self.by * x

    torch.manual_seed(0)
    silent = nn.LayerNorm(20)
    nn.init.zeros_(silent.weight)  # as in residual networks
    between = [nn.Dropout(0.5), Scaled(1.0), Scaled(0.3), nn.Identity()]
    network = sequence(layers(20, 30), between, layers(30, 3))
    network.silent = silent
    with record(network) as seen:
        silent(0.3 * INPUTS)
        network[:-1](0.3 * INPUTS)
    assert list(seen.spikes) == ["1", "7"]


def test_network_itself_is_not_one_of_its_layers():
    parts = {"weight": nn.Parameter(torch.randn(20, 3)), "neurons": Neurons()}
    seen, output = recorded(module_of(lambda self, x: self.neurons(x @ self.weight), **parts))
    assert list(seen.spikes) == ["neurons"]
    assert torch.equal(seen.spikes["neurons"], output)
    assert seen.hidden == {}
    seen, _ = recorded(module_of(lambda self, x: self.neurons(0.7 * x) @ self.weight, **parts))
    assert list(seen.hidden) == ["neurons"]


def test_counts_above_1_and_bools_are_spikes():
    counts = module_of(lambda self, x: x.relu().floor())
    bools = module_of(lambda self, x: x > 1)
    network = sequence(nn.Linear(20, 30), counts, nn.Linear(30, 3), bools)
    network[0].weight.data *= 10
    seen, _ = recorded(network)
    assert list(seen.spikes) == ["1", "3"]
    assert seen.spikes["1"].max() > 1


@pytest.mark.parametrize("neuron", [0, slice(None)])
def test_spikes_that_are_not_finite_are_recorded(neuron):
    network = network_of(20, 30, 25, 3)
    network[2].weight.data[neuron, 0] = float("nan")
    seen, output = recorded(network)
    assert list(seen.hidden) == ["1", "3"]
    assert not torch.isfinite(output).any()
    report = sx.diagnose(LOSS, output, LABEL, hidden=seen.hidden)
    assert report.findings[0].code == "not-finite"


class Fire(torch.autograd.Function):
    """A threshold that NaN never crosses, with a surrogate gradient."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 1).float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / (1 + ctx.saved_tensors[0].abs())


class Silenced(nn.Module):
    def forward(self, x):
        return Fire.apply(x)


@pytest.mark.parametrize("neurons", [Neurons, Silenced])
def test_network_whose_weights_are_all_nan_is_recorded(neurons):
    network = sequence(layers(20, 30, 25, 3, neurons=neurons))
    for x in network.parameters():
        x.data.fill_(float("nan"))
    seen, output = recorded(network)
    assert list(seen.hidden) == ["1", "3"]
    LOSS(output, LABEL).backward()
    report = sx.diagnose(LOSS, output, LABEL, hidden=seen.hidden, gradients=seen.gradients)
    assert report.findings[0].code == "not-finite"


def test_readout_with_weights_is_no_spiking_module():
    seen, _ = recorded(sequence(layers(20, 30, 25), nn.Linear(25, 3)))
    assert list(seen.hidden) == list(seen.spikes) == ["1", "3"]


def test_given_modules_are_recorded_without_a_search():
    network = network_of(20, 30, 25, 3)
    seen, _ = recorded(network, [network[3], network[1]])
    assert list(seen.spikes) == list(seen.hidden) == ["1", "3"]
    seen, output = recorded(network, modules=[network[2], network[5]])
    assert list(seen.hidden) == ["2"]
    assert seen.hidden["2"].min() < 0
    assert torch.equal(seen.spikes["5"], output)
    with pytest.raises(ValueError, match="modules must be modules of the network"):
        recorded(network, [Neurons()])


def test_network_that_is_a_single_module_can_be_recorded():
    neurons = Neurons()
    seen, output = recorded(neurons, [neurons], 0.3 * INPUTS)
    assert seen.hidden == {}
    assert torch.equal(seen.spikes[""], output)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint_is_recorded_once(use_reentrant):
    network = network_of(20, 30, 25, 3)
    inputs = INPUTS.clone().requires_grad_()
    with record(network) as seen:
        hidden = checkpoint(network[:4], inputs, use_reentrant=use_reentrant)
        output = network[4:](hidden)
        LOSS(output, LABEL).backward()
    assert {name: x.shape[:1] for name, x in seen.hidden.items()} == {"1": (12,), "3": (12,)}
    assert seen.gradients["0.weight"].any()


def test_hooks_are_removed_after_an_error_too():
    network = network_of(20, 30, 3)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        recorded(network, inputs=INPUTS[:, :, :3])
    assert not has_hooks(network)
    recorded(network)
    assert not has_hooks(network)


def test_frozen_and_unused_parameters_have_no_gradient():
    network = network_of(20, 30, 3)
    network[0].requires_grad_(False)
    network.unused = nn.Linear(2, 2)
    network.values = nn.ParameterList([torch.ones(2, 2)])  # never called
    used = network[:4]
    with record(network) as seen:
        (LOSS(used(INPUTS), LABEL) + network.values[0].sum()).backward()
    assert list(seen.gradients) == ["2.weight", "2.bias", "values.0"]


def test_networks_without_spiking_modules_raise():
    same = module_of(lambda self, x: x)
    seen, _ = recorded(sequence(same, nn.Linear(20, 3), nn.ReLU()))
    with pytest.raises(ValueError, match="no spiking modules were found"):
        _ = seen.hidden
    with record(network_of(20, 3)) as seen:
        pass
    with pytest.raises(ValueError, match=r"call the network within.* or in `forward`"):
        _ = seen.spikes


def test_module_of_several_layers_raises():
    network = network_of(20, 30, 3)
    network[3] = network[1]
    seen, _ = recorded(network)
    with pytest.raises(ValueError, match=r"1 returned spikes of different shapes.*its own"):
        _ = seen.spikes


def returning(pack):
    """Return a network whose hidden neurons pack their spikes and currents into an output."""

    class Packed(Neurons):
        def forward(self, currents):
            return pack(super().forward(currents), currents)

    def forward(self, x):
        found = self.hidden(self.first(x))
        spikes = found["spikes"] if isinstance(found, dict) else found.spikes
        return self.output(self.last(spikes))

    linear = {"first": nn.Linear(20, 30), "last": nn.Linear(30, 3)}
    return module_of(forward, **linear, hidden=Packed(), output=Neurons())


def test_spikes_are_found_in_mappings_and_objects():
    for pack in (
        lambda spikes, currents: {"currents": currents, "spikes": spikes},
        lambda spikes, currents: types.SimpleNamespace(steps=STEPS, v=currents, spikes=spikes),
        lambda spikes, currents: {"silent": torch.zeros(BATCH), "spikes": spikes},
    ):
        network = returning(pack)
        for modules in (None, network.hidden, [network.hidden]):
            seen, _ = recorded(network, modules)
            names = ["hidden", "output"] if modules is None else ["hidden"]
            assert list(seen.spikes) == names
            assert seen.spikes["hidden"].shape == (STEPS, BATCH, 30)
            assert seen.spikes["hidden"].any()
        assert list(scale_network(network, lambda network=network: network(INPUTS))) == [
            "hidden",
            "output",
        ]


def test_output_in_which_spikes_cannot_be_told_raises_and_names_the_module():
    network = returning(lambda spikes, currents: {"spikes": spikes, "refractory": 1 + spikes})
    message = r"hidden \(Packed\) returned a dict.*spikes, refractory may be.*as modules=\[\.\.\.\]"
    seen, _ = recorded(network)
    with pytest.raises(ValueError, match=message):
        _ = seen.spikes
    with pytest.raises(ValueError, match=message):
        recorded(network, [network.hidden])
    seen, _ = recorded(network, network.output)
    assert list(seen.spikes) == ["output"]
    halves = module_of(lambda self, x: {"currents": 0.5 + x})
    with pytest.raises(ValueError, match=r"returned a dict.*because nothing may be spikes"):
        recorded(halves, halves)


def test_network_that_is_no_module_or_has_no_weights_yet_raises():
    def forward():
        return network(INPUTS)

    for call in (
        lambda network: recorded(network),
        lambda network: scale_network(network, forward),
        lambda network: diagnose_network(network, LOSS, forward, LABEL),
        parameter_groups,
    ):
        network = network_of(20, 3)
        with pytest.raises(TypeError, match=r"a torch.nn.Module; got function: .*scale_to_rate"):
            call(forward)
        network[0] = nn.LazyLinear(3)
        with pytest.raises(ValueError, match=r"^0.weight has no values yet: run the network on"):
            call(network)
        forward()  # the advice
        call(network)
