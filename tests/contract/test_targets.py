"""Valid targets work in every form; invalid ones raise an error or give NaN."""

import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases, reference
from _support.backends import BACKENDS, TESTED, on
from _support.cases import CASES, LABEL, SPIKES, close, reduced

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
LABEL_LOSSES = {
    "SpikeRate": sx.SpikeRate(0.75, 0.125, reduction="none"),
    "SpikeRate-window": sx.SpikeRate(0.75, 0.125, 3, reduction="none"),
    "SpikeMax": sx.SpikeMax(reduction="none"),
    "SpikeMax-window": sx.SpikeMax(3, reduction="none"),
    "SpikeMax-softmax": sx.SpikeMax(mode="softmax", reduction="none"),
    "SpikeMax-softmax-window": sx.SpikeMax(3, "softmax", reduction="none"),
    "SpikeMax-lava": sx.SpikeMax(numerics="lava", reduction="none"),
}


def integer_dtypes(backend):
    has_64_bits = backend.dtype == "float64" or backend.library != "jax"
    return [d for d in INTEGERS if hasattr(backend.xp, d) and (has_64_bits or "64" not in d)]


@pytest.mark.parametrize("name", ["SpikeRate", "SpikeMax-window-per-step"])
def test_labels_accept_every_integer_dtype(backend, name):
    loss, label = CASES[name]
    expected = reference.terms(loss, SPIKES["binary"], label).sum()
    compiled_loss = backend.compiled(loss)
    dtypes = integer_dtypes(backend)
    assert len(dtypes) >= 5
    for dtype in dtypes:
        value = compiled_loss(backend.asarray(SPIKES["binary"]), backend.asarray(label, dtype))
        close(backend.numpy(value), expected, backend.rtol)


@pytest.mark.parametrize("name", ["SpikeMax", "SpikeRate-window-per-step", "SpikeMoid-soft"])
def test_host_targets_move_to_the_device_of_the_input(backend, name):
    loss, target = CASES[name]
    spikes = backend.asarray(SPIKES["binary"])
    expected = reference.terms(loss, SPIKES["binary"], target).sum()
    for host_target in (target, target.tolist(), tuple(target.tolist())):
        value = loss(spikes, host_target)
        assert value.device == spikes.device
        assert value.dtype == spikes.dtype
        close(backend.numpy(value), expected, backend.rtol)


def test_int8_labels_work_with_more_than_128_classes(backend):
    spikes = np.zeros((2, 200, 1))
    spikes[:, [3, 199]] = 1
    compiled_loss = backend.compiled(sx.SpikeMax(reduction="none"))
    terms = compiled_loss(backend.asarray(spikes), backend.asarray([3, 127], "int8"))
    # the label is one of two active neurons, then a silent one: -log(1/2) + 1 + log(2 + 200/2)
    expected = np.asarray([np.log(2 + 1e-6), np.log(2) + 1 + np.log(102 + 1e-6)])
    close(backend.numpy(terms), expected, backend.rtol)


def test_multi_hot_targets_accept_bool_and_floats(backend):
    spikes = backend.asarray(SPIKES["binary"])
    loss = sx.SpikeMoid()
    expected = reference.terms(loss, SPIKES["binary"], cases.MULTI_HOT).sum()
    for dtype in ("bool", "float32", "float64", "float16", "bfloat16"):
        available = hasattr(backend.xp, dtype)
        if available and not (dtype == "float64" and backend.dtype == "float32"):
            value = loss(spikes, backend.asarray(cases.MULTI_HOT, dtype))
            assert value.dtype == spikes.dtype
            close(backend.numpy(value), expected, backend.rtol)


@pytest.mark.parametrize("bad", [3, -1, 120])
@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_out_of_range_raises(backend, name, bad):
    loss, label = LABEL_LOSSES[name], [bad, 0]
    spikes = backend.asarray(SPIKES["graded"])
    message = f"target must be between 0 and 2; got values from {min(label)} to {max(label)}"
    for host_label in (label, np.asarray(label)):
        with pytest.raises(ValueError, match=message):
            loss(spikes, host_label)
    if backend.reads_values:
        with pytest.raises(ValueError, match=message):
            loss(spikes, backend.asarray(label))
    elif bad == 3:
        assert_only_first_sample_is_nan(backend, sx.value_and_grad(loss), loss, label)


