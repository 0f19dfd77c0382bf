"""Compute a loss in segments of time: see docs/segments.md.

Run as a program, this file checks that segments with a context have the gradient of the whole
trains, and prints the relative error of the gradient of segments without a context.
"""

import numpy as np
import torch

import spikeloss_xp as sx


def in_segments(loss, spikes, target, mask, length):
    """Return the mean of all terms, in segments of ``[batch, neuron, time]``."""
    total = weight = 0
    for start in range(0, spikes.shape[-1], length):
        context = min(start, loss.memory)
        steps = slice(start - context, start + length)
        sums = loss.sum_and_weight(
            spikes[..., steps],
            target[..., steps],
            where=mask[:, steps],
            context=context,
        )
        total, weight = total + sums[0], weight + sums[1]
    return total / weight


def main():
    """Compare segments of 50 steps with the whole trains."""
    rng = np.random.default_rng(0)
    label = np.repeat(rng.integers(10, size=(16, 1)), 1000, axis=1)  # for each step
    one_hot = np.arange(10)[:, None] == label[:, None]
    rates = np.where(one_hot, 0.15, 0.05)  # in spikes per step
    spikes = 1.0 * (rng.random((16, 10, 1000)) < rates)
    trains = 1.0 * (rng.random((16, 10, 1000)) < 0.05)
    mask = np.full((16, 1000), True)
    spikes = torch.tensor(spikes, requires_grad=True)
    for loss, target in (
        (sx.SpikeTime(time_constant=5, reduction="mean", time_axis=-1), trains),
        (sx.SpikeMax(moving_window=20, time_axis=-1), label),
    ):
        value = loss(spikes, target), in_segments(loss, spikes, target, mask, 50)
        steps = [slice(start, start + 50) for start in range(0, 1000, 50)]
        alone = [loss(spikes[..., at], target[..., at]) for at in steps]
        values = *value, sum(alone) / len(alone)
        exact, found, without = (torch.autograd.grad(x, spikes)[0] for x in values)
        torch.testing.assert_close((value[1], found), (value[0], exact))
        error = (without - exact).norm() / exact.norm()
        print(f"{type(loss).__name__:10}{error:4.0%}")


if __name__ == "__main__":
    main()
