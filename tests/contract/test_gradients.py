"""Check values and gradients of every loss, with every set of options, on every backend."""

import functools
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases, reference
from _support.backends import on
from _support.cases import CASES, LABEL, SPIKES, close, reduced
from _support.reference import differences

random = np.random.default_rng(2)
COTANGENTS = {shape: random.normal(size=shape) for shape in [(2,), (2, 3), (2, 5), (2, 3, 5)]}
REDUCTIONS = ("none", "sum", "mean")


@functools.cache
def reference_results(name, train):
    """Return the reference value and its finite-difference gradient, for each reduction."""
    (loss, target), spikes = CASES[name], cases.trains(name)[train]
    terms = reference.terms(loss, spikes, target)
    cotangent = COTANGENTS[terms.shape]
    terms_gradient = differences(
        lambda x: np.sum(cotangent * reference.terms(loss, x, target)), spikes
    )
    sum_gradient = differences(lambda x: np.sum(reference.terms(loss, x, target)), spikes)
    return {
        "none": (terms, terms_gradient),
        "sum": (terms.sum(), sum_gradient),
        "mean": (terms.mean(), sum_gradient / terms.size),
    }


def library_results(backend, name):
    """Yield the library's value and gradient for each reduction and train, compiled once."""
    loss, target = CASES[name]
    shape = reference.terms(loss, SPIKES["graded"], target).shape
    cotangent, target_array = backend.asarray(COTANGENTS[shape]), backend.asarray(target)

    def every_reduction(spikes, target_array, cotangent):
        none, *others = (sx.value_and_grad(reduced(loss, r)) for r in REDUCTIONS)
        return none(spikes, target_array, cotangent=cotangent), *(
            other(spikes, target_array) for other in others
        )

    compiled = backend.compiled(every_reduction)
    for train, spikes in cases.trains(name).items():
        results = compiled(backend.asarray(spikes), target_array, cotangent)
        for reduction, (value, gradient) in zip(REDUCTIONS, results, strict=True):
            yield train, reduction, backend.numpy(value), backend.numpy(gradient)


@functools.cache
def closed_form_gradients(name):
    with on("numpy") as backend:
        return {(t, r): gradient for t, r, _, gradient in library_results(backend, name)}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_match_reference_and_closed_forms(backend, name):
    # Finite differences are accurate to about 1e-10 of the largest entry; the rest is margin.
    difference_rtol = max(backend.rtol, 1e-8)
    for train, reduction, value, gradient in library_results(backend, name):
        expected_value, expected_gradient = reference_results(name, train)[reduction]
        close(value, expected_value, backend.rtol)
        close(gradient, expected_gradient, difference_rtol)
        close(gradient, closed_form_gradients(name)[train, reduction], backend.rtol)


@pytest.mark.parametrize(("reduction", "weight"), [("sum", 1.0), ("mean", 1 / 30), ("none", None)])
def test_cotangent_weights_the_terms(backend, reduction, weight):
    loss, spikes = sx.SpikeTime(2, 4, reduction=reduction), backend.asarray(SPIKES["graded"])
    cotangent = np.asarray(-2.5) if weight else COTANGENTS[2, 3, 5]
    _, gradient = sx.value_and_grad(loss)(spikes, cases.DESIRED, cotangent=cotangent)
    trace = reference.causal_filter(SPIKES["graded"] - cases.DESIRED, reference.kernel(2, 4, 1))
    trace_cotangent = 2 * trace * cotangent * (weight or 1)
    expected = reference.causal_filter(trace_cotangent[..., ::-1], reference.kernel(2, 4, 1))[
        ..., ::-1
    ]
    close(backend.numpy(gradient), expected, backend.rtol)


def test_cotangent_of_wrong_shape_raises(backend):
    spikes = backend.asarray(SPIKES["graded"])
    terms = sx.value_and_grad(sx.SpikeRate(0.5, 0, reduction="none"))
    with pytest.raises(ValueError, match=re.escape("(2, 3)") + ".*got none"):
        terms(spikes, LABEL)
    with pytest.raises(ValueError, match=re.escape("(2, 3)") + ".*" + re.escape("(3, 2)")):
        terms(spikes, LABEL, cotangent=backend.asarray(np.ones((3, 2))))
    total = sx.value_and_grad(sx.SpikeRate(0.5, 0))
    with pytest.raises(ValueError, match=re.escape("()") + ".*" + re.escape("(2, 3)")):
        total(spikes, LABEL, cotangent=backend.asarray(np.ones((2, 3))))


