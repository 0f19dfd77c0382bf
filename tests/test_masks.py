"""What is masked is not there: it has no value and no gradient, and NaN in it does not show."""

import dataclasses
import re

import numpy as np
import pytest
import reference
from calls import (
    NOT_JAX,
    SOME,
    Call,
    agree,
    example,
    not_jax,
    one_jax,
    pairs,
    spoilt,
    with_everything,
)
from cases import close
from conftest import BACKENDS, on
from contract import BATCH, CLASSES, FORMS, LABELS, ONE_OF_EACH, REDUCTIONS, STEPS

import spikeloss_xp as sx


@pytest.mark.parametrize(("name", "form"), pairs(jax=ONE_OF_EACH))
def test_masked_entries_are_exactly_nothing(name, form):
    call = with_everything(FORMS[form])
    if "Sparsity" not in form:
        call = call.having(reduction="none")
    kept = reference.kept_entries(call.spikes.shape, -1, call.where, call.lengths)
    with on(name) as backend:
        value, gradient = spoilt(call).on(backend)
        for got, without in zip((value, gradient), call.on(backend), strict=True):
            np.testing.assert_array_equal(got, without)  # so none of it is NaN
        assert not gradient[~kept].any()
        if FORMS[form].contract.target is LABELS:
            label = call.target.reshape(BATCH, -1)
            assert not gradient[(label == -100).all(axis=1)].any()
        if "Sparsity" not in form:
            found = reference.evaluate(call.loss, call.spikes, call.target, **call.options)
            counted = reference.natural(call.loss, call.spikes.shape, found.counted)
            assert 0 < counted.sum() < counted.size
            assert not value[~counted].any()


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME))
def test_where_nothing_counts_the_loss_is_zero(name, form):
    call = example(FORMS[form])
    nothing = [
        {"where": np.zeros(BATCH, dtype=bool)},
        {"where": np.zeros((BATCH, STEPS), dtype=bool)},
        {"where": np.zeros(call.spikes.shape, dtype=bool)},
        {"lengths": np.zeros(BATCH, dtype=int)},
        {"where": np.arange(BATCH) < 2, "lengths": np.asarray([0, 0, 6, 6, 6])},
    ]
    if FORMS[form].contract.target is LABELS:
        nothing.append({"target": np.full(call.target.shape, -100), "weight": np.ones(CLASSES)})
    reductions = REDUCTIONS
    if "jax" in name:  # one of each will do, where each takes a third of a second
        nothing, reductions = [nothing[0], *nothing[5:]], ("mean",)
    if "Sparsity" in form:
        reductions = (None,)
    with on(name) as backend:
        for reduction in reductions:
            loss = call.loss
            if reduction:
                loss = dataclasses.replace(loss, reduction=reduction)
            for arguments in nothing:
                silent = call.but(loss=loss, **arguments)
                if reduction == "none":
                    silent = silent.having()
                value, gradient = silent.on(backend)
                assert not value.any()
                assert gradient.shape == call.spikes.shape
                assert not gradient.any()


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME[:1]))
def test_the_forms_of_a_mask_agree(name, form):
    call = example(FORMS[form])
    if "Sparsity" not in form:
        call = call.having(reduction="none")
    lengths, samples = np.asarray([6, 4, 1, 0, 5]), np.asarray([True, False, True, True, True])
    steps = np.arange(STEPS) < lengths[:, None]
    full = np.broadcast_to(steps[:, None], call.spikes.shape)
    of_samples = np.broadcast_to(samples[:, None, None], call.spikes.shape)
    same = [
        ({"where": full}, {"lengths": lengths}, {"where": steps}),
        ({"where": of_samples & full}, {"where": samples, "lengths": lengths}),
        ({}, {"where": np.ones(BATCH, dtype=bool)}, {"lengths": np.full(BATCH, STEPS)}),
    ]
    with on(name) as backend:
        for first, *others in same:
            wanted, wanted_gradient = call.but(**first).on(backend)
            for other in others:
                value, gradient = call.but(**other).on(backend)
                close(value, wanted, backend.rtol)
                close(gradient, wanted_gradient, backend.rtol)


@pytest.mark.parametrize(("name", "form"), pairs(jax=SOME[2:], without="Sparsity"))
def test_a_padded_batch_is_its_samples_one_by_one(name, form):
    call, lengths = example(FORMS[form]), (6, 4, 1, 3, 5)
    random = np.random.default_rng(4)
    kept = np.arange(STEPS) < np.asarray(lengths)[:, None]
    padding = random.normal(size=call.spikes.shape)  # which is not silence
    padded = call.but(
        spikes=np.where(kept[:, None], call.spikes, padding), lengths=np.asarray(lengths)
    )
    per_step = FORMS[form].target_axes[-1] == "time"
    with on(name) as backend:
        alone, gradients = [], np.zeros(call.spikes.shape)
        for b, length in enumerate(lengths):
            target = call.target[b : b + 1]
            one = call.but(
                spikes=call.spikes[b : b + 1, :, :length],
                target=target[..., :length] if per_step else target,
            )
            value, gradient = one.on(backend)
            alone.append(float(value))
            gradients[b, :, :length] = gradient[0]
        terms = np.prod([1, *np.shape(reference.terms(call.loss, call.spikes, call.target))[1:]])
        terms = [terms * length / STEPS if "time" in FORMS[form].terms_axes else terms
                 for length in lengths]  # fmt: skip
        for reduction, divisor in {"sum": 1, "mean": sum(terms), "batchmean": BATCH}.items():
            loss = dataclasses.replace(call.loss, reduction=reduction)
            value, gradient = padded.but(loss=loss).on(backend)
            close(value, sum(alone) / divisor, backend.rtol)
            close(gradient, gradients / divisor, backend.rtol)


