"""Compare the Victor-Purpura distance and the coincidence factor with plain loops.

Random calls have seeds, as those of `contract/test_differential.py`.
"""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.calls import each, not_jax, run
from _support.random_calls import pick
from spikeloss_xp import _tuning
from spikeloss_xp.distances import coincidence_factor, van_rossum, victor_purpura

SEEDS = {"numpy": 40, "torch": 15, "array-api-strict": 6}


def all_pairs(function, x, y):
    return np.asarray([[function(a, b) for b in y] for a in x])


def distances(x, y, cost):
    o = SimpleNamespace(cost=cost)
    return all_pairs(lambda a, b: reference.victor_purpura(o, sorted(a), sorted(b)), x, y)


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


def factors(x, y, precision, duration):
    def factor(model, data):
        if not (model and data):
            return 0.0
        by_chance = 2 * precision * len(model) / duration
        found = most_coincidences(model, data, precision)
        mean = (len(model) + len(data)) / 2
        return (found - by_chance * len(data)) / mean / (1 - by_chance)

    return all_pairs(factor, x, y)


def lists_of_times(random, number, longest, late):
    """Return unsorted lists of spike times on a grid, some of them empty and some times equal."""
    counts = random.integers(0, longest + 1, size=number)
    return [(random.integers(0, 161, size=n) * late / 160).tolist() for n in counts]


def padded(lists, value):
    longest = max(map(len, lists))
    return np.asarray([train + [value] * (longest - len(train)) for train in lists])


def in_some_form(random, backend, lists):
    """Return lists of times as a list of arrays, or as one array with padding."""
    if random.random() < 0.5:
        return [backend.asarray(np.asarray(train, dtype=float)) for train in lists]
    return backend.asarray(padded(lists, pick(random, math.nan, math.inf, -math.inf)))


def check_random_lists(backend, seed):
    random = np.random.default_rng([seed, 5])
    late = pick(random, 20.0, 1e5, 1e-3, 0.5)
    x, y = lists_of_times(random, 4, 7, late), lists_of_times(random, 3, 5, late)
    if random.random() < 0.3:
        y = x
    # In float32, times of 1e5 are rounded by 4e-3.
    cost, rounding = pick(random, 0, 1e-6, 0.1, 0.7, 100, 20 / late), backend.rtol * late / 100
    precision, duration = late * pick(random, 0.06275, 0.15025), late * pick(random, 5.0, 900.0)
    a, b = in_some_form(random, backend, x), in_some_form(random, backend, y)

    @backend.compiled
    def evaluate(a, b):
        arrays = (a,) if y is x else (a, b)
        return (
            victor_purpura(*arrays, cost=cost),
            coincidence_factor(*arrays, precision=precision, duration=duration),
        )

    got = map(backend.numpy, evaluate(a, b))
    expected = distances(x, y, cost), factors(x, y, precision, duration)
    for value, loops, atol in zip(got, expected, (cost * rounding, 0), strict=True):
        message = f"{x}, {y}, {cost=}, {precision=}, {duration=}, seed {seed}"
        atol += 20 * backend.rtol
        np.testing.assert_allclose(value, loops, rtol=backend.rtol, atol=atol, err_msg=message)


@pytest.mark.parametrize("name", TESTED)
def test_random_lists_equal_loops(name, seeds, monkeypatch):
    with on(name) as backend:
        for seed in seeds(SEEDS.get(name, 1), slow=3):
            limits = (1 << 20,) if backend.library == "jax" else (1, 70, 300, 1 << 20)
            monkeypatch.setattr(_tuning, "EDITS_CHUNK", limits[seed % len(limits)])
            check_random_lists(backend, seed)


def test_lists_are_converted_to_arrays_like_the_first(backend):
    x, y = [[1.0, 5.0], [2.0], []], [[1.5, 4.0]]
    calls = [lambda *x, y=y: victor_purpura(list(x), y, cost=0.3) for y in (y, padded(y, 0.0))]
    for got in run(backend, each(calls), *map(np.asarray, x)):
        np.testing.assert_allclose(got, distances(x, y, 0.3), rtol=0, atol=20 * backend.rtol)


