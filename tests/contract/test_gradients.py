"""Cotangents, state of the frameworks, and second derivatives of the losses."""

import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import example
from _support.cases import as_published, close
from _support.contract import FORMS
from _support.reference import differences

SPIKES = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5))


def test_torch_no_grad_and_inference_mode_give_the_same_gradient():
    torch = pytest.importorskip("torch")
    evaluate = sx.value_and_grad(sx.SpikeTime(time_constant=2, length=4, time_axis=-1))
    spikes, desired = torch.tensor(SPIKES), torch.zeros(SPIKES.shape)
    _, expected = evaluate(spikes, desired)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            _, gradient = evaluate(spikes, desired)
        assert torch.equal(gradient, expected)


def test_any_function_is_differentiated_where_there_is_autodiff(backend):
    spikes = backend.asarray(SPIKES)
    evaluate = sx.value_and_grad(lambda x, factor: factor * backend.xp.sum(x**3))
    if not backend.differentiates:
        with pytest.raises(TypeError, match=f"{backend.library} has no automatic diff"):
            evaluate(spikes, 2.0)
        return
    value, gradient = evaluate(spikes, 2.0)
    close(backend.numpy(value), 2 * (SPIKES**3).sum(), backend.rtol)
    close(backend.numpy(gradient), 6 * SPIKES**2, backend.rtol)


SECOND_ORDER = [
    *("SpikeTime", "SpikeTime-order2", "SpikeTime-taps", "SpikeRate-rate", "SpikeRate-rate-window"),
    *("SpikeMax", "SpikeMax-window", "SpikeMax-softmax", "CrossEntropy-groups-cold-sqrt_count"),
    *("CrossEntropy-count", "CrossEntropy-rate-window", "CrossEntropy-softmax_sum"),
    *("CrossEntropy-probabilities-count", "SpikeMoid-rate"),
    *("PoissonNLL", "PoissonNLL-rates", "BernoulliNLL", "BernoulliNLL-hazard"),
    *("NegativeBinomialNLL", "NegativeBinomialNLL-rates"),
    *("SpikeMoid-rate-window", "SpikeMoid-pos-weight-rate", "SpikeMoid-lava"),
]


@functools.cache
def few_samples(form):
    """Return a sample with a silent labelled class, and one without any spikes, or two of rates."""
    if form == "SpikeMoid-lava":
        call = example(FORMS["SpikeMoid-rate"])
        call = call.replace(loss=as_published(call.loss))
    else:
        call = example(FORMS[form])
    rates = form.endswith("NLL-rates")
    spikes = (call.spikes[:2] + rates) * np.asarray([1, rates])[:, None, None]
    return call.replace(spikes=spikes, target=call.target[:2])


@functools.cache
def hessian_by_differences(form):
    call = few_samples(form)
    return differences(lambda x: sx.value_and_grad(call.loss)(x, call.target)[1], call.spikes)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # by PyTorch's own forward mode
@pytest.mark.parametrize("form", SECOND_ORDER)
@pytest.mark.parametrize("library", ["torch", "jax-x64"])
def test_hessian_matches_differences_of_the_gradient(library, form):
    call = few_samples(form)
    with on(library) as backend:
        if library == "torch":
            import torch

            hessian = torch.func.hessian(lambda x: call.loss(x, call.target))
        else:
            import jax

            hessian = jax.jit(jax.hessian(lambda x: call.loss(x, call.target)))
        got = backend.numpy(hessian(backend.asarray(call.spikes)))
    # Finite differences are accurate to about 1e-9 of the largest entry.
    close(got, hessian_by_differences(form), 1e-7)


def of_logit(exp, z):
    """Return ``p (1 - p)``, the second derivative of ``log(1 + exp(z))``."""
    return exp(z) / (1 + exp(z)) ** 2


def of_spike(exp, u):
    """Return the second derivative of ``-log(1 - exp(-exp(u)))``, the term of a spike."""
    r = exp(u)
    return r * r * exp(r) / (exp(r) - 1) ** 2 - r / (exp(r) - 1)


