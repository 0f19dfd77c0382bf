"""Side by side with the losses of Spyx 1.0.0, where that is installed.

Its losses need JAX and optax, the package around them much more, so their file is loaded by itself.
"""

import importlib.metadata
import importlib.util

import numpy as np
import pytest
from side_by_side import REQUIRED, documented, evaluated, peer

jax = pytest.importorskip("jax")
peer("optax")
try:
    (file,) = (f for f in importlib.metadata.files("spyx") or () if f.parts == ("spyx", "fn.py"))
except importlib.metadata.PackageNotFoundError:
    if "spyx" in REQUIRED:
        raise
    pytest.skip("spyx is not installed", allow_module_level=True)
_spec = importlib.util.spec_from_file_location("spyx_fn", file.locate())
fn = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fn)

import spikeloss_xp as sx

SHAPES = [(16, 100, 2), (5, 1, 7)]  # [batch, time, class]

every_shape = pytest.mark.parametrize("shape", SHAPES)


def both(theirs, ours, *arrays):
    """Evaluate value and gradient with both, for a cotangent that is not 1, and compare."""
    results = []
    for loss in (theirs, ours):
        evaluate = jax.jit(jax.value_and_grad(lambda *a, loss=loss: -1.7 * loss(*a)))
        value, gradient = evaluate(*arrays)
        results.append((value, np.asarray(gradient)))
    (value, gradient), (our_value, our_gradient) = results
    # A few hundred roundings of float32, as many as the sums here have terms, or more.
    np.testing.assert_allclose(our_value, value, rtol=2e-5)
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(our_gradient, gradient, atol=2e-5 * np.abs(gradient).max())


def trains(shape, *, silence=0.0):
    spikes = np.random.default_rng(0).random(shape) < 0.3
    return jax.numpy.asarray(np.where(spikes, 1, silence), "float32")


def labels(shape):
    return jax.numpy.asarray(np.random.default_rng(1).integers(shape[2], size=shape[0]))


@pytest.mark.parametrize(("there", "here"), documented("Spyx"))
def test_the_table_of_the_documentation(there, here):
    shape = (16, 100, 2)
    names = {"fn": fn, "sx": sx, "y": labels(shape), "T": shape[1], "C": shape[2]}
    both(
        *(lambda x, line=line: evaluated(line, names | {"x": x}) for line in (there, here)),
        trains(shape, silence=0.125),
    )


@every_shape
@pytest.mark.parametrize("smoothing", [0, 0.3])
@pytest.mark.parametrize("time_axis", [0, 1])
def test_integral_crossentropy(shape, smoothing, time_axis):
    ours = sx.SpikeMax(
        mode="softmax",
        readout="count",
        reduction="mean",
        label_smoothing=smoothing,
        time_axis=time_axis,
    )
    theirs = fn.integral_crossentropy(smoothing, time_axis)
    both(theirs, ours, jax.numpy.moveaxis(trains(shape), 1, time_axis), labels(shape))


@every_shape
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_mse_spikerate(shape, smoothing):
    # Theirs compares a rate with a count, see below: so what it is told is divided by the steps.
    _, steps, classes = shape
    rate, others = 0.25, 0.25 * smoothing / classes
    ours = sx.SpikeRate(rate * (1 - smoothing) + others, others, reduction="mean", time_axis=1)
    both(fn.mse_spikerate(rate / steps, smoothing), ours, trains(shape), labels(shape))


@every_shape
def test_silence_reg(shape):
    # On the number of spikes of each neuron; theirs is a sum over the neurons and ours a mean.
    counts, neurons = trains(shape).sum(1), shape[2]
    ours = sx.SparsityEnforcer(1e6, lam=neurons, min_rate=40, per="neuron")
    both(fn.silence_reg(40), lambda counts: ours(counts[..., None]), counts)


@every_shape
def test_sparsity_reg(shape):
    # Theirs adds up a term for each sample, and ours one for each array.
    def ours(spikes, **arguments):
        return sx.SparsityEnforcer(0.1, **arguments)(list(spikes[:, None]))

    graded = trains(shape, silence=0.125)
    both(fn.sparsity_reg(0.1, norm=jax.numpy.square), ours, graded)
    # Huber's loss, its default, is half the square as long as the excess is at most 1.
    both(fn.sparsity_reg(0.1), lambda spikes: ours(spikes, lam=0.5), graded)


# What is wrong with theirs, in 1.0.0, or only different, and what is computed here instead.


def test_their_rate_is_compared_with_a_count():
    always, label = jax.numpy.ones((1, 8, 1)), jax.numpy.asarray([0])
    assert fn.mse_spikerate(sparsity=1.0)(always, label) == (1 - 8) ** 2
    assert sx.SpikeRate(1, 0, reduction="mean", time_axis=1)(always, label) == 0


def test_their_neurons_are_those_of_one_step_where_there_is_time():
    always = jax.numpy.ones((4, 20, 3))  # [batch, time, neuron]
    assert fn.silence_reg(2)(always) == 20 * 3 * (2 - 1) ** 2  # though each neuron fires 20 times
    assert fn.silence_reg(2)(always.sum(1)) == 0
    assert sx.SparsityEnforcer(1.0, min_rate=0.1, per="neuron", time_axis=1)(always) == 0


def test_their_sparsity_pushes_at_spikes_that_are_not_there():
    spikes = jax.numpy.asarray([[1.0, 0.0]])
    gradient = jax.grad(fn.sparsity_reg(0.25))(spikes)
    assert gradient.tolist() == [[0.125, 0.125]]  # of the mean, which has no magnitude in it
    gradient = jax.grad(sx.SparsityEnforcer(0.25, lam=0.5))(spikes)
    assert gradient.tolist() == [[0.125, 0]]
