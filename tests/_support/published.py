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


def mix_loss(criterion):
    """Return the loss of Brain-Cog. Its source also clips the rates, but drops the result."""

    def loss(rates, labels):
        one_hot = F.one_hot(labels, rates.shape[1])
        return 0.1 * criterion(rates, labels) + ((rates - one_hot) ** 2).mean()

    return loss


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


SYNAPSE = 0.8 ** torch.arange(100, dtype=torch.float64) / 5


def spike_kernel_of_tssl_bp(x, desired, config):
    """Return the loss of TSSL-BP, of filtered spikes."""
    return 0.5 * ((x - causal_filter(desired, SYNAPSE)) ** 2).sum()


def reverse_gradient(x):
    """Return `x`, and reverse the sign of its gradient, like ``grad_sign`` of Zhu et al."""
    return 2 * x.detach() - x


def spike_kernel_of_zhu(x, desired):
    """Return the loss of Zhu et al. for trains ``[time, batch, class]``."""
    error = reverse_gradient(x) - desired
    return 0.5 * (causal_filter(error.movedim(0, -1), SYNAPSE) ** 2).sum()


def filtered(x):
    """Filter trains with an exponential that decays in the steps after them, and flatten them."""
    taps = torch.exp(-torch.arange(200, dtype=torch.float64) / 5)
    return causal_filter(F.pad(x, (0, len(taps))), taps).flatten(1)


NAMES = {
    "TET_loss": tet_loss,
    "MixLoss": mix_loss,
    "error": SimpleNamespace(spikeTime=spike_time),
    "k": ALPHA_KERNEL,
    "h": SYNAPSE,
    "config": None,
    "loss_f": SimpleNamespace(
        SpikeLoss=lambda _: SimpleNamespace(spike_kernel=spike_kernel_of_tssl_bp)
    ),
    "SpikeLoss": lambda: SimpleNamespace(spike_kernel=spike_kernel_of_zhu),
    "grad_sign": SimpleNamespace(apply=reverse_gradient),
    "f": filtered,
}
