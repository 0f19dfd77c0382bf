import dataclasses

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


def test_rate_classifier_matches_hand_calculation(backend):
    spikes = backend.asarray(TRAINS)
    classifier = sx.Rate()
    rates = np.asarray([[0.75, 0.25, 0], [0.25, 0.5, 0.5]])
    close(backend.numpy(classifier.rate(spikes)), rates, backend.rtol)
    confidence = rates / (rates.sum(axis=1, keepdims=True) + 1e-6)
    close(backend.numpy(classifier.confidence(spikes)), confidence, backend.rtol)
    for predict in (classifier, classifier.predict, classifier.forward):
        # The first of two equal rates is predicted.
        np.testing.assert_array_equal(backend.numpy(predict(spikes)), [0, 1])


def test_moving_window_classifier_matches_hand_calculation(backend):
    spikes = backend.asarray(TRAINS)
    classifier = sx.MovingWindow(2)
    rates = np.asarray(
        [
            [[0.5, 0.5, 0.5, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]],
            [[0, 0.5, 0.5, 0], [0.5, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 0.5]],
        ]
    )
    close(backend.numpy(classifier.rate(spikes)), rates, backend.rtol)
    confidence = rates / (rates.sum(axis=1, keepdims=True) + 1e-6)
    close(backend.numpy(classifier.confidence(spikes)), confidence, backend.rtol)
    for predict in (classifier, classifier.predict, classifier.forward):
        np.testing.assert_array_equal(backend.numpy(predict(spikes)), [[0, 0, 0, 0], [1, 0, 0, 1]])


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
        return [
            (sx.MovingWindow(window, mode) if window else sx.Rate(mode=mode)).confidence(spikes)
            for mode in expected
        ]

    results = backend.compiled(run)(backend.asarray(SPIKES))
    for mode, got in zip(expected, results, strict=True):
        close(backend.numpy(got).reshape(rates.shape), expected[mode], backend.rtol)


def test_confidence_is_zero_at_silence(backend):
    spikes = backend.asarray(np.zeros((2, 3, 5)))
    for classifier in (sx.Rate(), sx.MovingWindow(3), sx.MovingWindow(3, eps=0.5)):
        assert not backend.numpy(classifier.confidence(spikes)).any()
        assert not backend.numpy(classifier(spikes)).any()
    close(backend.numpy(sx.Rate(mode="softmax").confidence(spikes)), np.full((2, 3), 1 / 3), 1e-6)


def test_eps_is_added_to_the_sum(backend):
    confidence = sx.Rate(eps=1).confidence(backend.asarray(TRAINS))
    close(backend.numpy(confidence)[0], np.asarray([0.375, 0.125, 0]), backend.rtol)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_time_axis_may_be_any_axis(backend, axis):
    moved = backend.asarray(np.moveaxis(SPIKES, -1, axis))
    time_last = SPIKES
    for make in (sx.Rate, lambda **where: sx.MovingWindow(3, **where)):
        for method in ("rate", "confidence", "predict"):
            expected = getattr(make(), method)(time_last)
            got = backend.numpy(getattr(make(time_axis=axis), method)(moved))
            if make is not sx.Rate:
                expected = np.moveaxis(expected, -1, min(axis % 3, expected.ndim - 1))
            close(got, expected, backend.rtol)


def test_space_axes_are_flattened_into_classes(backend):
    space = backend.asarray(SPIKES.reshape(2, 3, 1, 5))
    for classifier in (sx.Rate(), sx.MovingWindow(3)):
        expected = classifier.rate(SPIKES)
        close(backend.numpy(classifier.rate(space)), expected, backend.rtol)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "float16"])
