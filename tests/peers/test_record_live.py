"""Networks of snnTorch, SpikingJelly, Norse and Sinabs are recorded, and scaled to a rate."""

import itertools

import pytest

import spikeloss_xp as sx
from _support.pages import DOCS
from _support.side_by_side import import_peer, labels, torch, trains
from spikeloss_xp.torch import parameter_groups, record, scale_network

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long

STEPS, BATCH, SIZES = 20, 8, (30, 40, 25, 5)
INPUTS, LABEL = trains((STEPS, BATCH, SIZES[0])), labels(SIZES[-1], (BATCH,))


def sequence(neurons, linear=torch.nn.Linear, container=torch.nn.Sequential):
    pairs = itertools.pairwise(SIZES)
    return container(*(module for pair in pairs for module in (linear(*pair), neurons())))


def snntorch_states():
    """Return a network with explicit states, and a function that runs it."""
    snn = import_peer("snntorch")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            pairs = itertools.pairwise(SIZES)
            self.linear = torch.nn.ModuleList(torch.nn.Linear(*pair) for pair in pairs)
            self.leaky = torch.nn.ModuleList(snn.Leaky(beta=0.9) for _ in SIZES[1:])

        def forward(self, inputs):
            states, outputs = [each.reset_mem() for each in self.leaky], []
            for x in inputs:
                for i, (linear, leaky) in enumerate(zip(self.linear, self.leaky, strict=True)):
                    x, states[i] = leaky(linear(x), states[i])
                outputs.append(x)
            return torch.stack(outputs)

    network = Network()
    return network, lambda: network(INPUTS)


def snntorch_init_hidden():
    snn, utils = import_peer("snntorch"), import_peer("snntorch.utils")
    network = sequence(lambda: snn.Leaky(beta=0.9, init_hidden=True))

    def run():
        utils.reset(network)
        return torch.stack([network(x) for x in INPUTS])

    return network, run


def spikingjelly_multi_step():
    based = import_peer("spikingjelly.activation_based")
    functional, neuron, layer = (
        import_peer(f"{based.__name__}.{name}") for name in ("functional", "neuron", "layer")
    )
    network = sequence(neuron.LIFNode, layer.Linear)
    functional.set_step_mode(network, "m")

    def run():
        functional.reset_net(network)
        return network(INPUTS)

    return network, run


def spikingjelly_single_step():
    network, _ = spikingjelly_multi_step()
    functional = import_peer("spikingjelly.activation_based.functional")
    functional.set_step_mode(network, "s")

    def run():
        functional.reset_net(network)
        return torch.stack([network(x) for x in INPUTS])

    return network, run


def norse():
    norse = import_peer("norse.torch")
    network = sequence(norse.LIF, container=norse.SequentialState)
    return network, lambda: network(INPUTS)[0]


def sinabs():
    layers = import_peer("sinabs.layers")
    network = sequence(lambda: layers.LIF(tau_mem=10.0, norm_input=False))

    def run():
        import_peer("sinabs").reset_states(network)
        return network(INPUTS.swapaxes(0, 1)).swapaxes(0, 1)

    return network, run


def spikingjelly_convolutions():
    """Return a network of convolutions with a skip connection, and a function that runs it."""
    based = "spikingjelly.activation_based"
    functional, neuron, layer = (
        import_peer(f"{based}.{name}") for name in ("functional", "neuron", "layer")
    )

    def block(inputs, channels):
        convolution = layer.Conv2d(inputs, channels, 3, padding=1)
        return torch.nn.Sequential(convolution, layer.BatchNorm2d(channels), neuron.LIFNode())

    class Skip(torch.nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    modules = block(2, 6), Skip(block(6, 6)), layer.MaxPool2d(2), block(6, 8), layer.Flatten()
    network = torch.nn.Sequential(*modules, layer.Linear(8 * 3 * 3, 5), neuron.LIFNode())
    functional.set_step_mode(network, "m")
    inputs = trains((STEPS, BATCH, 2, 6, 6))

    def run():
        functional.reset_net(network)
        return network(inputs)

    return network, run


NETWORKS = (
    *(snntorch_states, snntorch_init_hidden),
    *(spikingjelly_multi_step, spikingjelly_single_step, norse, sinabs),
)


def recorded(make, scale):
    """Return a network whose weights are scaled, its output and what was recorded."""
    torch.manual_seed(0)
    network, run = make()
    for name, x in network.named_parameters():
        if name.rpartition(".")[2] in ("weight", "bias"):
            x.data *= 0.0 if "bias" in name else scale
    with record(network) as seen:
        output = run()
    assert not any(module._forward_hooks for module in network.modules())
    return network, output, seen


def of_layers(network):
    """Return the names of the spiking modules, which the names of the classes tell here."""
    kinds = ("Leaky", "LIFNode", "LIF")
    return [name for name, x in network.named_modules() if type(x).__name__ in kinds]


@pytest.mark.parametrize("make", NETWORKS)
def test_spikes_and_gradients_go_into_diagnose(make):
    network, output, seen = recorded(make, 10.0)
    assert output.any()
    *names, last = of_layers(network)
    assert list(seen.hidden) == names
    assert list(seen.spikes) == [*names, last]
    time_axis = 1 if make is sinabs else 0
    assert torch.equal(seen.spikes[last].movedim(time_axis, 0), output)
    if make is sinabs:
        assert seen.spikes[last].max() > 1
    for width, spikes in zip(SIZES[1:], seen.spikes.values(), strict=True):
        assert spikes.movedim(time_axis, 0).shape == (STEPS, BATCH, width)
        assert spikes.any()
    loss = sx.CrossEntropy(time_axis=time_axis)
    output = seen.spikes[last]
    loss(output, LABEL).backward()
    assert list(seen.gradients) == [
        name for name, x in network.named_parameters() if x.requires_grad
    ]
    report = sx.diagnose(loss, output, LABEL, hidden=seen.hidden, gradients=seen.gradients)
    assert [layer.name for layer in report.layers] == [*(f"hidden.{n}" for n in names), "output"]
    assert all(layer.rate > 0 for layer in report.layers)


@pytest.mark.parametrize("make", [*NETWORKS, spikingjelly_convolutions])
def test_scaled_network_fires_at_the_rate(make):
    torch.manual_seed(0)
    network, run = make()
    factors = scale_network(network, run)
    assert list(factors) == of_layers(network)
    with torch.no_grad(), record(network) as seen:
        run()
    for name, spikes in seen.spikes.items():
        rate = (spikes != 0).float().mean().item()
        assert 0.05 / 1.3 <= rate <= 0.05 * 1.3, (name, rate)
    groups = parameter_groups(network)
    torch.optim.Adam(groups)
    assert all(0 < group["lr"] < 1 for group in groups)


@pytest.mark.parametrize("library", ["snnTorch", "SpikingJelly", "Norse", "Sinabs"])
def test_code_of_the_page_scales_a_network(library):
    import_peer(library.lower())
    page = (DOCS / "guides" / "initialisation.md").read_text(encoding="utf-8")
    _, tab = page.split(f":::{{tab-item}} {library}\n\n```py\n")
    torch.manual_seed(0)
    names = {"torch": torch, "scale_network": scale_network, "inputs": trains((20, 8, 64))}
    exec(tab.partition("```")[0], names)
    run = names.get("forward") or (lambda: names["network"](names["inputs"]))
    with torch.no_grad(), record(names["network"]) as seen:
        run()
    for spikes in seen.spikes.values():
        assert 0.05 / 1.3 <= (spikes != 0).float().mean() <= 0.05 * 1.3
