"""Networks of PyTorch modules: their spikes are recorded, and their weights scaled to a rate."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint

import spikeloss_xp as sx
from spikeloss_xp.torch import parameter_groups, record, scale_network

LOSS = sx.CrossEntropy(time_axis=0)
STEPS, BATCH = 12, 8
RANDOM = torch.Generator().manual_seed(0)
INPUTS = (torch.rand((STEPS, BATCH, 20), generator=RANDOM) < 0.3).float()
LABEL = torch.arange(BATCH) % 3


def heaviside(x):
    soft = torch.sigmoid(2 * x)
    return (x > 0).float() - soft.detach() + soft


class Neurons(torch.nn.Module):
    """Neurons that process all steps in one call."""

    def forward(self, currents):
        membrane, spikes = torch.zeros_like(currents[0]), []
        for current in currents:
            membrane = 0.9 * membrane + current
            spikes.append(heaviside(membrane - 1))
            membrane = membrane - spikes[-1].detach()
        return torch.stack(spikes)


class Cell(torch.nn.Module):
    """Neurons that process one step, and return their state too."""

    def forward(self, current, membrane=0.0):
        membrane = 0.9 * membrane + current
        spikes = heaviside(membrane - 1)
        return spikes, membrane - spikes.detach()


class Loop(torch.nn.Module):
    """A network that runs step by step, with recurrent hidden neurons."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(30, 3)  # in another order than that of the calls
        self.first, self.again = torch.nn.Linear(20, 30), torch.nn.Linear(30, 30, bias=False)
        self.output, self.neurons = Cell(), Cell()

    def forward(self, inputs):
        spikes, membrane, below, found = torch.zeros(BATCH, 30), 0.0, 0.0, []
        for x in inputs:
            spikes, membrane = self.neurons(self.first(x) + self.again(spikes), membrane=membrane)
            output, below = self.output(self.last(spikes), below)
            found.append(output)
        return torch.stack(found)


def layers(*sizes, neurons=Neurons):
    pairs = itertools.pairwise(sizes)
    return [x for pair in pairs for x in (torch.nn.Linear(*pair), neurons())]


def network_of(*sizes, gain=3.0):
    torch.manual_seed(0)
    network = torch.nn.Sequential(*layers(*sizes))
    for module in network[::2]:
        module.weight.data *= gain
    return network


def test_spikes_and_gradients_go_into_diagnose():
    network = network_of(20, 30, 25, 3)
    with record(network) as seen:
        output = network(INPUTS)
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
    network = Loop()
    with record(network) as seen:
        output = network(INPUTS)
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
    with record(network) as seen:
        network(INPUTS)
    seen.hidden["1"].sum().backward()
    assert network[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "names"),
    [(lambda: network_of(20, 30, 25, 3), ["1", "3", "5"]), (Loop, ["neurons", "output"])],
)
def test_silent_network_is_recorded(make, names):
    """The deep layers receive only zeros, as in the first steps of any loop."""
    network = make()
    for name, x in network.named_parameters():
        x.data *= 0 if "bias" in name else 1e-3
    with record(network) as seen:
        output = network(INPUTS)
    assert list(seen.spikes) == names
    assert not any(x.any() for x in seen.spikes.values())
    report = sx.diagnose(LOSS, output, LABEL, hidden=seen.hidden)
    assert report.findings[0].code == "silent-hidden"


def test_neurons_that_contain_their_weights_are_found():
    class Recurrent(torch.nn.Module):
        def __init__(self, inputs, neurons):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(neurons, inputs))
            self.recurrent = torch.nn.Parameter(torch.randn(neurons, neurons))

        def forward(self, x):
            spikes, found = torch.zeros(BATCH, len(self.weight)), []
            for step in x:
                current = step @ self.weight.T + spikes @ self.recurrent.T
                spikes = heaviside(current - 1)
                found.append(spikes)
            return torch.stack(found)

    torch.manual_seed(0)
    network = torch.nn.Sequential(Recurrent(20, 30), Recurrent(30, 25), Recurrent(25, 3))
    for scale in (1.0, 1e-3):  # the second network is silent
        for x in network.parameters():
            x.data *= scale
        with record(network) as seen:
            output = network(INPUTS)
        assert list(seen.hidden) == ["0", "1"]
    assert not output.any()


