import math

import numpy as np
import pytest
import reference
from cases import close, reduced

import spikeloss_xp as sx

SPIKES = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])
LOG = math.log
EPS = 1e-6


@pytest.mark.parametrize(
    ("loss", "label", "terms", "slope"),
    [
        # rates 3/4 and 1/4: p = 3/4 and 1/4 but for the epsilon; slopes (1/Σ - 1/r_y) / 4 steps
        # at the label and 1/Σ / 4 elsewhere
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
        # softmax: -3/4 + log(e^(3/4) + e^(1/4)) = log(1 + e^(-1/2)); slopes p - 1 and p
        (
            sx.SpikeMax(mode="softmax"),
            [0],
            [LOG(1 + math.exp(-0.5))],
            [[-1 / (1 + math.exp(0.5)) / 4] * 4, [1 / (1 + math.exp(0.5)) / 4] * 4],
        ),
        # in windows of 2 the rates are [½, ½, ½, 1] and [0, 0, ½, ½]; the label is alone in the
        # first two steps, one of two equals in the third, and has 2/3 in the last
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
def test_by_hand(backend, loss, label, terms, slope):
    evaluate = backend.compiled(sx.value_and_grad(loss))
    value, gradient = evaluate(backend.asarray(SPIKES), backend.asarray(label))
    close(backend.numpy(value), np.sum(terms), backend.rtol)
    if slope:
        close(backend.numpy(gradient)[0], np.asarray(slope), backend.rtol)
    got = backend.compiled(reduced(loss, "none"))(backend.asarray(SPIKES), backend.asarray(label))
    # some terms are the epsilon alone, beside rates of 1
    close(backend.numpy(got), np.asarray(terms), backend.rtol)


def test_a_silent_other_neuron(backend):
    spikes = backend.asarray(np.asarray([[[1.0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]]))
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax()))
    value, gradient = evaluate(spikes, backend.asarray([0]))
    # rates 1/2, 0 and 1/4, whose sum is 3/4
    total = 0.75 + EPS
    close(backend.numpy(value), LOG(total / 0.5), backend.rtol)
    slope = np.asarray([1 / total - 2, 1 / total, 1 / total]) / 4
    close(backend.numpy(gradient)[0], np.repeat(slope[:, None], 4, axis=1), backend.rtol)


@pytest.mark.parametrize("pseudo_count", [0.5, 0.25, 1.0])
def test_a_silent_labelled_neuron(backend, pseudo_count):
    spikes = backend.asarray(np.asarray([[[0.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]]))
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax(pseudo_count=pseudo_count)))
    value, gradient = evaluate(spikes, backend.asarray([0]))
    # r0 = a/4 is lacking, and given to each of the 3 classes beside the rates 1/2 and 1/4
    fewest = pseudo_count / 4
    total = 0.75 + EPS + 3 * fewest
    close(backend.numpy(value), -LOG(fewest) + 1 + LOG(total), backend.rtol)
    slope = np.asarray([(1 - 3) / total - 1 / fewest, 1 / total, 1 / total]) / 4
    got = backend.numpy(gradient)[0]
    close(got, np.repeat(slope[:, None], 4, axis=1), backend.rtol)
    assert (got[0] < 0).all()
    assert (abs(got) <= 3 / pseudo_count).all()


def test_exactly_the_pseudo_count_is_enough(backend):
    spikes = backend.asarray(np.asarray([[[0.0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]]))
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax(pseudo_count=1)))
    value, gradient = evaluate(spikes, backend.asarray([0]))
    # rates 1/4, 1/2 and 1/4: the published value and slopes, on the one side of the kink
    total = 1 + EPS
    close(backend.numpy(value), LOG(total / 0.25), backend.rtol)
    slope = np.asarray([1 / total - 4, 1 / total, 1 / total]) / 4
    close(backend.numpy(gradient)[0], np.repeat(slope[:, None], 4, axis=1), backend.rtol)


@pytest.mark.parametrize("window", [None, 1, 3])
def test_silence_everywhere(backend, window):
    loss = sx.SpikeMax(window, reduction="none")
    silence, label = backend.asarray(np.zeros((2, 3, 5))), backend.asarray([0, 2])
    terms = backend.numpy(backend.compiled(loss)(silence, label))
    fewest = 0.5 / (window or 5)
    # log C + 1, but for the epsilon beside the 3 r0 of the sum
    close(terms, np.full(terms.shape, LOG(3 + EPS / fewest) + 1), backend.rtol)
    assert (terms > LOG(3) + 1 - 1e-6).all()


