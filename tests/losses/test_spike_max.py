"""SpikeMax at silence, at the pseudo-count and where digits are few, and votes of large numbers."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run
from _support.cases import close

LOG = math.log
EPS = 1e-6


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
    assert (slope >= -6).all()  # C / a
    assert abs(terms[41] - terms[42]) <= 6 * 2e-5
    assert terms[0] >= LOG(3)  # a silent label is worse than a uniform guess


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
