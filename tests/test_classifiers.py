"""Rates and confidences of the classifiers; `test_ties.py` tests their predictions."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run

SPIKES = np.random.default_rng(0).uniform(0.1, 1, (3, 6, 5))
CLASSIFIERS = (
    sx.classifiers.Rate(time_axis=-1),
    sx.classifiers.Rate(mode="softmax", num_classes=3, time_axis=-1),
    sx.classifiers.MovingWindow(3, eps=0.5, num_classes=3, time_axis=-1),
    sx.classifiers.MovingWindow(2, "logsoftmax", time_axis=-1),
)
MASKS = {
    "all": {},
    "lengths": {"lengths": np.asarray([5, 2, 3])},
    "classes": {  # two at all steps, and others at some
        "where": (np.arange(6)[:, None] > 1) & (np.arange(90).reshape(3, 6, 5) % 4 > 1)
    },
    "samples": {"where": np.asarray([True, False, True])},
}


def expected(classifier, masks):
    """Return the rates and confidences of the classes, ``[batch, class, time]``, and their mask."""
    options = {"moving_window": classifier.window, "num_classes": classifier.num_classes}
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


@pytest.mark.parametrize(
    ("name", "axis"), [("all", 0), ("lengths", 1), ("classes", -1), ("classes", 0), ("samples", 1)]
)
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
    evaluate = each([each([one.rate, one.confidence]) for one in moved])
    found = run(backend, evaluate, spikes, **placed)
    for classifier, results in zip(CLASSIFIERS, found, strict=True):
        *formulas, mask = expected(classifier, masks)
        compared = [np.ones(mask.shape, bool)] * 2
        if classifier.window:  # no formula of a rate at a masked step, nor without classes
            compared[0] = mask | ~mask.any(axis=-1, keepdims=True)
            compared[1] = compared[1] & mask.any(axis=1, keepdims=True)
        for got, wanted, where in zip(results, formulas, compared, strict=True):
            if classifier.window:
                got = np.moveaxis(got, axis, -1)
            got = got.reshape(wanted.shape)[where]
            np.testing.assert_allclose(
                got, wanted[where], rtol=0, atol=backend.rtol, err_msg=str(classifier)
            )


def test_call_and_forward_predict_and_never_a_masked_class(backend):
    spikes = np.asarray([[[1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]]])
    where = np.ones(spikes.shape, dtype=bool)
    where[0, 0] = False
    rate = sx.classifiers.Rate(mode="softmax", time_axis=-1)
    for one in (rate, sx.classifiers.MovingWindow(1, "softmax", time_axis=-1)):
        methods = each([one.predict, one.forward, one])
        assert all((found == 1).all() for found in run(backend, methods, spikes, where=where))


@pytest.mark.parametrize(
    ("spikes", "options", "error", "message"),
    [
        (SPIKES, {"mode": "any"}, ValueError, "mode.*probability, softmax, logsoftmax.*'any'"),
        (SPIKES, {"window": 0}, ValueError, "window.*at least 1.*0"),
        (SPIKES, {"window": None}, TypeError, "window.*integer.*None"),
        (SPIKES, {"eps": -1}, ValueError, "eps.*at least 0.*-1"),
        (SPIKES, {"num_classes": 4}, ValueError, "4 must divide the number of neurons, 6"),
        (SPIKES[0], {}, ValueError, r"at least 3 axes.*\(6, 5\)"),
        ([[[0, 1]]], {}, TypeError, "input must be an array.*list"),
        (SPIKES * 1j, {}, TypeError, "input must be.*complex"),
    ],
)
def test_wrong_options_and_spikes_raise(spikes, options, error, message):
    kind = sx.classifiers.MovingWindow if "window" in options else sx.classifiers.Rate
    with pytest.raises(error, match=message):
        kind(time_axis=-1, **options).predict(spikes)
