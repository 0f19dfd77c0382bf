"""Compare with the loss that networks of Sinabs 3.1.3 are trained with, if it is installed.

Sinabs has no losses of its own. Its tutorials sum the output spikes over time, and take the
cross-entropy. Its spikes are float32.
"""

import pytest

from _support.side_by_side import assert_match, generator, import_peer, labels, torch, trains

sinabs, layers = import_peer("sinabs"), import_peer("sinabs.layers")

import spikeloss_xp as sx

F = torch.nn.functional

BATCH, STEPS, INPUTS, CLASSES = 16, 20, 12, 5
SPIKES = trains((BATCH, STEPS, INPUTS))
LABEL = labels(CLASSES, (BATCH,))
OURS = sx.CrossEntropy(time_axis=1)


@pytest.fixture
def network():
    """Return a network, its output as a function of its last weights, and these."""
    first = torch.nn.Linear(INPUTS, 20, bias=False)
    last = torch.nn.Linear(20, CLASSES, bias=False)
    with torch.no_grad():
        for module in (first, last):
            module.weight.copy_(10 * torch.randn(module.weight.shape, generator=generator(4)))
    network = torch.nn.Sequential(first, layers.LIF(tau_mem=10.0), last, layers.LIF(tau_mem=10.0))

    def output(weight):
        sinabs.reset_states(network)
        return torch.func.functional_call(network, {"2.weight": weight}, SPIKES)

    return output, last.weight.detach()


def test_loss_and_gradient_of_the_weights_match(network):
    output, weight = network
    spikes = output(weight)
    assert spikes.shape == (BATCH, STEPS, CLASSES)
    assert spikes.max() > 1  # a neuron of Sinabs may fire several times in a step
    assert_match(
        lambda w: F.cross_entropy(output(w).sum(1), LABEL),
        lambda w: OURS(output(w), LABEL),
        weight,
    )


def test_prediction_matches_argmax(network):
    output, weight = network
    spikes = output(weight)
    expected = spikes.sum(1).argmax(1)
    assert len(expected.unique()) > 1
    assert torch.equal(OURS.predict(spikes), expected)
    right = (expected == LABEL).float().mean()
    torch.testing.assert_close(OURS.accuracy(spikes, LABEL), right)


def test_layers_with_squeezed_batch_and_time_need_a_reshape(network):
    output, weight = network
    spikes = output(weight)
    squeezed = spikes.flatten(0, 1)  # of layers.LIFSqueeze and other layers of this kind
    value = OURS(squeezed.unflatten(0, (BATCH, -1)), LABEL)
    torch.testing.assert_close(value, OURS(spikes, LABEL))
