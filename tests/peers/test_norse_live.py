"""Compare with the losses that networks of Norse 1.1.0 are trained with, if it is installed.

Norse has no losses of its own. Its examples and tutorials take the maximum over time of the output
potentials; networks with spiking outputs are trained with their counts.
"""

import pytest

from _support.side_by_side import assert_match, generator, import_peer, labels, torch, trains

norse = import_peer("norse.torch")

import spikeloss_xp as sx

F = torch.nn.functional

STEPS, BATCH, INPUTS, CLASSES = 20, 16, 12, 5
SPIKES = trains((STEPS, BATCH, INPUTS), torch.float64)
LABEL = labels(CLASSES, (BATCH,))

LIF = norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.1)))
# The output layer, the usual loss, the usual prediction, and ours.
USUAL = {
    "maximum of potentials": (  # norse.task.mnist
        norse.LI(),
        lambda v: F.nll_loss(F.log_softmax(v.max(0).values, dim=1), LABEL),
        lambda v: v.max(0).values.argmax(1),
        sx.CrossEntropy(time_axis=0, readout="max"),
    ),
    "counts of spikes": (
        LIF,
        lambda s: F.cross_entropy(s.sum(0), LABEL),
        lambda s: s.sum(0).argmax(1),
        sx.CrossEntropy(time_axis=0),
    ),
}
every_usual_loss = pytest.mark.parametrize("name", USUAL)


def outputs(layer):
    """Return the output of a network as a function of the weights between its two layers."""
    first = torch.nn.Linear(INPUTS, 20, bias=False, dtype=torch.float64)
    last = torch.nn.Linear(20, CLASSES, bias=False, dtype=torch.float64)
    with torch.no_grad():
        for module in (first, last):
            weight = torch.randn(module.weight.shape, generator=generator(4), dtype=torch.float64)
            module.weight.copy_(weight)
    network = norse.SequentialState(first, LIF, last, layer)

    def output(weight):
        values, _ = torch.func.functional_call(network, {"2.weight": weight}, SPIKES)
        return values

    return output, last.weight.detach()


@every_usual_loss
def test_loss_and_gradient_of_the_weights_match(name):
    layer, theirs, _, ours = USUAL[name]
    output, weight = outputs(layer)
    assert output(weight).shape == (STEPS, BATCH, CLASSES)
    assert_match(lambda w: theirs(output(w)), lambda w: ours(output(w), LABEL), weight)


@every_usual_loss
def test_prediction_matches_argmax(name):
    layer, _, predict, ours = USUAL[name]
    output, weight = outputs(layer)
    values = output(weight)
    expected = predict(values)
    assert len(expected.unique()) > 1
    assert torch.equal(ours.predict(values), expected)
    right = (expected == LABEL).double().mean()
    torch.testing.assert_close(ours.accuracy(values, LABEL), right)
