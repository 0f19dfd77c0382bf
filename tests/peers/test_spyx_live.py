"""Compare with the losses of Spyx 1.0.0, if it is installed.

The losses need only JAX and optax, but the package needs much more, so this file loads the module
of the losses without the package.
"""

import importlib.metadata
import importlib.util

import numpy as np
import pytest

from _support.peers import REQUIRED
from _support.side_by_side import evaluate_line, import_peer, table_rows

jax = pytest.importorskip("jax")
import_peer("optax")
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


def assert_match(theirs, ours, *arrays):
    """Assert that both losses have the same value and gradient, for a cotangent that is not 1."""
    results = []
    for loss in (theirs, ours):
        evaluate = jax.jit(jax.value_and_grad(lambda *a, loss=loss: -1.7 * loss(*a)))
        value, gradient = evaluate(*arrays)
        results.append((value, np.asarray(gradient)))
    (value, gradient), (our_value, our_gradient) = results
    # A few hundred roundings of float32: the sums have no more terms than that.
    np.testing.assert_allclose(our_value, value, rtol=2e-5)
    assert np.abs(gradient).max() > 0
    np.testing.assert_allclose(our_gradient, gradient, atol=2e-5 * np.abs(gradient).max())


def trains(shape, *, silence=0.0):
    spikes = np.random.default_rng(0).random(shape) < 0.3
    return jax.numpy.asarray(np.where(spikes, 1, silence), "float32")


def labels(shape):
    return jax.numpy.asarray(np.random.default_rng(1).integers(shape[2], size=shape[0]))


@pytest.mark.parametrize(("there", "here"), table_rows("Spyx"))
def test_migration_table_rows_match(there, here):
    shape = (16, 100, 2)
    names = {"fn": fn, "sx": sx, "y": labels(shape), "T": shape[1], "C": shape[2]}
    assert_match(
        *(lambda x, line=line: evaluate_line(line, names | {"x": x}) for line in (there, here)),
        trains(shape, silence=0.125),
    )


@every_shape
@pytest.mark.parametrize("smoothing", [0, 0.3])
@pytest.mark.parametrize("time_axis", [0, 1])
def test_integral_crossentropy_matches(shape, smoothing, time_axis):
    ours = sx.CrossEntropy(label_smoothing=smoothing, time_axis=time_axis)
    theirs = fn.integral_crossentropy(smoothing, time_axis)
    assert_match(theirs, ours, jax.numpy.moveaxis(trains(shape), 1, time_axis), labels(shape))


@every_shape
@pytest.mark.parametrize("smoothing", [0, 0.3])
def test_mse_spikerate_matches(shape, smoothing):
    # Spyx compares a target rate with a count, see below, so its rate is divided by the steps.
    _, steps, classes = shape
    target_rate, false_rate = 0.25, 0.25 * smoothing / classes
    ours = sx.SpikeRate(
        target_rate * (1 - smoothing) + false_rate, false_rate, reduction="mean", time_axis=1
    )
    assert_match(
        fn.mse_spikerate(target_rate / steps, smoothing), ours, trains(shape), labels(shape)
    )


@every_shape
def test_silence_reg_matches(shape):
    # The input is the spike count of each neuron. Spyx sums over the neurons, ours is a mean.
    counts, neurons = trains(shape).sum(1), shape[2]
    ours = sx.SparsityEnforcer(1e6, lam=neurons, min_rate=40, per="neuron")
    assert_match(fn.silence_reg(40), lambda counts: ours(counts[..., None]), counts)


@every_shape
def test_sparsity_reg_matches(shape):
    # Spyx sums one term per sample, and ours one per array, so each sample becomes an array.
    def ours(spikes, **arguments):
        return sx.SparsityEnforcer(0.1, **arguments)(list(spikes[:, None]))

    graded = trains(shape, silence=0.125)
    assert_match(fn.sparsity_reg(0.1, norm=jax.numpy.square), ours, graded)
    # The Huber loss, the default of Spyx, is half the square while the excess is at most 1.
    assert_match(fn.sparsity_reg(0.1), lambda spikes: ours(spikes, lam=0.5), graded)


# Defects and differences of Spyx 1.0.0, and the results of this library instead.


def test_spyx_target_rate_is_compared_with_a_count():
    saturated, label = jax.numpy.ones((1, 8, 1)), jax.numpy.asarray([0])
    assert fn.mse_spikerate(sparsity=1.0)(saturated, label) == (1 - 8) ** 2
    assert sx.SpikeRate(1, 0, reduction="mean", time_axis=1)(saturated, label) == 0


def test_spyx_silence_reg_counts_each_step_as_a_neuron():
    saturated = jax.numpy.ones((4, 20, 3))  # [batch, time, neuron]
    # Each neuron fires 20 times, but Spyx sees one spike in each of 20 * 3 neurons.
    assert fn.silence_reg(2)(saturated) == 20 * 3 * (2 - 1) ** 2
    assert fn.silence_reg(2)(saturated.sum(1)) == 0
    assert sx.SparsityEnforcer(1.0, min_rate=0.1, per="neuron", time_axis=1)(saturated) == 0


def test_spyx_sparsity_reg_has_a_gradient_at_silence():
    spikes = jax.numpy.asarray([[1.0, 0.0]])
    gradient = jax.grad(fn.sparsity_reg(0.25))(spikes)
    assert gradient.tolist() == [[0.125, 0.125]]  # the mean is of the input, not of its magnitude
    gradient = jax.grad(sx.SparsityEnforcer(0.25, lam=0.5))(spikes)
    assert gradient.tolist() == [[0.125, 0]]