LOGITS = (0, 5, -5, 17, -17, 30, -30, 89, -89, 100, -100, 720, -720)
LOG_HAZARDS = (2.5, 1, -1.9, -2.1, -5, -20, -29, -30, -40, -60, -100)
OF_LOGITS, OPTIONS = {"alpha": 1.0, "theta": 0.0}, {"time_axis": -1, "reduction": "sum"}
HAZARD = sx.BernoulliNLL(link="hazard", **OPTIONS)
AT_SATURATION = {  # losses: the target of a sample, logits, and the second derivative
    "SpikeMoid": (sx.SpikeMoid(**OF_LOGITS, **OPTIONS), [0.25], LOGITS, of_logit),
    "SpikeMoid, weighted": (
        sx.SpikeMoid(**OF_LOGITS, **OPTIONS, pos_weight=3.0), [1.0], LOGITS,
        lambda exp, z: 3 * of_logit(exp, z),
    ),
    "BernoulliNLL": (sx.BernoulliNLL(**OPTIONS), [[1.0]], LOGITS, of_logit),
    "hazard, silent": (HAZARD, [[0.0]], LOG_HAZARDS, lambda exp, u: exp(u)),
    "hazard, spike": (HAZARD, [[1.0]], LOG_HAZARDS, of_spike),
    "CrossEntropy": (sx.CrossEntropy(**OPTIONS), 0, LOGITS, of_logit),
    "CrossEntropy, probabilities": (sx.CrossEntropy(**OPTIONS), [0.25, 0.75], LOGITS, of_logit),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`torch.jit")  # by PyTorch's own forward mode
@pytest.mark.parametrize("name", AT_SATURATION)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_second_derivative_at_saturation_is_that_of_the_formula(library, dtype, name):
    loss, target, at, formula = AT_SATURATION[name]
    mpmath = pytest.importorskip("mpmath")  # PyTorch requires it
    with mpmath.workdps(200):
        expected = [float(formula(mpmath.exp, mpmath.mpf(z))) for z in at]
    with on("jax-x64" if library == "jax" and dtype == "float64" else library) as backend:
        targets = np.stack([np.asarray(target)] * len(at))
        targets = backend.asarray(targets, dtype if targets.dtype.kind == "f" else None)
        zero = backend.asarray(np.zeros(len(at)), dtype)

        def value(z):
            two = backend.xp.stack([z, zero], axis=1)[..., None]
            return loss(two if "CrossEntropy" in name else two[:, :1], targets)

        for second in second_derivatives(library, value):
            got = backend.numpy(second(backend.asarray(np.asarray(at, float), dtype)))
            # The gradient of a wrong answer is almost 1, and its rounding is an error of the next
            # derivative. The smallest numbers of float32 have fewer digits.
            finfo = np.finfo(dtype)
            atol = 1e-36 if "SpikeMoid" in name else 4 * finfo.eps
            np.testing.assert_allclose(got, expected, rtol=200 * finfo.eps, atol=atol)


def second_derivatives(library, value):
    """Return functions that compute the diagonal of the Hessian, each in a different way."""
    if library == "torch":
        import torch

        def twice(z):
            z = z.clone().requires_grad_()
            (first,) = torch.autograd.grad(value(z), z, create_graph=True)
            return torch.autograd.grad(first.sum(), z)[0]

        of_grad, of_hessian = torch.func.jvp, torch.func.hessian(value)
        gradient, ones = torch.func.grad(value), torch.ones_like
        backward = torch.func.grad(lambda z: gradient(z).sum())
    else:
        import jax

        of_grad, of_hessian, ones = jax.jvp, jax.jit(jax.hessian(value)), jax.numpy.ones_like
        gradient = jax.grad(value)
        twice = jax.grad(lambda z: gradient(z).sum())
        backward = jax.jit(twice)
    forward = lambda z: of_grad(gradient, (z,), (ones(z),))[1]  # noqa: E731
    return twice, backward, forward, lambda z: of_hessian(z).diagonal()
