"""Values and gradients of every loss in every form, on every backend."""

import functools
import re

import cases
import numpy as np
import pytest
import reference
from cases import CASES, LABEL, SPIKES, close, reduced
from conftest import on
from reference import differences

import spikeloss_xp as sx

random = np.random.default_rng(2)
COTANGENTS = {shape: random.normal(size=shape) for shape in [(2,), (2, 3), (2, 5), (2, 3, 5)]}
REDUCTIONS = ("none", "sum", "mean")


@functools.cache
def by_the_formulas(name, train):
    """Value and gradient with each reduction, from the formulas and finite differences."""
    (loss, target), spikes = CASES[name], cases.trains(name)[train]
    terms = reference.terms(loss, spikes, target)
    weight = COTANGENTS[terms.shape]
    weighted = differences(lambda x: np.sum(weight * reference.terms(loss, x, target)), spikes)
    total = differences(lambda x: np.sum(reference.terms(loss, x, target)), spikes)
    return {
        "none": (terms, weighted),
        "sum": (terms.sum(), total),
        "mean": (terms.mean(), total / terms.size),
    }


def by_the_library(backend, name):
    """Yield value and gradient with each reduction at each of the trains, compiled once."""
    loss, target = CASES[name]
    shape = reference.terms(loss, SPIKES["graded"], target).shape
    cotangent, made = backend.asarray(COTANGENTS[shape]), backend.asarray(target)

    def every_reduction(spikes, made, cotangent):
        none, *others = (sx.value_and_grad(reduced(loss, r)) for r in REDUCTIONS)
        return none(spikes, made, cotangent=cotangent), *(other(spikes, made) for other in others)

    compiled = backend.compiled(every_reduction)
    for train, spikes in cases.trains(name).items():
        results = compiled(backend.asarray(spikes), made, cotangent)
        for reduction, (value, gradient) in zip(REDUCTIONS, results, strict=True):
            yield train, reduction, backend.numpy(value), backend.numpy(gradient)


@functools.cache
def by_closed_forms(name):
    with on("numpy") as backend:
        return {(t, r): gradient for t, r, _, gradient in by_the_library(backend, name)}


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(backend, name):
    # The differences are good to some 1e-10 of the largest slope; the rest is room.
    of_differences = max(backend.rtol, 1e-8)
    for train, reduction, value, gradient in by_the_library(backend, name):
        wanted_value, wanted_gradient = by_the_formulas(name, train)[reduction]
        close(value, wanted_value, backend.rtol)
        close(gradient, wanted_gradient, of_differences)
        close(gradient, by_closed_forms(name)[train, reduction], backend.rtol)


@pytest.mark.parametrize(("reduction", "weight"), [("sum", 1.0), ("mean", 1 / 30), ("none", None)])
def test_a_cotangent_weighs_the_terms(backend, reduction, weight):
    loss, spikes = sx.SpikeTime(2, 4, reduction=reduction), backend.asarray(SPIKES["graded"])
    cotangent = np.asarray(-2.5) if weight else COTANGENTS[2, 3, 5]
    _, gradient = sx.value_and_grad(loss)(spikes, cases.DESIRED, cotangent=cotangent)
    trace = reference.causal_filter(SPIKES["graded"] - cases.DESIRED, reference.kernel(2, 4, 1))
    of_terms = 2 * trace * cotangent * (weight or 1)
    wanted = reference.causal_filter(of_terms[..., ::-1], reference.kernel(2, 4, 1))[..., ::-1]
    close(backend.numpy(gradient), wanted, backend.rtol)


def test_a_cotangent_of_another_shape_is_refused(backend):
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
def test_the_input_stays_as_it_was(backend, name):
    loss, target = CASES[name]
    spikes = backend.asarray(SPIKES["binary"])
    made = backend.asarray(target)
    before, target_before = backend.numpy(spikes).tobytes(), backend.numpy(made).tobytes()
    _, gradient = backend.compiled(sx.value_and_grad(loss))(spikes, made)
    assert backend.numpy(spikes).tobytes() == before
    assert backend.numpy(made).tobytes() == target_before
    assert gradient.shape == spikes.shape
    assert gradient.dtype == spikes.dtype


def test_torch_graphs_are_left_alone():
    torch = pytest.importorskip("torch")
    spikes = torch.tensor(SPIKES["graded"])
    evaluate = sx.value_and_grad(sx.SpikeMax())
    value, gradient = evaluate(spikes, LABEL)
    assert [x.requires_grad for x in (spikes, value, gradient)] == [False, False, False]

    spikes.requires_grad_()
    for leaf_or_not in (spikes, spikes * 1.0):
        value, same = evaluate(leaf_or_not, LABEL)
        assert [x.requires_grad for x in (spikes, value, same)] == [True, False, False]
        assert torch.equal(same, gradient)
    assert spikes.grad is None

    sx.SpikeMax()(spikes, LABEL).backward()
    close(spikes.grad.numpy(), gradient.numpy(), 1e-15)  # the same operations, and one sum


