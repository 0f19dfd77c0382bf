"""Compare the van Rossum distance and the similarity with sums over all pairs of steps."""

import functools
import math
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from spikeloss_xp import _tuning
from spikeloss_xp.backends._numpy import NumPyAdapter
from spikeloss_xp.distances import Similarity, VanRossum, similarity, van_rossum

KINDS = {"distance": (VanRossum, {}), "squared": (VanRossum, {"squared": True})}
KINDS |= {"similarity": (Similarity, {})}
every_kind = pytest.mark.parametrize("kind", KINDS)


def inner_product(x, y, time_constant, cosine):
    """Return the inner product of two trains ``[unit, time]``, by a sum over all pairs of steps."""
    step = np.arange(x.shape[-1])
    kernel = np.exp(-np.abs(step[:, None] - step) / time_constant)
    units = sum(a @ kernel @ b for a, b in zip(x, y, strict=True))
    return (1 - cosine) * units + cosine * (x.sum(0) @ kernel @ y.sum(0))


def brute_force(kind, x, y=None, time_constant=3.0, cosine=0.0):
    """Return the comparison of all pairs of trains, one pair at a time."""
    same, y = y is None, x if y is None else y
    x, y = (z[:, None] if z.ndim == 2 else z for z in (x, y))

    def one(i, j):
        product, norm_x, norm_y = (
            inner_product(a, b, time_constant, cosine)
            for a, b in ((x[i], y[j]), (x[i], x[i]), (y[j], y[j]))
        )
        if kind == "similarity":
            return product / math.sqrt(norm_x * norm_y) if norm_x and norm_y else 0.0
        # Equal trains are exactly 0 apart, and a root would magnify rounding errors.
        equal = (same and i == j) or np.array_equal(x[i], y[j])
        square = 0.0 if equal else norm_x + norm_y - 2 * product
        return square if kind == "squared" else math.sqrt(square)

    return np.asarray([[one(i, j) for j in range(len(y))] for i in range(len(x))])


def trains(*shape, seed=0, graded=False):
    """Return trains of which the first is silent and the third equals the second."""
    random = np.random.default_rng(seed)
    x = (random.random(shape) < 0.2) * (random.random(shape) if graded else 1.0)
    x[0] = 0
    x[2] = x[1]
    return x


def close(got, expected, backend):
    # Rounding errors of norms; a root magnifies those of a small difference.
    rtol = 100 * backend.rtol
    np.testing.assert_allclose(backend.numpy(got), expected, rtol=rtol, atol=rtol)


def evaluate(backend, compare, *arrays, **options):
    """Return the value and the gradient, by one compiled function."""
    run = backend.compiled(functools.partial(sx.value_and_grad(compare), **options))
    return run(*map(backend.asarray, arrays))


def test_spike_at_the_last_step_keeps_its_tail(backend):
    run = backend.compiled(lambda *x: [van_rossum(*x, time_constant=t) for t in (0.5, 20, 1e6)])
    for got in run(backend.asarray(np.eye(7)), backend.asarray(np.zeros((1, 7)))):
        close(got, np.ones((7, 1)), backend)


@every_kind
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(
    ("shape", "cosine"), [((5, 40), 0), ((5, 3, 150), 0), ((5, 3, 40), 0.3), ((5, 3, 40), 1)]
)
def test_comparison_equals_brute_force(backend, kind, shape, cosine, graded):
    make, options = KINDS[kind]
    compare = make(3.0, cosine=cosine, **options)
    x = trains(*shape, graded=graded)
    y = trains(4, *shape[1:], seed=1, graded=graded)
    y[3] = x[4]
    x, y = (z.astype(backend.dtype).astype(float) for z in (x, y))
    a, b = backend.asarray(x), backend.asarray(y)
    alone, both = backend.compiled(lambda a, b: (compare(a), compare(a, b)))(a, b)
    close(alone, brute_force(kind, x, cosine=cosine), backend)
    assert kind == "similarity" or not np.diag(backend.numpy(alone)).any()
    close(both, brute_force(kind, x, y, cosine=cosine), backend)


