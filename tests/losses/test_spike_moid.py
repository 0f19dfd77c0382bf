import dataclasses
import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import each, run
from _support.cases import check_by_hand, close

SPIKES = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])


def softplus(z):
    return math.log(1 + math.exp(z))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


@pytest.mark.parametrize("numerics", ["stable", "lava"])
@pytest.mark.parametrize(
    ("loss", "label", "terms", "slope"),
    [
        # The rates 3/4 and 1/4 are the logits; the gradient is (p - y) / 4 steps.
        (
            sx.SpikeMoid(theta=0),
            [[1.0, 0.0]],
            [[softplus(0.75) - 0.75, softplus(0.25)]],
            [[(sigmoid(0.75) - 1) / 4] * 4, [sigmoid(0.25) / 4] * 4],
        ),
        # The logits are (3/4 - 1/2) / (1/4) = 1 and (1/4 - 1/2) / (1/4) = -1; the second target
        # is 1/2. The gradient is (p - y) / alpha / 4.
        (
            sx.SpikeMoid(alpha=0.25, theta=0.5),
            [[1.0, 0.5]],
            [[softplus(1) - 1, softplus(-1) + 0.5]],
            [[sigmoid(1) - 1] * 4, [sigmoid(-1) - 0.5] * 4],
        ),
        # In windows of 2 the rates are [½, ½, ½, 1] and [0, 0, ½, ½]. The gradient at step t is
        # half the sum of p - y at t and t + 1.
        (
            sx.SpikeMoid(2, theta=0),
            [[1.0, 0.0]],
            [
                [
                    [softplus(0.5) - 0.5] * 3 + [softplus(1) - 1],
                    [math.log(2)] * 2 + [softplus(0.5)] * 2,
                ]
            ],
            [
                [sigmoid(0.5) - 1] * 2
                + [(sigmoid(0.5) + sigmoid(1)) / 2 - 1, (sigmoid(1) - 1) / 2],
                [0.5, (0.5 + sigmoid(0.5)) / 2, sigmoid(0.5), sigmoid(0.5) / 2],
            ],
        ),
    ],
)
def test_value_and_gradient_match_hand_calculation(backend, loss, label, terms, slope, numerics):
    loss = type(loss)(loss.moving_window, "sum", loss.alpha, loss.theta, numerics=numerics)
    check_by_hand(backend, loss, SPIKES, label, terms, slope)


def spikes_and_loss_at(logit, make_loss):
    """Return spikes and a loss for which the logit of both classes is `logit`."""
    spikes = np.ones((1, 2, 1)) if logit > 0 else np.zeros((1, 2, 1))
    return spikes, make_loss(alpha=1 / abs(logit), theta=0 if logit > 0 else 1)


@pytest.mark.parametrize("logit", [17, 80, -17, -80])
def test_saturated_logits_keep_value_and_gradient(backend, logit):
    """Targets 0 and 1 at the same logit z: one term is about |z|, the other about exp(-|z|)."""
    spikes, loss = spikes_and_loss_at(
        logit, lambda **options: sx.SpikeMoid(reduction="none", **options)
    )
    evaluate, ones = sx.value_and_grad(loss), np.ones((1, 2))
    terms, gradient = run(backend, evaluate, spikes, [[False, True]], cotangent=ones)
    tiny = math.exp(-abs(logit))
    expected = [math.log1p(tiny), abs(logit) + math.log1p(tiny)]
    expected_gradient = [tiny / (1 + tiny), 1 / (1 + tiny)]
    if logit > 0:
        expected.reverse()
        expected_gradient.reverse()
    expected_gradient = np.asarray([expected_gradient[0], -expected_gradient[1]]) * abs(logit)
    # The logit z is a rounded quotient, and exp(z) multiplies its relative error by |z|.
    rtol = abs(logit) * backend.rtol
    np.testing.assert_allclose(terms[0], expected, rtol=rtol)
    np.testing.assert_allclose(gradient[0, :, 0], expected_gradient, rtol=rtol)


def test_large_logits_do_not_overflow(backend):
    for logit in (1e4, -1e4):
        spikes, loss = spikes_and_loss_at(logit, sx.SpikeMoid)
        value, gradient = run(backend, sx.value_and_grad(loss), spikes, [[False, True]])
        close(value, 1e4, backend.rtol)
        expected = [[[1e4], [0]]] if logit > 0 else [[[0], [-1e4]]]
        close(gradient, np.asarray(expected), backend.rtol)


