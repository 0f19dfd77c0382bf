"""Criteria where the random calls do not reach: large logits, and small cross entropies."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run
from _support.cases import close
from spikeloss_xp import criteria


@pytest.mark.parametrize(
    ("logit", "term", "slope"),
    [
        ([1e4, 0.0, 0.0], 0, [0, 0, 0]),
        ([-1e4, -1e4 + 1, 1e4], 2e4, [-1, 0, 1]),
        ([-200.0, 200.0, 200.0], 400 + math.log(2), [-1, 0.5, 0.5]),
    ],
)
def test_large_logits_do_not_overflow(backend, logit, term, slope):
    def evaluate(logit, index, cotangent):
        terms, pullback = criteria.cross_entropy_of_logits(backend.adapter, logit, 2, index)
        return terms, pullback(cotangent)

    arrays = np.asarray([[logit]]), np.zeros((1, 1, 1), np.int64), np.ones((1, 1, 1))
    terms, gradient = run(backend, evaluate, *arrays)
    close(terms, np.asarray([[[term]]]), backend.rtol)
    close(gradient, np.asarray([[slope]]), backend.rtol)


def test_small_cross_entropy_keeps_full_precision(backend):
    evaluate = sx.value_and_grad(sx.CrossEntropy(time_axis=-1))

    def both(spikes, index, one_hot):
        return evaluate(spikes, index), evaluate(spikes, one_hot)

    arrays = np.asarray([[[25.0], [0.0], [1.0]]]), np.asarray([0]), np.asarray([[1.0, 0.0, 0.0]])
    rest = math.exp(-25) + math.exp(-24)
    expected = np.asarray([[[-rest], [math.exp(-25)], [math.exp(-24)]]]) / (1 + rest)
    # Automatic differentiation subtracts two numbers near 1 for the label, and loses digits.
    exact = slice(1 if backend.differentiates else 0, 3)
    for value, gradient in run(backend, both, *arrays):
        np.testing.assert_allclose(value, math.log1p(rest), rtol=backend.rtol)
        np.testing.assert_allclose(gradient[:, exact], expected[:, exact], rtol=backend.rtol)
