"""Criteria where the random calls do not reach: large logits, and small cross entropies."""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run
from _support.cases import close
from spikeloss_xp import softmax


@pytest.mark.parametrize(
    ("logit", "term", "slope"),
    [
        ([1e4, 0.0, 0.0], 0, [0, 0, 0]),
        ([-1e4, -1e4 + 1, 1e4], 2e4, [-1, 0, 1]),
        ([-200.0, 200.0, 200.0], 400 + math.log(2), [-1, 0.5, 0.5]),
    ],
)
def test_large_logits_do_not_overflow(backend, logit, term, slope):
    classes = backend.adapter.axes[2]

    def evaluate(logit, index, cotangent):
        terms, pullback = softmax.cross_entropy_of_logits(classes, logit, index)
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
    for value, gradient in run(backend, both, *arrays):
        np.testing.assert_allclose(value, math.log1p(rest), rtol=backend.rtol)
        np.testing.assert_allclose(gradient, expected, rtol=backend.rtol)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.compiles)])
def test_transform_of_pytorch_keeps_the_gradient_of_a_certain_label(compiled):
    torch = pytest.importorskip("torch")
    loss, q = sx.CrossEntropy(time_axis=-1), torch.tensor([[1.0, 0.0, 0.0]])
    spikes = torch.tensor([[[25.0], [0.0], [0.0]]], requires_grad=True)
    if compiled:
        torch.compile(loss, fullgraph=True)(spikes, q).backward()
    else:
        spikes = spikes.detach()
        spikes.grad = torch.func.grad(lambda x: loss(x, q))(spikes)
    expected = math.exp(-25) * np.asarray([[[-2.0], [1.0], [1.0]]])
    np.testing.assert_allclose(spikes.grad, expected, rtol=1e-5)


@pytest.mark.parametrize("samples", [1, 1000])
def test_logit_of_minus_infinity_is_the_probability_0(backend, samples):
    spikes = np.zeros((samples, 3, 1))
    spikes[-1] = [[0.25], [-np.inf], [-0.5]]
    q = np.zeros((samples, 3))
    q[:, 0], q[:, 2] = 0.75, 0.25
    evaluate = sx.value_and_grad(sx.CrossEntropy(time_axis=-1, readout="max", reduction="sum"))
    value, gradient = run(backend, evaluate, spikes, q)
    odds = math.exp(-0.75)
    last = math.log1p(odds) + 0.25 * 0.75
    np.testing.assert_allclose(value, (samples - 1) * math.log(3) + last, rtol=1e3 * backend.rtol)
    p = np.asarray([1, 0, odds]) / (1 + odds)
    np.testing.assert_allclose(gradient[-1, :, 0], p - q[-1], atol=10 * backend.rtol)


def test_logit_of_minus_infinity_of_a_label_with_weight_0_does_not_count(backend):
    spikes = np.asarray([[[-np.inf], [0.0]], [[1.0], [0.0]]])
    loss = sx.CrossEntropy(time_axis=-1, readout="last")
    evaluate = sx.value_and_grad(loss)
    value, gradient = run(backend, evaluate, spikes, np.eye(2), weight=np.asarray([0.0, 1.0]))
    close(value, np.asarray(math.log1p(math.e)), backend.rtol)
    assert not gradient[0].any()


@pytest.mark.parametrize("target", [[0], [[1.0, 0.0]]])
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_label_without_probability_has_no_finite_loss(backend, target):
    """Infinity, or NaN in JAX."""
    loss = sx.CrossEntropy(time_axis=-1, readout="last")
    value = run(backend, loss, np.asarray([[[-np.inf], [0.0]]]), np.asarray(target))
    assert not np.isfinite(value)


def test_gradient_of_a_probability_of_0_is_that_of_others():
    torch = pytest.importorskip("torch")
    logit = torch.tensor([[[3.0, 1.0, 2.0]]])
    q = torch.tensor([[0.75, 0.25, 0.0]], requires_grad=True)
    sx.CrossEntropy(time_axis=0, reduction="sum")(logit, q).backward()
    torch.testing.assert_close(q.grad, -torch.log_softmax(logit[0], 1))
