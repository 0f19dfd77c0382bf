"""Compare the filters with reference loops, at lengths around block sizes and powers of two."""

import functools
import math
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from spikeloss_xp.backends import ArrayAPIAdapter
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.primitives import chunks, kernels
from spikeloss_xp.primitives.kernels import Exponential

NUMPY = adapter("numpy")
PLAIN = ArrayAPIAdapter(np)

STEPS = [1, 2, 31, 33, 129, 300]
LENGTHS = [1, 2, 100, 129, 400]
# Sums of up to 300 products, accumulated in blocks: the measured error in float32 is 2e-7 of the
# largest entry. In float64 the reference loops round as well.
TOLERANCE = {"float32": 5e-7, "float64": 5e-15}


def relative_error(got, expected):
    """Return the largest error, relative to the largest expected entry."""
    return np.max(np.abs(got - expected)) / max(np.max(np.abs(expected)), 1e-30)


@functools.cache
def filter_case(steps, length):
    """Return random trains and taps, and the trains filtered by the reference loop."""
    random = np.random.default_rng(steps * 1000 + length)
    x = random.normal(size=(2, steps)).astype(np.float32)
    taps = random.normal(size=length).astype(np.float32)
    return x, taps, reference.causal_filter(x.astype(float), taps.astype(float))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("steps", STEPS)
def test_causal_filter_and_moving_average_match_the_reference_loops(backend, steps, length):
    x, taps, expected = filter_case(steps, length)
    # JAX without x64 computes in float32.
    dtype = "float64" if backend.name in ("jax-x64", "jax-cuda") else "float32"
    run = backend.compiled(
        lambda x, taps: (sx.causal_filter(x, taps), sx.moving_average(x, length))
    )
    got, averaged = run(backend.asarray(x, dtype), backend.asarray(taps, dtype))
    assert got.dtype == averaged.dtype == getattr(backend.xp, dtype)
    assert relative_error(backend.numpy(got), expected) <= TOLERANCE[dtype]
    expected = reference.moving_average(x.astype(float), length)
    assert relative_error(backend.numpy(averaged), expected) <= TOLERANCE[dtype]


EXPONENTIAL_KERNELS = [
    # The far edge of the kernel falls into one block, two or none; lengths lie around the limits.
    Exponential(time_constant, length, order)
    for length in (1, 2, 31, 32, 33, 100, 129, 400)
    for time_constant, order in ((5, 1), (50, 2), (math.inf, 1), (0.1, 1), (20, 3))
]


@functools.cache
def exponential_case(steps):
    # Spikes are not negative, and sums that cancel would lose digits.
    x = np.abs(filter_case(steps, 1)[0])
    expected = [
        reference.causal_filter(x.astype(float)[:, ::direction], kernel.taps())[:, ::direction]
        for kernel in EXPONENTIAL_KERNELS
        for direction in (1, -1)
    ]
    return x, expected


