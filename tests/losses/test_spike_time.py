import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases, reference
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
        terms = loss(backend.asarray(spikes), backend.asarray(desired))
        close(backend.numpy(terms), reference.terms(loss, spikes, desired), backend.rtol)


def test_equal_trains_have_zero_loss_and_gradient(backend):
    spikes = backend.asarray(cases.SPIKES["binary"])
    value, gradient = backend.compiled(sx.value_and_grad(sx.SpikeTime()))(spikes, spikes)
    assert float(value) == 0
    assert not backend.numpy(gradient).any()


def test_desired_trains_may_have_any_real_dtype(backend):
    spikes, desired = cases.SPIKES["binary"], cases.DESIRED
    expected = reference.terms(sx.SpikeTime(2, 4), spikes, desired).sum()
    run = backend.compiled(sx.SpikeTime(2, 4))
    for dtype in ("bool", "uint8", "int32", "float32"):
        for target in (backend.asarray(desired, dtype), desired.astype(dtype)):
            value = run(backend.asarray(spikes), target)
            assert value.dtype == getattr(backend.xp, backend.dtype)
            close(backend.numpy(value), expected, backend.rtol)
