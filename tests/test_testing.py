"""Tests of `assert_consistent`, which users call in their own test suites."""

import re

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp._tolerance import PRECISION
from spikeloss_xp.backends import available
from spikeloss_xp.testing import _difference, _first_of_each_kind, assert_consistent

SPIKES = np.random.default_rng(0).random((4, 3, 40)) < 0.2
USABLE = [name for name, info in available().items() if info.usable]
LABEL = [0, 1, 2, 0]


def test_loss_passes_on_all_libraries_at_once():
    assert_consistent(sx.SpikeMax(reduction="none", time_axis=-1), SPIKES.astype("float16"), LABEL)


@pytest.mark.parametrize(
    ("shape", "backends"),
    [
        ((2, 20, 99), [name for name in USABLE if name != "jax"]),  # it compiles each loss
        pytest.param((1, 1, 4000), None, marks=pytest.mark.slow),
    ],
)
def test_rounding_errors_of_identical_terms_stay_within_tolerance(shape, backends):
    spikes, label = np.ones(shape, np.float32), np.zeros(shape[0], np.int64)
    for loss, target in (
        (sx.SpikeRate(0.2, 0.03, moving_window=5, time_axis=-1), label),
        (sx.SpikeMax(moving_window=5, mode="softmax", time_axis=-1), label),
        (
            sx.SpikeMoid(moving_window=5, alpha=0.25, theta=0.5, time_axis=-1),
            np.zeros(shape[:2]),
        ),
        (sx.SpikeTime(time_axis=-1), 0 * spikes),
    ):
        assert_consistent(loss, spikes, target, backends=backends)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [(None, ["cuda:0", "cpu"]), ("cuda", ["cuda:0"]), ("cuda:1", ["cuda:1"]), ("xpu", [])],
)
def test_first_device_of_each_kind_is_compared(wanted, chosen):
    assert _first_of_each_kind(("cuda:0", "cuda:1", "cpu"), wanted) == chosen


def test_arrays_of_any_library_are_accepted(backend):
    spikes = backend.asarray(SPIKES, "float32")
    rows = assert_consistent(
        sx.SpikeTime(time_axis=-1),
        spikes,
        spikes,
        backends=["numpy", backend.library],
    )
    assert {row["backend"] for row in rows} == {"numpy", backend.library}
    assert all(row["gradient_difference"] < backend.rtol for row in rows)
    assert repr(rows).splitlines()[1].split()[:2] == ["numpy", "cpu"]
    label = backend.asarray(LABEL)
    assert_consistent(sx.SpikeMax(time_axis=-1), spikes, label, backends=[backend.library])


def test_bfloat16_is_compared_on_libraries_that_have_it():
    torch = pytest.importorskip("torch")
    spikes = torch.tensor(SPIKES).bfloat16()
    assert_consistent(sx.SpikeMax(time_axis=-1), spikes, LABEL)
    with pytest.raises(ValueError, match="cannot use numpy: it has no bfloat16"):
        assert_consistent(sx.SpikeMax(time_axis=-1), spikes, LABEL, backends=["numpy"])
    numbers = torch.finfo(torch.bfloat16)
    assert PRECISION["bfloat16"] == (numbers.eps, numbers.smallest_normal * numbers.eps)


class WrongGradient(sx.SpikeRate):
    """A loss whose closed-form gradient is wrong by one part in a thousand, in one entry."""

    def _read(self, trains, labels):
        rate, pullback = super()._read(trains, labels)

        def wrong(cotangent):
            gradient = np.array(pullback(cotangent))
            gradient[1, 2, 3] *= 1.001
            return gradient

        return rate, wrong


def test_wrong_gradient_is_reported_with_its_location():
    pytest.importorskip("torch")
    loss = WrongGradient(0.2, 0.03, time_axis=-1, reduction="sum")
    with pytest.raises(AssertionError) as raised:
        assert_consistent(loss, SPIKES.astype(np.float64), LABEL, backends=["torch"])
    message = str(raised.value)
    assert repr(loss) in message
    assert "float64 spikes of shape (4, 3, 40)" in message
    found = re.search(r"torch \S+ on \S+: the gradient is (\S+) at \[1, 2, 3\]", message)
    assert found, message
    assert float(found[1]) == pytest.approx(2 * (SPIKES[1, 2].mean() - 0.03) / 40)
    assert "the value" not in message


class AveragedCotangent(sx.SpikeRate):
    """A loss whose closed-form gradient is wrong if the cotangents of its terms differ."""

    def value_and_pullback(self, *arguments, **options):
        terms, pullback = super().value_and_pullback(*arguments, **options)
        return terms, lambda cotangent: pullback(np.full_like(cotangent, cotangent.mean()))


def test_terms_have_different_cotangents():
    pytest.importorskip("torch")
    loss = AveragedCotangent(0.2, 0.03, time_axis=-1, reduction="none")
    with pytest.raises(AssertionError, match="the gradient is"):
        assert_consistent(loss, SPIKES.astype(np.float64), LABEL, backends=["torch"])


def test_equal_infinities_and_nans_are_no_difference():
    expected = np.asarray([np.inf, -np.inf, np.nan, 2.0])
    assert _difference(expected.copy(), expected, 0, 0) == (0, None)
    for i, other in enumerate([-np.inf, 1.0, 1.0, np.nan]):
        got = expected.copy()
        got[i] = other
        relative, text = _difference(got, expected, 1, 1)
        assert relative == np.inf
        assert f"at [{i}] instead of {float(expected[i])!r}" in text


def test_tolerances_can_be_set():
    loss, spikes = sx.SpikeTime(time_axis=-1), SPIKES.astype(np.float32)
    desired = np.roll(spikes, 1, axis=-1)
    with pytest.raises(AssertionError, match=r"numpy .* on cpu: the value is .*; the gradient is"):
        assert_consistent(loss, spikes, desired, rtol=1e-12, backends=["numpy"])
    assert_consistent(loss, spikes, desired, rtol=0, atol=1e-3, backends=["numpy"])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"backends": []}, ValueError, "one or more names"),
        ({"backends": "numpy"}, ValueError, "sequence of one or more names"),
        ({"backends": ["nosuchlibrary"]}, ValueError, "cannot use nosuchlibrary: ModuleNotFound"),
        ({"input": [[[1.0, 0.0]]]}, TypeError, "input must be an array"),
        ({"input": SPIKES + 0.0, "target": [0]}, ValueError, "target must hold"),
    ],
)
def test_invalid_arguments_raise(arguments, error, message):
    arguments = {"input": SPIKES, "target": LABEL, **arguments}
    with pytest.raises(error, match=message):
        assert_consistent(sx.SpikeMax(time_axis=-1), **arguments)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_precision_is_that_of_the_dtype(dtype):
    numbers = np.finfo(dtype)
    assert PRECISION[dtype] == (numbers.eps, numbers.smallest_subnormal)
