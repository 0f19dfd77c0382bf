"""Three losses of your own, with their test; docs/contributing/adding-a-loss.md shows them."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

import spikeloss_xp as sx
from spikeloss_xp import _checks
from spikeloss_xp._input.labels import target_trains
from spikeloss_xp.losses import Loss, RateLoss
from spikeloss_xp.readouts import Reading


@dataclass(frozen=True)
class QuantileError(sx.SquaredError):
    """Pinball loss: trains a reading to a quantile of the target numbers.

    Parameters
    ----------
    time_axis, readout, moving_window, reduction, num_classes
        As for `SquaredError`.
    quantile : float, default 0.5
        The share of target numbers below the reading; from 0 to 1.
    """

    _: KW_ONLY
    quantile: float = 0.5

    def __post_init__(self):
        self._check(quantile=_checks.rate)

    def _criterion(self, adapter, reading, labels):
        xp, missing = adapter.xp, labels.numbers - reading.u
        share = xp.full_like(missing, self.quantile)
        slope = xp.where(missing > 0, share, share - 1)
        return slope * missing, lambda cotangent: -slope * cotangent


@dataclass(frozen=True)
class FocalMax(RateLoss):
    """Focal loss, with class probabilities by the softmax: one term for each sample.

    Parameters
    ----------
    gamma : float, default 2
        The exponent of the focal factor; at least 1.
    moving_window, reduction, readout, num_classes, ignore_index, time_axis
        As for `CrossEntropy`.
    """

    gamma: float = 2.0
    moving_window: int | None = None
    reduction: str = "sum"
    _: KW_ONLY
    readout: str = "count"
    num_classes: int | None = None
    ignore_index: int = -100
    time_axis: int = -1

    _classes_compete: ClassVar[bool] = True

    def __post_init__(self):
        self._check(gamma=_checks.number)
        if self.gamma < 1:
            raise ValueError(f"gamma must be at least 1; got {self.gamma}")

    def _criterion(self, adapter, reading, labels):
        xp, logit, axis = adapter.xp, reading.u, reading.class_axis
        if reading.class_mask is not None:  # some classes are masked: they have probability 0
            logit = xp.where(reading.class_mask, logit, -math.inf)
        highest = xp.max(logit, axis=axis, keepdims=True)
        weight = xp.exp(logit - highest)
        total = xp.sum(weight, axis=axis, keepdims=True)
        label = labels.one_hot(adapter, reading)
        own = xp.sum(xp.where(label, logit, 0.0), axis=axis, keepdims=True)
        log_p = own - highest - xp.log(total)
        rest = -xp.expm1(log_p)  # 1 - p, with all its digits
        slope = rest ** (self.gamma - 1) * (self.gamma * (1 - rest) * log_p - rest)

        def pullback(cotangent):
            one_hot = xp.astype(label, weight.dtype)
            return cotangent * slope * (one_hot - weight / total)

        return -(rest**self.gamma) * log_p, pullback


@dataclass(frozen=True)
class PoissonTrains(Loss):
    """Negative log-likelihood of target trains; the logarithms of their rates are potentials.

    Parameters
    ----------
    reduction, time_axis
        As for `SpikeTime`.
    """

    reduction: str = "mean"
    _: KW_ONLY
    time_axis: int = -1

    _has_trains: ClassVar[bool] = True
    _smallest_rank: ClassVar[int] = 2  # [batch, time]
    memory = 0  # a term reads its own step only

    def __post_init__(self):
        self._check()

    def _labels(self, prepared, target):
        return target_trains(prepared, target)

    def _read(self, prepared, values, mask, labels):
        return Reading(values, mask=mask), lambda cotangent: cotangent

    def _criterion(self, adapter, reading, labels):
        rate = adapter.xp.exp(reading.u)
        return rate - labels * reading.u, lambda cotangent: cotangent * (rate - labels)


def check(loss, input, target, **options):
    """Compare the gradient with central differences, and all array libraries with NumPy."""
    _, gradient = sx.value_and_grad(loss)(input, target, **options)
    steps = 1e-6 * np.eye(input.size).reshape(-1, *input.shape)
    higher, lower = ([loss(input + h, target, **options) for h in s] for s in (steps, -steps))
    slopes = np.subtract(higher, lower) / 2e-6
    np.testing.assert_allclose(gradient.ravel(), slopes, rtol=1e-5, atol=1e-6)
    for dtype in (np.float32, np.float64):
        sx.testing.assert_consistent(loss, input.astype(dtype), target, **options)


def test_own_losses():
    """Check each with padding, where no neuron fires, and where all do."""
    rng = np.random.default_rng(0)
    spikes, labels = 1.0 * (rng.random((3, 3, 10)) < 0.3), [0, 2, 1]
    options = {"lengths": [10, 7, 0]}
    for x in (spikes, 0 * spikes, 0 * spikes + 1):
        check(QuantileError(time_axis=-1, quantile=0.9), x, rng.random((3, 3)), **options)
        check(FocalMax(moving_window=5), x, labels, weight=[1, 2, 3], **options)
        check(PoissonTrains(), x - 2, spikes, **options)
        check(PoissonTrains(), x, spikes, **options)


def test_values():
    """Compare with values worked out by hand: the rates are 0.75 and 0.25, the counts 3 and 1."""
    spikes = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])
    error = QuantileError(time_axis=-1, quantile=0.9)(spikes, [[0.5, 0.5]])
    np.testing.assert_allclose(error, (0.1 * 0.25 + 0.9 * 0.25) / 2)
    p = 1 / (1 + math.exp(1 - 3))
    np.testing.assert_allclose(FocalMax()(spikes, [0]), -((1 - p) ** 2) * math.log(p))
    np.testing.assert_allclose(PoissonTrains()(spikes, 0 * spikes), (4 * math.e + 4) / 8)


def test_second_derivative():
    """Compare it with differences of the gradient, in PyTorch."""
    import torch

    x = torch.rand((2, 3, 4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: FocalMax()(x, [0, 2]), x)
    assert torch.autograd.gradgradcheck(lambda x: PoissonTrains()(x, (x > 0.5).double()), x)