@pytest.mark.parametrize("name", cases.ONE_OF_EACH)
def test_input_and_target_are_not_modified(backend, name):
    loss, target = CASES[name]
    spikes = backend.asarray(SPIKES["binary"])
    target_array = backend.asarray(target)
    before, target_before = backend.numpy(spikes).tobytes(), backend.numpy(target_array).tobytes()
    _, gradient = backend.compiled(sx.value_and_grad(loss))(spikes, target_array)
    assert backend.numpy(spikes).tobytes() == before
    assert backend.numpy(target_array).tobytes() == target_before
    assert gradient.shape == spikes.shape
    assert gradient.dtype == spikes.dtype


def test_torch_autograd_state_is_not_modified():
    torch = pytest.importorskip("torch")
    spikes = torch.tensor(SPIKES["graded"])
    evaluate = sx.value_and_grad(sx.SpikeMax())
    value, gradient = evaluate(spikes, LABEL)
    assert [x.requires_grad for x in (spikes, value, gradient)] == [False, False, False]

    spikes.requires_grad_()
    for leaf_or_result in (spikes, spikes * 1.0):
        value, same = evaluate(leaf_or_result, LABEL)
        assert [x.requires_grad for x in (spikes, value, same)] == [True, False, False]
        assert torch.equal(same, gradient)
    assert spikes.grad is None

    sx.SpikeMax()(spikes, LABEL).backward()
    # `backward` does the same operations, up to the order of one sum.
    close(spikes.grad.numpy(), gradient.numpy(), 1e-15)


def test_torch_no_grad_and_inference_mode_give_the_same_gradient():
    torch = pytest.importorskip("torch")
    evaluate = sx.value_and_grad(sx.SpikeTime(2, 4))
    _, expected = evaluate(torch.tensor(SPIKES["graded"]), cases.DESIRED)
    with torch.no_grad():
        _, gradient = evaluate(torch.tensor(SPIKES["graded"]), cases.DESIRED)
    assert torch.equal(gradient, expected)
    with torch.inference_mode():
        _, gradient = evaluate(torch.tensor(SPIKES["graded"]), cases.DESIRED)
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("dtype", ["bool", "int32"])
@pytest.mark.parametrize("name", ["SpikeTime-order1", "SpikeMax-window"])
def test_bool_and_integer_spikes_have_a_gradient(backend, name, dtype):
    loss, target = CASES[name]
    default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    evaluate = backend.compiled(sx.value_and_grad(loss))
    spikes = backend.asarray(SPIKES["binary"], dtype)
    value, gradient = evaluate(spikes, backend.asarray(target))
    assert value.dtype == gradient.dtype == default
    expected, expected_gradient = reference_results(name, "binary")["sum"]
    # `Backend.rtol` for float32; the accuracy of the finite differences for float64.
    rtol = 1e-5 if default == backend.xp.float32 else 1e-8
    close(backend.numpy(value), expected, rtol)
    close(backend.numpy(gradient), expected_gradient, rtol)


def test_any_function_is_differentiated_where_there_is_autodiff(backend):
    spikes = backend.asarray(SPIKES["graded"])
    evaluate = sx.value_and_grad(lambda x, factor: factor * backend.xp.sum(x**3))
    if not backend.differentiates:
        with pytest.raises(TypeError, match=f"{backend.library} has no automatic diff"):
            evaluate(spikes, 2.0)
        return
    value, gradient = evaluate(spikes, 2.0)
    close(backend.numpy(value), 2 * (SPIKES["graded"] ** 3).sum(), backend.rtol)
    close(backend.numpy(gradient), 6 * SPIKES["graded"] ** 2, backend.rtol)


SECOND_ORDER = [
    *("SpikeTime-order1", "SpikeTime-order3", "SpikeRate", "SpikeRate-window"),
    *("SpikeMax", "SpikeMax-window", "SpikeMax-softmax", "SpikeMax-softmax-window"),
    *("SpikeMoid", "SpikeMoid-soft", "SpikeMoid-window", "SpikeMoid-lava-soft"),
    *("SpikeTime-taps", "SpikeMax-softmax-sum", "SpikeMoid-pos-weight"),
]


