"""Weights of classes, labels to be ignored, and means that go by what counts."""

import dataclasses

import numpy as np
import pytest
from calls import SOME, Call, example, not_jax, one_jax, pairs, with_everything
from cases import close
from conftest import on
from contract import BATCH, CLASSES, FORMS, GROUPS, STEPS

import spikeloss_xp as sx

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
def test_cross_entropy_is_that_of_torch(options, label, reduction, weight, smoothing):
    torch = pytest.importorskip("torch")
    loss = sx.SpikeMax(mode="softmax", label_smoothing=smoothing, reduction=reduction, **options)
    call = Call(loss, SPIKES, label, weight=weight).having()
    with on("torch") as backend:
        value, gradient = call.on(backend)
        spikes = backend.asarray(SPIKES).requires_grad_()
        logits = {"count": spikes.sum(-1), "last": spikes[..., -1]}.get(loss.readout, spikes)
        wanted = torch.nn.functional.cross_entropy(
            logits,
            backend.asarray(label),
            weight=None if weight is None else backend.asarray(weight),
            ignore_index=loss.ignore_index,
            reduction=reduction,
            label_smoothing=smoothing,
        )
        wanted.backward(backend.asarray(call.cotangent))
        close(value, wanted.detach().numpy(), backend.rtol)
        close(gradient, spikes.grad.numpy(), backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME[2:], without="Sparsity"))
def test_a_batch_twice_has_the_same_batchmean(name, form):
    call = with_everything(FORMS[form])
    call = call.but(loss=dataclasses.replace(call.loss, reduction="batchmean"))
    arrays = {
        field: np.concatenate([value, value])
        for field in ("spikes", "target", "where", "lengths")
        if (value := getattr(call, field)) is not None
    }
    with on(name) as backend:
        value, gradient = call.on(backend)
        twice, of_both = call.but(**arrays).on(backend)
        close(twice, value, backend.rtol)
        close(of_both[:BATCH] + of_both[BATCH:], gradient, backend.rtol)


WEIGHED = [(n, f) for n, f in pairs(jax=SOME[2:]) if "weight" in FORMS[f].contract.call]


@pytest.mark.parametrize(("name", "form"), WEIGHED)
def test_weights_weigh(name, form):
    call = example(FORMS[form]).having(reduction="none")
    with on(name) as backend:
        terms, gradient = call.on(backend)
        # ones change nothing, and a factor of all is one of the terms
        for factor in (1.0, 4.0):
            weighted = call.but(weight=np.full(CLASSES, factor)).on(backend)
            close(weighted[0], factor * terms, backend.rtol)
            close(weighted[1], factor * gradient, backend.rtol)
        # of a mean it is none
        loss = dataclasses.replace(call.loss, reduction="mean")
        mean = call.but(loss=loss, cotangent=None, weight=WEIGHT).on(backend)
        for x, y in zip(
            call.but(loss=loss, cotangent=None, weight=8 * WEIGHT).on(backend), mean, strict=True
        ):
            close(x, y, backend.rtol)
        if call.loss.__class__ is sx.SpikeMax and call.loss.label_smoothing:
            return  # where every class has a say in every term
        # with a 1 and zeros a class is alone
        alone, _ = call.but(weight=np.eye(CLASSES)[1]).on(backend)
        chosen = call.but(weight=np.eye(CLASSES)[1]).value() != 0
        assert 0 < chosen.sum() < chosen.size
        np.testing.assert_array_equal(alone[~chosen], 0)
        close(alone[chosen], terms[chosen], backend.rtol)


@not_jax
@pytest.mark.parametrize("ignored", [-100, 255, 2])
def test_an_ignored_label_is_no_sample(backend, ignored):
    label = np.asarray([3, ignored, 1, ignored, 0])
    kept = label != ignored
    losses = [
        sx.SpikeRate(0.75, 0.125, ignore_index=ignored, reduction="mean"),
        sx.SpikeRate(0.75, 0.125, 3, ignore_index=ignored, reduction="batchmean"),
        sx.SpikeMax(ignore_index=ignored, reduction="mean"),
        sx.SpikeMax(3, "softmax", ignore_index=ignored, label_smoothing=0.25, reduction="mean"),
    ]
    for loss in losses:
        for weight in (None, WEIGHT):
            value, gradient = Call(loss, SPIKES, label, weight=weight).on(backend)
            few = Call(loss, SPIKES[kept], label[kept], weight=weight)
            wanted, wanted_gradient = few.on(backend)
            close(value, wanted, backend.rtol)
            close(gradient[kept], wanted_gradient, backend.rtol)
            assert not gradient[~kept].any()


@one_jax
def test_the_default_of_ignore_index_needs_a_signed_label(backend):
    # 156 is -100 in 8 bits, and no label of an unsigned dtype is to be ignored
    spikes = backend.asarray(np.ones((2, 157, 1)))
    loss = sx.SpikeRate(1, 1, reduction="none")
    terms = backend.numpy(loss(spikes, backend.asarray([156, 0], "uint8")))
    assert not terms.any()
    ignored = backend.numpy(sx.SpikeRate(0, 0, reduction="none")(spikes, [156, -100]))
    np.testing.assert_array_equal(ignored, [[1] * 157, [0] * 157])
    wrapped = sx.SpikeMax(reduction="none")(spikes, backend.asarray([156, 0], "uint8"))
    assert backend.numpy(wrapped).all()


def test_groups_have_a_weight_for_each_class():
    spikes = np.repeat(SPIKES, 2, axis=1)
    for loss in (sx.SpikeRate(0.75, 0.125), sx.SpikeMax(mode="softmax")):
        grouped = dataclasses.replace(loss, **GROUPS)
        wanted = loss(SPIKES, LABEL, weight=WEIGHT)
        assert grouped(spikes, LABEL, weight=WEIGHT) == pytest.approx(wanted)
        with pytest.raises(ValueError, match=r"weight .*\(4,\).*\(8,\)"):
            grouped(spikes, LABEL, weight=np.ones(8))
