"""Compare the van Rossum distance and the similarity with sums over all pairs of steps or spikes.

Random calls have seeds, as those of `contract/test_differential.py`.
"""

import math
import pickle
from functools import partial, wraps
from types import SimpleNamespace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.calls import DIFFERENCE_RTOL, each, not_jax, run
from _support.random_calls import around, pick
from spikeloss_xp import _tuning
from spikeloss_xp.distances import similarity, van_rossum

SEEDS = {"numpy": 40, "torch": 15, "array-api-strict": 10}
KINDS = {
    "distance": partial(van_rossum, time_constant=3),
    "squared": partial(van_rossum, time_constant=3, squared=True),
    "similarity": partial(similarity, time_constant=3),
}
DEFAULTS = {"cosine": 0.0, "squared": False, "time_axis": -1, "times": False}


def product_of_times(x, y, o):
    """Return the inner product of two trains ``[spike]``, padded with NaN or infinity."""
    finite = (train[np.isfinite(train)] for train in (x, y))
    a, b = (train.tolist() for train in finite)
    return sum(math.exp(-abs(t - u) / o.time_constant) for t in a for u in b)


def product_of_bins(x, y, o):
    """Return the inner product of two trains ``[unit, time]``, by a sum over all pairs of steps."""
    step = np.arange(x.shape[-1])
    kernel = np.exp(-np.abs(step[:, None] - step) / o.time_constant)
    units = sum(a @ kernel @ b for a, b in zip(x, y, strict=True))
    return (1 - o.cosine) * units + o.cosine * (x.sum(0) @ kernel @ y.sum(0))


def options_of(compare):
    return SimpleNamespace(**{**DEFAULTS, **compare.keywords})


def all_pairs(compare, x, y):
    """Return the comparison of all pairs of trains, one pair at a time."""
    o = options_of(compare)
    product = partial(product_of_times if o.times else product_of_bins, o=o)
    norms = [[product(train, train) for train in each] for each in (x, y)]
    value = np.zeros((len(x), len(y)))
    for i, j in np.ndindex(value.shape):
        own, other = norms[0][i], norms[1][j]
        if compare.func is similarity:
            value[i, j] = product(x[i], y[j]) / math.sqrt(own * other) if own and other else 0.0
        # Equal trains are exactly 0 apart, and a root would magnify rounding errors.
        elif not np.array_equal(x[i], y[j], equal_nan=True):
            square = own + other - 2 * product(x[i], y[j])
            value[i, j] = square if o.squared else math.sqrt(square)
    return value


def random_trains(random, shape):
    """Return trains of which the first is silent and the third, if there is one, is the second."""
    x = (random.random(shape) < 0.3) * (random.integers(1, 9, size=shape) / 8)
    x[0] = 0
    x[2:3] = x[1]
    return x


def random_times(random, number, *, apart):
    """Return spike times, a silent train and padding; all times differ if they are `apart`."""
    shape = number, pick(random, 1, 2, 4)
    times = random.permutation(math.prod(shape)).reshape(shape) * 1.25
    times = times if apart else random.integers(-6, 7, size=shape) * 1.0
    padding = random.choice([math.nan, math.inf, -math.inf], size=shape)
    times = np.where(random.random(shape) < 0.2, padding, times)
    times[0] = math.nan
    return times


