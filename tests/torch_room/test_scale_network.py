"""The weights of networks of PyTorch modules are scaled, so that the layers fire at a rate."""

import itertools
from functools import partial

import pytest

torch = pytest.importorskip("torch")

from torch import nn
from torch.utils.checkpoint import checkpoint

from _support.networks import (
    BATCH,
    INPUTS,
    STEPS,
    Loop,
    Neurons,
    has_hooks,
    heaviside,
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
    """Return neurons that multiply their currents by a parameter, and add another one."""

    def forward(self, currents):
        return Neurons.forward(self, self.scale * currents + self.shift)

    parts = {"scale": torch.full(shape, value), "shift": torch.full(shape, 0.01)}
    return module_of(forward, **{name: nn.Parameter(x) for name, x in parts.items()})


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


class PiecewiseLinear(torch.autograd.Function):
    """A surrogate gradient whose name is like that of a matrix product."""

    @staticmethod
    def forward(ctx, x, slope):
        return (x > 0).float()


def with_weights_of_its_own():
    """Return a network that holds its weights itself, with a leak and thresholds beside them."""

    def forward(self, inputs):
        spikes, membrane, found = torch.zeros(BATCH, 25), torch.zeros(BATCH, 25), []
        inputs = inputs[..., None]
        for x in self.encode(inputs * self.gain + self.other * inputs).flatten(2):
            current = torch.einsum("bi,io->bo", x, self.kernels[0]) + self.bias_b[None]
            membrane = self.leak * membrane + current + spikes @ (self.again * self.mask)
            threshold = self.threshold + 0.1 * spikes
            spikes = self.fire(membrane - threshold, 2 * self.width + self.width)
            membrane = membrane - spikes.detach()
            found.append(spikes)
        current = nn.functional.linear(torch.stack(found).transpose(0, 1), *self.kernels[1:])
        return self.output(current.transpose(0, 1))

    return module_of(
        forward,
        kernels=nn.ParameterList([torch.randn(40, 25), torch.randn(3, 25), torch.ones(3)]),
        gain=nn.Parameter(torch.rand(1, 2)),
        other=nn.Parameter(torch.rand(1, 2)),
        again=nn.Parameter(torch.randn(25, 25)),
        mask=nn.Buffer(1 - torch.eye(25)),
        bias_b=nn.Parameter(torch.ones(25)),
        leak=nn.Parameter(torch.full((1, 25), 0.9)),
        threshold=nn.Parameter(torch.full((1, 25), 0.5)),
        encode=Neurons(),
        width=nn.Parameter(torch.ones(1)),
        fire=module_of(
            lambda self, x, width: 1 * PiecewiseLinear.apply(width * x, self.slope),
            slope=nn.Parameter(torch.ones(1)),
        ),
        output=leaky(1, 3),
    )


def with_blocks():
    """Return blocks that hold their weight themselves, and neurons that take their state first."""

    class Fire(nn.Module):
        def forward(self, state):
            membrane, current = state["membrane"], state["current"]
            spikes = heaviside(0.9 * membrane + current - 1)
            return spikes, (0.9 * membrane + current - spikes).detach()

    def forward(self, inputs):
        membrane, found = torch.zeros(BATCH, len(self.weight)), []
        for x in inputs:
            current = self.drop(nn.functional.rms_norm(x @ self.weight.T, (len(self.weight),)))
            spikes, membrane = self.fire(
                state={"membrane": membrane, "current": self.norm * current}
            )
            found.append(spikes)
        return torch.stack(found)

    def block(i, o):
        norm, weight = torch.full((o,), 0.2), torch.randn(o, i)
        parts = {"weight": nn.Parameter(weight), "norm": nn.Parameter(norm)}
        return module_of(forward, **parts, drop=nn.Dropout(0.0), fire=Fire())

    return sequence(block(20, 30), block(30, 3))


def with_gates(kind):
    """Return a network in which an LSTM or a GRU computes the currents of the neurons."""

    def forward(self, x):
        return self.neurons(3 * self.gates(x)[0])

    return module_of(forward, gates=kind(20, 30), neurons=Neurons())


def with_a_cell():
    """Return a network whose neurons hold their weights, and take their last spikes."""

    def step(self, x, spikes):
        return heaviside(x @ self.weight + spikes @ self.recurrent - 1)

    def forward(self, inputs):
        found = [torch.zeros(BATCH, 30)]
        for x in inputs:
            found.append(self.cell(x, found[-1]))
        return torch.stack(found[1:])

    sizes = {"weight": (20, 30), "recurrent": (30, 30)}
    parts = {name: nn.Parameter(torch.randn(size)) for name, size in sizes.items()}
    return module_of(forward, cell=module_of(step, **parts))


def with_an_embedding():
    """Return a network of an embedding and a convolution over the neurons."""

    def forward(self, x):
        return self.output(self.kernel(self.neurons(self.table(x[..., 0].long()))))

    parts = {"table": nn.Embedding(2, 30), "kernel": nn.Conv1d(BATCH, BATCH, 3)}
    return module_of(forward, **parts, neurons=Neurons(), output=Neurons())


THREE = {"0": "1", "2": "3", "4": "5"}
OWN = {"gain": "encode", "other": "encode", "kernels.0": "fire", "bias_b": "fire", "again": "fire"}
INSIDE = {f"{i}.{x}": f"{i}" for i in range(3) for x in ("weight", "recurrent", "bias")}
OWN |= {"kernels.1": "output", "kernels.2": "output"}


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        *((partial(network_of, 20, 30, 25, 3, gain=gain), THREE) for gain in (0.01, 1.0, 30.0)),
        (Loop, {"first": "neurons", "again": "neurons", "last": "output"}),
        (with_scales_of_three_axes, {"0": "1", "2": "3"}),
        (with_norms, {"1": "2", "4": "5"}),
        (recurrent, INSIDE),
        (with_a_named_argument, {"linear": "neurons"}),
        (with_branches, {"a": "of_a", "c": "of_a", "b": "of_b", "d": "of_d", "e": "of_d"}),
        (with_a_frozen_layer, {"0": "1", "4": "5"}),
        *((partial(with_gates, kind), {"gates": "neurons"}) for kind in (nn.LSTM, nn.GRU)),
        (with_an_embedding, {"table": "neurons", "kernel": "output"}),
        (with_a_cell, {"cell": "cell"}),
        (with_blocks, {"0.norm": "0.fire", "1.norm": "1.fire"}),
        (with_weights_of_its_own, OWN),
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
        layer = layers.get(name, layers.get(name.partition(".")[0])) if name in parameters else None
        is_bias, is_recurrent = "bias" in name or name == "kernels.2", "again" in name
        factor = 1 if layer is None else 0 if is_bias else factors[layer]
        factor *= 0.3 if is_recurrent or "recurrent" in name else 1
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
    assert not any(layer.bias.any() for layer in network[::2])


def test_weights_in_a_list_are_scaled_and_restored():
    """They are no parameters of the network, which does not know them."""
    weights, neurons = [nn.Parameter(torch.randn(20, 30))], Neurons()
    network = module_of(lambda self, x: neurons(x @ weights[0]), neurons=neurons)
    before = weights[0].detach().clone()
    assert_raises(network, "does not fire at a rate", rate=1e-9)
    assert torch.equal(weights[0], before)
    factors = scale_network(network, lambda: network(INPUTS))
    assert torch.equal(weights[0], factors["neurons"] * before)


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
        rates_of(network)
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
    assert_raises(network, "1 runs without", torch.no_grad()(lambda network: network(INPUTS)))
    assert_raises(network, "rate must be above 0", rate=0)
    assert_raises(network, None, interrupted)


def test_network_without_trainable_weights_raises():
    network = network_of(20, 30).append(nn.Linear(30, 3))
    network[0].requires_grad_(False)
    assert_raises(network, "no trainable weights")
    assert_raises(sequence(nn.Linear(20, 3)), "no spiking modules")


def test_layer_without_weights_raises():
    network = network_of(20, 3).insert(0, Neurons())
    assert_raises(network, r"0 has no weights.* pass the other spiking modules")
    assert list(scale_network(network, lambda: network(INPUTS), modules=network[2:])) == ["2"]


def without_gradients(part, x):
    with torch.no_grad():
        return part(x)


def checkpointed(part, x):
    return checkpoint(part, x.clone().requires_grad_(), use_reentrant=True)


@pytest.mark.parametrize("call", [without_gradients, checkpointed])
def test_layer_that_runs_without_gradients_raises(call):
    parts = {"first": network_of(20, 30, gain=8.0), "last": network_of(30, 3)}
    network = module_of(lambda self, x: self.last(call(self.first, x)), **parts)
    assert_raises(network, r"first.1 runs without gradients.* use_reentrant=False")
    network.last[0].bias.requires_grad_(False)
    assert_raises(network, r"first.1 runs without gradients")
    network.first.requires_grad_(False)
    assert list(scale_network(network, lambda: network(INPUTS))) == ["last.1"]


def test_weight_of_two_layers_raises():
    network = network_of(20, 20, 20)
    network[2].weight = network[0].weight
    assert_raises(network, "1 and 3 share a weight")


def test_weight_that_cannot_be_written_to_raises():
    network = network_of(20, 30, 3).append(nn.BatchNorm1d(BATCH))  # its statistics are buffers
    network[2].weight = nn.Parameter(torch.ones(1, 30).expand(3, 30))
    before = state_of(network)
    with pytest.raises(RuntimeError, match="single memory location"):
        scale_network(network, lambda: network(INPUTS))
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


class Leaky(nn.Module):
    """Neurons that return their spikes and their potentials, which the spikes reset."""

    def __init__(self, detach):
        super().__init__()
        self.detach = detach

    def forward(self, currents):
        membrane, found = torch.zeros_like(currents[0]), []
        for current in currents:
            membrane = 0.9 * membrane + current
            spikes = heaviside(membrane - 1)
            membrane = membrane - (spikes.detach() if self.detach else spikes)
            found.append((spikes, membrane))
        self.last = membrane
        return tuple(map(torch.stack, zip(*found, strict=True)))


READS = {  # what `forward` returns, and whether the last layer is scaled
    "spikes": (lambda spikes, potentials, last: spikes, True),
    "spikes and potentials": (lambda *all: all, True),
    "potentials": (lambda spikes, potentials, last: potentials, False),
    "a state": (lambda spikes, potentials, last: {"output": [last]}, False),
    "a loss": (lambda spikes, potentials, last: (potentials**2).mean(), False),
    "nothing": (lambda *all: None, True),
}


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(("read", "scaled"), READS.values(), ids=READS)
def test_last_layer_is_scaled_if_its_spikes_are_used(read, scaled, detach):
    torch.manual_seed(0)

    def forward(self, x):
        spikes, potentials = self.output(self.last(self.hidden(self.first(x))[0]))
        return read(spikes, potentials, self.output.last)

    linear = {"first": nn.Linear(20, 30), "last": nn.Linear(30, 3)}
    network = module_of(forward, **linear, hidden=Leaky(detach), output=Leaky(detach))
    before = state_of(network)
    factors = scale_network(network, lambda: network(INPUTS))
    assert list(factors) == (["hidden", "output"] if scaled else ["hidden"])
    assert torch.equal(network.last.weight, before["last.weight"]) != scaled
    both = scale_network(network, lambda: network(INPUTS), modules=[network.hidden, network.output])
    assert list(both) == ["hidden", "output"]


def test_only_layer_whose_spikes_are_not_used_raises():
    network = sequence(nn.Linear(20, 3), Leaky(True))
    with pytest.raises(ValueError, match="does not depend on the spikes of 1, the only layer"):
        scale_network(network, lambda: network(INPUTS)[1])
    scale_network(network, lambda: network(INPUTS)[1], modules=network[1])
