"""Compare the Victor-Purpura distance and the coincidence factor with independent programs."""

import functools
import math
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from spikeloss_xp import _tuning
from spikeloss_xp.distances import (
    Similarity,
    VanRossum,
    coincidence_factor,
    similarity,
    van_rossum,
    victor_purpura,
)


def compiled(backend, function, *calls, **options):
    """Make all calls in one compiled function: JAX would compile each anti-diagonal by itself."""
    run = backend.compiled(lambda *calls: [function(*times, **options) for times in calls])
    return map(backend.numpy, run(*calls))


def edit_cost(x, y, price):
    """Return the smallest cost of editing one list into the other, by recursion."""

    @functools.cache
    def cost(i, j):
        if not i or not j:
            return float(i + j)
        matched = cost(i - 1, j - 1) + price(x[i - 1], y[j - 1])
        return min(cost(i - 1, j) + 1, cost(i, j - 1) + 1, matched)

    return cost(len(x), len(y))


def brute_force(x, y, cost):
    def price(a, b):
        return cost * abs(a - b)

    return np.asarray([[edit_cost(sorted(a), sorted(b), price) for b in y] for a in x])


def most_coincidences(x, y, precision):
    """Return the largest number of pairs, by trying every choice for the first spike."""
    if not x:
        return 0
    rest = x[1:]
    best = most_coincidences(rest, y, precision)
    for i, other in enumerate(y):
        if abs(x[0] - other) <= precision:
            best = max(best, 1 + most_coincidences(rest, y[:i] + y[i + 1 :], precision))
    return best


def times(number, longest, seed=0, late=20.0):
    """Return unsorted lists of spike times on a grid of 1/8, the first of them empty."""
    random = np.random.default_rng(seed)
    counts = [0, *random.integers(1, longest + 1, size=number - 1)]
    return [(random.integers(0, int(8 * late), size=n) / 8).tolist() for n in counts]


def on_backend(backend, lists):
    return [backend.asarray(np.asarray(train, dtype=float)) for train in lists]


def padded(lists, value):
    longest = max(map(len, lists))
    return np.asarray([train + [value] * (longest - len(train)) for train in lists])


@pytest.mark.parametrize("cost", [0, 1e-6, 0.1, 0.7, 100])
def test_victor_purpura_equals_brute_force(backend, cost):
    x, y = times(6, 9), times(4, 5, seed=1)
    a, b = on_backend(backend, x), on_backend(backend, y)
    calls = [((a, b), x, y), ((b, a), y, x), ((a,), x, x)]
    calls = calls[:1] if backend.library == "jax" else calls  # it compiles for seconds
    results = compiled(backend, victor_purpura, *(arrays for arrays, *_ in calls), cost=cost)
    for got, (_, *given) in zip(results, calls, strict=True):
        np.testing.assert_allclose(got, brute_force(*given, cost), rtol=0, atol=20 * backend.rtol)


def test_forms_of_spike_times_agree(backend):
    x, y = times(5, 6), times(3, 4, seed=1)
    expected = brute_force(x, y, 0.3)
    a = backend.asarray(padded(x, math.nan))
    b = backend.asarray(padded(y, math.inf))
    x, arrays = on_backend(backend, x), on_backend(backend, y)
    calls = [(a, b), (a, arrays), (x, b), (tuple(x), padded(y, math.nan))]
    results = [*compiled(backend, victor_purpura, *calls, cost=0.3)]
    # A compiled function is not passed lists of numbers.
    results += compiled(backend, lambda a: victor_purpura(a, y, cost=0.3), (a,))
    for got in results:
        np.testing.assert_allclose(got, expected, rtol=0, atol=20 * backend.rtol)


def test_python_lists_and_integers():
    got = victor_purpura([[1, 5], [2]], [[1.5]], cost=1)
    np.testing.assert_array_equal(got, [[1.5], [0.5]])
    assert got.dtype == np.float64
    assert victor_purpura([np.asarray([1, 5], "float32")], cost=1).dtype == np.float32


def test_silent_trains_only(backend):
    x, nothing = on_backend(backend, [[], []]), backend.asarray(np.zeros((2, 0)))
    calls = (x,), (nothing, on_backend(backend, [[1.0]]))
    distance, inserted = compiled(backend, victor_purpura, *calls, cost=1)
    np.testing.assert_array_equal(distance, np.zeros((2, 2)))
    np.testing.assert_array_equal(inserted, [[1], [1]])
    (factor,) = compiled(backend, coincidence_factor, (x,), precision=1, duration=9)
    np.testing.assert_array_equal(factor, np.zeros((2, 2)))


