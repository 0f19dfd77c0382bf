"""Compare with the loss that networks of slax 0.0.1 are trained with, if it is installed.

Its training functions call a loss with the output and the labels of the batch. Its examples pass
`optax.softmax_cross_entropy` and one-hot labels of every step.
"""

import functools

import numpy as np
import pytest

from _support.side_by_side import import_peer

jax = pytest.importorskip("jax")
linen, optax, slax = (import_peer(name) for name in ("flax.linen", "optax", "slax"))

import spikeloss_xp as sx

jnp = jax.numpy

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 10, 16, 12, 20, 5
RNG = np.random.default_rng(0)
SPIKES = 1.0 * (RNG.random((STEPS, BATCH, INPUTS)) < 0.3)
LABEL = RNG.integers(CLASSES, size=BATCH)
ONE_HOT = np.broadcast_to(np.eye(CLASSES)[LABEL], (STEPS, BATCH, CLASSES))


def entropy_of_counts(spikes, label):
    return optax.softmax_cross_entropy_with_integer_labels(spikes.sum(0), label)


# The usual loss, ours, and the labels that both take.
USUAL = {
    "each step": (
        optax.softmax_cross_entropy,
        sx.CrossEntropy(time_axis=0, moving_window=1),
        ONE_HOT,
    ),
    "counts of spikes": (entropy_of_counts, sx.CrossEntropy(time_axis=0), LABEL),
}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def train(loss, label):
    """Return the output, the loss and the gradient of one step of slax' training."""
    dense = functools.partial(
        linen.Dense, kernel_init=linen.initializers.normal(0.6), param_dtype=jnp.float64
    )
    neurons = functools.partial(slax.LIF, dtype=jnp.float64)
    network = slax.connect([dense(HIDDEN), neurons(), dense(CLASSES), neurons()])
    optimizer = optax.sgd(0.1)
    step = slax.train_offline(network, loss, optimizer)

    @jax.jit
    def run(spikes, label):
        variables = network.init(jax.random.key(0), spikes[0])
        state = optimizer.init(variables["params"])
        return step(variables, (spikes, label), state, return_grad=True, unroll=1)[2:]

    return run(jnp.asarray(SPIKES), jnp.asarray(label))


@pytest.mark.parametrize("name", USUAL)
def test_loss_gradient_and_prediction_match(name):
    theirs, ours, label = USUAL[name]
    _, value, gradient = train(theirs, label)
    output, our_value, our_gradient = train(ours, label)
    assert output.shape == (STEPS, BATCH, CLASSES)
    np.testing.assert_allclose(our_value, value, rtol=1e-12)
    leaves = [[np.asarray(x) for x in jax.tree.leaves(tree)] for tree in (gradient, our_gradient)]
    assert len(leaves[0]) == 4  # two matrices and two biases
    for expected, found in zip(*leaves, strict=True):
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())

    # Either way the prediction is from the counts of all steps.
    prediction = np.asarray(output).sum(0).argmax(-1)
    assert len(set(prediction)) > 1
    np.testing.assert_array_equal(ours.predict(output), prediction)
    accuracy = ours.accuracy(output, jnp.asarray(LABEL))
    np.testing.assert_allclose(accuracy, (prediction == LABEL).mean())
