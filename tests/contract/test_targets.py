"""Valid targets work in every form; invalid ones raise an error or give NaN."""

import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import on
from _support.calls import each, run
from _support.cases import close, reduced

SPIKES = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5))
SOFT = np.asarray([[0.0, 1.0, 0.25], [0.5, 0.875, 0.0]])
LABEL_LOSSES = {
    "SpikeRate": sx.SpikeRate(0.75, 0.125, reduction="none"),
    "SpikeRate-window": sx.SpikeRate(0.75, 0.125, 3, reduction="none"),
    "SpikeMax": sx.SpikeMax(reduction="none"),
    "SpikeMax-window": sx.SpikeMax(3, reduction="none"),
    "SpikeMax-softmax": sx.SpikeMax(mode="softmax", reduction="none"),
    "SpikeMax-softmax-window": sx.SpikeMax(3, "softmax", reduction="none"),
    "SpikeMax-lava": sx.SpikeMax(numerics="lava", reduction="none"),
}


def test_int8_labels_work_with_more_than_128_classes(backend):
    spikes = np.zeros((2, 200, 1))
    spikes[:, [3, 199]] = 1
    compiled_loss = backend.compiled(sx.SpikeMax(reduction="none"))
    terms = compiled_loss(backend.asarray(spikes), backend.asarray([3, 127], "int8"))
    # the label is one of two active neurons, then a silent one: -log(1/2) + 1 + log(2 + 200/2)
    expected = np.asarray([np.log(2 + 1e-6), np.log(2) + 1 + np.log(102 + 1e-6)])
    close(backend.numpy(terms), expected, backend.rtol)


@pytest.mark.parametrize("bad", [3, -1, 120])
@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_out_of_range_raises(backend, name, bad):
    loss, label = LABEL_LOSSES[name], [bad, 0]
    spikes = backend.asarray(SPIKES)
    message = f"target must be between 0 and 2; got values from {min(label)} to {max(label)}"
    for host_label in (label, np.asarray(label)):
        with pytest.raises(ValueError, match=message):
            loss(spikes, host_label)
    if backend.reads_values:
        with pytest.raises(ValueError, match=message):
            loss(spikes, backend.asarray(label))
    elif bad == 3:
        assert_only_first_sample_is_nan(backend, sx.value_and_grad(loss), loss, label)


def assert_only_first_sample_is_nan(backend, evaluate, loss, label):
    expected = reference.terms(loss, SPIKES, np.asarray([0, label[1]]))
    ones = backend.asarray(np.ones(expected.shape))
    result = evaluate(backend.asarray(SPIKES), backend.asarray(label), cotangent=ones)
    terms, gradient = map(backend.numpy, result)
    _, expected_gradient = sx.value_and_grad(reduced(loss, "sum"))(SPIKES, [0, label[1]])
    for got, expected_result in ((terms, expected), (gradient, expected_gradient)):
        assert np.isnan(got[0]).all()
        close(got[1], expected_result[1], backend.rtol)


@pytest.mark.parametrize("name", ["jax-x64", "array-api-strict"])
def test_label_out_of_range_is_nan_at_its_step(name):
    label = np.asarray([[0, 1, 2, 1, 0], [0, 3, 2, -1, 0]])
    with on(name) as backend:
        compiled_loss = backend.compiled(LABEL_LOSSES["SpikeMax-window"])
        terms = backend.numpy(compiled_loss(backend.asarray(SPIKES), backend.asarray(label)))
    np.testing.assert_array_equal(np.isnan(terms), (label < 0) | (label > 2))


@pytest.mark.parametrize("bad", [1.5, -0.25])
def test_multi_hot_target_outside_0_to_1_raises(backend, bad):
    label = SOFT.copy()
    label[0, 1] = bad
    spikes, loss = backend.asarray(SPIKES), sx.SpikeMoid(reduction="none", theta=0)
    message = "target must hold multi-hot labels, between 0 and 1; got values from"
    with pytest.raises(ValueError, match=message):
        loss(spikes, label)
    if backend.reads_values:
        with pytest.raises(ValueError, match=message):
            loss(spikes, backend.asarray(label))
    else:
        assert_only_bad_terms_are_nan(backend, sx.value_and_grad(loss), label, bad)


def assert_only_bad_terms_are_nan(backend, evaluate, label, bad):
    ones = backend.asarray(np.ones(label.shape))
    spikes, label = backend.asarray(SPIKES), backend.asarray(label)
    with np.errstate(invalid="ignore"):  # NumPy warns of logaddexp at NaN
        terms, gradient = map(backend.numpy, evaluate(spikes, label, cotangent=ones))
    label = backend.numpy(label)
    np.testing.assert_array_equal(np.isnan(terms), label == bad)
    np.testing.assert_array_equal(np.isnan(gradient[..., 0]), label == bad)