def test_containers_are_left_out():
    class Block(torch.nn.Module):
        def __init__(self, *sizes):
            super().__init__()
            self.linear, self.neurons = layers(*sizes)

        def forward(self, x):
            return self.neurons(self.linear(x))

    network = torch.nn.Sequential(Block(20, 30), Block(30, 3))
    with record(network) as seen:
        network(INPUTS)
    assert list(seen.spikes) == ["0.neurons", "1.neurons"]
    with record(torch.nn.Sequential(network)) as seen:
        network(INPUTS)
    assert list(seen.spikes) == ["0.0.neurons", "0.1.neurons"]


def test_module_for_the_surrogate_is_a_part_of_its_neurons():
    class Surrogate(torch.nn.Module):
        def forward(self, x):
            return heaviside(x)

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.surrogate = Surrogate()

        def forward(self, x):
            return self.surrogate(x - 1)

    network = torch.nn.Sequential(*layers(20, 30, 3, neurons=Wrapped))
    with record(network) as seen:
        network(INPUTS)
    assert list(seen.spikes) == ["1", "3"]


class Scaled(torch.nn.Module):
    def __init__(self, by):
        super().__init__()
        self.by = by

    def forward(self, x):
        return self.by * x


def test_modules_between_are_no_spiking_modules():
    torch.manual_seed(0)
    silent = torch.nn.LayerNorm(20)
    torch.nn.init.zeros_(silent.weight)  # as in residual networks
    first, last = layers(20, 30), layers(30, 3)
    between = [torch.nn.Dropout(0.5), Scaled(1.0), Scaled(0.3), torch.nn.Identity()]
    network = torch.nn.Sequential(*first, *between, *last)
    network.silent = silent
    with record(network) as seen:
        silent(0.3 * INPUTS)
        network[:-1](0.3 * INPUTS)
    assert list(seen.spikes) == ["1", "7"]


def test_small_activations_are_no_spikes():
    class Smooth(torch.nn.Module):
        def forward(self, x):
            return 0.4 * torch.sigmoid(x)

    network = torch.nn.Sequential(torch.nn.Linear(20, 20), Smooth(), *layers(20, 30, 3))
    with record(network) as seen:
        network(INPUTS)
    assert list(seen.spikes) == ["3", "5"]


def test_neurons_that_receive_spikes_and_currents_are_found():
    class Inhibited(torch.nn.Module):
        """Neurons that receive their own spikes beside the currents."""

        def forward(self, current, spikes):
            return heaviside(current - spikes - 1)

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.neurons = torch.nn.Linear(20, 30), Inhibited()

        def forward(self, inputs):
            found = [torch.zeros(BATCH, 30)]
            for x in inputs:
                found.append(self.neurons(3 * self.linear(x), found[-1]))
            return torch.stack(found[1:])

    torch.manual_seed(0)
    network = Network()
    with record(network) as seen:
        network(INPUTS)
    assert list(seen.spikes) == ["neurons"]


def test_network_itself_is_not_one_of_its_layers():
    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.neurons = torch.nn.Parameter(torch.randn(20, 3)), Neurons()

        def forward(self, x):
            return self.neurons(x @ self.weight)

    network = Whole()
    with record(network) as seen:
        output = network(INPUTS)
    assert list(seen.spikes) == ["neurons"]
    assert torch.equal(seen.spikes["neurons"], output)


def test_counts_above_1_and_bools_are_spikes():
    class Several(torch.nn.Module):
        def forward(self, x):
            return x.relu().floor()

    class Bools(torch.nn.Module):
        def forward(self, x):
            return x > 1

    network = torch.nn.Sequential(
        torch.nn.Linear(20, 30), Several(), torch.nn.Linear(30, 3), Bools()
    )
    network[0].weight.data *= 10
    with record(network) as seen:
        network(INPUTS)
    assert list(seen.spikes) == ["1", "3"]
    assert seen.spikes["1"].max() > 1


@pytest.mark.parametrize("neuron", [0, slice(None)])
def test_spikes_that_are_not_finite_are_recorded(neuron):
    network = network_of(20, 30, 25, 3)
    network[2].weight.data[neuron, 0] = float("nan")
    with record(network) as seen:
        output = network(INPUTS)
    assert list(seen.hidden) == ["1", "3"]
    assert not torch.isfinite(output).any()
    report = sx.diagnose(LOSS, output, LABEL, hidden=seen.hidden)
    assert report.findings[0].code == "not-finite"


