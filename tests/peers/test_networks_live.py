"""Outputs of networks of Norse 1.1.0, Sinabs 3.1.3 and slax 0.0.1, as docs/migrating.md has them.

test_tables.py compares their usual losses with ours.
"""

import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.side_by_side import import_peer, labels, torch, trains

STEPS, BATCH, INPUTS, HIDDEN, CLASSES = 20, 16, 12, 20, 5
LABEL = labels(CLASSES, (BATCH,))


def of_norse():
    """Return the output of a network, whose modules return a state too, and its time axis."""
    norse = import_peer("norse.torch")
    lif = norse.LIF(norse.LIFParameters(v_th=torch.tensor(0.1)))
    first, last = torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
    output, _ = norse.SequentialState(first, lif, last, norse.LI())(trains((STEPS, BATCH, INPUTS)))
    return output, 0


def of_sinabs():
    """Return the same for Sinabs, with `x.unflatten(0, (batch, -1))` after a layer with Squeeze."""
    layers = import_peer("sinabs.layers")
    first, last = torch.nn.Linear(INPUTS, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
    squeezed = layers.LIFSqueeze(tau_mem=10.0, batch_size=BATCH)
    network = torch.nn.Sequential(first, layers.LIF(tau_mem=10.0), last)
    output = squeezed(network(trains((BATCH, STEPS, INPUTS))).flatten(0, 1))
    return output.unflatten(0, (BATCH, -1)), 1


@pytest.mark.parametrize("make", [of_norse, of_sinabs])
def test_output_has_the_time_axis_of_the_page(make):
    output, time_axis = make()
    shape = [BATCH, CLASSES]
    shape.insert(time_axis, STEPS)
    assert list(output.shape) == shape
    loss = sx.CrossEntropy(time_axis=time_axis)
    expected = torch.nn.functional.cross_entropy(output.sum(time_axis), LABEL)
    torch.testing.assert_close(loss(output, LABEL), expected)
    assert torch.equal(loss.predict(output), output.sum(time_axis).argmax(1))


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
        for target in (one_hot, label):
            output, our_value, our_gradient = train(ours, target)
            np.testing.assert_allclose(our_value, value, rtol=1e-12)
            pairs = zip(*map(jax.tree.leaves, (gradient, our_gradient)), strict=True)
            for expected, found in pairs:
                assert abs(expected).max() > 0
                np.testing.assert_allclose(found, expected, atol=1e-12 * abs(expected).max())
        assert (ours.predict(output) == output.sum(0).argmax(-1)).all()  # the counts of all steps