def test_torch_modes_without_gradients_do_not_matter():
    torch = pytest.importorskip("torch")
    evaluate = sx.value_and_grad(sx.SpikeTime(2, 4))
    _, wanted = evaluate(torch.tensor(SPIKES["graded"]), cases.DESIRED)
    with torch.no_grad():
        _, gradient = evaluate(torch.tensor(SPIKES["graded"]), cases.DESIRED)
    assert torch.equal(gradient, wanted)
    with torch.inference_mode():
        _, gradient = evaluate(torch.tensor(SPIKES["graded"]), cases.DESIRED)
    assert torch.equal(gradient, wanted)


@pytest.mark.parametrize("dtype", ["bool", "int32"])
@pytest.mark.parametrize("name", ["SpikeTime-order1", "SpikeMax-window"])
def test_bool_and_integer_spikes_have_a_gradient(backend, name, dtype):
    loss, target = CASES[name]
    default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    evaluate = backend.compiled(sx.value_and_grad(loss))
    spikes = backend.asarray(SPIKES["binary"], dtype)
    value, gradient = evaluate(spikes, backend.asarray(target))
    assert value.dtype == gradient.dtype == default
    wanted, wanted_gradient = by_the_formulas(name, "binary")["sum"]
    rtol = 1e-5 if default == backend.xp.float32 else 1e-8  # as `backend.rtol`; the differences
    close(backend.numpy(value), wanted, rtol)
    close(backend.numpy(gradient), wanted_gradient, rtol)


def test_any_function_where_there_is_automatic_differentiation(backend):
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
]


warnings_of_torch = pytest.mark.filterwarnings(
    # of what its own forward mode is made of
    r"ignore:.torch\.jit\.script:DeprecationWarning",
)


@functools.cache
def slopes_of_closed_forms(name, train):
    loss, target = CASES[name]
    gradient = sx.value_and_grad(loss)
    return differences(lambda x: gradient(x, target)[1], cases.trains(name)[train])


@warnings_of_torch
@pytest.mark.parametrize("name", SECOND_ORDER)
@pytest.mark.parametrize("library", ["torch", "jax-x64"])
def test_second_order(library, name):
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
            # The differences are good to some 1e-9 of the largest entry; the rest is room.
            close(got, slopes_of_closed_forms(name, train), 1e-7)


@pytest.mark.parametrize("name", [name for name in CASES if "lava" not in name])
def test_second_order_with_a_cotangent(name):
    torch = pytest.importorskip("torch")
    loss, target = CASES[name]
    loss = reduced(loss, "none")
    for spikes in cases.trains(name).values():
        x = torch.tensor(spikes, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x: loss(x, target), x, fast_mode=True)


@warnings_of_torch
@pytest.mark.parametrize("name", [*cases.ONE_OF_EACH, "SpikeMax-window", "SpikeMax-softmax"])
def test_transforms_of_torch(name):
    torch = pytest.importorskip("torch")
    loss, target = CASES[name]
    spikes, target = torch.tensor(SPIKES["binary"]), torch.tensor(target)
    tangent = torch.tensor(COTANGENTS[2, 3, 5])
    value, gradient = sx.value_and_grad(loss)(spikes, target)
    rtol = 1e-12  # float64, as `Backend.rtol` has it

    close(torch.func.grad(loss)(spikes, target).numpy(), gradient.numpy(), rtol)
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: loss(x[None], y[None])))
    close(per_sample(spikes, target).numpy(), gradient.numpy(), rtol)
    _, slope = torch.func.jvp(lambda x: loss(x, target), (spikes,), (tangent,))
    close(slope.numpy(), (gradient * tangent).sum().numpy(), rtol)
    # "eager" stops after tracing, which is what could fail
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    close(compiled(spikes, target).numpy(), value.numpy(), rtol)


@pytest.mark.parametrize("name", [*cases.ONE_OF_EACH, "SpikeMax-window", "SpikeMax-softmax"])
def test_transforms_of_jax(name):
    with on("jax-x64") as backend:
        import jax

        loss, target = CASES[name]
        spikes, target = backend.asarray(SPIKES["binary"]), backend.asarray(target)
        tangent = backend.asarray(COTANGENTS[2, 3, 5])
        value, gradient = jax.jit(sx.value_and_grad(loss))(spikes, target)

        def transformed(spikes, target, tangent):
            per_sample = jax.vmap(jax.grad(lambda x, y: loss(x[None], y[None])))
            _, slope = jax.jvp(lambda x: loss(x, target), (spikes,), (tangent,))
            return jax.grad(loss)(spikes, target), per_sample(spikes, target), slope

        whole, each, slope = jax.jit(transformed)(spikes, target, tangent)
        close(backend.numpy(whole), backend.numpy(gradient), backend.rtol)
        close(backend.numpy(each), backend.numpy(gradient), backend.rtol)
        close(backend.numpy(slope), backend.numpy((gradient * tangent).sum()), backend.rtol)
        static = jax.jit(lambda loss, *arrays: loss(*arrays), static_argnums=0)
        close(backend.numpy(static(loss, spikes, target)), backend.numpy(value), backend.rtol)