def test_readout_with_weights_is_no_spiking_module():
    network = torch.nn.Sequential(*layers(20, 30, 25), torch.nn.Linear(25, 3))
    with record(network) as seen:
        network(INPUTS)
    assert list(seen.hidden) == list(seen.spikes) == ["1", "3"]


def test_given_modules_are_recorded_without_a_search():
    network = network_of(20, 30, 25, 3)
    with record(network, [network[3], network[1]]) as seen:
        network(INPUTS)
    assert list(seen.spikes) == list(seen.hidden) == ["1", "3"]
    with record(network, modules=[network[2], network[5]]) as seen:
        output = network(INPUTS)
    assert list(seen.hidden) == ["2"]
    assert seen.hidden["2"].min() < 0
    assert torch.equal(seen.spikes["5"], output)
    with (
        pytest.raises(ValueError, match="modules must be modules of the network"),
        record(network, [Neurons()]),
    ):
        pass


def test_network_that_is_a_single_module_can_be_recorded():
    neurons = Neurons()
    with record(neurons, [neurons]) as seen:
        output = neurons(0.3 * INPUTS)
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
    with pytest.raises(RuntimeError, match="mat1 and mat2"), record(network):
        network(INPUTS[:, :, :3])
    with record(network):
        network(INPUTS)
    assert not any(each._forward_hooks for each in network.modules())


def test_frozen_and_unused_parameters_have_no_gradient():
    network = network_of(20, 30, 3)
    network[0].requires_grad_(False)
    network.unused = torch.nn.Linear(2, 2)
    network.values = torch.nn.ParameterList([torch.ones(2, 2)])  # never called
    used = network[:4]
    with record(network) as seen:
        (LOSS(used(INPUTS), LABEL) + network.values[0].sum()).backward()
    assert list(seen.gradients) == ["2.weight", "2.bias", "values.0"]


def test_networks_without_spiking_modules_raise():
    network = torch.nn.Sequential(torch.nn.Linear(20, 3), torch.nn.ReLU())
    with record(network) as seen:
        network(INPUTS)
    with pytest.raises(ValueError, match="no spiking modules were found"):
        _ = seen.hidden
    with record(network_of(20, 3)) as seen:
        pass
    with pytest.raises(ValueError, match=r"call the network within.* or in `forward`"):
        _ = seen.spikes


def test_module_of_several_layers_raises():
    network = network_of(20, 30, 3)
    network[3] = network[1]
    with record(network) as seen:
        network(INPUTS)
    with pytest.raises(ValueError, match=r"1 returned spikes of different shapes.*its own"):
        _ = seen.spikes


# Scaling --------------------------------------------------------------------------------------


def rates_of(network, inputs=INPUTS):
    with torch.no_grad(), record(network) as seen:
        network(inputs)
    return {name: x.mean().item() for name, x in seen.spikes.items()}


def assert_close(rates, goal=0.05):
    for name, rate in rates.items():
        assert goal / 1.3 <= rate <= goal * 1.3, (name, rate)


def state_of(network):
    return {name: x.clone() for name, x in network.state_dict().items()}


def assert_equal(state, other, names=None):
    assert state.keys() == other.keys()
    for name in state if names is None else names:
        assert torch.equal(state[name], other[name]), name


@pytest.mark.parametrize("gain", [0.01, 1.0, 30.0])
def test_scaled_network_fires_at_the_rate(gain):
    network = network_of(20, 30, 25, 3, gain=gain)
    before = state_of(network)
    factors = scale_network(network, lambda: network(INPUTS))
    assert list(factors) == ["1", "3", "5"]
    assert_close(rates_of(network))
    for name, factor in zip("024", factors.values(), strict=True):
        layer = network[int(name)]
        assert torch.equal(layer.weight, factor * before[f"{name}.weight"])
        assert not layer.bias.any()
        assert layer.weight.requires_grad
        assert layer.weight.grad is None
    assert not any(module._forward_hooks for module in network.modules())


