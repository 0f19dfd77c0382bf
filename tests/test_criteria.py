"""Check the closed-form derivatives of the criteria on every backend."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.cases import close
from spikeloss_xp import criteria
from spikeloss_xp.backends._available import adapter

NUMPY = adapter("numpy")

# Of two samples and three classes, at one step.
INDEX = np.asarray([0, 1])[None, :, None]
ONE_HOT = np.asarray([[[True, False, False], [False, True, False]]])
CLASS_MASK = np.asarray([[[True, True, False], [True, True, True]]])
TERM_WEIGHT = np.asarray([[[0.5, 0.25, 0.0], [1.0, 2.0, 0.5]]])
U = np.asarray([[[0.05, 0.5, 0.25], [0.75, 1.0, 0.5]]])
TARGET = np.asarray([[[0.0, 1.0, 0.25], [1.0, 0.0, 0.5]]])
CRITERIA = {
    "squared": (criteria.squared, ()),
    "range": (criteria.outside_range, (0.3, 0.6, 2)),
    "range-linear": (criteria.outside_range, (0.3, 0.6, 1)),
    "rates": (criteria.cross_entropy_of_rates, (2, ONE_HOT, 0.1, U < 0.1)),
    "rates-as-published": (criteria.cross_entropy_of_rates_as_published, (2, ONE_HOT)),
    "logits": (criteria.cross_entropy_of_logits, (2, INDEX)),
    "rates-of-some": (criteria.cross_entropy_of_rates, (2, ONE_HOT, 0.1, U < 0.1, CLASS_MASK)),
    "logits-of-some": (criteria.cross_entropy_of_logits, (2, INDEX, CLASS_MASK)),
    "probabilities": (criteria.cross_entropy_of_probabilities, (2, TERM_WEIGHT)),
    "probabilities-of-some": (
        criteria.cross_entropy_of_probabilities,
        (2, TERM_WEIGHT, CLASS_MASK),
    ),
    "root": (criteria.root, ()),
    "binary": (criteria.binary_cross_entropy, (TARGET,)),
    "binary-weighted": (
        criteria.weighted_binary_cross_entropy,
        (TARGET, np.asarray([[[0.25, 1.0, 5.0]]])),
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

    def run(u, cotangent, *arrays):
        arrays = iter(arrays)  # numbers are not traced
        given = [next(arrays) if isinstance(x, np.ndarray) else x for x in rest]
        terms, pullback = criterion(backend.adapter, u, *given)
        return terms, pullback(cotangent)

    arrays = [backend.asarray(x) for x in rest if isinstance(x, np.ndarray)]
    run = backend.compiled(run)
    actual_terms, gradient = run(backend.asarray(U), backend.asarray(cotangent), *arrays)
    close(backend.numpy(actual_terms), terms, backend.rtol)
    # The error of central differences is step² plus rounding / step, for slopes of up to 20.
    close(backend.numpy(gradient), expected, max(backend.rtol, 1e-8))


@pytest.mark.parametrize(
    ("logit", "term", "slope"),
    [
        ([1e4, 0.0, 0.0], 0, [0, 0, 0]),
        ([-1e4, -1e4 + 1, 1e4], 2e4, [-1, 0, 1]),
        ([-200.0, 200.0, 200.0], 400 + math.log(2), [-1, 0.5, 0.5]),
    ],
)
def test_large_logits_do_not_overflow(backend, logit, term, slope):
    @backend.compiled
    def run(logit, index, cotangent):
        terms, pullback = criteria.cross_entropy_of_logits(backend.adapter, logit, 2, index)
        return terms, pullback(cotangent)

    arrays = np.asarray([[logit]]), np.zeros((1, 1, 1), np.int64), np.ones((1, 1, 1))
    terms, gradient = run(*map(backend.asarray, arrays))
    close(backend.numpy(terms), np.asarray([[[term]]]), backend.rtol)
    close(backend.numpy(gradient), np.asarray([[slope]]), backend.rtol)


@pytest.mark.parametrize(
    ("power", "expected", "slopes"),
    [(2, [0.0625, 0, 0, 0.0625], [-0.5, 0, 0, 0.5]), (1, [0.25, 0, 0, 0.25], [-1, 0, 0, 1])],
)
def test_distance_from_a_range_is_zero_at_its_limits(backend, power, expected, slopes):
    u = backend.asarray(np.asarray([0.0, 0.25, 0.5, 0.75]))
    terms, pullback = criteria.outside_range(backend.adapter, u, 0.25, 0.5, power)
    np.testing.assert_array_equal(backend.numpy(terms), expected)
    slope = pullback(backend.asarray(np.ones(4)))
    np.testing.assert_array_equal(backend.numpy(slope), slopes)


def test_small_cross_entropy_keeps_full_precision(backend):
    spikes = np.asarray([[[25.0], [0.0], [1.0]]])
    loss = sx.CrossEntropy(time_axis=-1)

    def run(spikes, index, one_hot):
        return [sx.value_and_grad(loss)(spikes, target) for target in (index, one_hot)]

    arrays = backend.asarray(spikes), np.asarray([0]), np.asarray([[1.0, 0.0, 0.0]])
    rest = math.exp(-25) + math.exp(-24)
    expected = np.asarray([[[-rest], [math.exp(-25)], [math.exp(-24)]]]) / (1 + rest)
    for value, gradient in backend.compiled(run)(*arrays):
        np.testing.assert_allclose(backend.numpy(value), math.log1p(rest), rtol=backend.rtol)
        np.testing.assert_allclose(
            backend.numpy(gradient)[:, 1:], expected[:, 1:], rtol=backend.rtol
        )
        if not backend.differentiates:  # autodiff loses digits: it subtracts two numbers near 1
            np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=backend.rtol)
