"""Every loss in every form, with small spike trains and targets that cover edge cases."""

import dataclasses
from typing import Any

import numpy as np

import spikeloss_xp as sx

BATCH, CLASSES, STEPS = 2, 3, 5
SHAPE = (BATCH, CLASSES, STEPS)

LABEL = np.asarray([2, 0])
LABEL_PER_STEP = np.asarray([[2, 2, 0, 1, 0], [0, 1, 2, 2, 1]])
MULTI_HOT = np.asarray([[True, False, True], [False, False, True]])
SOFT = np.asarray([[0.0, 1.0, 0.25], [0.5, 0.875, 0.0]])
SOFT_PER_STEP = np.random.default_rng(1).uniform(0, 1, SHAPE)
DESIRED = np.asarray(
    [
        [[0, 1, 0, 0, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]],
    ],
    dtype=float,
)

SPIKES = {
    "graded": np.random.default_rng(0).uniform(0.1, 1, SHAPE),
    # the labelled neuron is silent in the first sample, and another neuron in the second
    "binary": np.asarray(
        [
            [[1, 0, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0]],
            [[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]],
        ],
        dtype=float,
    ),
    "silent": np.zeros(SHAPE),
}

W = 3
CASES = {
    "SpikeTime-order1": (sx.SpikeTime(2, 4, 1), DESIRED),
    "SpikeTime-order2": (sx.SpikeTime(2, 4, 2), DESIRED),
    "SpikeTime-order3": (sx.SpikeTime(2, 100, 3), DESIRED),
    "SpikeTime-taps": (sx.SpikeTime(kernel=(0.5, 1.0, -0.25, 0.125)), DESIRED),
    "SpikeRate": (sx.SpikeRate(0.75, 0.125), LABEL),
    "SpikeRate-window": (sx.SpikeRate(0.75, 0.125, W), LABEL),
    "SpikeRate-window-per-step": (sx.SpikeRate(0.75, 0.125, W), LABEL_PER_STEP),
    "SpikeMax": (sx.SpikeMax(), LABEL),
    "SpikeMax-window": (sx.SpikeMax(W), LABEL),
    "SpikeMax-window-per-step": (sx.SpikeMax(W), LABEL_PER_STEP),
    "SpikeMax-pseudo-count": (sx.SpikeMax(pseudo_count=2.25), LABEL),
    "SpikeMax-lava": (sx.SpikeMax(numerics="lava"), LABEL),
    "SpikeMax-lava-window": (sx.SpikeMax(W, numerics="lava"), LABEL),
    "SpikeMax-lava-window-per-step": (sx.SpikeMax(W, numerics="lava"), LABEL_PER_STEP),
    "SpikeMax-softmax": (sx.SpikeMax(mode="softmax"), LABEL),
    "SpikeMax-softmax-window": (sx.SpikeMax(W, "softmax"), LABEL),
    "SpikeMax-softmax-window-per-step": (sx.SpikeMax(W, "softmax"), LABEL_PER_STEP),
    "SpikeMax-softmax-lava": (sx.SpikeMax(mode="softmax", numerics="lava"), LABEL),
    "SpikeMax-softmax-sum": (sx.SpikeMax(mode="softmax", readout="softmax_sum"), LABEL),
    "SpikeMax-latency": (
        sx.SpikeMax(mode="softmax", readout="latency", temperature=1.5),
        LABEL,
    ),
    "SpikeLatency": (sx.SpikeLatency(1, tolerance=0.25), LABEL),
    "SpikeLatency-times": (sx.SpikeLatency(), 5 * SOFT),
    "SpikeMoid": (sx.SpikeMoid(), MULTI_HOT),
    "SpikeMoid-pos-weight": (sx.SpikeMoid(alpha=0.25, pos_weight=(0.5, 1.0, 4.0)), SOFT),
    "SpikeMoid-soft": (sx.SpikeMoid(alpha=0.25, theta=0.5), SOFT),
    "SpikeMoid-window": (sx.SpikeMoid(W, alpha=0.5), MULTI_HOT),
    "SpikeMoid-window-per-step": (sx.SpikeMoid(W, alpha=0.25, theta=0.5), SOFT_PER_STEP),
    "SpikeMoid-lava": (sx.SpikeMoid(numerics="lava"), MULTI_HOT),
    "SpikeMoid-lava-soft": (sx.SpikeMoid(alpha=0.25, theta=0.5, numerics="lava"), SOFT),
    "SpikeMoid-lava-window": (sx.SpikeMoid(W, alpha=0.5, numerics="lava"), SOFT),
    "SpikeMoid-lava-window-per-step": (sx.SpikeMoid(W, numerics="lava"), SOFT_PER_STEP),
}
ONE_OF_EACH = ("SpikeTime-order1", "SpikeRate", "SpikeMax", "SpikeLatency", "SpikeMoid-soft")


def trains(name: str) -> dict[str, np.ndarray]:
    """Return the spikes at which the loss of a case is finite."""
    if "SpikeMax-lava" in name:
        return {"graded": SPIKES["graded"]}
    return SPIKES


def reduced(loss: Any, reduction: str) -> Any:
    """Return the loss with another reduction."""
    return dataclasses.replace(loss, reduction=reduction)


def close(got: np.ndarray, expected: Any, rtol: float) -> None:
    """Assert that arrays agree to within `rtol` times the largest expected entry."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * float(np.max(np.abs(expected))))