def test_each_layer_is_scaled_to_a_rate_of_its_own():
    network, sentences = network_of(20, 30, 3), []
    scale_network(network, lambda: network(INPUTS), (0.1, 0.3), progress=sentences.append)
    first, last = rates_of(network).values()
    assert_close({"1": first}, 0.1)
    assert_close({"3": last}, 0.3)
    assert [sentence[:7] for sentence in sentences] == ["layer 1", "layer 3"]


def test_padding_does_not_change_the_factors_of_a_network():
    network, same = network_of(20, 30, 3), network_of(20, 30, 3)
    padded = torch.cat([INPUTS, torch.ones_like(INPUTS)])
    options = {"lengths": [STEPS] * BATCH, "time_axis": 0}
    found = scale_network(network, lambda: network(padded), **options)
    assert found == scale_network(same, lambda: same(INPUTS))


def test_network_is_scaled_within_autocast():
    """Autocast keeps copies of weights, which scaling in place does not change."""
    network = network_of(20, 30, 3, gain=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        scale_network(network, lambda: network(INPUTS))
        assert_close(rates_of(network))
        before = network(INPUTS)
        with pytest.raises(ValueError, match="does not fire at a rate"):
            scale_network(network, lambda: network(INPUTS), 1e-9)
        assert torch.equal(network(INPUTS), before)


def test_recurrent_weights_of_a_loop_are_scaled():
    """The network is called without gradients around it, as the function turns them on."""
    torch.manual_seed(0)
    network = Loop()
    before = state_of(network)
    with torch.no_grad():
        factors = scale_network(network, lambda: network(INPUTS))
    assert_close(rates_of(network))
    assert list(factors) == ["neurons", "output"]
    for name, layer in (("first", "neurons"), ("again", "neurons"), ("last", "output")):
        weight = getattr(network, name).weight
        assert torch.equal(weight, factors[layer] * before[f"{name}.weight"])


def test_parameters_of_single_neurons_are_not_scaled():
    """The scales have three axes, to broadcast, but they are no weights."""

    class Leaky(Neurons):
        def __init__(self, neurons):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.full((1, 1, neurons), 0.8))

        def forward(self, currents):
            return super().forward(self.scale * currents)

    torch.manual_seed(0)
    modules = torch.nn.Linear(20, 30), Leaky(30), torch.nn.Linear(30, 3), Leaky(3)
    network = torch.nn.Sequential(*modules)
    before = state_of(network)
    scale_network(network, lambda: network(INPUTS))
    assert_close(rates_of(network))
    assert_equal(state_of(network), before, ["1.scale", "3.scale"])
    assert rates_by_name(network)["1.scale"] == 0.003


def test_decay_with_a_parametrization_is_not_scaled():
    class Leaky(Neurons):
        def __init__(self):
            super().__init__()
            self.decay = torch.nn.Parameter(torch.full((30,), 0.0))
            torch.nn.utils.parametrize.register_parametrization(self, "decay", torch.nn.Sigmoid())

        def forward(self, currents):
            return super().forward(self.decay * currents)

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(20, 30), Leaky())
    scale_network(network, lambda: network(INPUTS), modules=[network[1]])
    assert_close({"1": network(INPUTS).mean().item()})
    name = "1.parametrizations.decay.original"
    assert not dict(network.named_parameters())[name].any()
    assert rates_by_name(network)[name] == 0.003


def test_weights_of_a_single_input_and_biases_of_two_axes_are_told_apart():
    """A cell's weights of one input have two axes, one of them with length 1."""

    class Recurrent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Parameter(torch.full((30, 1), 2.0))
            self.shift = torch.nn.LayerNorm((3, 10))

    found = rates_by_name(Recurrent())
    expected = {"first": 0.06, "shift.weight": 0.03, "shift.bias": 0.03}
    assert found == pytest.approx(expected)


def test_weights_with_weight_norm_are_scaled():
    network = network_of(20, 30, 3)
    for layer in network[::2]:
        torch.nn.utils.parametrizations.weight_norm(layer)
    scale_network(network, lambda: network(INPUTS))
    assert_close(rates_of(network))


