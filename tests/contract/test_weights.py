"""Class weights, ignored labels, and the divisors of means."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import (
    FEW_FORMS,
    WITH_TARGET,
    WITH_WEIGHT,
    Call,
    example,
    not_jax,
    one_jax,
    pairs,
    with_everything,
)
from _support.cases import close
from _support.contract import BATCH, CLASSES, FORMS, GROUPS, STEPS

WEIGHT = np.asarray([0.5, 1.0, 2.0, 0.25])
SPIKES = np.random.default_rng(0).uniform(0.125, 1, size=(BATCH, CLASSES, STEPS))
LABEL = np.asarray([3, 0, 1, 1, 2])
LABEL_PER_STEP = np.random.default_rng(1).integers(CLASSES, size=(BATCH, STEPS))


@pytest.mark.parametrize("smoothing", [0.0, 0.125])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(
    ("options", "label"),
    [
        ({"readout": "count"}, LABEL),
        ({"readout": "last", "ignore_index": 1}, LABEL),
        ({"moving_window": 1}, LABEL_PER_STEP),
        ({"moving_window": 1, "ignore_index": 2}, LABEL_PER_STEP),
    ],
    ids=["count", "last-ignoring", "each-step", "each-step-ignoring"],
)
def test_softmax_loss_equals_torch_cross_entropy(options, label, reduction, weight, smoothing):
    torch = pytest.importorskip("torch")
    loss = sx.SpikeMax(mode="softmax", label_smoothing=smoothing, reduction=reduction, **options)
    call = Call(loss, SPIKES, label, weight=weight).with_loss_options()
    with on("torch") as backend:
        value, gradient = call.on(backend)
        spikes = backend.asarray(SPIKES).requires_grad_()
        logits = {"count": spikes.sum(-1), "last": spikes[..., -1]}.get(loss.readout, spikes)
        expected = torch.nn.functional.cross_entropy(
            logits,
            backend.asarray(label),
            weight=None if weight is None else backend.asarray(weight),
            ignore_index=loss.ignore_index,
            reduction=reduction,
            label_smoothing=smoothing,
        )
        expected.backward(backend.asarray(call.cotangent))
        close(value, expected.detach().numpy(), backend.rtol)
        close(gradient, spikes.grad.numpy(), backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=FEW_FORMS[2:], forms=WITH_TARGET))
def test_batchmean_is_unchanged_by_repeating_the_batch(name, form):
    call = with_everything(FORMS[form])
    call = call.replace(loss=dataclasses.replace(call.loss, reduction="batchmean"))
    arrays = {
        field: np.concatenate([value, value])
        for field in ("spikes", "target", "where", "lengths")
        if (value := getattr(call, field)) is not None
    }
    with on(name) as backend:
        value, gradient = call.on(backend)
        repeated_value, repeated_gradient = call.replace(**arrays).on(backend)
        close(repeated_value, value, backend.rtol)
        close(repeated_gradient[:BATCH] + repeated_gradient[BATCH:], gradient, backend.rtol)


WEIGHTED_PAIRS = pairs(jax=FEW_FORMS[2:], forms=WITH_WEIGHT)


@pytest.mark.parametrize(("name", "form"), WEIGHTED_PAIRS)
def test_weight_scales_terms_and_cancels_in_the_mean(name, form):
    call = example(FORMS[form]).with_loss_options(reduction="none")
    with on(name) as backend:
        terms, gradient = call.on(backend)
        # a common factor of all weights scales the terms
        for factor in (1.0, 4.0):
            weighted = call.replace(weight=np.full(CLASSES, factor)).on(backend)
            close(weighted[0], factor * terms, backend.rtol)
            close(weighted[1], factor * gradient, backend.rtol)
        # but cancels in the mean
        loss = dataclasses.replace(call.loss, reduction="mean")
        mean = call.replace(loss=loss, cotangent=None, weight=WEIGHT).on(backend)
        scaled = call.replace(loss=loss, cotangent=None, weight=8 * WEIGHT).on(backend)
        for got, expected in zip(scaled, mean, strict=True):
            close(got, expected, backend.rtol)
        if call.loss.__class__ is sx.SpikeMax and call.loss.label_smoothing:
            return  # smoothing gives every class a share in every term
        # with a single nonzero weight, only the terms of that class remain
        one_class_terms, _ = call.replace(weight=np.eye(CLASSES)[1]).on(backend)
        has_weight = call.replace(weight=np.eye(CLASSES)[1]).value() != 0
        assert 0 < has_weight.sum() < has_weight.size
        np.testing.assert_array_equal(one_class_terms[~has_weight], 0)
        close(one_class_terms[has_weight], terms[has_weight], backend.rtol)


@not_jax
@pytest.mark.parametrize("ignored", [-100, 255, 2])
def test_ignored_label_equals_removing_the_sample(backend, ignored):
    label = np.asarray([3, ignored, 1, ignored, 0])
    mask = label != ignored
    losses = [
        sx.SpikeRate(0.75, 0.125, ignore_index=ignored, reduction="mean"),
        sx.SpikeRate(0.75, 0.125, 3, ignore_index=ignored, reduction="batchmean"),
        sx.SpikeMax(ignore_index=ignored, reduction="mean"),
        sx.SpikeMax(3, "softmax", ignore_index=ignored, label_smoothing=0.25, reduction="mean"),
    ]
    for loss in losses:
        for weight in (None, WEIGHT):
            value, gradient = Call(loss, SPIKES, label, weight=weight).on(backend)
            remaining = Call(loss, SPIKES[mask], label[mask], weight=weight)
            expected, expected_gradient = remaining.on(backend)
            close(value, expected, backend.rtol)
            close(gradient[mask], expected_gradient, backend.rtol)
            assert not gradient[~mask].any()


@one_jax
def test_negative_ignore_index_never_matches_unsigned_labels(backend):
    # 156 has the bit pattern of -100 in 8 bits, but as an unsigned label it is not ignored
    spikes = backend.asarray(np.ones((2, 157, 1)))
    loss = sx.SpikeRate(1, 1, reduction="none")
    terms = backend.numpy(loss(spikes, backend.asarray([156, 0], "uint8")))
    assert not terms.any()
    ignored = backend.numpy(sx.SpikeRate(0, 0, reduction="none")(spikes, [156, -100]))
    np.testing.assert_array_equal(ignored, [[1] * 157, [0] * 157])
    wrapped = sx.SpikeMax(reduction="none")(spikes, backend.asarray([156, 0], "uint8"))
    assert backend.numpy(wrapped).all()


def test_weight_has_one_entry_per_class_not_per_neuron():
    spikes = np.repeat(SPIKES, 2, axis=1)
    for loss in (sx.SpikeRate(0.75, 0.125), sx.SpikeMax(mode="softmax")):
        grouped = dataclasses.replace(loss, **GROUPS)
        expected = loss(SPIKES, LABEL, weight=WEIGHT)
        assert grouped(spikes, LABEL, weight=WEIGHT) == pytest.approx(expected)
        with pytest.raises(ValueError, match=r"weight .*\(4,\).*\(8,\)"):
            grouped(spikes, LABEL, weight=np.ones(8))


def test_invalid_label_in_a_trace_leaves_the_gradient_of_other_samples():
    jax = pytest.importorskip("jax")
    spikes = np.random.default_rng(3).uniform(size=(3, 3, 5)).astype(np.float32)
    loss, weight = sx.SpikeMax(reduction="mean"), np.asarray([4.0, 1.0, 2.0], np.float32)

    def gradient(label):
        return jax.jit(jax.grad(lambda s: loss(s, label, weight=weight)))(spikes)

    label = jax.numpy.asarray([1, 2, 7])
    got = jax.jit(jax.grad(lambda s, y: loss(s, y, weight=weight)))(spikes, label)
    expected = gradient(jax.numpy.asarray([1, 2, -100]))  # the third sample is ignored
    assert np.isnan(got[2]).all()
    np.testing.assert_allclose(got[:2], expected[:2], rtol=1e-5)
