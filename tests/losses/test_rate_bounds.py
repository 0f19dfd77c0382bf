"""Bounds on the rates of CrossEntropy where the random calls do not reach: digits and equality."""

import decimal
from decimal import Decimal

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run

RATES = (0.5, 0.02)
BOUNDED, PLAIN = (
    sx.CrossEntropy(time_axis=-1, rates=rates, rate_weight=1.0) for rates in (RATES, None)
)


def outside(n, label, steps):
    """Return the squared distance of counts from their bounds and its slopes, with 60 digits."""
    value, slopes = Decimal(0), []
    with decimal.localcontext(prec=60):
        for c, number in enumerate(map(Decimal, n)):
            bound = Decimal(str(RATES[c != label])) * steps
            far = (number + Decimal("0.375")).sqrt() - (bound + Decimal("0.375")).sqrt()
            far = min(far, Decimal(0)) if c == label else max(far, Decimal(0))
            value += far * far
            slopes.append(float(far / (number + Decimal("0.375")).sqrt()))
        return float(value), slopes


@pytest.mark.parametrize(
    "n",
    [
        (0.0, 0.0, 0.0),  # silence
        (1000.0, 1000.0, 1000.0),  # saturation
        (499.0, 21.0, 20.0),  # a spike beyond each bound
        (500 - 2**-10, 20 + 2**-10, 0.0),  # and much less
    ],
)
def test_bounds_keep_their_digits(backend, n):
    value, slopes = outside(n, 0, 1000)
    spikes = np.asarray([[[x, *[0.0] * 999] for x in n]])

    def evaluate(spikes, label):
        return sx.value_and_grad(BOUNDED)(spikes, label), sx.value_and_grad(PLAIN)(spikes, label)

    (bounded, gradient), (plain, of_plain) = run(backend, evaluate, spikes, np.asarray([0]))
    # Beside the cross entropy, whose digits are those of its own size.
    np.testing.assert_allclose(bounded, value + plain, rtol=backend.rtol)
    expected = np.asarray(slopes) + of_plain[0, :, 0]
    # Some libraries have no numbers below 1e-37 in float32.
    np.testing.assert_allclose(gradient[0, :, 0], expected, rtol=backend.rtol, atol=1e-37)


def test_nothing_pulls_within_the_bounds_and_at_them(backend):
    spikes = np.zeros((2, 3, 50))
    spikes[0, 0, :25] = spikes[0, 1, :1] = 1  # at the bounds, and silent
    spikes[1, 0, :40] = 1

    def evaluate(spikes, label):
        return [sx.value_and_grad(loss)(spikes, label) for loss in (BOUNDED, PLAIN)]

    bounded, plain = run(backend, evaluate, spikes, np.asarray([0, 0]))
    for ours, expected in zip(bounded, plain, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_second_derivative_is_that_of_the_cross_entropy_at_the_bounds():
    torch = pytest.importorskip("torch")
    spikes = torch.zeros((1, 3, 50), dtype=torch.float64)
    spikes[0, 0, :25] = spikes[0, 1, :1] = 1
    hessians = [
        torch.autograd.functional.hessian(
            lambda x, loss=loss: loss.value(x, torch.tensor([0])), spikes
        )
        for loss in (BOUNDED, PLAIN)
    ]
    torch.testing.assert_close(*hessians, rtol=0, atol=1e-15)  # a rounding of numbers near 1


# The bounds without the cross entropy ------------------------------------------------------------

TRAINS = np.random.default_rng(3).integers(0, 5, size=(5, 3, 8)) / 4
TRAINS[0, 0] = TRAINS[1, 1] = 0  # silent: the label, and another class


def test_scores_of_one_sided_rates_are_what_a_label_takes_from_the_loss():
    loss = sx.SpikeRate(0.6, 0.45, one_sided=True, reduction="none", time_axis=-1)
    terms = [loss(TRAINS, [c] * 5).sum(axis=1) for c in range(3)]
    scores = loss.scores(TRAINS)
    np.testing.assert_allclose(np.diff(scores.T, axis=0), -np.diff(terms, axis=0), atol=1e-14)