def test_spikes_may_have_any_real_dtype(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    spikes = backend.asarray(TRAINS, dtype)
    np.testing.assert_array_equal(backend.numpy(sx.MovingWindow(4)(spikes))[:, -1], [0, 1])
    rates = sx.Rate().rate(spikes)
    assert backend.xp.isdtype(rates.dtype, "real floating")
    assert backend.xp.finfo(rates.dtype).bits >= 32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sx.Rate(mode="any"), ValueError, "mode.*probability, softmax, logsoftmax.*'any'"),
        (lambda: sx.MovingWindow(3, "any"), ValueError, "mode.*probability, softmax, logsoftmax"),
        (lambda: sx.MovingWindow(0), ValueError, "time_window.*at least 1.*0"),
        (lambda: sx.MovingWindow(None), TypeError, "time_window.*integer.*None"),
        (lambda: sx.Rate(eps=-1), ValueError, "eps.*at least 0.*-1"),
        (lambda: sx.Rate(eps=float("nan")), ValueError, "eps.*finite.*nan"),
        (lambda: sx.Rate(time_axis=0.5), TypeError, "time_axis.*integer.*0.5"),
        (lambda: sx.Rate()(np.zeros((2, 5))), ValueError, r"at least 3 axes.*\(2, 5\)"),
        (lambda: sx.Rate()([[[0, 1]]]), TypeError, "spikes must be an array.*list"),
        (lambda: sx.Rate()(np.zeros((1, 1, 1), complex)), TypeError, "spikes must be.*complex"),
        (
            lambda: sx.Rate(time_axis=3)(np.zeros((1, 1, 1))),
            ValueError,
            r"time_axis=3.*\(1, 1, 1\)",
        ),
    ],
)
def test_errors_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("classifier", [sx.Rate(mode="softmax"), sx.MovingWindow(3, eps=0.5)])
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
        (sx.Rate(), sx.Rate(num_classes=3)),
        (sx.MovingWindow(4), sx.MovingWindow(4, num_classes=3)),
    ):
        for method in ("rate", "confidence", "predict"):
            got = getattr(grouped, method)(backend.asarray(spikes))
            expected = getattr(ungrouped, method)(groups)
            close(backend.numpy(got), expected, backend.rtol)
    with pytest.raises(ValueError, match="num_classes=4 must divide the number of neurons, 6"):
        sx.Rate(num_classes=4).predict(backend.asarray(spikes))


def test_lengths_equal_cropping(backend):
    spikes = np.random.default_rng(4).random((3, 4, 20))
    lengths = [20, 7, 12]
    padded = np.where(np.arange(20) < np.reshape(lengths, (3, 1, 1)), spikes, np.nan)
    for classifier in (sx.Rate(), sx.MovingWindow(5)):
        got = backend.numpy(classifier.confidence(backend.asarray(padded), lengths=lengths))
        predicted = backend.numpy(classifier(backend.asarray(padded), lengths=lengths))
        for i, length in enumerate(lengths):
            cropped = spikes[i : i + 1, :, :length]
            steps = (slice(length),) if got.ndim == 3 else ()
            close(got[(i, slice(None), *steps)], classifier.confidence(cropped)[0], backend.rtol)
            np.testing.assert_array_equal(predicted[(i, *steps)], classifier(cropped)[0])
    masked_rates = sx.Rate().rate(
        backend.asarray(padded), where=[False, True, False], lengths=lengths
    )
    assert not backend.numpy(masked_rates)[[0, 2]].any()


def test_masked_class_is_never_predicted(backend):
    spikes = np.asarray([[[1.0, 1.0], [-1.0, 0.0], [-1.0, -1.0]]])
    mask = np.ones(spikes.shape, dtype=bool)
    mask[0, 0] = False
    for classifier in (sx.Rate(mode="softmax"), sx.MovingWindow(1, "softmax")):
        call = backend.asarray(spikes), {"where": backend.asarray(mask)}
        assert (backend.numpy(classifier(call[0], **call[1])) == 1).all()
        confidence = backend.numpy(classifier.confidence(call[0], **call[1]))
        close(confidence[:, 1:], classifier.confidence(spikes[:, 1:]), backend.rtol)
        assert not confidence[:, 0].any()
        all_masked = backend.numpy(classifier.confidence(call[0], where=[False]))
        close(all_masked, np.full(all_masked.shape, 1 / 3), backend.rtol)


