"""Rates and confidences of the classifiers; `test_ties.py` tests their predictions."""

import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run

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
    both = sx.Rate(mode="softmax", time_axis=-1), sx.MovingWindow(1, "softmax", time_axis=-1)
    for one in both:
        methods = each([one.predict, one.forward, one])
        assert all((found == 1).all() for found in run(backend, methods, spikes, where=where))


@pytest.mark.parametrize(
    ("spikes", "options", "error", "message"),
    [
        (SPIKES, {"mode": "any"}, ValueError, "mode.*probability, softmax, logsoftmax.*'any'"),
        (SPIKES, {"time_window": 0}, ValueError, "time_window.*at least 1.*0"),
        (SPIKES, {"time_window": None}, TypeError, "time_window.*integer.*None"),
        (SPIKES, {"eps": -1}, ValueError, "eps.*at least 0.*-1"),
        (SPIKES, {"num_classes": 4}, ValueError, "4 must divide the number of neurons, 6"),
        (SPIKES[0], {}, ValueError, r"at least 3 axes.*\(6, 5\)"),
        ([[[0, 1]]], {}, TypeError, "spikes must be an array.*list"),
        (SPIKES * 1j, {}, TypeError, "spikes must be.*complex"),
    ],
)
def test_wrong_options_and_spikes_raise(spikes, options, error, message):
    kind = sx.MovingWindow if "time_window" in options else sx.Rate
    with pytest.raises(error, match=message):
        kind(time_axis=-1, **options).predict(spikes)


def test_confidence_leaves_out_masked_classes(backend):
    spikes, where = np.asarray([[[1.0, 1, 0], [0, 0, 1]]]), np.ones((1, 2, 3), bool)
    where[0, 0, 2] = False
    for mode, share in (("probability", 1 / (1 + 3e-6)), ("softmax", 1.0), ("logsoftmax", 0.0)):
        classify = sx.MovingWindow(3, mode=mode, time_axis=-1)
        confidence = run(backend, classify.confidence, spikes, where=where)[0, :, 2]
        masked = -np.inf if mode == "logsoftmax" else 0
        np.testing.assert_allclose(confidence, [masked, share], rtol=backend.rtol)
        assert run(backend, classify.predict, spikes, where=where)[0, 2] == 1