def random_comparison(random):
    """Return a comparison, one or two sets of trains, those of the call, and its masks.

    The trains of the call have another layout, and NaN where they are masked, which is silence.
    """
    kind = pick(random, van_rossum, similarity)
    options = {"time_constant": pick(random, 0.5, 3.0, 20.0), "times": random.random() < 0.3}
    if kind is van_rossum:
        options["squared"] = random.random() < 0.5
    alone = random.random() < 0.5
    if options["times"]:
        # The gradient has jumps where two spikes coincide, which a square is symmetric about.
        apart = not options.get("squared", False)
        sets = [random_times(random, n, apart=apart) + 0.5 * apart * (n == 4) for n in (5, 4)]
        sets = sets[: 2 - alone]
        return partial(kind, **options), sets, sets, {}
    options["cosine"] = pick(random, 0.0, 0.3, 1.0)
    units, steps, masks = pick(random, 1, 1, 2, 3), around(random, 70), {}
    flat = units == 1 and random.random() < 0.5
    axis = pick(random, *range(-1, 3 - flat))
    sets, given = [random_trains(random, (n, units, steps)) for n in (5, 4)][: 2 - alone], []
    for i, (x, prefix) in enumerate(zip(sets, ("", "other_"), strict=False)):
        if i:
            x[3] = sets[0][4]
        mask = np.ones(x.shape, bool)
        if random.random() < 0.5:
            masks[f"{prefix}lengths"] = lengths = random.integers(0, steps + 1, size=len(x))
            mask &= np.arange(steps) < lengths[:, None, None]
        where = pick(random, None, random.random(len(x)) < 0.8, random.random(x.shape) < 0.8)
        if where is not None:
            mask &= where if where.ndim == 3 else where[:, None, None]
            where = where[:, 0] if where.ndim == 3 and flat else where
            masks[f"{prefix}where"] = np.moveaxis(where, -1, axis if where.ndim > 1 else -1)
        noisy = np.where(mask, x, math.nan)
        given.append(np.moveaxis(noisy[:, 0] if flat else noisy, -1, axis))
        sets[i] = np.where(mask, x, 0.0)
    return partial(kind, **options, time_axis=axis), sets, given, masks


def check_random_comparison(backend, seed):
    random = np.random.default_rng([seed, 4])
    compare, sets, given, masks = random_comparison(random)
    o = options_of(compare)
    x, y, others = sets[0], sets[-1], sets[1:]
    expected = all_pairs(compare, x, y)
    cotangent = random.normal(size=expected.shape)
    if not o.squared:
        cotangent[expected == 0] = 0  # a root and a quotient have no derivative there

    @backend.compiled
    def evaluate(cotangent, masks, *trains):
        both = sx.value_and_grad(compare)(*trains, cotangent=cotangent, **masks)
        return compare(*trains, **masks), *both

    arrays = [backend.asarray(trains) for trains in given]
    placed = {name: backend.asarray(mask) for name, mask in masks.items()}
    *values, gradient = map(backend.numpy, evaluate(backend.asarray(cotangent), placed, *arrays))
    message = f"{compare}, trains of {x.shape}, masked by {list(masks)}, seed {seed}"
    for value in values:
        # Rounding errors of norms; a root magnifies those of a small difference.
        rtol = 100 * backend.rtol
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=rtol, err_msg=message)
        if compare.func is van_rossum:
            assert not value[expected == 0].any(), message
    for array, trains in zip(arrays, given, strict=True):
        np.testing.assert_array_equal(backend.numpy(array), trains, message)  # it is not changed

    counted = np.isfinite(given[0])
    if not o.times:
        counted, gradient = (
            np.moveaxis(array, o.time_axis, -1).reshape(x.shape) for array in (counted, gradient)
        )
    assert not gradient[~counted].any(), message
    directions = random.normal(size=(2, *x.shape)) * counted

    def total(steps):
        near = x + np.tensordot(steps, directions, axes=1)
        return float(np.sum(cotangent * all_pairs(compare, near, y if others else near)))

    slopes = np.tensordot(directions, gradient, axes=x.ndim)
    atol = max(100 * backend.rtol, DIFFERENCE_RTOL) * max(
        0.01, np.linalg.norm(gradient) * np.linalg.norm(directions[0])
    )
    expected = reference.differences(total, np.zeros(2), step=1e-4)
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=atol, err_msg=message)


@pytest.mark.parametrize("name", TESTED)
def test_random_comparisons_equal_sums_over_all_pairs(name, seeds, monkeypatch):
    with on(name) as backend:
        for seed in seeds(SEEDS.get(name, 1), slow=3):
            limits = (200, 1 << 22) if backend.library == "jax" else (1, 30, 200, 1 << 22)
            monkeypatch.setattr(_tuning, "PAIRS_CHUNK", limits[seed % len(limits)])
            check_random_comparison(backend, seed)


def test_gradient_is_finite_at_coincident_and_silent_trains(backend):
    x = np.concatenate([np.zeros((1, 30)), np.eye(30)[[3, 9, 9, 20]]])
    cotangent = 1.0 + np.arange(25.0).reshape(5, 5)
    evaluate = [sx.value_and_grad(compare) for compare in KINDS.values()]
    results = run(backend, lambda x, c: [one(x, cotangent=c)[1] for one in evaluate], x, cotangent)
    assert np.isfinite(results).all()
    assert not results[-1][0].any()  # of the similarity


