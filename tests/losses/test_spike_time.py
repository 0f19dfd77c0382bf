import dataclasses

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import reference
from _support.calls import each, run
from _support.cases import close

A = np.exp(-1 / 5)


@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [
        # A spike at step 1 of 4 has the trace e = [0, 1, a, a²]. The loss is the sum of its
        # squares, and the gradient at step t is 2 Σ_k h[k] e[t + k].
        (
            sx.SpikeTime(5),
            1 + A**2 + A**4,
            [2 * (A + A**3 + A**5), 2 * (1 + A**2 + A**4), 2 * (A + A**3), 2 * A**2],
        ),
        # Order 2 has h = [1, 2a, 3a²], so the trace is [0, 1, 2a, 3a²].
        (
            sx.SpikeTime(5, filter_order=2),
            1 + 4 * A**2 + 9 * A**4,
            [
                2 * (2 * A + 3 * A**2 * 2 * A + 4 * A**3 * 3 * A**2),
                2 * (1 + 4 * A**2 + 9 * A**4),
                2 * (2 * A + 2 * A * 3 * A**2),
                2 * 3 * A**2,
            ],
        ),
        # With 2 taps the trace is [0, 1, a, 0].
        (sx.SpikeTime(5, length=2), 1 + A**2, [2 * A, 2 * (1 + A**2), 2 * A, 0]),
        # With 1 tap the filter is the identity.
        (sx.SpikeTime(5, length=1), 1, [0, 2, 0, 0]),
    ],
)
def test_value_and_gradient_match_hand_calculation(backend, loss, value, slope):
    spike, silence = np.asarray([[[0.0, 1, 0, 0]]]), np.zeros((1, 1, 4))
    evaluate = backend.compiled(sx.value_and_grad(loss))
    for sign, input, target in ((1, spike, silence), (-1, silence, spike)):
        got = evaluate(backend.asarray(input), backend.asarray(target))
        close(backend.numpy(got[0]), value, backend.rtol)
        close(backend.numpy(got[1])[0, 0], sign * np.asarray(slope), backend.rtol)


def test_any_number_of_space_axes_matches_the_formula(backend):
    random = np.random.default_rng(7)
    loss = sx.SpikeTime(2, 4, reduction="none")
    for shape in ((2, 5), (2, 3, 2, 5)):  # no space axis, and two
        spikes, desired = random.integers(0, 2, size=(2, *shape)).astype(float)
        terms = run(backend, loss, spikes, desired)
        close(terms, reference.terms(loss, spikes, desired), backend.rtol)


SPIKES = np.random.default_rng(4).integers(0, 2, size=(2, 3, 40)).astype(float)


def test_equal_trains_have_zero_loss_and_gradient(backend):
    value, gradient = run(backend, sx.value_and_grad(sx.SpikeTime()), SPIKES, SPIKES)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("order", [1, 2])
def test_kernel_of_exponential_taps_equals_the_exponential(backend, order):
    losses = sx.SpikeTime(5, 30, order), sx.SpikeTime(kernel=sx.exponential_kernel(5, 30, order))
    both = each([sx.value_and_grad(loss) for loss in losses])
    for ours, theirs in zip(*run(backend, both, SPIKES, SPIKES[::-1].copy()), strict=True):
        close(theirs, ours, 4 * backend.rtol)  # sums of 30 products


def test_kernel_of_ones_compares_cumulative_counts(backend):
    loss = sx.SpikeTime(kernel=lambda lag: 1.0, length=40)
    value = run(backend, loss, SPIKES, 0 * SPIKES)
    close(value, np.sum(np.cumsum(SPIKES, axis=-1) ** 2), backend.rtol)


def test_kernel_may_be_taps_of_any_kind_or_a_function(backend):
    taps = (0.0, 0.5, 0.25)
    loss = sx.SpikeTime(kernel=taps)
    assert loss.kernel == taps
    assert loss.number_of_taps == 3
    assert loss.memory == 2
    assert loss.captured_arrays() == ()
    assert eval(repr(loss), vars(sx)) == loss
    lags = []

    def half_power(lag):
        lags.append(lag)
        return 0.5**lag if lag else 0.0

    for same in (
        list(taps),
        np.asarray(taps, "float32"),
        backend.asarray(np.asarray(taps)),
        half_power,
    ):
        made = sx.SpikeTime(kernel=same, length=3)
        assert made == loss
        assert hash(made) == hash(loss)
        assert all(type(tap) is float for tap in made.kernel)
    assert lags == [0.0, 1.0, 2.0]
    assert all(type(lag) is float for lag in lags)
    assert dataclasses.replace(loss, reduction="mean").kernel == taps
    with pytest.raises(ValueError, match="needs a length"):
        sx.SpikeTime(kernel=half_power)
    assert sx.SpikeTime(kernel=(0.0, 0.5)) != loss


def test_kernel_that_requires_a_gradient_raises():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"kernel must be constant.*detach"):
        sx.SpikeTime(kernel=torch.ones(3, requires_grad=True))


def test_long_kernel_is_cut_to_the_duration(backend, monkeypatch):
    filtered = []
    run_filter = type(backend.adapter).causal_filter

    def recorded(self, x, kernel, axis, **options):
        filtered.append(kernel.shape[0])
        return run_filter(self, x, kernel, axis, **options)

    monkeypatch.setattr(type(backend.adapter), "causal_filter", recorded)
    taps = np.random.default_rng(5).normal(size=3000)
    both = each([sx.SpikeTime(kernel=kernel) for kernel in (taps, taps[:40])])
    long, short = run(backend, both, SPIKES, 0 * SPIKES)
    np.testing.assert_array_equal(long, short)
    assert set(filtered) == {40}


def test_length_is_twenty_time_constants():
    assert sx.SpikeTime().number_of_taps == 100
    assert sx.SpikeTime(2.53).number_of_taps == 51
    assert dataclasses.replace(sx.SpikeTime(), time_constant=10).number_of_taps == 200
    assert sx.SpikeTime(1e12).number_of_taps == 2**31 - 1
    assert sx.SpikeTime(10, 30).memory == 29
    assert dataclasses.replace(sx.SpikeTime(kernel=[1, 0.5]), kernel=[1]).number_of_taps == 1