# First spikes at 0, 2 and never; 1, 0 and 1.
def test_latency_classifier_matches_hand_calculation(backend):
    spikes = backend.asarray(TRAINS)
    classifier = sx.Latency()
    np.testing.assert_array_equal(backend.numpy(classifier.latency(spikes)), [[0, 2, 4], [1, 0, 1]])
    for predict in (classifier, classifier.predict, classifier.forward):
        np.testing.assert_array_equal(backend.numpy(predict(spikes)), [0, 1])
    # Of equal latencies the first class wins, of silent ones too; masked classes do not take part.
    np.testing.assert_array_equal(backend.numpy(classifier(0 * spikes)), [0, 0])
    where = np.ones(TRAINS.shape, bool)
    where[:, 0] = where[1, 1] = False
    np.testing.assert_array_equal(backend.numpy(classifier(spikes, where=where)), [1, 2])
    grouped = sx.Latency(num_classes=1).latency(spikes)  # the expectation of a mean of 3
    mean = TRAINS.mean(axis=1, keepdims=True)
    close(backend.numpy(grouped), np.cumprod(1 - mean, -1).sum(-1), backend.rtol)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_latency_is_the_same_in_every_layout(backend, axis):
    moved = backend.asarray(np.moveaxis(TRAINS, -1, axis))
    got = backend.numpy(sx.Latency(time_axis=axis).latency(moved, lengths=[3, 1]))
    np.testing.assert_array_equal(got, [[0, 2, 3], [1, 0, 1]])


CLASSIFIERS = {
    "Rate": sx.Rate(),
    "Latency": sx.Latency(),
    "MovingWindow": sx.MovingWindow(2),
    "groups": sx.Latency(num_classes=1),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("axis", [0, -1])
def test_accuracy_is_the_fraction_of_predicted_labels(backend, name, axis):
    classifier = dataclasses.replace(CLASSIFIERS[name], time_axis=axis)
    random, ignored = np.random.default_rng(2), classifier.ignore_index
    classes = classifier.num_classes or 3
    trains = (random.random((40, 3, 6)) < 0.3).astype(float)
    shape = (40, 6) if name == "MovingWindow" else (40,)
    label = random.integers(classes, size=shape)
    label[random.random(shape) < 0.2] = ignored
    where = random.random(trains.shape) < 0.6
    where[3], where[4, 1] = False, False
    lengths = random.integers(7, size=40)
    for options in (
        {},
        {"lengths": lengths},
        {"where": where},
        {"where": where, "lengths": lengths},
    ):
        last = dataclasses.replace(classifier, time_axis=-1)
        predicted = last(trains, **options)
        mask = reference.full_mask(trains.shape, -1, **{"where": None, "lengths": None, **options})
        mask = mask.reshape(40, classes, -1, 6).any(axis=2)
        mask = mask if name == "MovingWindow" else mask.any(axis=-1)
        own = np.take_along_axis(mask, np.where(label == ignored, 0, label)[:, None], 1)[:, 0]
        counted = own & (label != ignored)
        assert 0 < counted.sum() < label.size
        moved = {n: np.moveaxis(x, -1, axis) if x.ndim == 3 else x for n, x in options.items()}
        got = classifier.accuracy(
            backend.asarray(np.moveaxis(trains, -1, axis)),
            backend.asarray(np.moveaxis(label, -1, axis)),
            **{n: backend.asarray(x) for n, x in moved.items()},
        )
        close(backend.numpy(got), (predicted == label)[counted].mean(), backend.rtol)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_of_no_label_is_nan(backend, name):
    classifier, spikes = CLASSIFIERS[name], backend.asarray(TRAINS)
    assert np.isnan(backend.numpy(classifier.accuracy(spikes, [-100, -100])))
    assert np.isnan(backend.numpy(classifier.accuracy(spikes, [0, 0], lengths=[0, 0])))
    ignoring = dataclasses.replace(classifier, ignore_index=0)
    assert np.isnan(backend.numpy(ignoring.accuracy(spikes, [0, 0])))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_of_a_wrong_label_raises_or_is_nan(backend, name):
    classifier, spikes = CLASSIFIERS[name], backend.asarray(TRAINS)
    with pytest.raises(ValueError, match="label must be between 0 and"):
        classifier.accuracy(spikes, [0, 3])
    with pytest.raises(TypeError, match="label must hold integers"):
        classifier.accuracy(spikes, [0.0, 1.0])
    with pytest.raises(ValueError, match="label must hold class indices of shape"):
        classifier.accuracy(spikes, [0, 1, 1])
    if not backend.reads_values:
        for label, lengths in (([0, 3], [4, 4]), ([0, 0], [4, 5])):
            got = classifier.accuracy(
                spikes,
                backend.asarray(np.asarray(label)),
                lengths=backend.asarray(np.asarray(lengths)),
            )
            assert np.isnan(backend.numpy(got))