ARGUMENTS = {
    "where": np.asarray([True, False, True, True, True]),
    "lengths": np.asarray([6, 5, 0, 3, 6]),
    "weight": np.asarray([0.5, 1.0, 2.0, 0.25]),
}


@one_jax
def test_arguments_of_the_host_follow_the_spikes(backend):
    call = example(FORMS["SpikeRate-count"]).but(**ARGUMENTS)
    spikes = backend.asarray(call.spikes)
    kinds = [
        lambda x: x,
        lambda x: x.tolist(),
        lambda x: tuple(x.tolist()),
        lambda x: np.repeat(x, 2)[::2],  # not contiguous
        lambda x: x[::-1].copy()[::-1],  # of negative strides
        backend.asarray,
    ]
    wanted = call.value()
    for kind in kinds:
        options = {name: kind(value) for name, value in ARGUMENTS.items()}
        value = call.loss(spikes, call.target, **options)
        assert value.device == spikes.device
        assert value.dtype == spikes.dtype
        close(backend.numpy(value), wanted, backend.rtol)
        if backend.name in NOT_JAX:
            _, gradient = sx.value_and_grad(call.loss)(spikes, target=call.target, **options)
            assert not backend.numpy(gradient)[1:3].any()


def test_arguments_on_another_device_follow_the_spikes():
    with on("array-api-strict") as there, on("array-api-strict-device1") as backend:
        call = example(FORMS["SpikeMax-rate"]).but(**ARGUMENTS)
        options = {name: there.asarray(value) for name, value in ARGUMENTS.items()}
        spikes = backend.asarray(call.spikes)
        value = call.loss(spikes, there.asarray(call.target), **options)
        assert value.device == spikes.device
        close(backend.numpy(value), call.value(), backend.rtol)


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("other", ["torch", "jax", "array-api-strict"])
def test_arguments_of_another_library_are_refused(backend, other, argument):
    if BACKENDS[other][0] == backend.library:
        pytest.skip("no other library")
    spikes = backend.asarray(example(FORMS["SpikeMax-rate"]).spikes)
    with on(other) as there:
        made = there.asarray(ARGUMENTS[argument])
        names = re.escape(backend.library) + ".*" + re.escape(there.library)
        with pytest.raises(TypeError, match=f"{argument} .*{names}"):
            sx.SpikeMax()(spikes, [0, 1, 2, 3, 0], **{argument: made})


@pytest.mark.parametrize(
    ("argument", "dtype"),
    [
        *(("lengths", d) for d in ("int8", "int16", "int32", "uint8", "uint16", "uint64")),
        *(("weight", d) for d in ("float16", "bfloat16", "float32", "float64", "int32", "uint8")),
    ],
)
@one_jax
def test_dtypes_of_lengths_and_weights(backend, argument, dtype):
    if not hasattr(backend.xp, dtype) or ("64" in dtype and backend.dtype == "float32"):
        pytest.skip(f"{backend.name} has no {dtype}")
    call = example(FORMS["SpikeRate-count"])
    values = np.asarray([6, 5, 0, 3, 6] if argument == "lengths" else [1, 2, 0, 4])
    wanted = call.but(**{argument: values})
    made = backend.asarray(values, dtype)
    value = call.loss(backend.asarray(call.spikes), call.target, **{argument: made})
    assert value.dtype == backend.asarray(call.spikes).dtype
    close(backend.numpy(value), wanted.value(), backend.rtol)


@not_jax
def test_of_a_class_that_is_masked_nothing_counts(backend):
    """To SpikeMax a class that is masked everywhere is none: it is as if it had no neuron."""
    call = example(FORMS["SpikeMax-cold-softmax-rate"])
    label = np.asarray([0, 1, 3, 0, 3])
    where = np.ones(call.spikes.shape, dtype=bool)
    where[:, 2] = False
    for loss in (call.loss, sx.SpikeMax(), sx.SpikeMax(label_smoothing=0.25, readout="count")):
        masked = Call(loss, call.spikes, label, where=where)
        fewer = Call(loss, np.delete(call.spikes, 2, axis=1), np.asarray([0, 1, 2, 0, 2]))
        value, gradient = masked.on(backend)
        wanted, wanted_gradient = fewer.on(backend)
        close(value, wanted, backend.rtol)
        close(np.delete(gradient, 2, axis=1), wanted_gradient, backend.rtol)


@not_jax
def test_the_published_numerics_have_masks_too(backend):
    call = example(FORMS["SpikeMoid-rate"])
    lengths, label = np.asarray([6, 4, 1, 3, 5]), np.asarray([0, 1, 3, 2, -100])
    losses = [
        (sx.SpikeMax(numerics="lava", reduction="mean"), label),
        (sx.SpikeMax(3, numerics="lava", reduction="mean"), label),
        (sx.SpikeMoid(alpha=0.25, numerics="lava", reduction="mean"), call.target),
    ]
    for loss, target in losses:
        masked = call.but(loss=loss, target=target, lengths=lengths)
        agree(masked, masked.on(backend), backend.rtol)
        where = np.ones(call.spikes.shape, dtype=bool)
        where[:, 3] = False
        masked = masked.but(where=where)
        agree(masked, masked.on(backend), backend.rtol)
