"""Thresholds may be divided by the factors of `scale_to_rate` instead of scaling weights.

The slope of the surrogate gradient is then multiplied by the factor, and its height must not depend
on its slope. With Adam the training is the same as with scaled weights, biases and learning rates.
"""

import itertools

import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx

SIZES, STEPS, BATCH = (20, 30, 25, 4), 20, 32
LOSS = sx.CrossEntropy(time_axis=0)
RANDOM = torch.Generator().manual_seed(0)
LABEL = torch.arange(BATCH) % SIZES[-1]
RATES = 0.5 * torch.rand((SIZES[-1], SIZES[0]), generator=RANDOM)
INPUTS = (torch.rand((STEPS, BATCH, SIZES[0]), generator=RANDOM) < RATES[LABEL]).double()


class FastSigmoid(torch.autograd.Function):
    """Spikes, whose gradient has a height of 1 for any slope."""

    @staticmethod
    def forward(ctx, distance, slope):
        ctx.save_for_backward(distance)
        ctx.slope = slope
        return (distance > 0).double()

    @staticmethod
    def backward(ctx, gradient):
        (distance,) = ctx.saved_tensors
        return gradient / (1 + ctx.slope * distance.abs()) ** 2, None


class Network(torch.nn.Module):
    """A network with a threshold and a slope for each layer, and either kind of reset."""

    def __init__(self, reset_to_0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(*pair, dtype=torch.float64) for pair in itertools.pairwise(SIZES)
        )
        self.thresholds, self.slopes = [1.0] * len(self.layers), [1.0] * len(self.layers)
        self.reset_to_0 = reset_to_0

    def forward(self, x):
        found = []
        for layer, threshold, slope in zip(self.layers, self.thresholds, self.slopes, strict=True):
            x = self.fire(layer(x), threshold, slope)
            found.append(x)
        return found

    def fire(self, currents, threshold, slope):
        membrane, spikes = 0.0, []
        for current in currents:
            membrane = 0.9 * membrane + current
            spikes.append(FastSigmoid.apply(membrane - threshold, slope))
            reset = membrane if self.reset_to_0 else threshold
            membrane = membrane - reset * spikes[-1].detach()
        return torch.stack(spikes)


@torch.no_grad()
def with_thresholds(network, factors):
    network.thresholds = [1 / factor for factor in factors]
    network.slopes = factors
    return network(INPUTS)


def factors_of(network):
    return sx.scale_to_rate(lambda factors: with_thresholds(network, factors), 3)


@torch.no_grad()
def with_weights(network, factors):
    for layer, factor in zip(network.layers, factors, strict=True):
        layer.weight *= factor
        layer.bias *= factor


def losses(network, optimizer, lrs, **options):
    """Return the losses of some steps of training."""
    pairs = zip(network.layers, lrs, strict=True)
    groups = [{"params": list(layer.parameters()), "lr": lr} for layer, lr in pairs]
    descent, found = optimizer(groups, **options), []
    for _ in range(20):
        descent.zero_grad()
        found.append(LOSS(network(INPUTS)[-1], LABEL))
        found[-1].backward()
        descent.step()
    return torch.stack(found).detach()


def trained(reset_to_0, optimizer, lr, **options):
    """Return the losses with divided thresholds, and those with scaled weights."""
    divided, scaled = Network(reset_to_0), Network(reset_to_0)
    factors = factors_of(divided)
    assert max(factors) > 1.3 * min(factors)
    with_weights(scaled, factors)
    for ours, theirs in zip(divided(INPUTS), scaled(INPUTS), strict=True):
        assert torch.equal(ours, theirs)
    return (
        losses(divided, optimizer, [lr] * len(factors), **options),
        losses(scaled, optimizer, [lr * factor for factor in factors], **options),
    )


@pytest.mark.parametrize("reset_to_0", [False, True])
def test_thresholds_and_weights_give_the_same_training_with_adam(reset_to_0):
    # Adam adds epsilon to the size of a gradient, and the sizes differ by the factors.
    divided, scaled = trained(reset_to_0, torch.optim.Adam, 0.002, eps=1e-30)
    torch.testing.assert_close(divided, scaled, rtol=1e-9, atol=0)
    assert divided[-1] < divided[0]


def test_thresholds_and_weights_differ_with_descent_and_with_weight_decay():
    """The gradients of earlier layers differ by the factors of the later ones."""
    for optimizer, lr, options in (
        (torch.optim.SGD, 0.05, {}),
        (torch.optim.Adam, 0.002, {"eps": 1e-30, "weight_decay": 0.01}),
    ):
        divided, scaled = trained(False, optimizer, lr, **options)
        assert torch.equal(divided[0], scaled[0])
        assert (divided - scaled).abs().max() > 1e-3 * divided[0]
