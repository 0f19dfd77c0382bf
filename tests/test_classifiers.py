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


METHODS = ("rate", "confidence", "predict")


def results(backend, classifier, spikes, methods=METHODS, **options):
    """Return the results of some methods of a classifier, by one compiled function."""
    run = backend.compiled(lambda x: [getattr(classifier, m)(x, **options) for m in methods])
    return [backend.numpy(got) for got in run(backend.asarray(spikes))]


def check_by_hand(backend, classifier, rates, labels):
    """Compare the rates, confidences and labels of `TRAINS`."""
    methods = (*METHODS, "forward", "__call__")
    rate, confidence, *predicted = results(backend, classifier, TRAINS, methods)
    close(rate, rates, backend.rtol)
    close(confidence, rates / (rates.sum(axis=1, keepdims=True) + 1e-6), backend.rtol)
    for got in predicted:
        np.testing.assert_array_equal(got, labels)


def test_rate_classifier_matches_hand_calculation(backend):
    rates = np.asarray([[0.75, 0.25, 0], [0.25, 0.5, 0.5]])
    # The first of two equal rates is predicted.
    check_by_hand(backend, sx.Rate(time_axis=-1), rates, [0, 1])


def test_moving_window_classifier_matches_hand_calculation(backend):
    rates = np.asarray(
        [
            [[0.5, 0.5, 0.5, 1], [0, 0, 0.5, 0.5], [0, 0, 0, 0]],
            [[0, 0.5, 0.5, 0], [0.5, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 0.5]],
        ]
    )
    check_by_hand(backend, sx.MovingWindow(2, time_axis=-1), rates, [[0, 0, 0, 0], [1, 0, 0, 1]])


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
            (
                sx.MovingWindow(window, mode, time_axis=-1)
                if window
                else sx.Rate(mode=mode, time_axis=-1)
            ).confidence(spikes)
            for mode in expected
        ]

    found = backend.compiled(run)(backend.asarray(SPIKES))
    for mode, got in zip(expected, found, strict=True):
        close(backend.numpy(got).reshape(rates.shape), expected[mode], backend.rtol)


def test_confidence_is_zero_at_silence(backend):
    for classifier in (
        sx.Rate(time_axis=-1),
        sx.MovingWindow(3, time_axis=-1),
        sx.MovingWindow(3, eps=0.5, time_axis=-1),
    ):
        for got in results(backend, classifier, 0 * SPIKES, ["confidence", "__call__"]):
            assert not got.any()
    (softmax,) = results(backend, sx.Rate(mode="softmax", time_axis=-1), 0 * SPIKES, ["confidence"])
    close(softmax, np.full((2, 3), 1 / 3), 1e-6)


def test_eps_is_added_to_the_sum(backend):
    confidence = sx.Rate(eps=1, time_axis=-1).confidence(backend.asarray(TRAINS))
    close(backend.numpy(confidence)[0], np.asarray([0.375, 0.125, 0]), backend.rtol)


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
    ("make", "error", "message"),
    [
        (
            lambda: sx.Rate(mode="any", time_axis=-1),
            ValueError,
            "mode.*probability, softmax, logsoftmax.*'any'",
        ),
        (
            lambda: sx.MovingWindow(3, "any", time_axis=-1),
            ValueError,
            "mode.*probability, softmax, logsoftmax",
        ),
        (lambda: sx.MovingWindow(0, time_axis=-1), ValueError, "time_window.*at least 1.*0"),
        (lambda: sx.MovingWindow(None, time_axis=-1), TypeError, "time_window.*integer.*None"),
        (lambda: sx.Rate(eps=-1, time_axis=-1), ValueError, "eps.*at least 0.*-1"),
        (lambda: sx.Rate(eps=float("nan"), time_axis=-1), ValueError, "eps.*finite.*nan"),
        (lambda: sx.Rate(time_axis=0.5), TypeError, "time_axis.*integer.*0.5"),
        (lambda: sx.Rate(time_axis=-1)(np.zeros((2, 5))), ValueError, r"at least 3 axes.*\(2, 5\)"),
        (lambda: sx.Rate(time_axis=-1)([[[0, 1]]]), TypeError, "spikes must be an array.*list"),
        (
            lambda: sx.Rate(time_axis=-1)(np.zeros((1, 1, 1), complex)),
            TypeError,
            "spikes must be.*complex",
        ),
        (lambda: sx.Rate(time_axis=3)(np.zeros((1, 1, 1))), ValueError, "time_axis=3.*1, 1, 1"),
    ],
)
def test_errors_name_the_argument(make, error, message):
    with pytest.raises(error, match=message):
        make()


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


