"""Losses of published training code, by the names that docs/published-code.md has for them.

Each is written here from the definition in its source, because most of these programs cannot be
installed as packages.
"""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional


def tet_loss(outputs, labels, criterion, means, lamb):
    """Return the loss of temporal efficient training of outputs ``[batch, time, class]``."""
    steps = outputs.unbind(1)
    entropy = sum(criterion(step, labels) for step in steps) / len(steps)
    return (1 - lamb) * entropy + lamb * ((outputs - means) ** 2).mean()


def alpha_kernel(time_constant):
    """Return the taps of slayerPytorch's kernel, which ends where it falls below 0.01."""
    lags = torch.arange(1000, dtype=torch.float64)
    taps = lags / time_constant * torch.exp(1 - lags / time_constant)
    (after,) = torch.nonzero((taps < 0.01) & (lags > time_constant), as_tuple=True)
    return taps[: int(after[0])]


ALPHA_KERNEL = alpha_kernel(10)


def causal_filter(x, taps):
    """Return the trains filtered along their last axis, like ``psp`` in slayerPytorch."""
    rows = F.pad(x.reshape(-1, 1, x.shape[-1]), (len(taps) - 1, 0))
    return F.conv1d(rows, taps.flip(0)[None, None]).reshape(x.shape)


def spike_time(x, desired):
    """Return the loss ``spikeTime`` of slayerPytorch, for a time step of 1."""
    return 0.5 * (causal_filter(x - desired, ALPHA_KERNEL) ** 2).sum()


NAMES = {
    "TET_loss": tet_loss,
    "error": SimpleNamespace(spikeTime=spike_time),
    "k": ALPHA_KERNEL,
}
