"""Networks of snnTorch, SpikingJelly, Norse and Sinabs are scaled to a rate, and recorded."""

import itertools
from functools import partial

import pytest

import spikeloss_xp as sx
from _support.pages import DOCS
from _support.side_by_side import import_peer, labels, torch, trains
from spikeloss_xp.torch import parameter_groups, record, scale_network

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long

STEPS, BATCH, SIZES = 20, 8, (64, 100, 10)
INPUTS, LABEL = trains((STEPS, BATCH, SIZES[0])), labels(SIZES[-1], (BATCH,))


def of_page(library):
    """Return the network in the tab of a library, and the function that runs it."""
    import_peer(library.lower())
    page = (DOCS / "guides" / "initialisation.md").read_text(encoding="utf-8")
    _, tab = page.split(f":::{{tab-item}} {library}\n\n```py\n")
    made = []
    names = {"torch": torch, "inputs": INPUTS, "scale_network": lambda *pair: made.append(pair)}
    exec(tab.partition("```")[0], names)
    return made[0]


def snntorch_with_states():
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

    modules = block(1, 6), Skip(block(6, 6)), layer.MaxPool2d(2), block(6, 8), layer.Flatten()
    network = torch.nn.Sequential(*modules, layer.Linear(8 * 4 * 4, 10), neuron.LIFNode())
    functional.set_step_mode(network, "m")

    def run():
        functional.reset_net(network)
        return network(INPUTS.unflatten(-1, (1, 8, 8)))

    return network, run


@pytest.mark.parametrize(
    "make",
    [
        *(partial(of_page, x) for x in ("snnTorch", "SpikingJelly", "Norse", "Sinabs")),
        *(snntorch_with_states, spikingjelly_convolutions),
    ],
)
def test_network_is_scaled_recorded_and_diagnosed(make):
    torch.manual_seed(0)
    network, run = make()
    factors = scale_network(network, run)
    with record(network) as seen:
        run()
    kinds = ("Leaky", "LIFNode", "LIF")
    names = [name for name, x in network.named_modules() if type(x).__name__ in kinds]
    assert list(factors) == list(seen.spikes) == names
    assert list(seen.hidden) == names[:-1]
    for name, spikes in seen.spikes.items():
        assert 0.05 / 1.3 <= (spikes != 0).float().mean() <= 0.05 * 1.3, name
    output = seen.spikes[names[-1]]
    loss = sx.CrossEntropy(time_axis=output.shape.index(STEPS))
    loss(output, LABEL).backward()
    trained = [name for name, x in network.named_parameters() if x.requires_grad]
    assert list(seen.gradients) == trained
    report = sx.diagnose(loss, output, LABEL, hidden=seen.hidden, gradients=seen.gradients)
    assert [layer.name for layer in report.layers] == [
        *(f"hidden.{n}" for n in seen.hidden),
        "output",
    ]
    groups = parameter_groups(network)
    torch.optim.Adam(groups)
    assert all(0 < group["lr"] < 1 for group in groups)


POTENTIALS = {  # the membrane potentials of the last layer after a run, given its result
    "snnTorch": lambda network, result: network[-1].mem,
    "SpikingJelly": lambda network, result: network[-1].v,
    "Norse": lambda network, result: result[1][-1].v,
    "Sinabs": lambda network, result: network[-1].v_mem,
}


@pytest.mark.parametrize("library", POTENTIALS)
def test_last_layer_whose_potentials_are_read_is_not_scaled(library):
    torch.manual_seed(0)
    network, run = of_page(library)
    readout = network[-2]
    before = readout.weight.clone()
    factors = scale_network(network, lambda: POTENTIALS[library](network, run()))
    assert len(factors) == 1
    assert torch.equal(readout.weight, before)
    assert len(scale_network(network, run)) == 2