@pytest.mark.parametrize("block", [1, 70, 300])  # blocks of one train, of two and of all three
def test_blocks_equal_the_whole(backend, block, monkeypatch):
    x, y = times(3, 6), times(5, 8, seed=1)
    monkeypatch.setattr(_tuning, "EDITS_CHUNK", block)
    call = on_backend(backend, x), on_backend(backend, y)
    (got,) = compiled(backend, victor_purpura, call, cost=0.3)
    np.testing.assert_allclose(got, brute_force(x, y, 0.3), rtol=0, atol=20 * backend.rtol)


@pytest.mark.parametrize("late", [1e5, 1e-3])
def test_victor_purpura_at_other_scales(late):
    x, y = times(5, 6, late=20.0), times(4, 6, seed=1, late=20.0)
    x, y = ([[t * late / 20 for t in train] for train in z] for z in (x, y))
    for cost in (0.1, 20 / late):
        expected = brute_force(x, y, cost)
        # Small distances are rounded as numbers of spikes are.
        got = victor_purpura(x, y, cost=cost)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)
        single = victor_purpura([np.asarray(t, "float32") for t in x], y, cost=cost)
        # float32 times of 1e5 are rounded by 4e-3.
        atol = 20 * (1e-6 + cost * late * 6e-8)
        np.testing.assert_allclose(single, expected, rtol=0, atol=atol)


def test_gradient_in_spike_times_equals_difference_quotients(backend):
    if not backend.differentiates:
        pytest.skip("gradients in spike times are by automatic differentiation only")
    x, y = [[2.0, 9.0, 30.0], [4.0, 11.0, 29.0]], [[1.0, 10.5]]
    cotangent = np.asarray([[1.5], [-0.7]])

    def value(array):
        return backend.xp.sum(
            victor_purpura(array, backend.asarray(y), cost=0.25) * backend.asarray(cotangent)
        )

    run = backend.compiled(lambda x: backend.adapter.value_and_grad(value, x, None)[1])
    gradient = run(backend.asarray(x))
    expected = np.zeros((2, 3))
    for index in np.ndindex(2, 3):
        moved = [np.asarray(x), np.asarray(x)]
        moved[0][index] += 1e-3
        moved[1][index] -= 1e-3
        up, down = (np.sum(victor_purpura(z, y, cost=0.25) * cotangent) for z in moved)
        expected[index] = (up - down) / 2e-3
    np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("late", "precision", "duration"), [(20, 1.25, 40.0), (0.5, 3.0, 400.0)])
def test_coincidence_factor_equals_brute_force(backend, late, precision, duration):
    x, y = times(6, 6, late=late), times(5, 5, seed=1, late=late)
    expected = np.zeros((6, 5))
    for i, model in enumerate(x):
        for j, data in enumerate(y):
            if model and data:
                rate = len(model) / duration
                found = most_coincidences(model, data, precision)
                by_chance = 2 * rate * precision * len(data)
                mean = (len(model) + len(data)) / 2
                expected[i, j] = (found - by_chance) / mean / (1 - 2 * rate * precision)
    a, b = on_backend(backend, x), on_backend(backend, y)
    options = {"precision": precision, "duration": duration}
    got, alone = compiled(backend, coincidence_factor, (a, b), (a,), **options)
    np.testing.assert_allclose(got, expected, rtol=0, atol=10 * backend.rtol)
    np.testing.assert_allclose(np.diag(alone)[1:], 1, rtol=10 * backend.rtol)


def test_spikes_exactly_the_precision_apart_coincide(backend):
    # 0.4 - 0.3 is more than 0.1 by rounding. Not compiled, so that JAX runs each operation alone.
    for late in (0.0, 100.0):
        x, y = on_backend(backend, [[late + 0.3]]), on_backend(backend, [[late + 0.4]])
        got = backend.numpy(coincidence_factor(x, y, precision=0.1, duration=1000))
        np.testing.assert_allclose(got, 1, rtol=1e-3)
        got = backend.numpy(coincidence_factor(x, y, precision=0.0999, duration=1000))
        assert got < 0