@pytest.mark.parametrize("logit", [40, 200, 1e4, -100.5, -200, -1e4])
def test_lava_numerics_clamp_the_logarithm_at_saturation(backend, logit):
    """Where p or 1 - p rounds to 0, the wrong answer's term is 100 and its gradient 0."""
    spikes, loss = spikes_and_loss_at(
        logit, lambda **options: sx.SpikeMoid(reduction="none", numerics="lava", **options)
    )
    evaluate, ones = sx.value_and_grad(loss), np.ones((1, 2))
    terms, gradient = run(backend, evaluate, spikes, [[False, True]], cotangent=ones)
    expected = [100, 0] if logit > 0 else [0, 100]
    # The right answer may leave a term of exp(-40), and a gradient of 1 / alpha times that.
    np.testing.assert_allclose(terms[0], expected, rtol=0, atol=1e-15)
    np.testing.assert_allclose(gradient, np.zeros((1, 2, 1)), rtol=0, atol=1e-14)


def test_lava_numerics_are_exact_before_the_clamp(backend):
    spikes, loss = spikes_and_loss_at(
        -40, lambda **options: sx.SpikeMoid(numerics="lava", **options)
    )
    value, gradient = run(backend, sx.value_and_grad(loss), spikes, [[False, True]])
    # log(p) = -40 is not clamped at -100, and its slope 1 - p is 1.
    close(value, 40, backend.rtol)
    close(gradient[0, :, 0], np.asarray([0, -40.0]), backend.rtol)


@pytest.mark.parametrize("logit", [17, 80, 1e4, -17, -80, -1e4])
@pytest.mark.parametrize("weight", [1e-3, 50.0, 1e6])
def test_pos_weight_keeps_value_and_gradient_at_saturation(backend, logit, weight):
    """The terms of the targets 0 and 1 are ``log(1 + exp(z))`` and ``w log(1 + exp(-z))``."""
    spikes, loss = spikes_and_loss_at(
        logit, lambda **o: sx.SpikeMoid(reduction="none", pos_weight=(1.0, weight), **o)
    )
    evaluate, ones = sx.value_and_grad(loss), np.ones((1, 2))
    terms, gradient = run(backend, evaluate, spikes, [[False, True]], cotangent=ones)
    tiny = math.exp(-abs(logit))
    absolute = abs(logit) + math.log1p(tiny), 1 / (1 + tiny)
    small = math.log1p(tiny), tiny / (1 + tiny)
    no, yes = (absolute, small) if logit > 0 else (small, absolute)
    # The logit is a rounded quotient, and exp(z) multiplies its relative error by |z|. Below the
    # smallest number of float32 a result is 0 or has fewer digits.
    rtol, smallest = abs(logit) * backend.rtol, 1e-36 * max(weight, 1)
    np.testing.assert_allclose(terms[0], [no[0], weight * yes[0]], rtol=rtol, atol=smallest)
    slope = gradient[0, :, 0] / abs(logit)
    np.testing.assert_allclose(slope, [no[1], -weight * yes[1]], rtol=rtol, atol=smallest)


def test_pos_weight_of_one_class_changes_its_positive_terms_only(backend):
    losses = [sx.SpikeMoid(reduction="none", pos_weight=weight, theta=0) for weight in (1, (1, 3))]
    both = np.concatenate([SPIKES, SPIKES])
    label = [[True, True], [False, False]]
    plain, weighted = run(backend, each(losses), both, label)
    close(weighted, plain * [[1, 3], [1, 1]], backend.rtol)


def test_theta_left_out_warns_where_rates_are_read():
    for options in ({}, {"readout": "count"}, {"moving_window": 5, "alpha": 0.1}):
        with pytest.warns(UserWarning, match=r"theta=0.2 with alpha=0.1") as record:
            loss = sx.SpikeMoid(**options)
        assert record[0].filename == __file__
        assert loss == sx.SpikeMoid(theta=0, **options)  # which does not warn
        assert dataclasses.replace(loss, reduction="mean").theta == 0
    assert sx.SpikeMoid(readout="max").theta == 0
