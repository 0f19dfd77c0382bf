"""Print the errors of segments: see docs/segments.md."""

import numpy as np
import torch

import spikeloss_xp as sx

rng = np.random.default_rng(0)
labels = rng.integers(10, size=16)
rates = np.where(np.arange(10) == labels[:, None], 0.15, 0.05)  # in spikes per step
spikes = 1.0 * (rng.random((16, 10, 1000)) < rates[..., None])
trains = 1.0 * (rng.random((16, 10, 1000)) < 0.05)
LOSSES = {
    "SpikeTime, time constant 5": (
        sx.SpikeTime(time_constant=5, time_axis=-1, reduction="sum"),
        trains,
    ),
    "SpikeTime, time constant 10": (
        sx.SpikeTime(time_constant=10, time_axis=-1, reduction="sum"),
        trains,
    ),
    "SpikeRate, window 25": (
        sx.SpikeRate(0.15, 0.05, moving_window=25, time_axis=-1, reduction="sum"),
        labels,
    ),
    "SpikeMax, window 20": (
        sx.SpikeMax(moving_window=20, time_axis=-1, reduction="sum"),
        labels,
    ),
    "CrossEntropy, window 20": (
        sx.CrossEntropy(time_axis=-1, moving_window=20, reduction="sum"),
        labels,
    ),
    "SpikeMoid, window 20": (
        sx.SpikeMoid(
            moving_window=20, theta=0.1, alpha=0.05, time_axis=-1, reduction="sum"
        ),
        np.eye(10)[labels],
    ),
}


def in_segments(loss, target, length, memory):
    """Return the value, and the gradients without and with the contexts."""
    value, detached, reaching = 0, np.zeros_like(spikes), np.zeros_like(spikes)
    for start in range(0, 1000, length):
        context = min(start, memory)
        steps = slice(start - context, start + length)
        x = torch.tensor(spikes[..., steps], requires_grad=True)
        y = target[..., steps] if target is trains else target
        total, _ = loss.sum_and_weight(x, y, context=context)
        total.backward()
        value += total.item()
        detached[..., start : start + length] += x.grad.numpy()[..., context:]
        reaching[..., steps] += x.grad.numpy()
    return value, detached, reaching


def row(loss, target, length=50):
    """Return a row with three errors in percent.

    They are the errors of the value and of the gradient without a context, and the
    error of the gradient with a detached context.
    """
    whole, expected = sx.value_and_grad(loss)(spikes, target)
    exact, detached, reaching = in_segments(loss, target, length, loss.memory)
    np.testing.assert_allclose(exact, whole, rtol=1e-12)
    assert np.linalg.norm(reaching - expected) < 1e-12 * np.linalg.norm(expected)
    value, without, _ = in_segments(loss, target, length, 0)
    errors = [np.linalg.norm(got - expected) for got in (without, detached)]
    percent = 100 * np.asarray(
        [value / whole - 1, *(errors / np.linalg.norm(expected))]
    )
    return "{:+8.1f}{:10.0f}{:10.0f}".format(*percent)


def main():
    """Print the table."""
    print(f"{'segments of 50 steps':28}{'value':>8}{'gradient':>10}{'detached':>10}")
    for name, (loss, target) in LOSSES.items():
        print(f"{name:28}{row(loss, target)}")


if __name__ == "__main__":
    main()