def test_coincidence_factor_of_poisson_models_is_zero_on_average():
    # The chance that it subtracts is that of a coincidence of each spike with any other. With few
    # spikes per window, two that coincide with the same spike are rare: that bias is below 0.02.
    random = np.random.default_rng(5)
    data = [np.arange(10.0, 1000.0, 25.0)]
    models = [np.sort(random.uniform(0, 1000, random.poisson(40))) for _ in range(2000)]
    got = coincidence_factor(models, data, precision=2, duration=1000)
    assert abs(got.mean()) < 0.02


def test_precision_that_chance_fills_gives_nan():
    x = [[1.0, 2.0, 3.0], [1.0], []]
    got = coincidence_factor(x, precision=2, duration=10)
    nan = [[True, True, False], [False] * 3, [False] * 3]  # not for a silent train
    np.testing.assert_array_equal(np.isnan(got), nan)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: victor_purpura([x], cost=-1), ValueError, "cost.*-1"),
        (lambda x: victor_purpura([x], cost=1e-9), ValueError, "cost.*1e-06"),
        (lambda x: victor_purpura([x], cost=math.inf), ValueError, "cost.*inf"),
        (lambda x: victor_purpura([], cost=1), ValueError, "times has no trains.*list"),
        (lambda x: victor_purpura([x], (), cost=1), ValueError, "other has no trains.*tuple"),
        (lambda x: victor_purpura(x, cost=1), ValueError, "times must be a sequence.*(3,)"),
        (lambda x: victor_purpura([x[None, :]], cost=1), ValueError, "times[0] must.*(1, 3)"),
        (lambda x: victor_purpura([x, ["a"]], cost=1), TypeError, "times[1] must hold numbers"),
        (lambda x: victor_purpura([x], [x, 2.0], cost=1), ValueError, "other[1] must.*()"),
        (lambda x: victor_purpura("abc", cost=1), TypeError, "times must be an array.*str"),
        (lambda x: victor_purpura([x], "abc", cost=1), TypeError, "other must hold numbers.*str"),
        (lambda x: coincidence_factor([x], precision=0, duration=1), ValueError, "precision.*0"),
        (lambda x: coincidence_factor([x], precision=1, duration=0), ValueError, "duration.*0"),
    ],
)
def test_errors_name_the_argument(backend, call, error, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(error, match=pattern):
        call(backend.asarray(np.asarray([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("longer", [0, 1])
def test_small_distance_keeps_its_digits_beside_a_long_train(longer):
    """In float32, whose costs of 30,000 spikes have no thousandths."""
    trains = [[np.float32([1])], [np.float32([1.001])]]
    trains[longer].append(np.arange(30_000, dtype=np.float32))
    got = victor_purpura(*trains, cost=1.0)
    # One edit of 1 is rounded by 6e-8, which is 6e-5 of the distance; the old table lost all of it.
    np.testing.assert_allclose(got[0, 0], np.float32(1.001) - 1, rtol=1e-3)
    np.testing.assert_allclose(got[0, 1] if longer else got[1, 0], 29_999, rtol=1e-6)


def test_times_near_the_largest_number():
    far = [np.float32([2e38]), np.float32([3e38, 2e38]), np.float32([1e38])]
    got = victor_purpura(far, cost=1e-6)
    np.testing.assert_array_equal(got, [[0, 1, 2], [1, 0, 3], [2, 3, 0]])


def test_times_that_fill_up_match_no_spike():
    trains = [np.zeros(1, np.float32), np.asarray([0, 1], np.float32)]
    for late in range(1, 8):
        other = [np.asarray([0.5, late])]
        alone = [victor_purpura([train], other, cost=1.0) for train in trains]
        found = victor_purpura(trains, other, cost=1.0)
        np.testing.assert_array_equal(found, np.concatenate(alone), strict=True)
        assert found.dtype == np.float32  # that of the first


@pytest.mark.parametrize("swapped", [False, True])
def test_times_of_two_dtypes_coincide_by_the_coarser_one(swapped):
    times = [np.asarray([0.1])], [np.float32([0.3])]
    got = coincidence_factor(*times[:: -1 if swapped else 1], precision=0.2, duration=10)
    np.testing.assert_allclose(got, 1.0)


def trains_of_times():
    """Return padded spike times, with a silent train, two equal spikes and a shared one."""
    x = np.asarray([[3.0, -1.0, 40.0], [np.nan] * 3, [7.0, np.inf, 7.0], [3.5, 40.0, np.nan]])
    y = np.asarray([[np.inf, 3.0], [12.0, 9.5], [np.nan, np.nan]])
    return x, y


def inner_products(x, y, time_constant):
    def product(a, b):
        apart = np.abs(a[np.isfinite(a)][:, None] - b[np.isfinite(b)][None, :])
        return np.exp(-apart / time_constant).sum()

    return np.asarray([[product(a, b) for b in y] for a in x])


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("chunk", [1, 1 << 22])
def test_van_rossum_and_similarity_of_times(backend, monkeypatch, alone, chunk):
    monkeypatch.setattr(_tuning, "PAIRS_CHUNK", chunk)
    x, y = trains_of_times()
    y = x if alone else y
    tau = 6.0
    norm_x, norm_y = (np.diag(inner_products(a, a, tau)) for a in (x, y))
    pairs = inner_products(x, y, tau)
    square = norm_x[:, None] + norm_y[None, :] - 2 * pairs
    norms = np.sqrt(np.outer(norm_x, norm_y))
    alike = np.divide(pairs, norms, out=np.zeros_like(pairs), where=norms > 0)
    options = {"time_constant": tau, "times": True}
    others = () if alone else (backend.asarray(y),)
    run = backend.compiled(
        lambda *arrays: (van_rossum(*arrays, **options), similarity(*arrays, **options))
    )
    distance, resembling = map(backend.numpy, run(backend.asarray(x), *others))
    # The root of a rounding error is not small.
    np.testing.assert_allclose(distance**2, square, rtol=0, atol=20 * backend.rtol)
    np.testing.assert_allclose(resembling, alike, rtol=0, atol=20 * backend.rtol)
    if alone:
        assert not distance.diagonal().any()


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("kind", [VanRossum, Similarity])
def test_gradients_in_times_equal_central_differences(backend, kind, alone):
    x, y = trains_of_times()
    x[3, 1] = 33.0  # a shared time has no derivative
    y[0, 1] = 3.25
    options = {"squared": True} if kind is VanRossum else {}
    compare, others = kind(6.0, times=True, **options), () if alone else (y,)
    cotangent = np.random.default_rng(2).normal(size=(4, 4 if alone else 3))
    run = backend.compiled(sx.value_and_grad(compare))
    arrays = (backend.asarray(x), *map(backend.asarray, others))
    _, gradient = run(*arrays, cotangent=backend.asarray(cotangent))
    spike = np.isfinite(x)

    def total(times):
        moved = np.array(x)
        moved[spike] = times
        return float((compare(moved, *others) * cotangent).sum())

    expected = np.zeros_like(x)
    expected[spike] = reference.differences(total, x[spike], step=1e-4)
    # Equal times of one train are moved apart: the mean of both directions is that of the closed
    # form.
    np.testing.assert_allclose(backend.numpy(gradient), expected, rtol=0, atol=1e-5)


def test_lists_of_times_are_padded(backend):
    x, y = trains_of_times()
    lists = [[backend.asarray(row[np.isfinite(row)]) for row in each] for each in (x, y)]
    options = {"time_constant": 6.0, "times": True}
    got = van_rossum(*lists, **options)
    expected = van_rossum(backend.asarray(x), backend.asarray(y), **options)
    np.testing.assert_array_equal(backend.numpy(got), backend.numpy(expected))


TIMES = {"time_constant": 1, "times": True}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: van_rossum(list(x), time_constant=1), TypeError, "pass times=True"),
        (lambda x: van_rossum(x, **TIMES, lengths=[3] * 4), ValueError, "pad spike times with NaN"),
        (lambda x: similarity(x[None], **TIMES), ValueError, "shape (1, 4, 3)"),
        (lambda x: similarity(x, time_constant=1, times=1), TypeError, "times must be True or"),
    ],
)
def test_bad_spike_times_of_van_rossum_raise(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call(trains_of_times()[0])


def test_gradient_at_equal_times_is_zero(backend):
    """On each library, whatever it takes for the derivative of a magnitude at 0."""
    if not backend.differentiates:
        pytest.skip("gradients in spike times are by automatic differentiation only")
    x, y, one = (backend.asarray(np.asarray(a)) for a in ([[3.0, 8.0]], [[3.0, 9.0]], [[1.0]]))

    def gradient(x):
        return backend.adapter.value_and_grad(lambda x: victor_purpura(x, y, cost=0.5), x, one)[1]

    assert backend.numpy(backend.compiled(gradient)(x)).tolist() == [[0.0, -0.5]]
