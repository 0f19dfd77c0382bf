import dataclasses
import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.cases import close

SPIKES = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5))

# The rates are 3/4, 1/4 and 0 in the first sample, and 1/4, 1/2 and 1/2 in the second.
TRAINS = np.asarray(
    [[[1.0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]]
)


RATE_OF_3 = functools.partial(sx.MovingWindow, time_window=3)
METHODS = ("rate", "confidence", "predict")


def results(backend, classifier, spikes, methods=METHODS, **options):
    """Return the results of some methods of a classifier, by one compiled function."""
    run = backend.compiled(lambda x: [getattr(classifier, m)(x, **options) for m in methods])
    return [backend.numpy(got) for got in run(backend.asarray(spikes))]


BY_HAND = {
    sx.Rate(time_axis=-1): ([[0.75, 0.25, 0], [0.25, 0.5, 0.5]], [0, 1]),  # the first of ties
    sx.MovingWindow(2, time_axis=-1): (
        [
            [[0.5, 0.5, 0.5, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]],
            [[0, 0.5, 0.5, 0], [0.5, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 0.5]],
        ],
        [[0, 0, 0, 0], [1, 0, 0, 1]],
    ),
}


@pytest.mark.parametrize("classifier", BY_HAND)
def test_classifier_matches_hand_calculation(backend, classifier):
    rates, labels = map(np.asarray, BY_HAND[classifier])
    methods = (*METHODS, "forward", "__call__")
    rate, confidence, *predicted = results(backend, classifier, TRAINS, methods)
    close(rate, rates, backend.rtol)
    close(confidence, rates / (rates.sum(axis=1, keepdims=True) + 1e-6), backend.rtol)
    for got in predicted:
        np.testing.assert_array_equal(got, labels)


@pytest.mark.parametrize("window", [None, 3])
def test_confidence_modes_match_the_formulas(backend, window):
    rates = reference.rates(SPIKES, window)
    softmax = np.exp(rates) / np.exp(rates).sum(axis=1, keepdims=True)
    expected = {
        "probability": rates / (rates.sum(axis=1, keepdims=True) + 1e-6),
        "softmax": softmax,
        "logsoftmax": np.log(softmax),
    }

    def run(spikes):
        make = functools.partial(sx.MovingWindow, window) if window else sx.Rate
        return [make(mode=mode, time_axis=-1).confidence(spikes) for mode in expected]

    found = backend.compiled(run)(backend.asarray(SPIKES))
    for mode, got in zip(expected, found, strict=True):
        close(backend.numpy(got).reshape(rates.shape), expected[mode], backend.rtol)


def test_eps_is_added_to_the_sum_so_that_silence_has_confidence_zero(backend):
    for classifier in (
        sx.Rate(time_axis=-1),
        sx.MovingWindow(3, time_axis=-1),
        sx.MovingWindow(3, eps=0.5, time_axis=-1),
    ):
        for got in results(backend, classifier, 0 * SPIKES, ["confidence", "__call__"]):
            assert not got.any()
    (softmax,) = results(backend, sx.Rate(mode="softmax", time_axis=-1), 0 * SPIKES, ["confidence"])
    close(softmax, np.full((2, 3), 1 / 3), 1e-6)
    (larger,) = results(backend, sx.Rate(eps=1, time_axis=-1), TRAINS, ["confidence"])
    close(larger[0], np.asarray([0.375, 0.125, 0]), backend.rtol)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_time_axis_may_be_any_axis(backend, axis):
    for classifier in (sx.Rate(time_axis=-1), sx.MovingWindow(3, time_axis=-1)):
        other = dataclasses.replace(classifier, time_axis=axis)
        found = results(backend, other, np.moveaxis(SPIKES, -1, axis))
        for method, got in zip(METHODS, found, strict=True):
            expected = getattr(classifier, method)(SPIKES)
            if isinstance(classifier, sx.MovingWindow):
                expected = np.moveaxis(expected, -1, min(axis % 3, expected.ndim - 1))
            close(got, expected, backend.rtol)


def test_space_axes_are_flattened_into_classes(backend):
    space = SPIKES.reshape(2, 3, 1, 5)
    for classifier in (sx.Rate(time_axis=-1), sx.MovingWindow(3, time_axis=-1)):
        (got,) = results(backend, classifier, space, ["rate"])
        close(got, classifier.rate(SPIKES), backend.rtol)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16"])
def test_spikes_may_have_any_real_dtype(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    run = backend.compiled(
        lambda x: (sx.MovingWindow(4, time_axis=-1)(x), sx.Rate(time_axis=-1).rate(x))
    )
    predicted, rates = run(backend.asarray(TRAINS, dtype))
    np.testing.assert_array_equal(backend.numpy(predicted)[:, -1], [0, 1])
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


def test_num_classes_groups_neurons(backend):
    spikes = np.random.default_rng(3).random((2, 6, 20))
    groups = spikes.reshape(2, 3, 2, 20).mean(axis=2)
    for ungrouped, grouped in (
        (sx.Rate(time_axis=-1), sx.Rate(num_classes=3, time_axis=-1)),
        (sx.MovingWindow(4, time_axis=-1), sx.MovingWindow(4, num_classes=3, time_axis=-1)),
    ):
        for method, got in zip(METHODS, results(backend, grouped, spikes), strict=True):
            close(got, getattr(ungrouped, method)(groups), backend.rtol)
    with pytest.raises(ValueError, match="num_classes=4 must divide the number of neurons, 6"):
        sx.Rate(num_classes=4, time_axis=-1).predict(backend.asarray(spikes))


def test_lengths_equal_cropping(backend):
    spikes = np.random.default_rng(4).random((3, 4, 20))
    lengths = [20, 7, 12]
    padded = np.where(np.arange(20) < np.reshape(lengths, (3, 1, 1)), spikes, np.nan)
    for classifier in (sx.Rate(time_axis=-1), sx.MovingWindow(5, time_axis=-1)):
        methods = ("confidence", "__call__")
        got, predicted = results(backend, classifier, padded, methods, lengths=lengths)
        for i, length in enumerate(lengths):
            cropped = spikes[i : i + 1, :, :length]
            steps = (slice(length),) if got.ndim == 3 else ()
            close(got[(i, slice(None), *steps)], classifier.confidence(cropped)[0], backend.rtol)
            np.testing.assert_array_equal(predicted[(i, *steps)], classifier(cropped)[0])
    where = [False, True, False]
    (rate,) = results(
        backend, sx.Rate(time_axis=-1), padded, ["rate"], where=where, lengths=lengths
    )
    assert not rate[[0, 2]].any()


def test_masked_class_is_never_predicted(backend):
    spikes = np.asarray([[[1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]]])
    mask = np.ones(spikes.shape, dtype=bool)
    mask[0, 0] = False
    for classifier in (
        sx.Rate(mode="softmax", time_axis=-1),
        sx.MovingWindow(1, "softmax", time_axis=-1),
    ):
        methods, where = ("__call__", "confidence"), backend.asarray(mask)
        predicted, confidence = results(backend, classifier, spikes, methods, where=where)
        _, all_masked = results(backend, classifier, spikes, methods, where=[False])
        assert (predicted == 1).all()
        close(confidence[:, 1:], classifier.confidence(spikes[:, 1:]), backend.rtol)
        assert not confidence[:, 0].any()
        close(all_masked, np.full(all_masked.shape, 1 / 3), backend.rtol)
