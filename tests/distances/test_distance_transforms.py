"""Distances under the transforms of PyTorch and JAX, and on lazy arrays of Dask."""

import importlib
from functools import partial

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import run
from spikeloss_xp.distances import similarity, van_rossum, victor_purpura

# PyTorch uses what it has deprecated itself.
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:`torch._prims_common.check`"),
]
COMPARE = {
    "distance": partial(van_rossum, time_constant=3, cosine=0.3),
    "similarity": partial(similarity, time_constant=3),
}
X = np.random.default_rng(0).random((2, 4, 2, 12))  # two batches of trains
Y = np.random.default_rng(1).random((3, 2, 12))
COTANGENT = np.random.default_rng(2).normal(size=(4, 3))
TANGENT = np.cos(X[0])
# A few hundred roundings of float64: native and closed gradients have as many terms.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}
on_jax = pytest.mark.parametrize("backend", ["jax-x64"], indirect=True)
each_library = pytest.mark.parametrize("backend", ["torch", "jax-x64"], indirect=True)


def transforms_of(backend):
    """Return the module with the transforms of a library, which take the same arguments."""
    return importlib.import_module({"torch": "torch.func", "jax": "jax"}[backend.library])


@pytest.mark.parametrize("name", COMPARE)
def test_second_derivatives_of_torch_equal_differences_of_first_ones(name):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X[0, :2, :, :4], requires_grad=True)
    y = torch.tensor(Y[:2, :, :4], requires_grad=True)
    for trains in ((x, y), (x,)):
        torch.autograd.gradgradcheck(COMPARE[name], trains, fast_mode=True)


@each_library
def test_transforms_equal_closed_form(backend):
    compare, transforms = COMPARE["distance"], transforms_of(backend)

    def derivatives(x, y, cotangent, tangent):
        def loss(x):
            value = compare(x, y)
            return (value * cotangent).sum(), value

        gradients, values = transforms.vmap(transforms.grad(loss, has_aux=True))(x)
        _, slope, _ = transforms.jvp(loss, (x[0],), (tangent,), has_aux=True)
        return values, gradients, slope

    values, gradients, slope = run(backend, derivatives, X, Y, COTANGENT, TANGENT)
    for batch in range(2):
        value, gradient = sx.value_and_grad(compare)(X[batch], Y, cotangent=COTANGENT)
        np.testing.assert_allclose(values[batch], value, **TOLERANCE)
        np.testing.assert_allclose(gradients[batch], gradient, **TOLERANCE)
    np.testing.assert_allclose(slope, np.sum(gradients[0] * TANGENT), **TOLERANCE)


# The first backend only traces: PyTorch runs its graph as it is.
@pytest.mark.parametrize(
    ("name", "alone", "backend"),
    [
        ("distance", True, "eager"),
        pytest.param("distance", True, "inductor", marks=pytest.mark.slow),
        pytest.param("similarity", False, "inductor", marks=pytest.mark.slow),
    ],
)
def test_torch_compiles_in_one_graph(name, alone, backend):
    torch = pytest.importorskip("torch")
    torch._dynamo.reset()  # other tests of this process have compiled the same code
    compare = COMPARE[name]
    others, columns = ((), 4) if alone else ((torch.tensor(Y),), 3)
    cotangent = torch.tensor(np.cos(np.arange(4.0 * columns)).reshape(4, columns))
    results = []
    for function in (compare, torch.compile(compare, fullgraph=True, backend=backend)):
        x = torch.tensor(X[0], requires_grad=True)
        value = function(x, *others)
        torch.sum(value * cotangent).backward()
        results.append((value.detach(), x.grad))
    for got, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got, expected, **TOLERANCE)


@on_jax
def test_second_derivatives_of_jax_are_symmetric_and_finite(backend):
    """Also at coincident and at silent trains."""
    special = np.zeros((3, 8))
    special[1:, 3] = 1

    def loss(x):
        return sum((compare(x, x[1:]) ** 3).sum() for compare in COMPARE.values())

    hessian = transforms_of(backend).hessian(loss)
    assert np.isfinite(run(backend, hessian, special)).all()
    matrix = run(backend, hessian, X[0, :3, 0, :8]).reshape(24, 24)
    np.testing.assert_allclose(matrix, matrix.T, **TOLERANCE)


@on_jax
def test_length_out_of_range_gives_nan_in_a_trace(backend):
    got = np.isnan(run(backend, COMPARE["distance"], X[0], lengths=[12, 3, 13, 0]))
    assert got[2, [0, 1, 3]].all()
    assert not got[np.ix_([0, 1, 3], [0, 1, 3])].any()


def test_gradient_of_a_train_with_a_length_out_of_range_is_nan_in_a_trace():
    torch = pytest.importorskip("torch")

    def total(x, lengths):
        return COMPARE["distance"](x, lengths=lengths).sum()

    lengths = torch.asarray([[12, 3, 13, 0]])
    (gradient,) = torch.func.vmap(torch.func.grad(total))(torch.asarray(X[0])[None], lengths)
    assert gradient[2].isnan().all()


@pytest.mark.parametrize(
    ("name", "chunks", "alone"), [("distance", (1, 1, 5), True), ("similarity", (2, 2, 12), False)]
)
@pytest.mark.usefixtures("no_compute")
def test_dask_equals_numpy_and_stays_lazy(name, chunks, alone):
    da = pytest.importorskip("dask.array")
    compare, others = COMPARE[name], () if alone else (Y,)
    cotangent = np.ones((4, 4 if alone else 3)) + np.eye(4)[:, : 4 if alone else 3]

    def evaluate(x):
        masked = compare(x, *others, lengths=[12, 5, 0, 7])
        return *sx.value_and_grad(compare)(x, *others, cotangent=cotangent), masked

    x = da.from_array(X[0], chunks=chunks)
    for lazy, known in zip(evaluate(x), evaluate(X[0]), strict=True):
        assert lazy.chunks[0] == x.chunks[0]
        np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), known, **TOLERANCE)


@each_library
def test_victor_purpura_under_vmap(backend):
    x, y = 20 * X[:, :, 0, :5], 20 * Y[:, 0, :4]
    distance = transforms_of(backend).vmap(partial(victor_purpura, cost=0.3), (0, None))
    expected = [victor_purpura(list(batch), list(y), cost=0.3) for batch in x]
    np.testing.assert_allclose(run(backend, distance, x, y), expected, **TOLERANCE)
