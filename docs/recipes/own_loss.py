"""Losses of your own, for class indices; docs/contributing/adding-a-loss.md shows them."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

import spikeloss_xp as sx
from spikeloss_xp import _checks
from spikeloss_xp.losses import RateLoss


def focal(xp, log_p, gamma):
    """Return ``-(1 - p)**gamma * log(p)``, and its derivative with respect to ``log(p)``."""
    rest = -xp.expm1(log_p)  # 1 - p, with all its digits
    derivative = rest ** (gamma - 1) * (gamma * (1 - rest) * log_p - rest)
    return -(rest**gamma) * log_p, derivative


@dataclass(frozen=True)
class FocalMax(RateLoss):
    """Focal loss of the label, with class probabilities by the softmax: one term for each sample.

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
        terms, derivative = focal(xp, own - highest - xp.log(total), self.gamma)

        def pullback(cotangent):
            one_hot = xp.astype(label, weight.dtype)
            return cotangent * derivative * (one_hot - weight / total)

        return terms, pullback


@dataclass(frozen=True)
class FocalMoid(FocalMax):
    """Focal loss of each class, by a sigmoid of its reading: one term for each class."""

    theta: float = 0.5

    _classes_compete: ClassVar[bool] = False

    def __post_init__(self):
        super().__post_init__()
        self._check(theta=_checks.number)

    def _criterion(self, adapter, reading, labels):
        xp, margin = adapter.xp, reading.u - self.theta
        sign = xp.where(labels.one_hot(adapter, reading), xp.ones_like(margin), -1.0)
        log_p = -xp.logaddexp(adapter.scalar(margin, 0.0), -sign * margin)
        terms, derivative = focal(xp, log_p, self.gamma)
        rest = -xp.expm1(log_p)
        return terms, lambda cotangent: cotangent * derivative * sign * rest


def check():
    """Compare with a value worked out by hand, with central differences, and on all libraries."""
    spikes = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 1]]], dtype=np.float64)
    p = 1 / (1 + math.exp(-1))  # the counts are 3 and 2
    np.testing.assert_allclose(FocalMax()(spikes, [0]), -((1 - p) ** 2) * math.log(p))

    terms = FocalMoid(reduction="none")
    cotangent = np.asarray([[0.7, -1.3]])  # not all ones
    _, gradient = sx.value_and_grad(terms)(spikes, [0], cotangent=cotangent)
    step = 1e-6 * np.eye(spikes.size).reshape(-1, *spikes.shape)
    slope = [
        np.sum(cotangent * (terms(spikes + h, [0]) - terms(spikes - h, [0]))) / 2e-6 for h in step
    ]
    np.testing.assert_allclose(gradient.ravel(), slope, rtol=1e-7)

    for train in (np.zeros((2, 3, 50)), np.ones((2, 3, 50))):  # silent, and saturated
        for dtype in (np.float32, np.float64):
            sx.testing.assert_consistent(FocalMax(moving_window=5), train.astype(dtype), [0, 2])


def check_second_derivative():
    """Compare the second derivative with differences of the first, in PyTorch."""
    import torch

    train = torch.rand((1, 2, 4), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: FocalMax()(x, [0]), train)
    assert torch.autograd.gradgradcheck(lambda x: FocalMax()(x, [0]), train)