@every_kind
def test_equal_trains_of_two_sets_are_equal(backend, kind):
    make, options = KINDS[kind]
    x = np.random.default_rng(2).random((20, 300)) < 0.1
    run = backend.compiled(make(30.0, **options))
    got = np.diag(backend.numpy(run(backend.asarray(x), backend.asarray(x))))
    if kind == "similarity":
        np.testing.assert_allclose(got, 1, rtol=1e-6)
    else:
        assert (got == 0).all()


@pytest.mark.parametrize("time_axis", [0, 1, 2, -1, -3])
def test_time_may_be_any_axis(backend, time_axis):
    x = trains(4, 2, 20)
    for given in (x, x[:, 0]) if time_axis in (0, 1) else (x,):
        run = functools.partial(van_rossum, time_constant=3, time_axis=time_axis)
        got = backend.compiled(run)(backend.asarray(np.moveaxis(given, -1, time_axis)))
        close(got, brute_force("distance", given), backend)


@every_kind
def test_masked_steps_are_silent(backend, kind):
    make, options = KINDS[kind]
    compare = make(3.0, **options)
    x, y = trains(4, 2, 20), trains(3, 2, 20, seed=1)
    where, lengths = np.random.default_rng(3).random(x.shape) < 0.7, np.asarray([20, 7, 0, 13])
    y_where, y_lengths = np.asarray([True, True, False]), [20, 3, 5]
    step = np.arange(20)
    silent_x = x * where * (step < lengths[:, None, None])
    silent_y = y * y_where[:, None, None] * (step < np.asarray(y_lengths)[:, None, None])
    noisy_x = np.where(where & (step < lengths[:, None, None]), x, np.nan)
    noisy_y = np.where(step < np.asarray(y_lengths)[:, None, None], y, np.nan)
    cotangent = np.cos(np.arange(12)).reshape(4, 3)

    def run(x, y, silent_x, silent_y, where, lengths):
        masks = {"where": where, "lengths": lengths}
        both = masks | {"y_where": y_where, "y_lengths": y_lengths}
        evaluate = functools.partial(sx.value_and_grad(compare), cotangent=cotangent)
        gradients = evaluate(x, y, **both)[1], evaluate(silent_x, silent_y)[1]
        return compare(x, **masks), compare(x, y, **both), *gradients

    arrays = map(backend.asarray, (noisy_x, noisy_y, silent_x, silent_y, where, lengths))
    alone, both, *gradients = backend.compiled(run)(*arrays)
    close(alone, brute_force(kind, silent_x), backend)
    close(both, brute_force(kind, silent_x, silent_y), backend)
    gradient, clean = map(backend.numpy, gradients)
    masked = np.isnan(noisy_x)
    assert (gradient[masked] == 0).all()
    np.testing.assert_allclose(gradient[~masked], clean[~masked], rtol=0, atol=100 * backend.rtol)


@pytest.mark.parametrize(
    "mask", [{"where": [True, True, False, True]}, {"lengths": [20, 7, 0, 13]}]
)
def test_chunks_of_steps_have_their_part_of_the_mask(mask, monkeypatch):
    x, masks = trains(4, 2, 20), {name: np.asarray(value) for name, value in mask.items()}
    whole = van_rossum(x, time_constant=3, **masks)
    monkeypatch.setattr(_tuning, "PAIRS_CHUNK", 50)  # 6 steps
    chunked = van_rossum(x, time_constant=3, **masks)
    np.testing.assert_allclose(chunked, whole, rtol=1e-12, atol=1e-12)  # of sums in another order


def difference_quotients(compare, x, others, cotangent, step=1e-5):
    return reference.differences(lambda x: np.sum(cotangent * compare(x, *others)), x, step=step)


@every_kind
@pytest.mark.parametrize("cosine", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("alone", [True, False])
def test_gradient_equals_difference_quotients(backend, kind, cosine, alone):
    make, options = KINDS[kind]
    compare = make(3.0, cosine=cosine, **options)
    random = np.random.default_rng(4)
    x, y = random.random((4, 2, 9)), random.random((3, 2, 9))
    others = () if alone else (y,)
    cotangent = random.normal(size=(4, 4 if alone else 3))
    expected = difference_quotients(compare, x, others, cotangent)
    value, gradient = evaluate(backend, compare, x, *others, cotangent=cotangent)
    close(value, compare(x, *others), backend)
    # The sums are of up to 100, so their rounding errors divided by 2e-5 are below 1e-8.
    atol = max(1e-7, 100 * backend.rtol)
    np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=0, atol=atol)


