"""Operations of networks of snnTorch, SpikingJelly and Sinabs, beside those of NeuroBench."""

import pytest

from _support.side_by_side import import_peer, torch, trains
from spikeloss_xp.torch import record

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long

STEPS, BATCH = 12, 6
INPUTS = (trains((STEPS, BATCH, 2, 8, 8)) != 0).float()


def layers():
    """Return layers for which NeuroBench is right: transposed convolutions are not among them."""
    return (
        torch.nn.Conv2d(2, 6, 3, padding=1),
        torch.nn.Conv2d(6, 8, 3, stride=2, groups=2, bias=False),
        torch.nn.Linear(8 * 3 * 3, 10),
    )


def snntorch():
    leaky, convolution, strided, linear = import_peer("snntorch").Leaky, *layers()
    neurons = [leaky(0.9, init_hidden=True) for _ in range(3)]
    network = torch.nn.Sequential(
        convolution, neurons[0], strided, neurons[1], torch.nn.Flatten(), linear, neurons[2]
    )

    def run():
        for each in neurons:
            each.reset_mem()
        for step in INPUTS:
            network(step)

    return network, run, {"time_axis": 0}


def spikingjelly():
    based = "spikingjelly.activation_based"
    functional, neuron, layer = (
        import_peer(f"{based}.{name}") for name in ("functional", "neuron", "layer")
    )
    modules = (
        layer.Conv2d(2, 6, 3, padding=1),
        layer.SeqToANNContainer(torch.nn.Conv2d(6, 8, 3, stride=2, groups=2, bias=False)),
        layer.Linear(8 * 3 * 3, 10),
    )
    convolution, strided, linear = modules
    network = torch.nn.Sequential(
        *(convolution, neuron.LIFNode(), strided, neuron.LIFNode()),
        *(layer.Flatten(), linear, neuron.LIFNode()),
    )
    functional.set_step_mode(network, "m")

    def run():
        functional.reset_net(network)
        network(INPUTS)

    return network, run, {"time_axis": 0}


def sinabs():
    lif, convolution, strided, linear = import_peer("sinabs.layers").LIFSqueeze, *layers()
    neurons = [lif(tau_mem=2.0, batch_size=BATCH) for _ in range(3)]
    network = torch.nn.Sequential(
        convolution, neurons[0], strided, neurons[1], torch.nn.Flatten(), linear, neurons[2]
    )

    def run():
        for each in neurons:
            each.reset_states()
        network(INPUTS.transpose(0, 1).flatten(0, 1))

    return network, run, {"time_axis": 1, "samples": BATCH}


@pytest.mark.parametrize("make", [snntorch, spikingjelly, sinabs])
def test_operations_equal_those_of_neurobench(make):
    count = import_peer("neurobench.metrics.utils.layers").single_layer_MACs
    torch.manual_seed(0)
    network, run, options = make()
    for x in network.parameters():
        x.data *= 12 if x.ndim > 1 else 1  # so large that all layers fire
    inputs = {}
    kinds = torch.nn.Linear, torch.nn.Conv2d
    hooks = [
        x.register_forward_hook(lambda x, args, _: inputs.setdefault(x, []).append(args[0]))
        for x in network.modules()
        if isinstance(x, kinds)
    ]
    with record(network, operations=True) as seen, torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    counts = seen.activity(**options)
    names = {x: name for name, x in network.named_modules()}
    assert list(counts.modules) == [names[x] for x in inputs]
    for module, given in inputs.items():
        if type(module).__module__.startswith("spikingjelly"):
            module.step_mode = "s"
            given = [x.flatten(0, 1) for x in given]
        pairs = [count(x, module) for x in given]
        accumulates = sum(n for n, spiking in pairs if spiking)
        others = sum(n for n, spiking in pairs if not spiking)
        dense = sum(count(x, module, total=True)[0] for x in given)
        assert counts.modules[names[module]] == (accumulates, others, dense, BATCH)
        assert accumulates + others > 0  # neurons of Sinabs may fire several times in a step
    active = sum(int((x.detach() != 0).sum()) for x in seen.spikes.values())
    assert sum(x.active for x in counts.layers.values()) == active