def test_python_lists_and_integers():
    got = victor_purpura([[1, 5], [2]], [[1.5]], cost=1)
    np.testing.assert_array_equal(got, [[1.5], [0.5]])
    assert got.dtype == np.float64
    assert victor_purpura([np.asarray([1, 5], "float32")], cost=1).dtype == np.float32


def test_silent_trains_only(backend):
    def every(x, y):
        factor = coincidence_factor(x, precision=1, duration=9)
        return victor_purpura(x, cost=1), factor, victor_purpura(x, y, cost=1)

    distance, factor, inserted = run(backend, every, np.zeros((2, 0)), np.ones((1, 1)))
    assert not distance.any()
    assert not factor.any()
    assert not victor_purpura(np.zeros((3, 0)), cost=1).any()
    np.testing.assert_array_equal(inserted, [[1], [1]])


def test_gradient_in_spike_times_is_the_cost_of_moves(backend):
    """It is 0 for a spike that is deleted, and for one that coincides with its match."""
    if not backend.differentiates:
        pytest.skip("gradients in spike times are by automatic differentiation only")
    x, y = [[2.0, 9.0, 30.0], [4.0, 10.5, 1.5]], [[1.0, 10.5]]
    evaluate = sx.value_and_grad(partial(victor_purpura, cost=0.25))
    _, got = run(backend, evaluate, x, y, cotangent=[[1.5], [-0.5]])
    expected = [[0.25 * 1.5, -0.25 * 1.5, 0], [0, 0, 0.25 * -0.5]]
    np.testing.assert_allclose(got, expected, rtol=backend.rtol)


@not_jax
def test_spikes_exactly_the_precision_apart_coincide(backend):
    # 0.4 - 0.3 is more than 0.1 by rounding.
    for late in (0.0, 100.0):
        x, y = np.asarray([[late + 0.3]]), np.asarray([[late + 0.4]])
        for precision, coincide in ((0.1, True), (0.0999, False)):
            options = {"precision": precision, "duration": 1000}
            factor = run(backend, partial(coincidence_factor, **options), x, y)
            assert factor > 0.999 if coincide else factor < 0


def test_precision_that_chance_fills_gives_nan():
    x = [[1.0, 2.0, 3.0], [1.0], []]
    got = coincidence_factor(x, precision=2, duration=10)
    nan = [[True, True, False], [False] * 3, [False] * 3]  # not for a silent train
    np.testing.assert_array_equal(np.isnan(got), nan)


@pytest.mark.parametrize("longer", [0, 1])
def test_small_distance_keeps_its_digits_beside_a_long_train(longer):
    """In float32, in which the costs of 10,000 spikes are rounded to thousandths."""
    trains = [[np.float32([1])], [np.float32([1.001])]]
    trains[longer].append(np.arange(10_000, dtype=np.float32))
    got = victor_purpura(*trains, cost=1.0)
    # One edit of 1 is rounded by 6e-8, which is 6e-5 of the distance; the old table lost all of it.
    np.testing.assert_allclose(got[0, 0], np.float32(1.001) - 1, rtol=1e-3)
    np.testing.assert_allclose(got[0, 1] if longer else got[1, 0], 9_999, rtol=1e-6)


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


@pytest.mark.parametrize("chunk", [_tuning.PAIRS_CHUNK, 400])
def test_matrix_of_one_set_is_symmetric_with_0_on_its_diagonal(backend, monkeypatch, chunk):
    """To the last bit, as SciPy's `squareform` checks. The smaller chunk splits the pairs."""
    if backend.library == "jax" and chunk == 400:
        pytest.skip("JAX compiles each of the many chunks, for 20 s in all")
    monkeypatch.setattr(_tuning, "PAIRS_CHUNK", chunk)
    random = np.random.default_rng(0)
    times = random.uniform(0, 100, size=(40, 30))
    times[random.random(times.shape) < 0.25] = math.nan
    bins = random.random((41, 2, 60)) * (random.random((41, 2, 60)) < 0.25)
    rossum = partial(van_rossum, time_constant=3.0)
    calls = [(partial(rossum, times=True), times), (partial(victor_purpura, cost=0.37), times)]
    for function, trains in [*calls, (rossum, bins), (partial(rossum, cosine=0.3), bins)]:
        matrix = run(backend, function, trains)
        np.testing.assert_array_equal(matrix, matrix.T)
        assert not matrix.diagonal().any()
        assert matrix.max() > 1