@pytest.mark.parametrize("window", [None, 1, 3, 8])
def test_binary_trains_of_all_kinds(backend, window):
    """What the continuation promises, for trains from silent to saturated."""
    random = np.random.default_rng(8)
    trains = random.random((16, 3, 5)) < random.choice([0, 0.1, 0.5, 1], size=(16, 3, 1))
    label = random.integers(0, 3, size=16)
    everywhere = sx.SpikeMax(window, reduction="none")
    published = sx.SpikeMax(window, reduction="none", numerics="lava")

    def run(spikes, label):
        value, gradient = sx.value_and_grad(sx.SpikeMax(window))(spikes, label)
        return value, gradient, everywhere(spikes, label), published(spikes, label)

    with np.errstate(divide="ignore"):  # the published logarithm of a silent label's rate
        results = backend.compiled(run)(
            backend.asarray(trains.astype(float)), backend.asarray(label)
        )
    value, gradient, terms, before = map(backend.numpy, results)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()

    own = np.take_along_axis(trains, label[:, None, None], axis=1)[:, 0]
    own_slope = np.take_along_axis(gradient, label[:, None, None], axis=1)[:, 0]
    assert (own_slope <= 0).all()
    rate = reference.moving_average(own, window) if window else own.sum(axis=-1)
    silent = rate == 0
    assert silent.any()
    assert not silent.all()
    # pushed to fire, by at most C/a for each term that a spike would be in
    of_silence = own_slope[own.sum(axis=-1) == 0]
    assert (of_silence < 0).all()
    assert (of_silence >= -3 / 0.5 * (window or 1)).all()
    # unchanged where the published value is finite, else no less than a uniform guess
    assert (np.isfinite(before) == ~silent).all()
    close(terms[~silent], before[~silent], backend.rtol)
    assert (terms[silent] >= LOG(3)).all()


def test_the_first_steps_of_a_window(backend):
    spikes = np.zeros((1, 2, 6))
    spikes[0, 0, 3] = 1
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax(3)))
    value, gradient = evaluate(backend.asarray(spikes), backend.asarray([0]))
    # 3 silent steps, then 3 in which the label is alone at a rate of 1/3
    wanted = 3 * (LOG(2 + EPS * 6) + 1) + 3 * LOG(1 + 3 * EPS)
    close(backend.numpy(value), wanted, backend.rtol)
    got = backend.numpy(gradient)[0]
    assert np.isfinite(got).all()
    assert (got[0, :3] < 0).all()
    assert (got[1] > 0).all()


@pytest.mark.parametrize("window", [None, 1])
def test_continuous_and_decreasing_in_the_rate_of_the_label(backend, window):
    # one step, so that the spike is the rate; half a spike is where the continuation starts
    own = np.concatenate([np.linspace(0, 1, 41), [0.5 - 1e-5, 0.5 + 1e-5]])
    spikes = np.stack([own, np.full(43, 0.25), np.zeros(43)], axis=1)[:, :, None]
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax(window, reduction="none")))
    label, ones = np.zeros(43, dtype=int), np.ones((43, 1) if window else 43)
    arrays = (backend.asarray(spikes), backend.asarray(label))
    terms, gradient = evaluate(*arrays, cotangent=backend.asarray(ones))
    terms, slope = backend.numpy(terms).ravel(), backend.numpy(gradient)[:, 0, 0]
    assert (np.diff(terms[:41]) < 0).all()
    assert (slope < 0).all()
    # slopes are no steeper than C/a = 6
    assert abs(terms[41] - terms[42]) <= 6 * 2e-5


def test_the_loss_of_a_sure_and_right_answer_keeps_its_digits(backend):
    spikes = np.zeros((1, 2, 4))
    spikes[0, 0] = 1
    value = sx.SpikeMax()(backend.asarray(spikes), [0])
    close(backend.numpy(value), math.log1p(EPS), backend.rtol)


def test_published_values_at_a_silent_label(backend):
    spikes = backend.asarray(np.asarray([[[0.0, 0], [1, 0]], [[1, 0], [0, 0]]]))
    with np.errstate(divide="ignore"):  # that is the point
        terms = sx.SpikeMax(reduction="none", numerics="lava")(spikes, [0, 0])
    terms = backend.numpy(terms)
    assert terms[0] == np.inf
    # -log(1/2 / (1/2 + 1e-6)) as a difference of logarithms: an error of roundings of 1
    np.testing.assert_allclose(terms[1], LOG(1 + 2 * EPS), rtol=0, atol=backend.rtol)


def test_one_class_is_always_right_but_should_fire(backend):
    spikes, label = backend.asarray(np.zeros((1, 1, 2))), backend.asarray([0])
    assert float(backend.compiled(sx.SpikeMax(mode="softmax"))(spikes, label)) == 0
    value, gradient = backend.compiled(sx.value_and_grad(sx.SpikeMax()))(spikes, label)
    # r0 = 1/4; the slope of the continued logarithm is -1/r0, per step -1/a
    close(backend.numpy(value), 1 + LOG(1 + 4 * EPS), backend.rtol)
    close(backend.numpy(gradient)[0, 0], np.asarray([-2.0, -2.0]), backend.rtol)
