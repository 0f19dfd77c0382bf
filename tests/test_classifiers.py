"""Rates and confidences of the classifiers; `test_ties.py` compares what they predict."""

import dataclasses
import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import run

SPIKES = np.random.default_rng(0).uniform(0.1, 1, (3, 6, 5))
CLASSIFIERS = (
    sx.Rate(time_axis=-1),
    sx.Rate(mode="softmax", num_classes=3, time_axis=-1),
    sx.MovingWindow(3, eps=0.5, num_classes=3, time_axis=-1),
    sx.MovingWindow(2, "logsoftmax", time_axis=-1),
)
MASKS = {
    "all": {},
    "lengths": {"lengths": np.asarray([5, 2, 3])},
    "classes": {
        "where": np.repeat(np.arange(6)[:, None] > 1, 5, axis=1) & np.ones((3, 1, 1), bool)
    },
    "samples": {"where": np.asarray([True, False, True])},
}
RATE_OF_3 = functools.partial(sx.MovingWindow, time_window=3)


def evaluate(backend, classifiers, spikes, methods, **options):
    """Return the results of some methods of each classifier, by one compiled function."""

    def every(x, **options):
        return [[getattr(one, m)(x, **options) for m in methods] for one in classifiers]

    return run(backend, every, spikes, **options)


def expected(classifier, masks):
    """Return the rates and confidences of the classes, ``[batch, class, time]``, and their mask."""
    options = {"moving_window": classifier.time_window, "num_classes": classifier.num_classes}
    reading = reference.read(
        sx.CrossEntropy(readout="rate", time_axis=-1, **options), SPIKES, **masks
    )
    mask = reading.term_mask
    if classifier.mode == "probability":
        return reading.u, reading.u / (reading.u.sum(axis=1, keepdims=True) + classifier.eps), mask
    without_any = ~mask.any(axis=1, keepdims=True)
    share = np.exp(reading.u) * (mask | without_any)
    share /= share.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return reading.u, np.log(share) if classifier.mode == "logsoftmax" else share, mask


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", MASKS)
def test_rate_and_confidence_equal_the_formulas(backend, name, axis):
    """On two axes of space, with NaN in all steps that lengths mask."""
    masks = MASKS[name]
    spikes = np.where(
        reference.full_mask(SPIKES.shape, -1, None, masks.get("lengths")), SPIKES, np.nan
    )
    spikes = np.moveaxis(spikes.reshape(3, 2, 3, 5), -1, axis)
    placed = {
        key: np.moveaxis(mask.reshape(3, 2, 3, 5), -1, axis) if mask.ndim == 3 else mask
        for key, mask in masks.items()
    }
    moved = [dataclasses.replace(one, time_axis=axis) for one in CLASSIFIERS]
    found = evaluate(backend, moved, spikes, ("rate", "confidence"), **placed)
    for classifier, results in zip(CLASSIFIERS, found, strict=True):
        *formulas, mask = expected(classifier, masks)
        counted = mask.any(axis=1) if classifier.time_window else np.ones((3, 1), bool)
        for got, wanted in zip(results, formulas, strict=True):
            if classifier.time_window:
                got = np.moveaxis(got, axis, -1)
            got = np.moveaxis(got.reshape(wanted.shape), 1, -1)[counted]
            wanted = np.moveaxis(wanted, 1, -1)[counted]
            np.testing.assert_allclose(
                got, wanted, rtol=0, atol=backend.rtol, err_msg=str(classifier)
            )


def test_call_and_forward_predict_and_never_a_masked_class(backend):
    spikes = np.asarray([[[1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]]])
    where = np.ones(spikes.shape, dtype=bool)
    where[0, 0] = False
    one = sx.Rate(mode="softmax", time_axis=-1), sx.MovingWindow(1, "softmax", time_axis=-1)
    methods = ("predict", "forward", "__call__")
    for results in evaluate(backend, one, spikes, methods, where=where):
        assert all((predicted == 1).all() for predicted in results)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16"])
def test_spikes_may_have_any_real_dtype(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]], [[0, 1, 0, 0], [1, 0, 1, 0]]])
    run = backend.compiled(
        lambda x: (sx.MovingWindow(4, time_axis=-1)(x), sx.Rate(time_axis=-1).rate(x))
    )
    predicted, rates = run(backend.asarray(spikes, dtype))
    np.testing.assert_array_equal(backend.numpy(predicted)[:, -1], [0, 1])
    np.testing.assert_array_equal(backend.numpy(rates), [[0.75, 0.25], [0.25, 0.5]])
    assert backend.xp.isdtype(rates.dtype, "real floating")
    assert backend.xp.finfo(rates.dtype).bits >= 32


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        (sx.Rate, {"mode": "any"}, ValueError, "mode.*probability, softmax, logsoftmax.*'any'"),
        (RATE_OF_3, {"mode": "any"}, ValueError, "mode.*probability, softmax, logsoftmax"),
        (RATE_OF_3, {"time_window": 0}, ValueError, "time_window.*at least 1.*0"),
        (RATE_OF_3, {"time_window": None}, TypeError, "time_window.*integer.*None"),
        (sx.Rate, {"eps": -1}, ValueError, "eps.*at least 0.*-1"),
        (sx.Rate, {"eps": float("nan")}, ValueError, "eps.*finite.*nan"),
        (sx.Rate, {"time_axis": 0.5}, TypeError, "time_axis.*integer.*0.5"),
    ],
)
def test_wrong_options_raise(kind, options, error, message):
    with pytest.raises(error, match=message):
        kind(**{"time_axis": -1, **options})


@pytest.mark.parametrize(
    ("spikes", "axis", "error", "message"),
    [
        (np.zeros((2, 5)), -1, ValueError, r"at least 3 axes.*\(2, 5\)"),
        ([[[0, 1]]], -1, TypeError, "spikes must be an array.*list"),
        (np.zeros((1, 1, 1), complex), -1, TypeError, "spikes must be.*complex"),
        (np.zeros((1, 1, 1)), 3, ValueError, "time_axis=3.*1, 1, 1"),
    ],
)
def test_wrong_spikes_raise(spikes, axis, error, message):
    with pytest.raises(error, match=message):
        sx.Rate(time_axis=axis)(spikes)


def test_number_of_classes_must_divide_that_of_neurons():
    with pytest.raises(ValueError, match="num_classes=4 must divide the number of neurons, 6"):
        sx.Rate(num_classes=4, time_axis=-1).predict(SPIKES)


@pytest.mark.parametrize(
    "classifier", [sx.Rate(mode="softmax", time_axis=-1), sx.MovingWindow(3, eps=0.5, time_axis=-1)]
)
def test_classifiers_compare_hash_and_print_by_value(classifier):
    same = dataclasses.replace(classifier)
    assert same == classifier
    assert hash(same) == hash(classifier)
    assert eval(repr(classifier), vars(sx)) == classifier
    with pytest.raises(dataclasses.FrozenInstanceError):
        classifier.mode = "probability"