ignore_torch_warnings = pytest.mark.filterwarnings(
    # PyTorch's own forward mode calls the deprecated torch.jit.script.
    "ignore:`torch.jit",
)


@functools.cache
def hessian_by_differences(name, train):
    loss, target = CASES[name]
    gradient = sx.value_and_grad(loss)
    return differences(lambda x: gradient(x, target)[1], cases.trains(name)[train])


@ignore_torch_warnings
@pytest.mark.parametrize("name", SECOND_ORDER)
@pytest.mark.parametrize("library", ["torch", "jax-x64"])
def test_hessian_matches_differences_of_the_gradient(library, name):
    loss, target = CASES[name]
    with on(library) as backend:
        if library == "torch":
            import torch

            hessian = torch.func.hessian(lambda x: loss(x, target))
        else:
            import jax

            hessian = jax.jit(jax.hessian(lambda x: loss(x, target)))
        for train, spikes in cases.trains(name).items():
            got = backend.numpy(hessian(backend.asarray(spikes)))
            # Finite differences are accurate to about 1e-9 of the largest entry.
            close(got, hessian_by_differences(name, train), 1e-7)


@pytest.mark.parametrize("name", [name for name in CASES if "lava" not in name])
def test_second_derivative_passes_gradgradcheck(name):
    torch = pytest.importorskip("torch")
    loss, target = CASES[name]
    loss = reduced(loss, "none")
    for spikes in cases.trains(name).values():
        if "atency" in name:  # its spikes are between 0 and 1
            spikes = 0.05 + 0.9 * spikes
        x = torch.tensor(spikes, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x: loss(x, target), x, fast_mode=True)


@ignore_torch_warnings
@pytest.mark.parametrize("name", [*cases.ONE_OF_EACH, "SpikeMax-window", "SpikeMax-softmax"])
def test_torch_transforms_match_value_and_grad(name):
    torch = pytest.importorskip("torch")
    loss, target = CASES[name]
    spikes, target = torch.tensor(SPIKES["binary"]), torch.tensor(target)
    tangent = torch.tensor(COTANGENTS[2, 3, 5])
    value, gradient = sx.value_and_grad(loss)(spikes, target)
    rtol = 1e-12  # that of `Backend.rtol` for float64

    close(torch.func.grad(loss)(spikes, target).numpy(), gradient.numpy(), rtol)
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: loss(x[None], y[None])))
    close(per_sample(spikes, target).numpy(), gradient.numpy(), rtol)
    _, directional = torch.func.jvp(lambda x: loss(x, target), (spikes,), (tangent,))
    close(directional.numpy(), (gradient * tangent).sum().numpy(), rtol)
    # The "eager" backend traces without code generation: only tracing depends on the loss.
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    close(compiled(spikes, target).numpy(), value.numpy(), rtol)


@pytest.mark.slow(but=3)
@pytest.mark.parametrize("name", [*cases.ONE_OF_EACH, "SpikeMax-window", "SpikeMax-softmax"])
def test_jax_transforms_match_value_and_grad(name):
    with on("jax-x64") as backend:
        import jax

        loss, target = CASES[name]
        spikes, target = backend.asarray(SPIKES["binary"]), backend.asarray(target)
        tangent = backend.asarray(COTANGENTS[2, 3, 5])
        value, gradient = jax.jit(sx.value_and_grad(loss))(spikes, target)

        def transformed(spikes, target, tangent):
            per_sample = jax.vmap(jax.grad(lambda x, y: loss(x[None], y[None])))
            _, directional = jax.jvp(lambda x: loss(x, target), (spikes,), (tangent,))
            return jax.grad(loss)(spikes, target), per_sample(spikes, target), directional

        batch_gradient, sample_gradients, directional = jax.jit(transformed)(
            spikes, target, tangent
        )
        close(backend.numpy(batch_gradient), backend.numpy(gradient), backend.rtol)
        close(backend.numpy(sample_gradients), backend.numpy(gradient), backend.rtol)
        close(backend.numpy(directional), backend.numpy((gradient * tangent).sum()), backend.rtol)
        static = jax.jit(lambda loss, *arrays: loss(*arrays), static_argnums=0)
        close(backend.numpy(static(loss, spikes, target)), backend.numpy(value), backend.rtol)
