"""Networks of Norse 1.1.0, Sinabs 3.1.3 and slax 0.0.1 with their usual losses, and with ours.

These frameworks have no losses of their own. Norse's examples take the maximum over time of the
output potentials; its networks with spiking outputs, and those of Sinabs, are trained with counts.
The training functions of slax take a loss of the output and the labels of the batch; its examples
pass `optax.softmax_cross_entropy` and one-hot labels of every step.
"""

import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.side_by_side import assert_match, generator, import_peer, labels, torch, trains

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 20, 16, 12, 20, 5
LABEL = labels(CLASSES, (BATCH,))


def linear(inputs, outputs, scale, dtype):
    made = torch.nn.Linear(inputs, outputs, bias=False, dtype=dtype)
    weight = torch.randn(made.weight.shape, generator=generator(4), dtype=dtype)
    made.weight = torch.nn.Parameter(scale * weight)
    return made


def of_norse(layer):
    """Return a network, its input, and what resets its state."""
    norse = import_peer("norse.torch")
    lif = norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.1)))
    first, last = (linear(n, m, 1, torch.float64) for n, m in ((INPUTS, HIDDEN), (HIDDEN, CLASSES)))
    network = norse.SequentialState(first, lif, last, lif if layer == "LIF" else norse.LI())
    return network, trains((STEPS, BATCH, INPUTS), torch.float64), lambda network: None


def of_sinabs(_):
    """Return the same for Sinabs, whose neurons may fire several times in a step."""
    sinabs, layers = import_peer("sinabs"), import_peer("sinabs.layers")
    first, last = (linear(n, m, 10, None) for n, m in ((INPUTS, HIDDEN), (HIDDEN, CLASSES)))
    network = torch.nn.Sequential(first, layers.LIF(tau_mem=10.0), last, layers.LIF(tau_mem=10.0))
    return network, trains((BATCH, STEPS, INPUTS)), sinabs.reset_states


# The network, its output layer, the logits of the usual loss, which is a cross entropy, and ours.
USUAL = {
    "Norse, maximum of potentials": (
        *(of_norse, "LI", lambda x: x.max(0).values),
        sx.CrossEntropy(time_axis=0, readout="max"),
    ),
    "Norse, counts of spikes": (of_norse, "LIF", lambda x: x.sum(0), sx.CrossEntropy(time_axis=0)),
    "Sinabs": (of_sinabs, "LIF", lambda x: x.sum(1), sx.CrossEntropy(time_axis=1)),
}


@pytest.mark.parametrize("name", USUAL)
def test_loss_gradient_of_the_weights_and_prediction_match(name):
    make, layer, logits, ours = USUAL[name]
    network, spikes, reset = make(layer)

    def output(weight):
        reset(network)
        result = torch.func.functional_call(network, {"2.weight": weight}, spikes)
        return result[0] if isinstance(result, tuple) else result

    weight = network.get_parameter("2.weight").detach()
    values = output(weight)
    assert values.shape == (*spikes.shape[:2], CLASSES)
    assert values.max() > 1 or name != "Sinabs"
    assert_match(
        lambda w: torch.nn.functional.cross_entropy(logits(output(w)), LABEL),
        lambda w: ours(output(w), LABEL),
        weight,
    )
    expected = logits(values).argmax(1)
    assert len(expected.unique()) > 1
    assert torch.equal(ours.predict(values), expected)
    assert ours.accuracy(values, LABEL) == (expected == LABEL).to(values.dtype).mean()
    if name == "Sinabs":  # the output of layers.LIFSqueeze and others of this kind
        squeezed = values.flatten(0, 1)
        assert ours(squeezed.unflatten(0, (BATCH, -1)), LABEL) == ours(values, LABEL)


@pytest.mark.compiles
def test_step_of_the_training_of_slax_matches():
    jax = pytest.importorskip("jax")
    linen, optax, slax = (import_peer(name) for name in ("flax.linen", "optax", "slax"))
    random, steps = np.random.default_rng(0), 10
    spikes = 1.0 * (random.random((steps, BATCH, INPUTS)) < 0.3)
    label = random.integers(CLASSES, size=BATCH)
    one_hot = np.broadcast_to(np.eye(CLASSES)[label], (steps, BATCH, CLASSES))
    ours = sx.CrossEntropy(time_axis=0, moving_window=1)
    dense = functools.partial(
        linen.Dense, kernel_init=linen.initializers.normal(0.6), param_dtype=np.float64
    )
    neurons = functools.partial(slax.LIF, dtype=np.float64)
    network = slax.connect([dense(HIDDEN), neurons(), dense(CLASSES), neurons()])
    optimizer = optax.sgd(0.1)

    @functools.partial(jax.jit, static_argnums=0)
    def train(loss, target):
        """Return the output, the loss and the gradient of one step of slax' training."""
        variables = network.init(jax.random.key(0), spikes[0])
        state = optimizer.init(variables["params"])
        step = slax.train_offline(network, loss, optimizer)
        return step(variables, (spikes, target), state, return_grad=True, unroll=1)[2:]

    with jax.enable_x64(True):
        _, value, gradient = train(optax.softmax_cross_entropy, one_hot)
        leaves = jax.tree.leaves(gradient)
        assert len(leaves) == 4  # two matrices and two biases
        for target in (one_hot, label):
            output, our_value, our_gradient = train(ours, target)
            np.testing.assert_allclose(our_value, value, rtol=1e-12)
            for expected, found in zip(leaves, jax.tree.leaves(our_gradient), strict=True):
                assert abs(expected).max() > 0
                np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max())
        prediction = output.sum(0).argmax(-1)  # from the counts of all steps
        assert len(set(prediction.tolist())) > 1
        np.testing.assert_array_equal(ours.predict(output), prediction)
        np.testing.assert_allclose(ours.accuracy(output, label), (prediction == label).mean())
