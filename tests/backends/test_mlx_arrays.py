"""Arrays of MLX that raise: those of float64, and those whose values a trace hides."""

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

import spikeloss_xp as sx

SPIKES = mx.array(np.eye(3)[None])
WIDE = SPIKES.astype(mx.float64)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("input", lambda: sx.SpikeMax()(WIDE, [0])),
        ("input", lambda: sx.value_and_grad(sx.SpikeMax())(WIDE, [0])),
        ("target", lambda: sx.SpikeTime()(SPIKES, WIDE)),
        ("weight", lambda: sx.SpikeMax()(SPIKES, [0], weight=WIDE[0, 0])),
        ("cotangent", lambda: sx.value_and_grad(sx.SpikeTime())(SPIKES, SPIKES, cotangent=WIDE)),
        ("x", lambda: sx.causal_filter(WIDE, np.ones(3))),
    ],
)
def test_float64_raises(argument, call):
    with pytest.raises(TypeError, match=f"^{argument} must not be float64.*astype"):
        call()


def test_exponential_of_float64_is_inaccurate():
    """Its error is the reason why float64 raises: remove that when this test fails."""
    x = np.linspace(-20, 20, 1001)
    error = np.asarray(mx.exp(mx.array(x, dtype=mx.float64))) / np.exp(x) - 1
    assert 1e-7 < abs(error).max() < 1e-5


@pytest.mark.parametrize("transform", [mx.compile, mx.vmap])
def test_taps_of_a_trace_cannot_be_read(transform):
    def loss(taps):
        return sx.SpikeTime(kernel=taps)(SPIKES, SPIKES)

    taps = mx.ones((3, 3) if transform is mx.vmap else 3)
    with pytest.raises(TypeError, match="kernel must be an array whose values can be read"):
        transform(loss)(taps)
