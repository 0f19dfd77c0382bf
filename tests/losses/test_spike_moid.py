"""SpikeMoid at saturation, and its required options."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run
from spikeloss_xp.slayer import published


def evaluate_at(backend, logit, kind=sx.SpikeMoid, **options):
    """Return terms and gradients of the targets 0 and 1, both at a logit."""
    spikes = np.ones((1, 2, 1)) if logit > 0 else np.zeros((1, 2, 1))
    theta = 0 if logit > 0 else 1
    loss = kind(time_axis=-1, reduction="none", alpha=1 / abs(logit), theta=theta, **options)
    evaluate, ones = sx.value_and_grad(loss), np.ones((1, 2))
    terms, gradient = run(backend, evaluate, spikes, [[False, True]], cotangent=ones)
    return terms[0], gradient[0, :, 0]


@pytest.mark.parametrize("logit", [17, 80, 1e4, -17, -80, -1e4])
@pytest.mark.parametrize("weight", [None, 1e6])
def test_saturated_logits_keep_value_and_gradient(backend, logit, weight):
    """The terms of the targets 0 and 1 are ``log(1 + exp(z))`` and ``w log(1 + exp(-z))``."""
    options = {} if weight is None else {"pos_weight": (1.0, weight)}
    terms, gradient = evaluate_at(backend, logit, **options)
    weight = weight or 1
    tiny = math.exp(-abs(logit))
    absolute = abs(logit) + math.log1p(tiny), 1 / (1 + tiny)
    small = math.log1p(tiny), tiny / (1 + tiny)
    no, yes = (absolute, small) if logit > 0 else (small, absolute)
    # The logit is a rounded quotient, and exp(z) multiplies its relative error by |z|. Below the
    # smallest number of float32 a result is 0 or has fewer digits.
    rtol, smallest = abs(logit) * backend.rtol, 1e-36 * max(weight, 1)
    np.testing.assert_allclose(terms, [no[0], weight * yes[0]], rtol=rtol, atol=smallest)
    slope = gradient / abs(logit)
    np.testing.assert_allclose(slope, [no[1], -weight * yes[1]], rtol=rtol, atol=smallest)


@pytest.mark.parametrize(
    ("logit", "terms", "gradient"),
    [
        *((40, [100, 0], [0, 0]), (1e4, [100, 0], [0, 0])),
        *((-100.5, [0, 100], [0, 0]), (-1e4, [0, 100], [0, 0])),
        (-20, [0, 20], [0, -20]),
        # log(p) = -40 is not clamped, but PyTorch divides its slope by 1e-12 instead of exp(-40).
        (-40, [0, 40], [0, -40 * math.exp(-40) / 1e-12]),
    ],
)
def test_published_loss_clamps_the_logarithm_at_saturation(backend, logit, terms, gradient):
    """Where p or 1 - p rounds to 0, the wrong answer's term is 100 and its gradient 0."""
    got, slope = evaluate_at(backend, logit, published.SpikeMoid)
    # The right answer may leave a term of exp(-20), and a gradient of 1 / alpha times that.
    np.testing.assert_allclose(got, terms, rtol=backend.rtol, atol=1e-8)
    np.testing.assert_allclose(slope, gradient, rtol=10 * backend.rtol, atol=1e-7)


def test_only_the_published_loss_has_a_default_alpha_and_theta():
    own = published.SpikeMoid(time_axis=-1)
    assert (own.alpha, own.theta) == (1, 0)
    for options, missing in ({"theta": 0.2}, "alpha"), ({"alpha": 0.1}, "theta"):
        with pytest.raises(TypeError, match=f"missing 1 required .*'{missing}'"):
            sx.SpikeMoid(time_axis=-1, **options)
