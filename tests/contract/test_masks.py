"""Masks, lengths and weights: which arrays they may be, and what no random call draws."""

import functools
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import BACKENDS, on
from _support.calls import IGNORED, NOT_JAX, example, one_jax, run
from _support.cases import close
from _support.contract import FORMS
from _support.split import Count
from spikeloss_xp.slayer import published

ARGUMENTS = {
    "where": np.asarray([True, False, True, True, True]),
    "lengths": np.asarray([6, 5, 0, 3, 6]),
    "weight": np.asarray([0.5, 1.0, 2.0, 0.25]),
}


@one_jax
def test_host_arguments_move_to_the_device_of_the_input(backend):
    call = example(FORMS["SpikeMoid-rate"]).replace(**ARGUMENTS)
    spikes = backend.asarray(call.spikes)
    conversions = [
        lambda x: x,
        lambda x: x.tolist(),
        lambda x: tuple(x.tolist()),
        lambda x: np.repeat(x, 2, axis=0)[::2],  # not contiguous
        lambda x: x[::-1].copy()[::-1],  # negative strides
        backend.asarray,
        lambda x: backend.xp.flip(backend.asarray(x[::-1]), axis=0),  # has negative strides in dpnp
    ]
    expected = call.value()
    arguments = ARGUMENTS | {"target": call.target}
    converted = [{name: f(value) for name, value in arguments.items()} for f in conversions]
    evaluate = backend.compiled(lambda x: [call.loss(x, **given) for given in converted])
    for value in evaluate(spikes):
        assert backend.device_of(value) == backend.device_of(spikes)
        assert value.dtype == spikes.dtype
        close(backend.numpy(value), expected, backend.rtol)
    if backend.name in NOT_JAX:
        for given in converted:
            _, gradient = sx.value_and_grad(call.loss)(spikes, **given)
            assert not backend.numpy(gradient)[1:3].any()


def test_arguments_on_another_device_move_to_the_input():
    with on("array-api-strict") as other_backend, on("array-api-strict-device1") as backend:
        call = example(FORMS["SpikeMax"]).replace(**ARGUMENTS)
        options = {name: other_backend.asarray(value) for name, value in ARGUMENTS.items()}
        spikes = backend.asarray(call.spikes)
        value = call.loss(spikes, other_backend.asarray(call.target), **options)
        assert value.device == spikes.device
        close(backend.numpy(value), call.value(), backend.rtol)


@pytest.mark.parametrize("argument", ["target", *ARGUMENTS])
@pytest.mark.parametrize("other", ["torch", "jax", "array-api-strict"])
def test_arguments_of_another_library_raise(backend, other, argument):
    if BACKENDS[other][0] == backend.library:
        pytest.skip("no other library")
    call = example(FORMS["SpikeMax"])
    arrays = {"target": call.target, **ARGUMENTS}
    with on(other) as other_backend:
        given = {"target": call.target, argument: other_backend.asarray(arrays[argument])}
        names = re.escape(backend.library) + ".*" + re.escape(other_backend.library)
        with pytest.raises(TypeError, match=f"{argument} .*{names}"):
            call.loss(backend.asarray(call.spikes), **given)


def test_impossible_length_makes_gradients_scores_and_penalties_nan(backend):
    """Those of its sample, also where the loss is linear. A penalty is one number for all."""
    if backend.reads_values:
        pytest.skip(f"{backend.name} checks lengths by their values")
    loss, spikes = Count(time_axis=-1, reduction="sum"), np.ones((2, 3, 4))
    _, gradient = run(backend, sx.value_and_grad(loss), spikes, [0, 1], lengths=[5, 4])
    assert np.isnan(gradient[0]).all()
    np.testing.assert_array_equal(gradient[1], 1)
    scores = sx.CrossEntropy(time_axis=-1).scores
    bad, good = (run(backend, scores, spikes, lengths=[length, 4]) for length in (5, 4))
    assert np.isnan(bad[0]).all()
    np.testing.assert_array_equal(bad[1], good[1])
    assert np.isfinite(good).all()
    assert np.isnan(run(backend, sx.SparsityEnforcer(0.5, time_axis=-1), spikes, lengths=[5, 4]))


@one_jax
def test_negative_ignore_index_never_matches_unsigned_labels(backend):
    # 156 has the bit pattern of -100 in 8 bits, but as an unsigned label it is not ignored
    losses = (
        published.SpikeRate(1, 1, reduction="none", time_axis=-1),
        sx.SpikeMax(reduction="none", time_axis=-1),
    )

    def evaluate(spikes, unsigned, signed):
        terms = [loss(spikes, unsigned) for loss in losses]
        return *terms, published.SpikeRate(0, 0, reduction="none", time_axis=-1)(spikes, signed)

    label = np.asarray([156, 0], "uint8"), np.asarray([156, -100])
    terms, wrapped, ignored = run(backend, evaluate, np.ones((2, 157, 1)), *label)
    assert not terms.any()
    np.testing.assert_array_equal(ignored, [[1] * 157, [0] * 157])
    assert wrapped.all()


def test_mean_without_weight_is_zero_with_its_gradient(backend):
    """Smoothing leaves terms of the other classes, where PyTorch's quotient is NaN."""
    loss, label = sx.CrossEntropy(time_axis=-1, label_smoothing=0.25), np.zeros(2, dtype=int)
    evaluate = sx.value_and_grad(loss)
    value, gradient = run(backend, evaluate, np.ones((2, 3, 5)), label, weight=[0.0, 1.0, 1.0])
    assert value == 0
    assert not gradient.any()


def test_mask_of_one_axis_is_of_samples_where_there_are_as_many_steps():
    loss, where = sx.CrossEntropy(time_axis=0, reduction="none"), [True, False, True, True]
    assert (loss(np.ones((4, 4, 2)), [0, 0, 0, 0], where=where) != 0).tolist() == where


@one_jax
@pytest.mark.parametrize("label", [IGNORED, 7], ids=["ignored", "invalid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_of_weights_equals_that_without_the_masked_sample(backend, label, smoothing):
    if not backend.differentiates:
        pytest.skip(f"{backend.name} has no automatic differentiation")
    loss = sx.CrossEntropy(time_axis=0, label_smoothing=smoothing)
    spikes = np.random.default_rng(0).random((5, 3, 4))
    given = {"target": [0, label, 2], "where": [True, label == IGNORED, True]}

    def gradient(kept):
        def value(weight, spikes, target, where):
            return loss(spikes, target, where=where, weight=weight)

        arrays = (spikes[:, kept], *(np.asarray(x)[kept] for x in given.values()))
        evaluate = functools.partial(_with_gradient, backend, value)
        return run(backend, evaluate, ARGUMENTS["weight"], *arrays)[1]

    close(gradient([0, 1, 2]), gradient([0, 2]), backend.rtol)


def _with_gradient(backend, function, x, *others):
    return backend.adapter.value_and_grad(lambda x: function(x, *others), x, None)
