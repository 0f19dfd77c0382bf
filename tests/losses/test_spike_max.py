import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run
from _support.cases import check_by_hand, close

SPIKES = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])
LOG = math.log
EPS = 1e-6


@pytest.mark.parametrize(
    ("loss", "label", "terms", "slope"),
    [
        # The rates are 3/4 and 1/4, so p = 3/4 and 1/4 up to the epsilon. The gradient is
        # (1/Σ - 1/r_y) / 4 steps at the label and 1/Σ / 4 elsewhere.
        (
            sx.SpikeMax(),
            [0],
            [LOG((1 + EPS) / 0.75)],
            [[(1 / (1 + EPS) - 4 / 3) / 4] * 4, [1 / (1 + EPS) / 4] * 4],
        ),
        (
            sx.SpikeMax(),
            [1],
            [LOG((1 + EPS) / 0.25)],
            [[1 / (1 + EPS) / 4] * 4, [(1 / (1 + EPS) - 4) / 4] * 4],
        ),
        # softmax: -3/4 + log(e^(3/4) + e^(1/4)) = log(1 + e^(-1/2)), with gradients p - 1 and p
        (
            sx.SpikeMax(mode="softmax"),
            [0],
            [LOG(1 + math.exp(-0.5))],
            [[-1 / (1 + math.exp(0.5)) / 4] * 4, [1 / (1 + math.exp(0.5)) / 4] * 4],
        ),
        # In windows of 2 the rates are [½, ½, ½, 1] and [0, 0, ½, ½]. The labelled class has all
        # of their sum in the first two steps, 1/2 of it in the third and 2/3 in the last.
        (
            sx.SpikeMax(2),
            [0],
            [[LOG(1 + 2 * EPS)] * 2 + [LOG(2 + 2 * EPS), LOG(1.5 + EPS)]],
            None,
        ),
        (
            sx.SpikeMax(2, "softmax"),
            [[0, 0, 1, 1]],
            [[LOG(1 + math.exp(-0.5))] * 2 + [LOG(2), LOG(1 + math.exp(0.5))]],
            None,
        ),
    ],
)
def test_value_and_gradient_match_hand_calculation(backend, loss, label, terms, slope):
    check_by_hand(backend, loss, SPIKES, label, terms, slope)