FIRST_CLASS = np.ones(SPIKES.shape, bool)
FIRST_CLASS[0, 0] = False  # a label that is no class is computed as the first class
BAD_LABEL_MASKS = {
    "where without the first class": {"where": FIRST_CLASS},
    "no mask": {},
    "lengths": {"lengths": [5, 4]},
    "where per sample": {"where": [True, True]},
    "where per step": {"where": np.arange(10).reshape(2, 5) != 3},
    "where per neuron": {"where": np.arange(30).reshape(SPIKES.shape) % 7 != 3},
    "all": {"lengths": [5, 4], "where": np.arange(30).reshape(SPIKES.shape) % 7 != 3},
}
BAD_LABEL_LOSSES = {
    "SpikeRate": sx.SpikeRate(0.75, 0.125),
    "SpikeMax": sx.SpikeMax(),
    "SpikeMax, window": sx.SpikeMax(3),
    "SpikeMax, softmax": sx.SpikeMax(mode="softmax"),
    "CrossEntropy, smoothed": sx.CrossEntropy(
        label_smoothing=0.25, reduction="sum", time_axis=-1, readout="rate"
    ),
    "CrossEntropy, last": sx.CrossEntropy(readout="last", reduction="sum", time_axis=-1),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("masks", BAD_LABEL_MASKS)
@pytest.mark.parametrize("name", BAD_LABEL_LOSSES)
def test_label_that_cannot_be_checked_is_nan_with_every_mask(name, masks, weighted):
    """On a library whose values cannot be read. A bad label must not be left out."""
    loss = reduced(BAD_LABEL_LOSSES[name], "none")
    with on("array-api-strict") as backend:
        arrays = {key: backend.asarray(mask) for key, mask in BAD_LABEL_MASKS[masks].items()}
        if weighted:
            arrays["weight"] = backend.asarray([1.0, 2.0, 0.5])
        label, spikes = backend.asarray([7, 1]), backend.asarray(SPIKES)
        terms = backend.numpy(loss(spikes, label, **arrays))
        assert np.isnan(terms[0]).any()
        if masks == "where without the first class" and loss._classes_compete:
            assert np.isnan(terms[0]).all()
        assert not np.isnan(terms[1]).any()
        assert np.isnan(backend.numpy(reduced(loss, "mean")(spikes, label, **arrays)))


@pytest.mark.parametrize("bad", [2**32, -(2**32) + 1, 2**63 - 1])
def test_wide_label_does_not_wrap_around_to_a_class(bad):
    """In a trace the mask has no values, so the labels are checked where they are used."""
    with on("jax") as backend:
        spikes, where = backend.asarray(SPIKES), backend.asarray([True, True])
        loss = sx.SpikeMax(reduction="none")

        def terms(where):
            return loss(spikes, np.asarray([bad, 1]), where=where)

        np.testing.assert_array_equal(np.isnan(backend.compiled(terms)(where)), [True, False])
        with pytest.raises(ValueError, match=f"target must be between 0 and 2; got .*{bad}"):
            terms(where)


@pytest.mark.parametrize("dtype", [">i4", "<i2", ">i8"])
def test_labels_accept_any_byte_order(backend, dtype):
    label, loss = np.asarray([2, 0]), sx.SpikeMax()
    got, expected = run(backend, lambda x: [loss(x, label.astype(dtype)), loss(x, label)], SPIKES)
    assert got == expected


SAMPLE_MASK = np.asarray([False, True])


@pytest.mark.parametrize("bad", [-1, 3, 120])
@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_of_masked_sample_is_not_checked(backend, name, bad):
    loss = LABEL_LOSSES[name]
    spikes = backend.asarray(SPIKES)
    ones = np.ones(loss(SPIKES, [0, 0]).shape)
    evaluate = sx.value_and_grad(loss)
    expected = evaluate(SPIKES, [0, 0], where=SAMPLE_MASK, cotangent=ones)
    given = [  # outside of the trace, so that the labels are checked
        functools.partial(evaluate, target=label, cotangent=ones, **mask)
        for label in ([bad, 0], backend.asarray([bad, 0]))
        for mask in ({"where": SAMPLE_MASK}, {"lengths": [0, 5]})
    ]
    for got in run(backend, each(given), SPIKES):
        for array, expected_array in zip(got, expected, strict=True):
            close(array, expected_array, backend.rtol)
    if backend.reads_values:
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            loss(spikes, [0, bad], where=SAMPLE_MASK)
    else:
        assert np.isnan(backend.numpy(loss(spikes, [0, bad], where=SAMPLE_MASK))[1]).any()
