"""Check the closed-form derivatives of the criteria on every backend."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.cases import close
from spikeloss_xp import criteria
from spikeloss_xp.backends._available import adapter

NUMPY = adapter("numpy")

ONE_HOT = np.asarray([[True, False, False], [False, True, False]])
CLASS_MASK = np.asarray([[True, True, False], [True, True, True]])
TERM_WEIGHT = np.asarray([[0.5, 0.25, 0.0], [1.0, 2.0, 0.5]])
U = np.asarray([[0.05, 0.5, 0.25], [0.75, 1.0, 0.5]])
TARGET = np.asarray([[0.0, 1.0, 0.25], [1.0, 0.0, 0.5]])
CRITERIA = {
    "squared": (criteria.squared, ()),
    "excess": (criteria.excess, (0.3,)),
    "shortfall": (criteria.shortfall, (0.3,)),
    "rates": (criteria.cross_entropy_of_rates, (ONE_HOT, 0.1, U < 0.1)),
    "rates-as-published": (criteria.cross_entropy_of_rates_as_published, (ONE_HOT,)),
    "logits": (criteria.cross_entropy_of_logits, (ONE_HOT,)),
    "rates-of-some": (criteria.cross_entropy_of_rates, (ONE_HOT, 0.1, U < 0.1, CLASS_MASK)),
    "logits-of-some": (criteria.cross_entropy_of_logits, (ONE_HOT, CLASS_MASK)),
    "rates-smooth": (criteria.smooth_cross_entropy_of_rates, (TERM_WEIGHT, 0.1, U < 0.1)),
    "rates-smooth-of-some": (
        criteria.smooth_cross_entropy_of_rates,
        (TERM_WEIGHT, 0.1, U < 0.1, CLASS_MASK),
    ),
    "logits-smooth": (criteria.smooth_cross_entropy_of_logits, (TERM_WEIGHT,)),
    "logits-smooth-of-some": (criteria.smooth_cross_entropy_of_logits, (TERM_WEIGHT, CLASS_MASK)),
    "binary": (criteria.binary_cross_entropy, (TARGET,)),
    "binary-weighted": (
        criteria.weighted_binary_cross_entropy,
        (TARGET, np.asarray([[0.25, 1.0, 5.0]])),
    ),
    "binary-as-published": (criteria.binary_cross_entropy_as_published, (TARGET,)),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_pullback_equals_the_numerical_derivative(backend, name):
    criterion, rest = CRITERIA[name]
    terms, _ = criterion(NUMPY, U, *rest)
    cotangent = np.random.default_rng(12).normal(size=terms.shape)
    step = 1e-6
    expected = np.empty(U.shape)
    for i in np.ndindex(U.shape):
        offset = np.zeros(U.shape)
        offset[i] = step
        difference = criterion(NUMPY, U + offset, *rest)[0] - criterion(NUMPY, U - offset, *rest)[0]
        expected[i] = np.sum(cotangent * difference) / (2 * step)

    def run(u, cotangent, *rest):
        terms, pullback = criterion(backend.adapter, u, *rest)
        return terms, pullback(cotangent)

    if name not in ("excess", "shortfall"):  # their limit is a Python number, which is not traced
        rest = tuple(backend.asarray(x) if isinstance(x, np.ndarray) else x for x in rest)
        run = backend.compiled(run)
    actual_terms, gradient = run(backend.asarray(U), backend.asarray(cotangent), *rest)
    close(backend.numpy(actual_terms), terms, backend.rtol)
    # The error of central differences is step² plus rounding / step, for slopes of up to 20.
    close(backend.numpy(gradient), expected, max(backend.rtol, 1e-8))


def test_large_logits_do_not_overflow(backend):
    logit = backend.asarray(np.asarray([[1e4, 0.0, 0.0], [-1e4, -1e4 + 1, 1e4]]))

    @backend.compiled
    def run(logit, one_hot, cotangent):
        terms, pullback = criteria.cross_entropy_of_logits(backend.adapter, logit, one_hot)
        return terms, pullback(cotangent)

    terms, gradient = run(logit, backend.asarray(ONE_HOT), backend.asarray(np.ones((2, 1))))
    close(backend.numpy(terms), np.asarray([[0], [2e4 - 1]]), backend.rtol)
    close(backend.numpy(gradient), np.asarray([[0, 0, 0], [0, -1, 1]]), backend.rtol)


def test_excess_is_zero_up_to_the_limit(backend):
    u = backend.asarray(np.asarray([0.25, 0.5, 0.75]))
    terms, pullback = criteria.excess(backend.adapter, u, 0.5)
    np.testing.assert_array_equal(backend.numpy(terms), [0, 0, 0.0625])
    slope = pullback(backend.asarray(np.ones(3)))
    np.testing.assert_array_equal(backend.numpy(slope), [0, 0, 0.5])


def test_small_softmax_loss_keeps_full_precision(backend):
    spikes = backend.asarray(np.asarray([[[20.0], [0.0], [1.0]]]))
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax(mode="softmax")))
    value, gradient = evaluate(spikes, np.asarray([0]))
    rest = math.exp(-20) + math.exp(-19)
    expected = np.asarray([[[-rest], [math.exp(-20)], [math.exp(-19)]]]) / (1 + rest)
    np.testing.assert_allclose(backend.numpy(value), math.log1p(rest), rtol=backend.rtol)
    np.testing.assert_allclose(backend.numpy(gradient)[:, 1:], expected[:, 1:], rtol=backend.rtol)
    if not backend.differentiates:  # autodiff loses digits: it subtracts two numbers near 1
        np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=backend.rtol)


def test_smoothed_gradient_of_one_class_keeps_full_precision(backend):
    """With one class the gradient is ``-1e-6 / (r (r + 1e-6))``: a small difference of rates."""
    spikes = backend.asarray(np.asarray([[[1.0, 0.0, 1.0, 1.0]]]), "float32")
    evaluate = backend.compiled(sx.value_and_grad(sx.SpikeMax(label_smoothing=0.25)))
    _, gradient = evaluate(spikes, np.asarray([0]))
    expected = -1e-6 / (0.75 * (0.75 + 1e-6)) / 4
    np.testing.assert_allclose(backend.numpy(gradient), np.full((1, 1, 4), expected), rtol=1e-5)