def test_silent_unlabelled_neuron_keeps_the_published_formula(backend):
    spikes = np.asarray([[[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]])
    total = 0.75 + EPS  # of the rates 1/2, 0 and 1/4
    slope = np.asarray([[1 / total - 2], [1 / total], [1 / total]]) / 4
    check_by_hand(backend, sx.SpikeMax(), spikes, [0], [LOG(total / 0.5)], slope)


@pytest.mark.parametrize("pseudo_count", [0.5, 0.25, 1.0])
def test_silent_labelled_neuron_uses_the_continued_logarithm(backend, pseudo_count):
    spikes = np.asarray([[[0.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]])
    # The missing rate r0 = a/4 is added to each of the 3 classes, whose rates are 0, 1/2, 1/4.
    r0 = pseudo_count / 4
    total = 0.75 + EPS + 3 * r0
    slope = np.asarray([[(1 - 3) / total - 1 / r0], [1 / total], [1 / total]]) / 4
    assert slope[0] < 0
    assert (abs(slope) <= 3 / pseudo_count).all()
    loss = sx.SpikeMax(pseudo_count=pseudo_count)
    check_by_hand(backend, loss, spikes, [0], [-LOG(r0) + 1 + LOG(total)], slope)


def test_rate_at_the_pseudo_count_uses_the_published_formula(backend):
    spikes = np.asarray([[[0.0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]])
    total = 1 + EPS  # of the rates 1/4, 1/2 and 1/4
    slope = np.asarray([[1 / total - 4], [1 / total], [1 / total]]) / 4
    check_by_hand(backend, sx.SpikeMax(pseudo_count=1), spikes, [0], [LOG(total / 0.25)], slope)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_all_silent_input_gives_log_of_classes_plus_one(backend, window):
    loss = sx.SpikeMax(window, reduction="none")
    terms = run(backend, loss, np.zeros((2, 3, 5)), [0, 2])
    r0 = 0.5 / (window or 5)
    # log(C) + 1, up to the epsilon that is added to the sum of 3 r0
    close(terms, np.full(terms.shape, LOG(3 + EPS / r0) + 1), backend.rtol)
    assert (terms > LOG(3) + 1 - 1e-6).all()


@pytest.mark.parametrize("window", [None, 1, 3, 8])
def test_continuation_properties_hold_for_binary_trains(backend, window):
    """Check the properties of the continued logarithm on trains from silent to saturated."""
    random = np.random.default_rng(8)
    trains = random.random((16, 3, 5)) < random.choice([0, 0.1, 0.5, 1], size=(16, 3, 1))
    label = random.integers(0, 3, size=16)
    continued = sx.SpikeMax(window, reduction="none")
    published = sx.SpikeMax(window, reduction="none", numerics="lava")

    def evaluate(spikes, label):
        value, gradient = sx.value_and_grad(sx.SpikeMax(window))(spikes, label)
        return value, gradient, continued(spikes, label), published(spikes, label)

    with np.errstate(divide="ignore"):  # the published form takes log(0) at a silent label
        value, gradient, terms, published_terms = run(
            backend, evaluate, trains.astype(float), label
        )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()

    label_trains = np.take_along_axis(trains, label[:, None, None], axis=1)[:, 0]
    label_gradient = np.take_along_axis(gradient, label[:, None, None], axis=1)[:, 0]
    assert (label_gradient <= 0).all()
    rate = reference.moving_average(label_trains, window) if window else label_trains.sum(axis=-1)
    silent = rate == 0
    assert silent.any()
    assert not silent.all()
    # Silent labelled neurons get a negative gradient, of at most C/a for each term that a spike
    # would change.
    silent_gradient = label_gradient[label_trains.sum(axis=-1) == 0]
    assert (silent_gradient < 0).all()
    assert (silent_gradient >= -3 / 0.5 * (window or 1)).all()
    # The terms equal the published ones where those are finite, and are otherwise at least
    # the loss of a uniform guess.
    assert (np.isfinite(published_terms) == ~silent).all()
    close(terms[~silent], published_terms[~silent], backend.rtol)
    assert (terms[silent] >= LOG(3)).all()


def test_first_steps_of_a_window_have_finite_gradients(backend):
    spikes = np.zeros((1, 2, 6))
    spikes[0, 0, 3] = 1
    value, (got,) = run(backend, sx.value_and_grad(sx.SpikeMax(3)), spikes, [0])
    # In 3 steps all classes are silent; in the other 3 only the label fires, at a rate of 1/3.
    expected = 3 * (LOG(2 + EPS * 6) + 1) + 3 * LOG(1 + 3 * EPS)
    close(value, expected, backend.rtol)
    assert np.isfinite(got).all()
    assert (got[0, :3] < 0).all()
    assert (got[1] > 0).all()


@pytest.mark.parametrize("window", [None, 1])
def test_loss_is_continuous_and_decreasing_in_the_label_rate(backend, window):
    # With one step the input is the rate; the continuation starts below half a spike.
    label_rate = np.concatenate([np.linspace(0, 1, 41), [0.5 - 1e-5, 0.5 + 1e-5]])
    spikes = np.stack([label_rate, np.full(43, 0.25), np.zeros(43)], axis=1)[:, :, None]
    evaluate = sx.value_and_grad(sx.SpikeMax(window, reduction="none"))
    label, ones = np.zeros(43, dtype=int), np.ones((43, 1) if window else 43)
    terms, gradient = run(backend, evaluate, spikes, label, cotangent=ones)
    terms, slope = terms.ravel(), gradient[:, 0, 0]
    assert (np.diff(terms[:41]) < 0).all()
    assert (slope < 0).all()
    # The gradient is bounded by C/a = 6.
    assert abs(terms[41] - terms[42]) <= 6 * 2e-5


def test_small_loss_keeps_full_precision(backend):
    spikes = np.zeros((1, 2, 4))
    spikes[0, 0] = 1
    close(run(backend, sx.SpikeMax(), spikes, [0]), math.log1p(EPS), backend.rtol)


def test_lava_numerics_give_inf_at_a_silent_label(backend):
    spikes = np.asarray([[[0.0, 0], [1, 0]], [[1, 0], [0, 0]]])
    with np.errstate(divide="ignore"):  # log(0) is expected here
        terms = run(backend, sx.SpikeMax(reduction="none", numerics="lava"), spikes, [0, 0])
    assert terms[0] == np.inf
    # The published form subtracts two logarithms near 1, so the error is absolute: roundings of 1.
    np.testing.assert_allclose(terms[1], LOG(1 + 2 * EPS), rtol=0, atol=backend.rtol)


def test_single_class_has_zero_softmax_loss_and_negative_probability_gradient(backend):
    both = each([sx.SpikeMax(mode="softmax"), sx.value_and_grad(sx.SpikeMax())])
    zero, (value, gradient) = run(backend, both, np.zeros((1, 1, 2)), [0])
    assert zero == 0
    # r0 = 1/4: the continued logarithm has slope -1/r0, which is -1/a for each step.
    close(value, 1 + LOG(1 + 4 * EPS), backend.rtol)
    close(gradient[0, 0], np.asarray([-2.0, -2.0]), backend.rtol)


@pytest.mark.parametrize("window", [None, 2])
def test_infinite_rate_of_the_label_gives_nan(backend, window):
    spikes = np.ones((2, 3, 4))
    spikes[0, 1] = np.inf
    with np.errstate(invalid="ignore"):
        terms = run(backend, sx.SpikeMax(window, reduction="none"), spikes, [1, 1])
    assert np.isnan(terms[0]).all()
    assert np.isfinite(terms[1]).all()


def test_large_potentials_vote_without_overflow(backend):
    """A class that is 1e4 ahead has all of the vote of a step, and a masked one has none."""
    spikes = np.asarray([[[1e4, -1e4, 3.0, 5.0], [0.0, 1e4, 3.0, 1e4]]])
    where = np.ones((2, 2, 4), bool)
    where[..., 3] = False
    where[1, 1, 0] = False  # the vote of the first step is that of class 0 alone
    votes = sx.CrossEntropy(readout="softmax_sum", reduction="none", time_axis=-1)
    twice, options = np.repeat(spikes, 2, axis=0), {"where": where, "cotangent": np.ones(2)}
    terms, gradient = run(backend, sx.value_and_grad(votes), twice, [0, 0], **options)
    close(terms, np.full(2, LOG(2)), backend.rtol)  # both classes have 3/2
    # At step 2 both probabilities are 1/2, and the derivatives of the votes are -1/2 and 1/2.
    slope = np.asarray([[[0, 0, -0.25, 0], [0, 0, 0.25, 0]]])
    close(gradient[:1], slope, backend.rtol)
