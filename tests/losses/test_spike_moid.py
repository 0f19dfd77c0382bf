import math

import numpy as np
import pytest
from cases import close, reduced

import spikeloss_xp as sx

SPIKES = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])


def softplus(z):
    return math.log(1 + math.exp(z))


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


@pytest.mark.parametrize("numerics", ["stable", "lava"])
@pytest.mark.parametrize(
    ("loss", "label", "terms", "slope"),
    [
        # rates 3/4 and 1/4 are the logits; slopes (p - y) / 4 steps
        (
            sx.SpikeMoid(),
            [[1.0, 0.0]],
            [[softplus(0.75) - 0.75, softplus(0.25)]],
            [[(sigmoid(0.75) - 1) / 4] * 4, [sigmoid(0.25) / 4] * 4],
        ),
        # logits (3/4 - 1/2) / (1/4) = 1 and (1/4 - 1/2) / (1/4) = -1, half wanted of the second;
        # slopes (p - y) / alpha / 4
        (
            sx.SpikeMoid(alpha=0.25, theta=0.5),
            [[1.0, 0.5]],
            [[softplus(1) - 1, softplus(-1) + 0.5]],
            [[sigmoid(1) - 1] * 4, [sigmoid(-1) - 0.5] * 4],
        ),
        # in windows of 2 the rates are [½, ½, ½, 1] and [0, 0, ½, ½]; a slope at t adds those of
        # t and t + 1, halved
        (
            sx.SpikeMoid(2),
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
def test_by_hand(backend, loss, label, terms, slope, numerics):
    loss = type(loss)(loss.moving_window, "sum", loss.alpha, loss.theta, numerics=numerics)
    evaluate = backend.compiled(sx.value_and_grad(loss))
    value, gradient = evaluate(backend.asarray(SPIKES), backend.asarray(label))
    close(backend.numpy(value), np.sum(terms), backend.rtol)
    close(backend.numpy(gradient)[0], np.asarray(slope), backend.rtol)
    got = backend.compiled(reduced(loss, "none"))(backend.asarray(SPIKES), backend.asarray(label))
    close(backend.numpy(got), np.asarray(terms), backend.rtol)


def at(logit, loss):
    """Return spikes that put both classes at a logit, by their rate or by the threshold."""
    spikes = np.ones((1, 2, 1)) if logit > 0 else np.zeros((1, 2, 1))
    return spikes, loss(alpha=1 / abs(logit), theta=0 if logit > 0 else 1)


@pytest.mark.parametrize("logit", [17, 80, -17, -80])
def test_saturation_keeps_value_and_slope(backend, logit):
    """Both labels at once: the wrong answer costs |z|, the right one e^-|z|."""
    spikes, loss = at(logit, lambda **options: sx.SpikeMoid(reduction="none", **options))
    spikes, label = backend.asarray(spikes), backend.asarray([[False, True]])
    ones = backend.asarray(np.ones((1, 2)))
    terms, gradient = sx.value_and_grad(loss)(spikes, label, cotangent=ones)
    tiny = math.exp(-abs(logit))
    wanted = [math.log1p(tiny), abs(logit) + math.log1p(tiny)]
    slope = [tiny / (1 + tiny), 1 / (1 + tiny)]
    if logit > 0:
        wanted.reverse()
        slope.reverse()
    slope = np.asarray([slope[0], -slope[1]]) * abs(logit)
    # The logit is a quotient: an exponential of it has its rounding, times its size.
    rtol = abs(logit) * backend.rtol
    np.testing.assert_allclose(backend.numpy(terms)[0], wanted, rtol=rtol)
    np.testing.assert_allclose(backend.numpy(gradient)[0, :, 0], slope, rtol=rtol)


def test_no_logit_overflows(backend):
    for logit in (1e4, -1e4):
        spikes, loss = at(logit, sx.SpikeMoid)
        evaluate = sx.value_and_grad(loss)
        value, gradient = evaluate(backend.asarray(spikes), [[False, True]])
        close(backend.numpy(value), 1e4, backend.rtol)
        wanted = [[[1e4], [0]]] if logit > 0 else [[[0], [-1e4]]]
        close(backend.numpy(gradient), np.asarray(wanted), backend.rtol)


@pytest.mark.parametrize("logit", [40, 200, 1e4, -200, -1e4])
def test_published_values_at_saturation(backend, logit):
    """Where p or 1 - p rounds to 0, the wrong answer costs 100 and has no slope."""
    spikes, loss = at(
        logit, lambda **options: sx.SpikeMoid(reduction="none", numerics="lava", **options)
    )
    ones = backend.asarray(np.ones((1, 2)))
    terms, gradient = sx.value_and_grad(loss)(
        backend.asarray(spikes), [[False, True]], cotangent=ones
    )
    wanted = [100, 0] if logit > 0 else [0, 100]
    # the right answer's e^-40 may be left, times the 1 / alpha of the slope
    np.testing.assert_allclose(backend.numpy(terms)[0], wanted, rtol=0, atol=1e-15)
    np.testing.assert_allclose(backend.numpy(gradient), np.zeros((1, 2, 1)), rtol=0, atol=1e-14)


def test_published_values_short_of_the_clamp(backend):
    spikes, loss = at(-40, lambda **options: sx.SpikeMoid(numerics="lava", **options))
    value, gradient = sx.value_and_grad(loss)(backend.asarray(spikes), [[False, True]])
    # log(p) at -40 is far from -100, and its slope 1 - p is 1
    close(backend.numpy(value), 40, backend.rtol)
    close(backend.numpy(gradient)[0, :, 0], np.asarray([0, -40.0]), backend.rtol)
