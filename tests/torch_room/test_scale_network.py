"""The weights of networks of PyTorch modules are scaled, so that the layers fire at a rate."""

import itertools
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from torch import nn

from _support.networks import (
    BATCH,
    INPUTS,
    STEPS,
    Loop,
    Neurons,
    has_hooks,
    module_of,
    network_of,
    recorded,
    recurrent,
    sequence,
    with_a_named_argument,
)
from spikeloss_xp.torch import scale_network


def rates_of(network):
    with torch.no_grad():
        seen, _ = recorded(network)
    return {name: x.mean().item() for name, x in seen.spikes.items()}


def assert_close(rates, goal=0.05):
    for rate in rates:
        assert goal / 1.3 <= rate <= goal * 1.3


def state_of(network):
    return {name: x.clone() for name, x in network.state_dict().items()}


def leaky(*shape, value=0.8):
    """Return neurons whose currents are multiplied by a parameter."""

    def forward(self, currents):
        return Neurons.forward(self, self.scale * currents)

    return module_of(forward, scale=nn.Parameter(torch.full(shape, value)))


def with_scales_of_three_axes():
    return sequence(nn.Linear(20, 30), leaky(1, 1, 30), nn.Linear(30, 3), leaky(1, 1, 3))


def with_norms():
    """Return a network in which the weights of the norms are scaled, and no weights before them."""

    class Norm(nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    sizes = itertools.pairwise((20, 30, 3))
    network = sequence(*([nn.Linear(a, b), Norm(b), Neurons()] for a, b in sizes))
    for norm in network[1::3]:
        norm.bias.data += 0.5
    return network


def with_branches():
    """Return two layers that are computed side by side, with a skip connection to the last one."""

    def forward(self, x):
        a, b = self.of_a(self.a(x) + self.c(x)), self.of_b(self.b(x))
        return self.of_d(self.d(a) + self.e(b))

    linear = {name: nn.Linear(20, 25) for name in "abc"} | {x: nn.Linear(25, 3) for x in "de"}
    return module_of(forward, **linear, of_a=Neurons(), of_b=Neurons(), of_d=Neurons())


def with_a_frozen_layer():
    network = network_of(20, 30, 25, 3, gain=8.0)
    network[2].requires_grad_(False)
    return network


class Partly(nn.Sequential):
    """A network whose first layer and readout run without gradients."""

    def forward(self, x):
        for i, module in enumerate(self):
            with torch.set_grad_enabled(0 < i < len(self) - 1):
                x = module(x)
        return x


def with_layers_without_gradients():
    return Partly(*network_of(20, 30, 25, 3, gain=8.0), nn.Linear(3, 2))


THREE = {"0": "1", "2": "3", "4": "5"}


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        *((partial(network_of, 20, 30, 25, 3, gain=gain), THREE) for gain in (0.01, 1.0, 30.0)),
        (Loop, {"first": "neurons", "again": "neurons", "last": "output"}),
        (with_scales_of_three_axes, {"0": "1", "2": "3"}),
        (with_norms, {"1": "2", "4": "5"}),
        (recurrent, {"0": "0", "1": "1", "2": "2"}),
        (with_a_named_argument, {"linear": "neurons"}),
        (with_branches, {"a": "of_a", "c": "of_a", "b": "of_b", "d": "of_d", "e": "of_d"}),
        (with_a_frozen_layer, {"0": "1", "4": "5"}),
        (with_layers_without_gradients, {"2": "3", "4": "5"}),
    ],
)
def test_weights_are_scaled_biases_become_0_and_nothing_else_changes(make, layers):
    """Gradients are disabled around the call, because the function turns them on itself."""
    torch.manual_seed(0)
    network = make()
    before, parameters = state_of(network), dict(network.named_parameters())
    trainable = {name for name, x in parameters.items() if x.requires_grad}
    with torch.no_grad():
        factors = scale_network(network, lambda: network(INPUTS))
    assert list(factors) == [*dict.fromkeys(layers.values())]
    for name, x in network.state_dict().items():
        layer = layers.get(name.partition(".")[0]) if name in parameters else None
        factor = 1 if layer is None else 0 if "bias" in name else factors[layer]
        assert torch.equal(x, factor * before[name]), name
    assert network.training
    assert {name for name, x in parameters.items() if x.requires_grad} == trainable
    assert all(x.grad is None for x in parameters.values())
    assert not has_hooks(network)
    rates = rates_of(network)
    assert_close(rates[name] for name in factors)


def test_decay_with_a_parametrization_is_not_scaled():
    torch.manual_seed(0)
    neurons = leaky(30, value=0.0)
    nn.utils.parametrize.register_parametrization(neurons, "scale", nn.Sigmoid())
    network = sequence(nn.Linear(20, 30), neurons)
    scale_network(network, lambda: network(INPUTS), modules=[neurons])
    assert_close([network(INPUTS).mean().item()])
    assert not neurons.parametrizations.scale.original.any()


def test_weights_with_weight_norm_are_scaled():
    network = network_of(20, 30, 3)
    for layer in network[::2]:
        nn.utils.parametrizations.weight_norm(layer)
    scale_network(network, lambda: network(INPUTS))
    assert_close(rates_of(network).values())


def test_each_layer_is_scaled_to_a_rate_of_its_own():
    network, sentences = network_of(20, 30, 3), []
    scale_network(network, lambda: network(INPUTS), (0.1, 0.3), progress=sentences.append)
    first, last = rates_of(network).values()
    assert_close([first], 0.1)
    assert_close([last], 0.3)
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
        assert_close(rates_of(network).values())
        before = network(INPUTS)
        with pytest.raises(ValueError, match="does not fire at a rate"):
            scale_network(network, lambda: network(INPUTS), 1e-9)
        assert torch.equal(network(INPUTS), before)


def assert_raises(network, match, forward=lambda network: network(INPUTS), rate=0.05):
    """Assert that scaling raises an error, and leaves the network as it was."""
    before = state_of(network)
    with pytest.raises(ValueError if match else KeyboardInterrupt, match=match):
        scale_network(network, lambda: forward(network), rate)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(x, before[name]) for name, x in after.items())
    assert not has_hooks(network)


def test_network_is_left_as_it_was_after_an_error():
    def interrupted(network):
        if not network[0].bias.any():
            raise KeyboardInterrupt
        network(INPUTS)

    network = network_of(20, 30, 3).insert(3, nn.BatchNorm1d(BATCH))  # its statistics are buffers
    assert_raises(network, "layer 1 does not fire", lambda network: network(0 * INPUTS))
    assert_raises(network, "no trainable weights", torch.no_grad()(lambda network: network(INPUTS)))
    assert_raises(network, "rate must be above 0", rate=0)
    assert_raises(network, None, interrupted)


def test_network_without_trainable_weights_raises():
    assert_raises(network_of(20, 3).requires_grad_(False), "no trainable weights")
    assert_raises(sequence(nn.Linear(20, 3)), "no spiking modules")


def test_weight_of_two_layers_raises():
    network = network_of(20, 20, 20)
    network[2] = network[0]
    assert_raises(network, "several layers share a weight")