@every_kind
@pytest.mark.parametrize("alone", [True, False])
def test_gradient_is_finite_at_coincident_and_silent_trains(backend, kind, alone):
    make, options = KINDS[kind]
    compare = make(3.0, **options)
    x = trains(5, 30)
    others = () if alone else (trains(4, 30),)
    cotangent = 1.0 + np.arange(5.0 * (5 if alone else 4)).reshape(5, -1)
    gradient = backend.numpy(evaluate(backend, compare, x, *others, cotangent=cotangent)[1])
    assert np.isfinite(gradient).all()
    if kind == "squared":  # smooth, so that difference quotients exist
        expected = difference_quotients(compare, x, others, cotangent, step=1e-4)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=max(2e-2, 1e4 * backend.rtol))
    elif kind == "similarity":
        assert not gradient[0].any()


@pytest.mark.parametrize("squared", [False, True])
def test_pair_closer_than_rounding_has_distance_and_gradient_zero(backend, squared):
    distance = VanRossum(3, squared=squared)
    x = np.random.default_rng(6).random((1, 30))
    y = np.concatenate([x, x * (1 + 0.1 * backend.rtol)])
    for result in evaluate(backend, distance, x, y, cotangent=[[1e9, 1e9]]):
        assert not backend.numpy(result).any()


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float32"])
def test_dtypes(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x = trains(4, 50)
    given = backend.asarray(x.astype(dtype), dtype)

    def run(x, y):
        distance = VanRossum(3)
        return distance(x, y), sx.value_and_grad(distance)(x, cotangent=np.ones((4, 4)))[1]

    got, gradient = backend.compiled(run)(given, backend.asarray(x))
    default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    assert got.dtype == (backend.xp.float32 if "float" in dtype else default)
    np.testing.assert_allclose(backend.numpy(got), brute_force("distance", x, x), rtol=0, atol=1e-5)
    assert gradient.dtype == (given.dtype if "float" in dtype else default)


def test_nan_reaches_its_pairs_only(backend):
    x = trains(4, 50)
    x[3, 20] = np.nan
    compared = VanRossum(3), VanRossum(3, squared=True), Similarity(3)
    run = backend.compiled(lambda x: [compare(x) for compare in compared])
    for result in run(backend.asarray(x)):
        got = np.isnan(backend.numpy(result))
        assert got[3, 1:].all()
        assert not got[:3, :3].any()


@every_kind
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("limit", [1, 30, 200])
def test_blocks_equal_the_whole(backend, kind, alone, limit, monkeypatch):
    make, options = KINDS[kind]
    compare = make(9.0, cosine=0.3, **options)
    x, y = trains(7, 2, 53), trains(5, 2, 53, seed=1)

    @backend.compiled
    def run(*trains):
        whole = compare(*trains)
        # Chunks of 8 steps or more on JAX, which compiles each chunk by itself.
        larger = 200 if backend.library == "jax" else 0
        monkeypatch.setattr(_tuning, "PAIRS_CHUNK", limit + larger)
        return whole, compare(*trains)

    whole, got = run(*map(backend.asarray, (x,) if alone else (x, y)))
    close(got, backend.numpy(whole), backend)


def test_few_trains_are_filtered_at_once(monkeypatch):
    lengths = []

    def record(self, x, *rest, **options):
        lengths.append(x.shape[-1])
        return exponential_filter(self, x, *rest, **options)

    exponential_filter = NumPyAdapter.exponential_filter
    monkeypatch.setattr(NumPyAdapter, "exponential_filter", record)
    van_rossum(trains(4, 2, 30), trains(3, 2, 30), time_constant=5)
    assert lengths == [30, 30]


def test_input_is_not_changed(backend):
    x = backend.asarray(trains(4, 30))
    before = backend.numpy(x).copy()
    for compare in (VanRossum(3), Similarity(3)):
        run = functools.partial(sx.value_and_grad(compare), cotangent=np.ones((4, 4)))
        backend.compiled(run)(x)
    np.testing.assert_array_equal(backend.numpy(x), before)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: van_rossum(x, time_constant=0), ValueError, "time_constant.*0"),
        (lambda x: van_rossum(x, time_constant=-1), ValueError, "time_constant.*-1"),
        (lambda x: van_rossum(x, time_constant=math.inf), ValueError, "time_constant.*inf"),
        (lambda x: van_rossum(x, time_constant="5"), TypeError, "time_constant.*'5'"),
        (lambda x: van_rossum(x, time_constant=x), TypeError, "time_constant of VanRossum.*array"),
        (lambda x: similarity(x, time_constant=1, cosine=1.5), ValueError, "cosine.*1.5"),
        (lambda x: similarity(x, time_constant=1, cosine=-0.1), ValueError, "cosine.*-0.1"),
        (lambda x: van_rossum(x, time_constant=1, squared=1), TypeError, "squared.*1"),
        (lambda x: van_rossum(x[0, :], time_constant=1), ValueError, "x must.*(5,).*x[None]"),
        (lambda x: van_rossum(x, x[0, :], time_constant=1), ValueError, "y must.*(5,)"),
        (lambda x: van_rossum(x[:, :4], x, time_constant=1), ValueError, "y must.*(3, 5).*(3, 4)"),
        (
            lambda x: van_rossum(x[:, None, :], np.ones((3, 2, 5)), time_constant=1),
            ValueError,
            "y must.*(3, 2, 5).*(3, 1, 5)",
        ),
        (lambda x: van_rossum(x[:, :0], time_constant=1), ValueError, "x has no.*(3, 0)"),
        (lambda x: van_rossum(x, time_constant=1, time_axis=2), ValueError, "time_axis=2.*(3, 5)"),
        (lambda x: van_rossum([[0.0]], time_constant=1), TypeError, "pass times=True"),
        (lambda x: van_rossum(x, "y", time_constant=1), TypeError, "y must hold numbers.*str"),
        (lambda x: van_rossum(x, time_constant=1, where=[1, 1, 1]), TypeError, "where.*bool"),
        (lambda x: van_rossum(x, time_constant=1, where=[True]), ValueError, "where.*(1,)"),
        (lambda x: van_rossum(x, time_constant=1, lengths=[6, 1, 1]), ValueError, "lengths.*6"),
        (lambda x: van_rossum(x, x, time_constant=1, y_where=[1] * 3), TypeError, "y_where.*bool"),
        (lambda x: van_rossum(x, x, time_constant=1, y_lengths=[6] * 3), ValueError, "y_lengths"),
        (lambda x: van_rossum(x, time_constant=1, y_lengths=[1] * 3), ValueError, "pass y too"),
    ],
)
def test_errors_name_the_argument(backend, call, error, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(error, match=pattern):
        call(backend.asarray(np.ones((3, 5))))


def test_functions_hand_every_argument_on():
    x, y = np.random.default_rng(7).random((2, 20, 3, 4))  # [time, train, unit]
    kernel = {"cosine": 0.3, "time_axis": 0}
    masks = {"where": np.arange(3) < 2, "lengths": [20, 9, 3]}
    masks |= {"y_where": np.arange(3) > 0, "y_lengths": [5, 20, 8]}
    functions = (van_rossum, VanRossum, {"squared": True}), (similarity, Similarity, {})
    for function, make, more in functions:
        got = function(x, y, time_constant=3, **kernel, **more, **masks)
        np.testing.assert_array_equal(got, make(3, **kernel, **more)(x, y, **masks))
        with pytest.raises(TypeError, match="lenghts"):
            make(3)(x, lenghts=[1])


def test_objects_are_comparable_and_hashable():
    assert VanRossum(5) == VanRossum(5.0, cosine=0)
    assert VanRossum(5) != VanRossum(5, squared=True)
    assert len({VanRossum(5), VanRossum(5), Similarity(5)}) == 2
    assert eval(repr(VanRossum(5, cosine=0.5))) == VanRossum(5, cosine=0.5)