@pytest.mark.parametrize("bad", [3, -1])
@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_out_of_range_is_nan_when_traced(name, bad):
    with on("jax-x64") as backend:
        evaluate = backend.compiled(sx.value_and_grad(LABEL_LOSSES[name]))
        assert_only_first_sample_is_nan(backend, evaluate, LABEL_LOSSES[name], [bad, 0])


def assert_only_first_sample_is_nan(backend, evaluate, loss, label):
    expected = reference.terms(loss, SPIKES["graded"], np.asarray([0, label[1]]))
    ones = backend.asarray(np.ones(expected.shape))
    result = evaluate(backend.asarray(SPIKES["graded"]), backend.asarray(label), cotangent=ones)
    terms, gradient = map(backend.numpy, result)
    _, expected_gradient = sx.value_and_grad(reduced(loss, "sum"))(SPIKES["graded"], [0, label[1]])
    for got, expected_result in ((terms, expected), (gradient, expected_gradient)):
        assert np.isnan(got[0]).all()
        close(got[1], expected_result[1], backend.rtol)


@pytest.mark.parametrize("name", ["jax-x64", "array-api-strict"])
def test_label_out_of_range_is_nan_at_its_step(name):
    label = np.asarray([[0, 1, 2, 1, 0], [0, 3, 2, -1, 0]])
    with on(name) as backend:
        compiled_loss = backend.compiled(LABEL_LOSSES["SpikeMax-window"])
        terms = backend.numpy(
            compiled_loss(backend.asarray(SPIKES["graded"]), backend.asarray(label))
        )
    np.testing.assert_array_equal(np.isnan(terms), (label < 0) | (label > 2))


@pytest.mark.parametrize("bad", [1.5, -0.25])
def test_multi_hot_target_outside_0_to_1_raises(backend, bad):
    label = cases.SOFT.copy()
    label[0, 1] = bad
    spikes, loss = backend.asarray(SPIKES["graded"]), sx.SpikeMoid(reduction="none")
    message = "target must be between 0 and 1; got values from"
    with pytest.raises(ValueError, match=message):
        loss(spikes, label)
    if backend.reads_values:
        with pytest.raises(ValueError, match=message):
            loss(spikes, backend.asarray(label))
    else:
        assert_only_bad_terms_are_nan(backend, sx.value_and_grad(loss), label, bad)


@pytest.mark.parametrize("bad", [1.5, -0.25])
def test_multi_hot_target_outside_0_to_1_is_nan_when_traced(bad):
    label = cases.SOFT.copy()
    label[1, 2] = bad
    with on("jax-x64") as backend:
        evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMoid(reduction="none")))
        assert_only_bad_terms_are_nan(backend, evaluate, label, bad)


def assert_only_bad_terms_are_nan(backend, evaluate, label, bad):
    ones = backend.asarray(np.ones(label.shape))
    spikes, label = backend.asarray(SPIKES["graded"]), backend.asarray(label)
    with np.errstate(invalid="ignore"):  # NumPy warns of logaddexp at NaN
        terms, gradient = map(backend.numpy, evaluate(spikes, label, cotangent=ones))
    label = backend.numpy(label)
    np.testing.assert_array_equal(np.isnan(terms), label == bad)
    np.testing.assert_array_equal(np.isnan(gradient[..., 0]), label == bad)


