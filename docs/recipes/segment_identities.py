"""Check the identities in docs/segments.md."""

import numpy as np
import torch

import spikeloss_xp as sx

rng = np.random.default_rng(0)
labels = rng.integers(10, size=16)
rates = np.where(np.arange(10) == labels[:, None], 0.15, 0.05)  # in spikes per step
spikes = 1.0 * (rng.random((16, 10, 150)) < rates[..., None])
trains = 1.0 * (rng.random((16, 10, 150)) < 0.05)
close = np.testing.assert_allclose


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


def segments_add_up():
    """Compare the mean over segments with the mean over whole trains."""
    loss = sx.SpikeTime(time_constant=5, length=60, reduction="mean", time_axis=-1)
    mask = np.arange(150) < rng.integers(75, 150, size=16)[:, None]
    value = loss(spikes, trains, where=mask)
    close(in_segments(loss, spikes, trains, mask, length=64), value, rtol=1e-12)


def zeros_before_a_train_are_its_context():
    """Compare a context of zeros, or of masked steps, with no context."""

    def longer(x, steps, value):
        return np.pad(
            x, [(0, 0)] * (x.ndim - 1) + [(steps, 0)], constant_values=value
        )

    mask = rng.random(spikes.shape) < 0.9
    for loss, target in (
        (sx.SpikeTime(length=60, time_axis=-1, reduction="sum"), trains),
        (
            sx.SpikeRate(
                0.15, 0.05, moving_window=20, time_axis=-1, reduction="sum"
            ),
            labels,
        ),
        (sx.SpikeMax(moving_window=20, time_axis=-1, reduction="sum"), labels),
        (sx.CrossEntropy(time_axis=-1, moving_window=20, reduction="sum"), labels),
        (
            sx.SpikeMoid(
                moving_window=20,
                theta=0.1,
                alpha=0.05,
                time_axis=-1,
                reduction="sum",
            ),
            np.eye(10)[labels],
        ),
    ):
        n = loss.memory
        padded = longer(target, n, 0) if target is trains else target
        for where in (mask, mask[:, 0]):
            for read, value in ((True, 0), (False, 0), (False, 7)):
                x, seen = longer(spikes, n, value), longer(where, n, read)
                got, _ = loss.sum_and_weight(x, padded, where=seen, context=n)
                close(got, loss(spikes, target, where=where), rtol=1e-12)


def masked_context_is_none():
    """Compare a segment that has a context, a masked context, or no context."""
    loss, seen = (
        sx.SpikeMax(moving_window=20, time_axis=-1, reduction="sum"),
        np.arange(69) >= 19,
    )
    context, _ = loss.sum_and_weight(spikes[..., 81:], labels, context=19)
    masked, _ = loss.sum_and_weight(
        spikes[..., 81:], labels, where=np.tile(seen, (16, 1))
    )
    alone, _ = loss.sum_and_weight(spikes[..., 100:], labels)
    terms = sx.SpikeMax(moving_window=20, reduction="none", time_axis=-1)(
        spikes, labels
    )
    close([context, masked], [terms[:, 100:].sum(), alone])
    assert masked > 1.1 * context


def counts_have_the_gradient_of_each_step():
    """Compare the train with a single step that holds the counts or rates."""
    counts, steps = spikes.sum(-1)[..., None], spikes.shape[-1]
    root = sx.CrossEntropy(time_axis=-1, readout="sqrt_count")
    rate, half = (
        sx.SpikeRate(0.15, 0.05, time_axis=-1, reduction="sum"),
        sx.SpikeMax(pseudo_count=0.5 / steps, time_axis=-1, reduction="sum"),
    )
    for loss, short, by in (
        (root, root, 1),
        (rate, rate, steps),
        (sx.SpikeMax(time_axis=-1, reduction="sum"), half, steps),
    ):
        value, gradient = sx.value_and_grad(loss)(spikes, labels)
        same, signal = sx.value_and_grad(short)(counts / by, labels)
        close(same, value, rtol=1e-12)
        close(
            np.broadcast_to(signal / by, spikes.shape),
            gradient,
            rtol=1e-9,
            atol=1e-15,
        )


def sparsity_has_one_gradient_above_its_limit():
    """Check the formula of the gradient, and compute the loss from two halves."""
    _, gradient = sx.value_and_grad(
        sx.SparsityEnforcer(max_rate=0.02, time_axis=-1)
    )(spikes)
    close(gradient, np.full(spikes.shape, 2 * (spikes.mean() - 0.02) / spikes.size))
    bursts = np.zeros((1, 1, 100))
    bursts[..., :10] = 1  # 10 events in 100 steps
    assert (
        sx.SparsityEnforcer(max_rate=0.1, time_axis=-1)(bursts) == 0
    )  # a rate of 0.1
    assert (
        sx.SparsityEnforcer(max_rate=0.1, time_axis=-1)(bursts[..., :50]) > 0
    )  # a rate of 0.2


def step_loss_is_cross_entropy():
    """Compare the value and the gradient with the cross entropy of PyTorch."""
    potential = rng.normal(size=(16, 10))
    leaf, other = (torch.tensor(potential, requires_grad=True) for _ in range(2))
    value = sx.CrossEntropy(time_axis=-1, readout="last")(leaf[..., None], labels)
    entropy = torch.nn.functional.cross_entropy(other, torch.tensor(labels))
    value.backward(), entropy.backward()
    torch.testing.assert_close((value, leaf.grad), (entropy, other.grad))


def main():
    """Check all identities."""
    segments_add_up()
    zeros_before_a_train_are_its_context()
    masked_context_is_none()
    counts_have_the_gradient_of_each_step()
    sparsity_has_one_gradient_above_its_limit()
    step_loss_is_cross_entropy()


if __name__ == "__main__":
    main()
