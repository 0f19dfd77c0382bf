"""A loss of your own, made of two functions; docs/contributing/adding-a-loss.md shows it."""

import functools

import numpy as np

import spikeloss_xp as sx


def rate(xp, spikes, mask):
    """Return the mean over the steps that count."""
    if mask is None:
        mask = xp.ones_like(spikes[:, :1, :], dtype=xp.bool)
    number = xp.sum(xp.astype(mask, spikes.dtype), axis=-1)
    number = xp.where(number > 0, number, 1.0)
    mean = xp.sum(spikes, axis=-1) / number
    return mean, lambda cotangent: xp.broadcast_to((cotangent / number)[..., None], spikes.shape)


def pseudo_huber(xp, u, label, scale):
    """Return ``scale² (sqrt(1 + (d / scale)²) - 1)``, d from 0.5 for the label, 0 for others."""
    d = u - xp.where(label, xp.full_like(u, 0.5), 0.0)
    root = xp.sqrt(1 + (d / scale) ** 2)
    # d² / (1 + root) is equal, and keeps its digits near 0.
    return d * d / (1 + root), lambda cotangent: cotangent * d / root


loss = sx.losses.Composed(rate, functools.partial(pseudo_huber, scale=1 / 3), reduction="mean")
spikes = np.random.default_rng(0).random((4, 3, 50)) < 0.2
sx.testing.assert_consistent(loss, spikes, [0, 2, 1, 2], lengths=[50, 50, 12, 0], weight=[1, 2, 3])
