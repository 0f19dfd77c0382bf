"""Compare the filters with reference loops, at lengths around block sizes and powers of two.

Random filters have seeds, as the random calls of `contract/test_differential.py`.
"""

import functools
import itertools
import math
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.backends import TESTED, on
from _support.random_calls import around, pick
from spikeloss_xp.backends import ArrayAPIAdapter
from spikeloss_xp.backends._available import adapter
from spikeloss_xp.primitives.kernels import Exponential

NUMPY = adapter("numpy")

SEEDS = {"numpy": 120, "torch": 30, "array-api-strict": 20}
# Sums of up to 300 products, accumulated in blocks: the measured error in float32 is 2e-7 of the
# largest entry. In float64 the reference loops round as well.
TOLERANCE = {"float32": 5e-7, "float64": 5e-15}


def random_filter(random):
    """Return a filter of an adapter, an array and an axis, its taps, and whether it is reversed."""
    length, reverse = around(random, 400), bool(random.random() < 0.5)
    kind = pick(random, "exponential", "exponential", "taps", "average", "sum")
    taps, kernel = np.ones(length), None
    if kind == "exponential":
        kernel = Exponential(pick(random, 0.1, 5, 20, 50, math.inf), length, pick(random, 1, 2, 3))
        taps = kernel.taps()
    elif kind == "average":
        taps, reverse = taps / length, False
    elif kind == "taps":
        taps = random.random(length).astype(np.float32)

    def apply(library, x, axis):
        if kind == "sum":
            return library.moving_sum(x, length, axis, reverse=reverse)
        if kind == "average":
            return sx.moving_average(x, length, time_axis=axis)
        if kind == "taps" and not reverse:
            return sx.causal_filter(x, taps, time_axis=axis)
        return library.causal_filter(x, kernel or library.constants(taps, x), axis, reverse=reverse)

    return apply, taps, reverse


def check_random_filter(backend, seed):
    """Filter along any axis of one to three, in float32 or in the widest dtype."""
    random = np.random.default_rng([seed, 6])
    apply, taps, reverse = random_filter(random)
    dtype, steps = pick(random, "float32", backend.dtype), around(random, 600)
    shape = (*pick(random, (), (3,), (2, 3), (64, 2)), steps)
    axis = int(random.integers(-len(shape), len(shape)))
    # Spikes are not negative, because sums that cancel lose digits.
    x = random.random(shape).astype(np.float32)
    made = backend.asarray(np.ascontiguousarray(np.moveaxis(x, -1, axis)), dtype)
    got = backend.compiled(lambda x: apply(backend.adapter, x, axis))(made)
    direction = -1 if reverse else 1
    expected = reference.causal_filter(x.astype(float)[..., ::direction], taps.astype(float))
    message = f"{len(taps)} taps, {shape}, {axis=}, {reverse=}, {dtype}, seed {seed}"
    assert got.dtype == getattr(backend.xp, dtype), message
    got = np.moveaxis(backend.numpy(got), axis, -1)
    assert got.shape == shape, message
    error = np.max(np.abs(got - expected[..., ::direction]))
    assert error <= TOLERANCE[dtype] * np.max(expected), message


@pytest.mark.parametrize("name", TESTED)
def test_random_filters_equal_loops(name, seeds):
    with on(name) as backend:
        for seed in seeds(SEEDS.get(name, 2), slow=4):
            check_random_filter(backend, seed)


@pytest.mark.parametrize("window", [33, 400])
def test_moving_sum_of_binary_spikes_is_exact(backend, window):
    spikes = np.random.default_rng(8).integers(0, 2, size=(2, 300))

    @backend.compiled
    def run(x):
        add_up = functools.partial(backend.adapter.moving_sum, x, window)
        return add_up(), add_up(reverse=True), sx.moving_average(x, window, time_axis=-1)

    forward, backward, averaged = map(backend.numpy, run(backend.asarray(spikes, "float32")))
    for got, rows in ((forward, spikes), (backward[:, ::-1], spikes[:, ::-1])):
        before = np.pad(np.cumsum(rows, axis=1), ((0, 0), (window, 0)))
        np.testing.assert_array_equal(got, before[:, window:] - before[:, :300])
    # XLA, and PyTorch on a GPU, divide by multiplying with the reciprocal, which rounds once more.
    by_reciprocal = backend.library == "jax" or backend.name == "torch-cuda"
    quotient = (forward / np.float32(window)).astype(np.float32)
    np.testing.assert_array_max_ulp(averaged, quotient, int(by_reciprocal))


