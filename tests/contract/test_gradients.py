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
    evaluate = sx.value_and_grad(
        sx.SpikeTime(time_constant=2, length=4, time_axis=-1, reduction="sum")
    )
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