def test_norm_is_scaled_instead_of_the_weights_before_it():
    torch.manual_seed(0)

    class Norm(torch.nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    pairs = ((20, 30), (30, 3))
    modules = [x for a, b in pairs for x in (torch.nn.Linear(a, b), Norm(b), Neurons())]
    network = torch.nn.Sequential(*modules)
    for norm in network[1::3]:
        norm.bias.data += 0.5
    before = state_of(network)
    factors = scale_network(network, lambda: network(INPUTS))
    assert network.training
    assert_equal(state_of(network), before, [x for x in before if "running" in x or "num" in x])
    assert_close(rates_of(network))
    for name, factor in zip("14", factors.values(), strict=True):
        assert torch.equal(
            network[int(name)].weight, factor * torch.ones(len(before[f"{name}.weight"]))
        )
        assert not network[int(name)].bias.any()
    assert_equal(state_of(network), before, ["0.weight", "0.bias", "3.weight", "3.bias"])


def test_weights_of_all_branches_are_scaled():
    class Branches(torch.nn.Module):
        """Two layers that are computed side by side, with a skip connection to the last one."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (torch.nn.Linear(20, 25) for _ in range(3))
            self.last, self.skip = torch.nn.Linear(25, 3), torch.nn.Linear(25, 3)
            self.of_a, self.of_b, self.of_last = Neurons(), Neurons(), Neurons()

        def forward(self, x):
            a, b, c = self.a(x), self.b(x), self.c(x)
            a, b = self.of_a(a + c), self.of_b(b)
            return self.of_last(self.skip(a) + self.last(b))

    torch.manual_seed(0)
    network = Branches()
    before = state_of(network)
    factors = scale_network(network, lambda: network(INPUTS))
    assert_close(rates_of(network))
    layers = {"a": "of_a", "c": "of_a", "b": "of_b", "last": "of_last", "skip": "of_last"}
    for name, layer in layers.items():
        weight = getattr(network, name).weight
        assert torch.equal(weight, factors[layer] * before[f"{name}.weight"])


def test_frozen_layers_are_not_scaled():
    network = network_of(20, 30, 25, 3, gain=8.0)
    network[2].requires_grad_(False)
    before = state_of(network)
    factors = scale_network(network, lambda: network(INPUTS))
    assert list(factors) == ["1", "5"]
    rates = rates_of(network)
    assert_close({name: rates[name] for name in factors})
    assert_equal(state_of(network), before, ["2.weight", "2.bias"])


def test_layers_that_run_without_gradients_are_not_scaled():
    network = network_of(20, 30, 25, 3, gain=8.0)
    network.append(torch.nn.Linear(3, 2))  # a readout that is trained on its own
    before = state_of(network)

    def forward():
        with torch.no_grad():
            currents = network[0](INPUTS)
        output = network[1:-1](currents)
        with torch.no_grad():
            network[-1](output)

    assert list(scale_network(network, forward)) == ["3", "5"]
    assert_equal(state_of(network), before, ["0.weight", "0.bias", "6.weight", "6.bias"])


def assert_raises(network, match, error=ValueError, forward=None, **options):
    """Assert that scaling raises an error, and leaves the network as it was."""
    before = state_of(network)
    with pytest.raises(error, match=match):
        scale_network(network, forward or (lambda: network(INPUTS)), **options)
    assert_equal(state_of(network), before)
    assert not any(module._forward_hooks for module in network.modules())


def test_network_that_does_not_reach_the_rate_is_left_as_it_was():
    network = network_of(20, 30, 3)
    network.insert(3, torch.nn.BatchNorm1d(BATCH))  # its statistics are buffers
    assert_raises(network, "layer 1 does not fire", forward=lambda: network(0 * INPUTS))
    assert_raises(network, "rate must be above 0", rate=0)
    assert_raises(network, "no trainable weights", forward=torch.no_grad()(lambda: network(INPUTS)))

    def interrupted():
        if network[0].bias.any():
            return network(INPUTS)
        raise KeyboardInterrupt

    assert_raises(network, None, KeyboardInterrupt, forward=interrupted)


def test_network_without_trainable_weights_raises():
    network = network_of(20, 3).requires_grad_(False)
    assert_raises(network, "no trainable weights")
    assert_raises(torch.nn.Sequential(torch.nn.Linear(20, 3)), "no spiking modules")


def test_weight_of_two_layers_raises():
    network = network_of(20, 20, 20)
    network[2] = network[0]
    assert_raises(network, "several layers share a weight")


# Groups of parameters -------------------------------------------------------------------------


def rates_by_name(network, **options):
    names = {x: name for name, x in network.named_parameters()}
    groups = parameter_groups(network, **options)
    torch.optim.Adam(groups)
    return {names[x]: group["lr"] for group in groups for x in group["params"]}


def rms(x):
    return x.detach().square().mean().sqrt().item()


def test_learning_rate_is_a_fraction_of_the_size_of_the_weight():
    network = network_of(20, 30, 3)
    network.append(torch.nn.BatchNorm1d(3))
    network[0].bias.data *= 0
    sizes = rms(network[0].weight), rms(network[2].weight)
    for options, step in (({}, 0.03), ({"step": 0.1}, 0.1)):
        assert rates_by_name(network, **options) == pytest.approx(
            {
                **{"0.weight": step * sizes[0], "0.bias": step * sizes[0]},
                **{"2.weight": step * sizes[1], "2.bias": step * sizes[1]},
                **{"4.weight": step, "4.bias": step},
            }
        )


def test_other_parameters_have_a_tenth_of_the_step_as_their_learning_rate():
    class Adaptive(Neurons):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(3))
            self.decay = torch.nn.Parameter(torch.tensor(0.9))
            self.matrix = torch.nn.Parameter(torch.full((3, 3), 2.0))
            self.slopes = torch.nn.ParameterDict({"a": torch.zeros(())})

    network = torch.nn.Sequential(Adaptive())
    found = {"0.bias": 0.06, "0.decay": 0.003, "0.matrix": 0.06, "0.slopes.a": 0.003}
    assert rates_by_name(network) == pytest.approx(found)


def test_frozen_parameters_have_no_group_and_shared_ones_a_single_group():
    network = network_of(20, 20, 20)
    network[2].weight = network[0].weight
    network[2].bias.requires_grad_(False)
    assert list(rates_by_name(network)) == ["0.weight", "0.bias"]
    network[0].weight.requires_grad_(False)
    network[0].weight.data *= 0
    network[0].bias.requires_grad_(False)
    assert parameter_groups(network) == []


def test_rates_for_sgd_are_divided_by_the_size_of_the_gradient():
    network = network_of(20, 30, 3)
    network.append(torch.nn.PReLU(1))
    for i, weight in enumerate((network[0].weight, network[2].weight, network[4].weight)):
        weight.grad = torch.full_like(weight, 10.0**i)
    expected = [0.1 * 0.03 * rms(network[0].weight), 0.001 * 0.03 * rms(network[4].weight)]
    found = rates_by_name(network, momentum=0.9)
    assert [found[name] for name in ("0.weight", "4.weight")] == pytest.approx(expected)
    assert found["0.bias"] == found["0.weight"]
    plain = rates_by_name(network, momentum=0)
    assert plain == pytest.approx({name: 10 * rate for name, rate in found.items()})


@pytest.mark.parametrize("gradient", [None, 0.0, float("nan")])
def test_rates_for_sgd_need_gradients(gradient):
    network = network_of(20, 30, 3)
    for x in network.parameters():
        x.grad = torch.ones_like(x)
    network[2].weight.grad = None if gradient is None else torch.full((3, 30), gradient)
    with pytest.raises(ValueError, match=r"gradient of weight in 2 .* call backward"):
        parameter_groups(network, momentum=0.9)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_weight_without_a_size_raises(value):
    network = network_of(20, 30, 3)
    network[2].weight.data.fill_(value)
    with pytest.raises(ValueError, match=r"root mean square of weight in 2 is .* no learning"):
        parameter_groups(network)


def test_step_and_momentum_must_be_in_range():
    with pytest.raises(ValueError, match="step must be above 0"):
        parameter_groups(network_of(20, 3), step=0)
    for momentum in (-0.1, 1.0):
        with pytest.raises(ValueError, match="momentum must be at least 0 and below 1"):
            parameter_groups(network_of(20, 3), momentum=momentum)


def test_scaled_network_learns():
    network = network_of(20, 30, 3, gain=0.1)
    for layer in network[::2]:
        layer.bias.data *= 0
    assert not any(rates_of(network).values())
    scale_network(network, lambda: network(INPUTS))
    optimizer = torch.optim.Adam(parameter_groups(network))
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        values.append(LOSS(network(INPUTS), LABEL))
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.5 * values[0]
