"""Distances under the transforms of PyTorch and JAX, and on lazy arrays of Dask."""

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.distances import Similarity, VanRossum, victor_purpura

# PyTorch uses what it has deprecated itself.
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:`torch._prims_common.check`"),
]
COMPARE = {"distance": VanRossum(3, cosine=0.3), "similarity": Similarity(3)}
X = np.random.default_rng(0).random((2, 4, 2, 12))  # two batches of trains
Y = np.random.default_rng(1).random((3, 2, 12))
COTANGENT = np.random.default_rng(2).normal(size=(4, 3))
# A few hundred roundings of float64: native and closed gradients have as many terms.
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def jax():
    found = pytest.importorskip("jax")
    with found.enable_x64(True):
        yield found


def assert_close_to_closed_form(compare, values, gradients):
    """Compare the values and gradients of two batches, by a transform, with the closed form."""
    for batch in range(2):
        value, gradient = sx.value_and_grad(compare)(X[batch], Y, cotangent=COTANGENT)
        np.testing.assert_allclose(values[batch], value, **TOLERANCE)
        np.testing.assert_allclose(gradients[batch], gradient, **TOLERANCE)


@pytest.mark.parametrize("name", COMPARE)
def test_second_derivatives_of_torch_equal_differences_of_first_ones(torch, name):
    x = torch.tensor(X[0, :2, :, :4], requires_grad=True)
    y = torch.tensor(Y[:2, :, :4], requires_grad=True)
    for trains in ((x, y), (x,)):
        torch.autograd.gradgradcheck(COMPARE[name], trains, fast_mode=True)


def test_torch_transforms_equal_closed_form(torch):
    compare = COMPARE["distance"]
    x, y, cotangent = map(torch.tensor, (X, Y, COTANGENT))

    def loss(x):
        value = compare(x, y)
        return torch.sum(value * cotangent), value

    gradients, values = torch.func.vmap(torch.func.grad(loss, has_aux=True))(x)
    assert_close_to_closed_form(compare, values, gradients)
    tangent = torch.cos(x[0])
    _, slope, _ = torch.func.jvp(loss, (x[0],), (tangent,), has_aux=True)
    np.testing.assert_allclose(slope, torch.sum(gradients[0] * tangent), **TOLERANCE)


# The first backend only traces: PyTorch runs its graph as it is.
@pytest.mark.parametrize(
    ("name", "alone", "backend"),
    [
        ("distance", True, "eager"),
        pytest.param("distance", True, "inductor", marks=pytest.mark.slow),
        pytest.param("similarity", False, "inductor", marks=pytest.mark.slow),
    ],
)
def test_torch_compiles_in_one_graph(torch, name, alone, backend):
    torch._dynamo.reset()  # other tests of this process have compiled the same code
    compare = COMPARE[name]
    others, columns = ((), 4) if alone else ((torch.tensor(Y),), 3)
    cotangent = torch.tensor(np.cos(np.arange(4.0 * columns)).reshape(4, columns))
    results = []
    for run in (compare, torch.compile(compare, fullgraph=True, backend=backend)):
        x = torch.tensor(X[0], requires_grad=True)
        value = run(x, *others)
        torch.sum(value * cotangent).backward()
        results.append((value.detach(), x.grad))
    for got, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(got, expected, **TOLERANCE)


def test_jax_transforms_equal_closed_form(jax):
    compare, jnp = COMPARE["distance"], jax.numpy
    x, y = jnp.asarray(X), jnp.asarray(Y)

    def loss(x):
        value = compare(x, y)
        return jnp.sum(value * COTANGENT), value

    gradients, values = jax.jit(jax.vmap(jax.grad(loss, has_aux=True)))(x)
    assert_close_to_closed_form(compare, values, gradients)


def test_second_derivatives_of_jax_are_symmetric_and_finite(jax):
    """Also at coincident and at silent trains."""
    special = np.zeros((3, 8))
    special[1:, 3] = 1

    def loss(x):
        return sum(jax.numpy.sum(compare(x, x[1:]) ** 3) for compare in COMPARE.values())

    hessian = jax.jit(jax.hessian(loss))
    assert np.isfinite(hessian(jax.numpy.asarray(special))).all()
    matrix = hessian(jax.numpy.asarray(X[0, :3, 0, :8])).reshape(24, 24)
    np.testing.assert_allclose(matrix, matrix.T, **TOLERANCE)


def test_length_out_of_range_gives_nan_in_a_trace(jax):
    run = jax.jit(lambda x, n: COMPARE["distance"](x, lengths=n))
    got = np.isnan(run(jax.numpy.asarray(X[0]), jax.numpy.asarray([12, 3, 13, 0])))
    assert got[2, [0, 1, 3]].all()
    assert not got[np.ix_([0, 1, 3], [0, 1, 3])].any()


@pytest.mark.parametrize(
    ("name", "chunks", "alone"),
    [("distance", (1, 1, 5), True), ("similarity", (2, 2, 12), False)],
)
@pytest.mark.usefixtures("no_compute")
def test_dask_equals_numpy_and_stays_lazy(name, chunks, alone):
    da = pytest.importorskip("dask.array")
    compare, x = COMPARE[name], da.from_array(X[0], chunks=chunks)
    others = () if alone else (Y,)
    cotangent = np.ones((4, 4 if alone else 3)) + np.eye(4)[:, : 4 if alone else 3]
    expected = sx.value_and_grad(compare)(X[0], *others, cotangent=cotangent)
    got = sx.value_and_grad(compare)(x, *others, cotangent=cotangent)
    masked = compare(x, *others, lengths=[12, 5, 0, 7])
    assert got[1].chunks[0] == x.chunks[0]
    assert got[0].chunks[0] == x.chunks[0]
    for lazy, known in zip(got, expected, strict=True):
        np.testing.assert_allclose(lazy.compute(scheduler="synchronous"), known, **TOLERANCE)
    expected = compare(X[0], *others, lengths=[12, 5, 0, 7])
    np.testing.assert_allclose(masked.compute(scheduler="synchronous"), expected, **TOLERANCE)


def test_victor_purpura_under_transforms(torch, jax):
    x, y = 20 * X[:, :, 0, :5], 20 * Y[:, 0, :4]
    expected = [victor_purpura(list(batch), list(y), cost=0.3) for batch in x]

    def distance(x, y):
        return victor_purpura(x, y, cost=0.3)

    vmapped = torch.func.vmap(distance, in_dims=(0, None))(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(vmapped, expected, **TOLERANCE)
    vmapped = jax.jit(jax.vmap(distance, in_axes=(0, None)))(x, y)
    np.testing.assert_allclose(vmapped, expected, **TOLERANCE)