@not_jax
def test_pair_closer_than_rounding_has_distance_and_gradient_zero(backend):
    x = np.random.default_rng(6).random((1, 30))
    y = np.concatenate([x, x * (1 + 0.1 * backend.rtol)])
    calls = each([sx.value_and_grad(KINDS[name]) for name in ("distance", "squared")])
    for results in run(backend, calls, x, y, cotangent=np.full((1, 2), 1e9)):
        assert not any(result.any() for result in results)


@pytest.mark.parametrize("dtype", ["bool", "float16", "float32"])
def test_dtypes(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x = np.random.default_rng(0).random((4, 50)) < 0.2
    given = backend.asarray(x.astype(dtype), dtype)
    distance = KINDS["distance"]

    def both(x, y):
        return distance(x, y), sx.value_and_grad(distance)(x, cotangent=np.ones((4, 4)))[1]

    got, gradient = backend.compiled(both)(given, backend.asarray(x * 1.0))
    default = backend.xp.__array_namespace_info__().default_dtypes()["real floating"]
    assert got.dtype == (backend.xp.float32 if "float" in dtype else default)
    np.testing.assert_allclose(backend.numpy(got), distance(x * 1.0), rtol=0, atol=1e-5)
    assert gradient.dtype == (given.dtype if "float" in dtype else default)


def test_nan_reaches_its_pairs_only(backend):
    x = np.eye(50)[:4]
    x[3, 20] = np.nan
    got = np.isnan(run(backend, each(KINDS.values()), x))
    assert got[:, 3].all()
    assert not got[:, :3, :3].any()


@pytest.mark.parametrize("metric", [van_rossum, similarity])
def test_closed_form_takes_every_argument_of_a_metric(metric):
    x, y = np.random.default_rng(7).random((2, 20, 3, 4))  # [time, train, unit]
    options = {"time_constant": 3, "cosine": 0.3, "time_axis": 0}
    options |= {"squared": True} if metric is van_rossum else {}
    options |= {"where": np.arange(3) < 2, "lengths": [20, 9, 3]}
    options |= {"other_where": np.arange(3) > 0, "other_lengths": [5, 20, 8]}
    for given in (options, {"time_constant": 3}):  # the other options have defaults
        expected = metric(x, y, **given)
        cotangent = np.cos(expected)
        value, gradient = sx.value_and_grad(metric)(x, y, cotangent=cotangent, **given)
        np.testing.assert_array_equal(value, expected)
        fixed = sx.value_and_grad(partial(metric, **given))
        np.testing.assert_array_equal(fixed(x, y, cotangent=cotangent)[1], gradient)
    for call in (metric, sx.value_and_grad(metric)):
        with pytest.raises(TypeError, match="lenghts"):
            call(x, time_constant=3, lenghts=[1])
        with pytest.raises(TypeError, match="time_constant"):
            call(x)


@pytest.mark.parametrize("metric", [van_rossum, similarity])
def test_metric_is_a_function_that_can_be_pickled(metric):
    assert pickle.loads(pickle.dumps(metric)) is metric
    assert pickle.loads(pickle.dumps(partial(metric, time_constant=3))).func is metric


def test_wrapper_of_a_metric_has_no_closed_form():
    """`functools.wraps` copies attributes to the wrapper, whose value may be a different one."""

    @wraps(van_rossum)
    def doubled(x, y):
        return 2 * van_rossum(x, y, time_constant=3)

    with pytest.raises(TypeError, match="no automatic differentiation"):
        sx.value_and_grad(doubled)(np.eye(2), np.eye(2), cotangent=np.ones((2, 2)))


def test_partial_with_the_first_trains_has_no_closed_form():
    """Its first argument is `y`, and the closed form is the gradient in `x`."""
    first = partial(van_rossum, np.eye(2), time_constant=3)
    with pytest.raises(TypeError, match="no automatic differentiation"):
        sx.value_and_grad(first)(np.eye(2), cotangent=np.ones((2, 2)))