@pytest.mark.slow(but=8)
@pytest.mark.parametrize("steps", [1, 63, 64, 65, 300, 600])
def test_exponential_filter_matches_the_reference_in_both_directions(backend, steps):
    x, every_expected = exponential_case(steps)
    dtype = "float64" if backend.name in ("jax-x64", "jax-cuda") else "float32"

    @backend.compiled
    def run(x):
        return [
            backend.adapter.causal_filter(x, kernel, -1, reverse=reverse)
            for kernel in EXPONENTIAL_KERNELS
            for reverse in (False, True)
        ]

    for got, expected in zip(run(backend.asarray(x, dtype)), every_expected, strict=True):
        assert got.dtype == getattr(backend.xp, dtype)
        assert relative_error(backend.numpy(got), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("window", [1, 2, 3, 31, 33, 100, 300, 400])
def test_moving_sum_of_binary_spikes_is_exact(backend, window):
    spikes = np.random.default_rng(8).integers(0, 2, size=(2, 300))

    @backend.compiled
    def run(x):
        add_up = functools.partial(backend.adapter.moving_sum, x, window)
        return add_up(), add_up(reverse=True), sx.moving_average(x, window)

    forward, backward, averaged = map(backend.numpy, run(backend.asarray(spikes, "float32")))
    for got, rows in ((forward, spikes), (backward[:, ::-1], spikes[:, ::-1])):
        before = np.pad(np.cumsum(rows, axis=1), ((0, 0), (window, 0)))
        np.testing.assert_array_equal(got, before[:, window:] - before[:, :300])
    # XLA, and PyTorch on a GPU, divide by multiplying with the reciprocal, which rounds once more.
    by_reciprocal = backend.library == "jax" or backend.name == "torch-cuda"
    quotient = (forward / np.float32(window)).astype(np.float32)
    np.testing.assert_array_max_ulp(averaged, quotient, int(by_reciprocal))


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("steps", [20, 70, 700])
@pytest.mark.parametrize("kernel", [(5, 20), (20, 100), (math.inf, 64), (20, 100, 2), (0.2, 500)])
def test_block_filter_accumulation_methods_agree(kernel, steps, axis):
    x = np.random.default_rng(12).normal(size=(steps, 3) if axis == 0 else (3, steps))
    taps = Exponential(*kernel).taps()
    for reverse in (False, True):
        rows = (x.T if axis == 0 else x)[:, :: -1 if reverse else 1]
        direct = np.stack([np.convolve(row, taps)[:steps] for row in rows])
        direct = direct[:, :: -1 if reverse else 1]
        for accumulate in ("join", "separate", "in place"):
            got = PLAIN.exponential_filter(x, Exponential(*kernel), axis, reverse, accumulate)
            assert got.shape == x.shape
            np.testing.assert_allclose(got.T if axis == 0 else got, direct, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("steps", "length", "time_constant"),
    [(10**6, 1000, 100), (10**5, 10**4, 5000), (10**5, 10**4, math.inf)],
)
@pytest.mark.parametrize("graded", [False, True])
def test_long_trains_and_kernels_keep_float32_precision(steps, length, time_constant, graded):
    x = np.random.default_rng(9).random((1, steps))
    x = (x if graded else (x < 0.1)).astype(np.float32)
    kernel = Exponential(time_constant, length)
    got = NUMPY.causal_filter(x, kernel, -1)
    taps = kernel.taps()
    sampled_steps = np.random.default_rng(10).integers(0, steps, size=2000)
    padded = np.concatenate([np.zeros(length - 1), x[0].astype(float)])
    expected = np.asarray([padded[t : t + length] @ taps[::-1] for t in sampled_steps])
    assert np.max(np.abs(got[0, sampled_steps] - expected)) <= 5e-7 * np.max(expected)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("length", [33, 100, 129, 400])
def test_output_is_exactly_zero_outside_the_kernel(backend, length, order):
    x = np.zeros((2, 700))
    x[0, 170], x[1, 529] = 1e6, 1e6
    lag = np.arange(700) - np.asarray([[170], [529]])
    kernel = Exponential(200, length, order)

    @backend.compiled
    def run(x):
        both = [backend.adapter.causal_filter(x, kernel, -1, reverse=r) for r in (False, True)]
        return *both, sx.causal_filter(x, kernel.taps()), sx.moving_average(x, length)

    forward, backward, by_taps, averaged = map(backend.numpy, run(backend.asarray(x)))
    for y, after in ((forward, lag), (backward, -lag), (by_taps, lag), (averaged, lag)):
        np.testing.assert_array_equal(y != 0, (after >= 0) & (after < length))
    impulse = 1e6 * kernel.taps().astype(by_taps.dtype)
    # Each entry is one product.
    np.testing.assert_allclose(by_taps[0, 170 : 170 + length], impulse, rtol=1e-7)
    assert (averaged[averaged != 0] == averaged[0, 170]).all()


def test_chunked_filter_equals_the_unchunked_filter():
    x = np.random.default_rng(11).normal(size=(3, 70, 1000)).astype(np.float32)
    kernel = Exponential(20, 100)
    unchunked = PLAIN.causal_filter(x, kernel)
    columns = np.ascontiguousarray(x.reshape(210, 1000).T)
    for entries in (1, 70_000, 90_001):
        for axis, array in ((-1, x), (0, columns)):

            def run(chunk, axis):
                return PLAIN.causal_filter(chunk, kernel, axis)

            got = chunks.filter_in_chunks(PLAIN, run, array, axis, entries)
            got = got if axis == -1 else got.T.reshape(x.shape)
            np.testing.assert_allclose(got, unchunked, rtol=0, atol=1e-5)


def test_block_matrices_are_cached_within_bounds():
    NUMPY.causal_filter(np.zeros((1, 300)), Exponential(3.25, 77), -1)
    before = kernels.block_matrices.cache_info()
    NUMPY.causal_filter(np.zeros((4, 300)), Exponential(3.25, 77), -1)
    after = kernels.block_matrices.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
    assert after.maxsize is not None


def test_causal_filter_keeps_the_precision_of_the_dtype(backend):
    x, taps, expected = filter_case(300, 129)
    run = backend.compiled(sx.causal_filter)
    got = run(backend.asarray(x.astype(float)), backend.asarray(taps.astype(float)))
    assert relative_error(backend.numpy(got), expected) <= TOLERANCE[backend.dtype]


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_filters_accept_any_axis(backend, axis):
    x, taps = np.random.default_rng(3).normal(size=(2, 3, 4)), [1.0, -0.5, 0.25]
    run = backend.compiled(
        lambda x: (sx.causal_filter(x, taps, axis), sx.moving_average(x, 2, axis))
    )
    filtered, averaged = run(backend.asarray(x))
    moved = np.moveaxis(x, axis, -1)
    for got, expected in (
        (filtered, reference.causal_filter(moved, taps)),
        (averaged, reference.moving_average(moved, 2)),
    ):
        assert got.shape == x.shape
        expected = np.moveaxis(expected, -1, axis)
        np.testing.assert_allclose(backend.numpy(got), expected, rtol=0, atol=backend.rtol)


@pytest.mark.slow(but=3)
@pytest.mark.parametrize("steps", [1, 65, 300])
def test_time_first_filters_equal_time_last_filters(backend, steps):
    x = np.random.default_rng(12).random((steps, 3, 64))
    moved = backend.asarray(np.moveaxis(x, 0, -1))
    kernels = [Exponential(50, 129, 2), Exponential(5, 100), Exponential(math.inf, 31)]

    def run(x, axis):
        for reverse in (False, True):
            yield from (backend.adapter.causal_filter(x, k, axis, reverse=reverse) for k in kernels)
            for window in (2, 100):
                yield backend.adapter.moving_sum(x, window, axis, reverse=reverse)
        yield sx.causal_filter(x, [1.0, -0.5, 0.25], axis)

    first = backend.compiled(lambda x: list(run(x, 0)))(backend.asarray(x))
    for got, expected in zip(first, run(moved, -1), strict=True):
        assert got.shape == x.shape
        got, expected = np.moveaxis(backend.numpy(got), 0, -1), backend.numpy(expected)
        assert relative_error(got, expected) <= TOLERANCE[backend.dtype]


def test_filters_accept_one_dimensional_trains(backend):
    x, taps = np.random.default_rng(13).random(300), sx.exponential_kernel(5, 100)

    @backend.compiled
    def run(x):
        filtered = backend.adapter.causal_filter(x, Exponential(5, 100), 0)
        return filtered, sx.causal_filter(x, taps), sx.moving_average(x, 2)

    filtered = reference.causal_filter(x[None], taps)
    averaged = reference.moving_average(x[None], 2)
    for got, expected in zip(run(backend.asarray(x)), (filtered, filtered, averaged), strict=True):
        assert got.shape == x.shape
        assert relative_error(backend.numpy(got), expected[0]) <= TOLERANCE[backend.dtype]


def test_moving_average_of_graded_spikes_is_never_negative(backend):
    x = np.random.default_rng(5).uniform(0, 1, size=(1, 300)) * (np.arange(300) < 150)
    got = backend.numpy(sx.moving_average(backend.asarray(x, "float32"), 31))
    assert (got[:, :180] > 0).all()
    assert not got[:, 180:].any()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_exponential_kernel_equals_repeated_convolution(order):
    exponential = np.exp(-np.arange(50) / 7.5)
    expected = functools.reduce(np.convolve, [exponential] * order)[:50]
    kernel = sx.exponential_kernel(7.5, 50, order)
    assert kernel.dtype == np.float64
    # Each entry is a sum of up to 50^order terms.
    np.testing.assert_allclose(kernel, expected, rtol=1e-13)
    assert kernel[0] == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sx.causal_filter(x, [[1.0]]), ValueError, "kernel.*(1, 1)"),
        (lambda x: sx.causal_filter(x, []), ValueError, "kernel.*(0,)"),
        (lambda x: sx.causal_filter(x, 1.0), ValueError, "kernel.*()"),
        (lambda x: sx.causal_filter(x, [1.0], axis=2), ValueError, "axis=2.*(2, 3)"),
        (lambda x: sx.causal_filter(x, [1.0], axis=-3), ValueError, "axis=-3.*(2, 3)"),
        (lambda x: sx.causal_filter(x[:, :0], [1.0]), ValueError, "no steps.*(2, 0)"),
        (lambda x: sx.moving_average(x, 0), ValueError, "window.*0"),
        (lambda x: sx.moving_average(x, -1), ValueError, "window.*-1"),
        (lambda x: sx.moving_average(x, 1.5), TypeError, "window.*1.5"),
        (lambda x: sx.moving_average(x, True), TypeError, "window.*True"),
        (lambda x: sx.moving_average(x, 2, axis=2), ValueError, "axis=2.*(2, 3)"),
        (lambda x: sx.moving_average([0.0, 1.0], 2), TypeError, "x must be an array.*list"),
        (lambda x: sx.exponential_kernel(0, 3), ValueError, "time_constant.*0"),
        (lambda x: sx.exponential_kernel(5, 0), ValueError, "length.*0"),
        (lambda x: sx.exponential_kernel(5, 3, 0), ValueError, "order.*0"),
    ],
)
def test_errors_name_the_argument(backend, call, error, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(error, match=pattern):
        call(backend.asarray(np.ones((2, 3))))


def test_complex_input_raises(backend):
    x = backend.xp.asarray([1j])
    with pytest.raises(TypeError, match=r"x must be bool, .* or real floating; got.*complex"):
        sx.moving_average(x, 2)
