"""`diagnose` on networks that learn, that have learned, and in which a fault is planted then."""

import functools
import itertools
import math

import numpy as np
import pytest

import spikeloss_xp as sx

torch = pytest.importorskip("torch")

LOSS = sx.CrossEntropy(time_axis=0)
ABOUT_SIZES = {"vanishing-gradient", "exploding-gradient", "zero-gradient", "no-gradient"}
ENOUGH = 0.95


class Spike(torch.autograd.Function):
    """A spike above the threshold, with the derivative of a fast sigmoid."""

    @staticmethod
    def forward(ctx, above, slope):
        ctx.save_for_backward(above)
        ctx.slope = slope
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        (above,) = ctx.saved_tensors
        return cotangent / (1 + ctx.slope * above.abs()) ** 2, None


def fire(current, slope):
    """Return the spikes of leaky neurons, ``[time, sample, neuron]``."""
    membrane, spikes = torch.zeros_like(current[0]), []
    for now in current:
        membrane = 0.9 * membrane + now
        spikes.append(Spike.apply(membrane - 1, slope))
        membrane = membrane - spikes[-1].detach()
    return torch.stack(spikes)


def network_of(seed, inputs):
    """Return the weights of a random network, and the slope of its surrogate."""
    random = np.random.default_rng(seed)
    sizes = (inputs, *[int(random.choice([50, 100]))] * int(random.integers(1, 3)), 10)
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    for layer in layers:
        layer.weight.data *= float(random.choice([1, 1.5, 2]))
    return torch.nn.ModuleList(layers), float(random.choice([1, 2, 5]))


def layers_of(network, slope, x, label, detached=None):
    """Return the spikes of each layer. The gradients are left in the network."""
    layers = []
    for place, layer in enumerate(network):
        x = fire(layer(x), slope)
        layers.append(x.detach() if place == detached else x)
        x = layers[-1]
    network.zero_grad()
    LOSS(x, label).backward()
    return layers


def report_of(network, slope, x, label, detached=None):
    """Return the report on a batch, whose gradients are left in the network."""
    *hidden, output = layers_of(network, slope, x, label, detached)
    found = {name: p.grad for name, p in network.named_parameters()}
    return sx.diagnose(LOSS, output, label, hidden=hidden, gradients=found)


def codes(report):
    return {finding.code for finding in report.findings if finding.severity == "problem"}


@functools.cache
def digits():
    """Return 64 digits of scikit-learn as random spikes, and their labels."""
    grey, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    chance = np.random.default_rng(0).random((15, 64, 64))
    return torch.tensor((chance < grey[:64] / 16).astype("float32")), torch.tensor(labels[:64])


@functools.cache
def timing():
    """Return 60 samples of ten classes. Each input fires once, at a time of its class."""
    random = np.random.default_rng(0)
    label = np.arange(60) % 10
    times = random.integers(2, 18, size=(10, 40))[label] + random.integers(-2, 3, size=(60, 40))
    spikes = 3.0 * (np.arange(20)[:, None, None] == times)
    return torch.tensor(spikes, dtype=torch.float32), torch.tensor(label)


@pytest.fixture
def batch(seed):
    """Return the batch for a seed, which takes long if scikit-learn is imported for it."""
    return (digits if seed // 2 % 2 else timing)()


@pytest.mark.slow(but=4)
@pytest.mark.parametrize("seed", range(200))
def test_network_that_has_learned_gets_no_problem_until_a_fault_is_planted(seed, batch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, label = batch
    network, slope = network_of(seed, x.shape[-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    accuracy = 0.0
    for epoch in range(101):
        if epoch > 60 and accuracy >= ENOUGH:
            break
        if epoch % 5:
            layers_of(network, slope, x, label)
        else:
            report = report_of(network, slope, x, label)
            accuracy = report.numbers["accuracy"]
            assert accuracy <= 0.9 or not codes(report) & ABOUT_SIZES, str(report)
        optimizer.step()
    torch.set_num_threads(threads)
    assert accuracy >= ENOUGH
    report = report_of(network, slope, x, label, detached=seed % (len(network) - 1))
    assert "no-gradient" in codes(report)
    network[-1].weight.data[0, 0] = math.nan
    assert "not-finite" in codes(report_of(network, slope, x, label))


def test_event_inputs_that_never_fire_change_no_size():
    torch.manual_seed(0)
    events = torch.zeros(20, 16, 2048)
    events[:, :, :60] = (torch.rand(20, 16, 60) < 0.3).float()
    network = torch.nn.ModuleList([torch.nn.Linear(2048, 50), torch.nn.Linear(50, 10)])
    network[0].weight.data *= 8
    report = report_of(network, 1.0, events, torch.arange(16) % 10)
    used = network[0].weight.grad[:, :60]
    assert report.gradients[0].rms == pytest.approx(used.square().mean().sqrt().item(), rel=1e-4)


def test_module_with_a_loss_is_inspected_as_its_loss():
    from spikeloss_xp.torch import LossModule

    spikes, label = timing()
    weight = torch.arange(1.0, 41.0)
    expected = sx.diagnose(LOSS, spikes, label, weight=weight)
    assert sx.diagnose(LossModule(LOSS, weight=weight), spikes, label) == expected
    assert sx.diagnose(LossModule(LOSS), spikes, label, weight=weight) == expected