FIRST_CLASS = np.ones(SPIKES["graded"].shape, bool)
FIRST_CLASS[0, 0] = False  # a label that is no class is computed as the first class
BAD_LABEL_MASKS = {
    "where without the first class": {"where": FIRST_CLASS},
    "no mask": {},
    "lengths": {"lengths": [5, 4]},
    "where per sample": {"where": [True, True]},
    "where per step": {"where": np.arange(10).reshape(2, 5) != 3},
    "where per neuron": {"where": np.arange(30).reshape(SPIKES["graded"].shape) % 7 != 3},
    "all": {"lengths": [5, 4], "where": np.arange(30).reshape(SPIKES["graded"].shape) % 7 != 3},
}
BAD_LABEL_LOSSES = {
    "SpikeRate": sx.SpikeRate(0.75, 0.125),
    "SpikeMax": sx.SpikeMax(),
    "SpikeMax, window": sx.SpikeMax(3),
    "SpikeMax, softmax": sx.SpikeMax(mode="softmax"),
    "SpikeMax, smoothed": sx.SpikeMax(label_smoothing=0.25),
    "SpikeMax, last": sx.SpikeMax(mode="softmax", readout="last"),
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
        label, spikes = backend.asarray([7, 1]), backend.asarray(SPIKES["graded"])
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
        spikes, where = backend.asarray(SPIKES["graded"]), backend.asarray([True, True])
        loss = sx.SpikeMax(reduction="none")

        def terms(where):
            return loss(spikes, np.asarray([bad, 1]), where=where)

        np.testing.assert_array_equal(np.isnan(backend.compiled(terms)(where)), [True, False])
        with pytest.raises(ValueError, match=f"target must be between 0 and 2; got .*{bad}"):
            terms(where)


@pytest.mark.parametrize("name", TESTED)
def test_target_of_another_library_raises(backend, name):
    if BACKENDS[name][0] in (backend.library, "numpy"):
        pytest.skip("no other library")
    library = "jax" if backend.library == "jax" else backend.library
    with on(name) as other:
        for loss, target in (CASES["SpikeTime-order1"], CASES["SpikeRate"], CASES["SpikeMoid"]):
            with pytest.raises(
                TypeError, match=f"library of the input, {library}, .*{other.library}"
            ):
                loss(backend.asarray(SPIKES["graded"]), other.asarray(target))


@pytest.mark.parametrize(
    ("loss", "target", "error", "message"),
    [
        (sx.SpikeMax(), [0.0, 1.0], TypeError, "integers, the index of a class; got .*float"),
        (sx.SpikeRate(1, 0), [0.0, 1.0], TypeError, "integers, the index of a class; got .*float"),
        (sx.SpikeMax(), [True, False], TypeError, "integers, the index of a class; got .*bool"),
        (sx.SpikeMoid(), LABEL.tolist(), TypeError, "multi-hot.*; got .*int"),
        (sx.SpikeMoid(), [[0, 1, 0], [1, 0, 0]], TypeError, "multi-hot.*; got .*int"),
        (sx.SpikeMax(), ["a", "b"], TypeError, "target must hold numbers; got list"),
        (sx.SpikeMax(), None, TypeError, "target must hold numbers; got NoneType"),
        (sx.SpikeMoid(), [[1.0, 0.0], [1.0]], ValueError, "target is not a rectangular sequence"),
        (sx.SpikeTime(), np.zeros((2, 3, 5), complex), TypeError, "target must"),
    ],
)
def test_target_of_wrong_kind_raises(backend, loss, target, error, message):
    with pytest.raises(error, match=message):
        loss(backend.asarray(SPIKES["graded"]), target)


@pytest.mark.parametrize(
    ("loss", "shape", "expected"),
    [
        (sx.SpikeTime(), (3, 2, 5), ["(2, 3, 5)"]),
        (sx.SpikeTime(), (2, 5, 3), ["(2, 3, 5)"]),
        (sx.SpikeTime(), (5, 3, 2), ["(2, 3, 5)"]),
        (sx.SpikeTime(), (30,), ["(2, 3, 5)"]),
        (sx.SpikeTime(), (1, 3, 5), ["(2, 3, 5)"]),
        (sx.SpikeTime(), (3, 5), ["(2, 3, 5)"]),
        (sx.SpikeTime(time_axis=0), (3, 5, 2), ["(2, 3, 5)"]),
        *(
            (loss, shape, ["(2,) ([batch])"])
            for loss in (sx.SpikeRate(1, 0), sx.SpikeMax())
            for shape in ((3,), (1,), (), (2, 1), (1, 2), (2, 5), (2, 3))
        ),
        *(
            (loss, shape, ["(2,) ([batch])", "(2, 5) (one label per step)"])
            for loss in (sx.SpikeRate(1, 0, 3), sx.SpikeMax(3))
            for shape in ((5,), (5, 2), (2, 1), (1, 5), (10,), (2, 3, 5))
        ),
        (sx.SpikeMax(3, time_axis=0), (3, 2), ["(3,) ([batch])", "(2, 3) (one label per step)"]),
        *(
            (sx.SpikeMoid(), shape, ["(2, 3) ([batch, class])"])
            for shape in ((3, 2), (2,), (6,), (1, 3), (2, 1), (2, 3, 5))
        ),
        *(
            (sx.SpikeMoid(3), shape, ["(2, 3) ([batch, class])", "(2, 3, 5)"])
            for shape in ((3, 2), (2, 5), (2, 5, 3), (3, 2, 5), (2, 3, 1))
        ),
        (sx.SpikeMoid(3, time_axis=1), (2, 5, 3), ["(2, 5)", "(2, 3, 5)"]),
    ],
)
def test_target_of_wrong_shape_raises_with_both_shapes(backend, loss, shape, expected):
    label = isinstance(loss, sx.SpikeRate | sx.SpikeMax)
    target = backend.asarray(np.zeros(shape, int if label else float))
    message = ".* or ".join(map(re.escape, expected)) + f".*; got {re.escape(str(shape))}"
    with pytest.raises(ValueError, match=message):
        loss(backend.asarray(SPIKES["graded"]), target)


@pytest.mark.parametrize("dtype", [">i4", "<i2", ">i8"])
def test_labels_accept_any_byte_order(backend, dtype):
    spikes = backend.asarray(SPIKES["binary"])
    label = np.asarray(LABEL)
    expected = backend.numpy(sx.SpikeMax()(spikes, label))
    assert backend.numpy(sx.SpikeMax()(spikes, label.astype(dtype))) == expected


SAMPLE_MASK = np.asarray([False, True])


@pytest.mark.parametrize("bad", [-1, 3, 120])
@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_of_masked_sample_is_not_checked(backend, name, bad):
    loss = LABEL_LOSSES[name]
    spikes = backend.asarray(SPIKES["graded"])
    ones = np.ones(loss(SPIKES["graded"], [0, 0]).shape)
    evaluate = sx.value_and_grad(loss)
    expected = evaluate(SPIKES["graded"], [0, 0], where=SAMPLE_MASK, cotangent=ones)
    for label in ([bad, 0], backend.asarray([bad, 0])):
        for mask in ({"where": SAMPLE_MASK}, {"lengths": [0, 5]}):
            got = evaluate(spikes, label, **mask, cotangent=ones)
            for array, expected_array in zip(got, expected, strict=True):
                close(backend.numpy(array), expected_array, backend.rtol)
    if backend.reads_values:
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            loss(spikes, [0, bad], where=SAMPLE_MASK)
    else:
        assert np.isnan(backend.numpy(loss(spikes, [0, bad], where=SAMPLE_MASK))[1]).any()


def test_label_of_masked_step_is_not_checked(backend):
    label = np.asarray([[2, 0, -1, 3, -5], [1, 1, 1, 1, 120]])
    spikes = backend.asarray(SPIKES["binary"])
    loss = sx.SpikeMax(3, reduction="mean")
    expected = loss(SPIKES["binary"], np.where(np.arange(5) < 2, label, 0), lengths=[2, 2])
    for passed_label in (label, backend.asarray(label)):
        close(backend.numpy(loss(spikes, passed_label, lengths=[2, 2])), expected, backend.rtol)
    time_first = backend.asarray(np.moveaxis(SPIKES["binary"], -1, 0))
    loss_time_first = sx.SpikeMax(3, reduction="mean", time_axis=0)
    close(
        backend.numpy(loss_time_first(time_first, label.T, lengths=[2, 2])), expected, backend.rtol
    )


def test_soft_target_of_masked_class_may_be_nan(backend):
    soft = np.asarray([[0.5, np.nan, 1.0], [np.nan] * 3])
    mask = np.zeros(cases.SHAPE, dtype=bool)
    mask[0, [0, 2], 1:] = True
    evaluate = sx.value_and_grad(sx.SpikeMoid())
    expected = evaluate(SPIKES["graded"], np.nan_to_num(soft), where=mask)
    for passed_label in (soft, backend.asarray(soft)):
        got = evaluate(backend.asarray(SPIKES["graded"]), passed_label, where=mask)
        for array, expected_array in zip(got, expected, strict=True):
            close(backend.numpy(array), expected_array, backend.rtol)