# First spikes at 0, 2 and never; 1, 0 and 1.
def test_latency_classifier_matches_hand_calculation(backend):
    classifier = sx.Latency(time_axis=-1)
    where = np.ones(TRAINS.shape, bool)
    where[:, 0] = where[1, 1] = False

    @backend.compiled
    def run(spikes):
        grouped = sx.Latency(num_classes=1, time_axis=-1).latency(spikes)
        special = classifier(0 * spikes), classifier(spikes, where=where)
        equal = classifier.predict(spikes), classifier.forward(spikes), classifier(spikes)
        return classifier.latency(spikes), grouped, *special, *equal

    latency, grouped, *predicted = map(backend.numpy, run(backend.asarray(TRAINS)))
    np.testing.assert_array_equal(latency, [[0, 2, 4], [1, 0, 1]])
    # Of equal latencies the first class wins, of silent ones too; masked classes do not take part.
    np.testing.assert_array_equal(predicted, [[0, 0], [1, 2], [0, 1], [0, 1], [0, 1]])
    mean = TRAINS.mean(axis=1, keepdims=True)  # a group has the expectation of a mean of 3
    close(grouped, np.cumprod(1 - mean, -1).sum(-1), backend.rtol)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_latency_is_the_same_in_every_layout(backend, axis):
    classifier, moved = sx.Latency(time_axis=axis), np.moveaxis(TRAINS, -1, axis)
    (got,) = results(backend, classifier, moved, ["latency"], lengths=[3, 1])
    np.testing.assert_array_equal(got, [[0, 2, 3], [1, 0, 1]])


CLASSIFIERS = {
    "Rate": sx.Rate(time_axis=-1),
    "Latency": sx.Latency(time_axis=-1),
    "MovingWindow": sx.MovingWindow(2, time_axis=-1),
    "groups": sx.Latency(num_classes=1, time_axis=-1),
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
    arrays = [backend.asarray(np.moveaxis(x, -1, axis)) for x in (trains, label)]
    expected, masks = [], {"where": where, "lengths": lengths}
    every_options = {}, {"lengths": lengths}, {"where": where}, masks
    for options in every_options:
        last = dataclasses.replace(classifier, time_axis=-1)
        predicted = last(trains, **options)
        mask = reference.full_mask(trains.shape, -1, **{"where": None, "lengths": None, **options})
        mask = mask.reshape(40, classes, -1, 6).any(axis=2)
        mask = mask if name == "MovingWindow" else mask.any(axis=-1)
        own = np.take_along_axis(mask, np.where(label == ignored, 0, label)[:, None], 1)[:, 0]
        counted = own & (label != ignored)
        assert 0 < counted.sum() < label.size
        expected.append((predicted == label)[counted].mean())
    calls = [
        {n: backend.asarray(np.moveaxis(x, -1, axis) if x.ndim == 3 else x) for n, x in o.items()}
        for o in every_options
    ]
    run = backend.compiled(lambda *xs: [classifier.accuracy(*xs[:2], **masks) for masks in xs[2]])
    close([*map(backend.numpy, run(*arrays, calls))], expected, backend.rtol)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_of_no_label_is_nan(backend, name):
    classifier = CLASSIFIERS[name]
    ignoring = dataclasses.replace(classifier, ignore_index=0)

    @backend.compiled
    def run(spikes):
        empty = classifier.accuracy(spikes, [0, 0], lengths=[0, 0])
        return empty, classifier.accuracy(spikes, [-100, -100]), ignoring.accuracy(spikes, [0, 0])

    for got in run(backend.asarray(TRAINS)):
        assert np.isnan(backend.numpy(got))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_accuracy_of_a_wrong_label_raises_or_is_nan(backend, name):
    classifier, spikes = CLASSIFIERS[name], backend.asarray(TRAINS)
    with pytest.raises(ValueError, match="target must be between 0 and"):
        classifier.accuracy(spikes, [0, 3])
    with pytest.raises(TypeError, match="target must hold integers"):
        classifier.accuracy(spikes, [0.0, 1.0])
    with pytest.raises(ValueError, match="target must hold class indices of shape"):
        classifier.accuracy(spikes, [0, 1, 1])
    if not backend.reads_values:
        for label, lengths in (([0, 3], [4, 4]), ([0, 0], [4, 5])):
            got = classifier.accuracy(
                spikes,
                backend.asarray(np.asarray(label)),
                lengths=backend.asarray(np.asarray(lengths)),
            )
            assert np.isnan(backend.numpy(got))