@pytest.mark.parametrize("joins_blocks", [True, False])
@pytest.mark.parametrize("kernel", [(5, 20), (math.inf, 64), (20, 100, 2)])
def test_joined_and_separate_products_equal_the_direct_filter(kernel, joins_blocks):
    library, kernel = ArrayAPIAdapter(np), Exponential(*kernel)
    library.joins_blocks = joins_blocks
    for steps, axis, reverse in itertools.product((20, 70, 700), (0, 1, -1), (False, True)):
        direction = -1 if reverse else 1
        rows = np.random.default_rng(12).normal(size=(2, 3, steps))
        direct = reference.causal_filter(rows[..., ::direction], kernel.taps())[..., ::direction]
        x, expected = (np.moveaxis(array, -1, axis) for array in (rows, direct))
        got = library.causal_filter(x, kernel, axis, reverse=reverse)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("steps", "length", "time_constant", "graded"),
    [(10**6, 1000, 100, True), (10**5, 10**4, 5000, False), (10**5, 10**4, math.inf, True)],
)
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


@pytest.mark.parametrize(("length", "order"), [(33, 1), (129, 3), (400, 2)])
def test_output_is_exactly_zero_outside_the_kernel(backend, length, order):
    x = np.zeros((2, 700))
    x[0, 170], x[1, 529] = 1e6, 1e6
    lag = np.arange(700) - np.asarray([[170], [529]])
    kernel = Exponential(200, length, order)

    @backend.compiled
    def run(x):
        both = [backend.adapter.causal_filter(x, kernel, -1, reverse=r) for r in (False, True)]
        return (
            *both,
            sx.causal_filter(x, kernel.taps(), time_axis=-1),
            sx.moving_average(x, length, time_axis=-1),
        )

    forward, backward, by_taps, averaged = map(backend.numpy, run(backend.asarray(x)))
    for y, after in ((forward, lag), (backward, -lag), (by_taps, lag), (averaged, lag)):
        np.testing.assert_array_equal(y != 0, (after >= 0) & (after < length))
    impulse = 1e6 * kernel.taps().astype(by_taps.dtype)
    # Each entry is one product.
    np.testing.assert_allclose(by_taps[0, 170 : 170 + length], impulse, rtol=1e-7)
    assert (averaged[averaged != 0] == averaged[0, 170]).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sx.causal_filter(x, [[1.0]], time_axis=-1), ValueError, "kernel.*(1, 1)"),
        (lambda x: sx.causal_filter(x, [], time_axis=-1), ValueError, "kernel.*(0,)"),
        (lambda x: sx.causal_filter(x, [1.0], time_axis=2), ValueError, "time_axis=2.*(2, 3)"),
        (lambda x: sx.causal_filter(x[:, :0], [1.0], time_axis=-1), ValueError, "no steps.*(2, 0)"),
        (lambda x: sx.moving_average(x, 0, time_axis=-1), ValueError, "window.*0"),
        (lambda x: sx.moving_average(x, 2, time_axis=-3), ValueError, "time_axis=-3.*(2, 3)"),
        (
            lambda x: sx.moving_average([0.0, 1.0], 2, time_axis=-1),
            TypeError,
            "input must be an array.*list",
        ),
        (lambda x: sx.exponential_kernel(0, 3), ValueError, "time_constant.*0"),
        (lambda x: sx.exponential_kernel(5, 0), ValueError, "length.*0"),
        (lambda x: sx.exponential_kernel(1e9, 10**6, 9), ValueError, "filter_order=9.*float32"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(error, match=pattern):
        call(np.ones((2, 3)))
