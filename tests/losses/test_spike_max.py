"""SpikeMax at silence and where digits are few, and votes of large numbers."""

import math

import numpy as np

import spikeloss_xp as sx
from _support.calls import run
from _support.cases import close
from spikeloss_xp.slayer import published

LOG = math.log
EPS = 1e-6


def test_small_loss_keeps_full_precision(backend):
    spikes = np.zeros((1, 2, 4))
    spikes[0, 0] = 1
    close(
        run(backend, sx.SpikeMax(time_axis=-1), spikes, [0]),
        math.log1p(EPS),
        backend.rtol,
    )


def test_published_loss_is_infinite_at_a_silent_label(backend):
    spikes = np.asarray([[[0.0, 0], [1, 0]], [[1, 0], [0, 0]]])
    with np.errstate(divide="ignore"):  # log(0) is expected here
        terms = run(backend, published.SpikeMax(reduction="none", time_axis=-1), spikes, [0, 0])
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
