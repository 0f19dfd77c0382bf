"""Four custom losses with tests: see docs/contributing/adding-a-loss.md."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

import spikeloss_xp as sx
from spikeloss_xp.losses import ClassLoss, TrainLoss


@dataclass(frozen=True)
class QuantileError(sx.SquaredError):
    """Pinball loss, which trains a reading towards a quantile of the target numbers.

    Parameters
    ----------
    quantile : float, default 0.5
        The fraction of target numbers that should be below the reading; from 0 to 1.
    time_axis, readout, moving_window, reduction, num_classes
        As for `SquaredError`.
    """

    quantile: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.quantile <= 1:
            raise ValueError(
                f"quantile must be between 0 and 1; got {self.quantile}"
            )

    def criterion(self, reading, labels):
        """Return one term for each reading, and the pullback."""
        xp, missing = reading.xp, labels.numbers - reading.u
        share = xp.full_like(missing, self.quantile)
        slope = xp.where(missing > 0, share, share - 1)
        return slope * missing, lambda cotangent: -slope * cotangent


@dataclass(frozen=True)
class FocalLoss(ClassLoss):
    """Softmax focal loss, in which samples that are surely right hardly count.

    Parameters
    ----------
    gamma : float, default 2
        The exponent of the focal factor; at least 1.
    time_axis, readout, moving_window, reduction, num_classes, ignore_index
        As for `CrossEntropy`.
    """

    gamma: float = 2.0
    _: KW_ONLY
    readout: str = "count"

    classes_compete: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        if not self.gamma >= 1:
            raise ValueError(f"gamma must be at least 1; got {self.gamma}")

    def criterion(self, reading, labels):
        """Return one term for each sample, and the pullback."""
        xp, logit, classes = reading.xp, reading.u, reading.classes
        if reading.class_mask is not None:  # masked classes have probability 0
            logit = xp.where(reading.class_mask, logit, -math.inf)
        highest = classes.max(logit)
        weight = xp.exp(logit - highest)
        total = classes.sum(weight)
        label = labels.one_hot(reading)
        own = classes.sum(xp.where(label, logit, 0.0))
        log_p = own - highest - xp.log(total)
        rest = -xp.expm1(log_p)  # 1 - p, with all its digits
        slope = rest ** (self.gamma - 1) * (self.gamma * (1 - rest) * log_p - rest)

        def pullback(cotangent):
            one_hot = xp.astype(label, weight.dtype)
            return cotangent * slope * (one_hot - weight / total)

        return -(rest**self.gamma) * log_p, pullback


@dataclass(frozen=True)
class LogCoshTrains(TrainLoss):
    """Log-cosh error of each step, which is smooth and robust to outliers.

    Parameters
    ----------
    time_axis, reduction
        As for `SpikeTime`.
    """

    def criterion(self, reading, labels):
        """Return one term for each neuron at each step, and the pullback."""
        xp, error = reading.xp, reading.u - labels.numbers
        size = xp.abs(error)
        terms = size + xp.log1p(xp.exp(-2 * size)) - math.log(2)  # without overflow
        return terms, lambda cotangent: cotangent * xp.tanh(error)


@dataclass(frozen=True)
class LateSquaredError(sx.SquaredError):
    """Squared error of a spike count in which later spikes have larger weights."""

    def read(self, trains):
        """Return the weighted spike count of each neuron, and the pullback."""
        step = trains.time.positions(trains.values)
        number = trains.time.length(trains.values)
        weight = trains.xp.astype(step, trains.values.dtype) / number
        u = trains.time.sum(weight * trains.values)
        return trains.reading(u), lambda cotangent: cotangent * weight


def check(loss, input, target, **options):
    """Compare the gradient with finite differences, and all libraries with NumPy."""
    import torch

    x = torch.tensor(input, requires_grad=True)
    exact = {"rtol": 1e-5, "atol": 1e-6}
    assert torch.autograd.gradcheck(lambda x: loss(x, target, **options), x, **exact)
    for dtype in (np.float32, np.float64):
        sx.testing.assert_consistent(loss, input.astype(dtype), target, **options)


def test_own_losses():
    """Check each loss with padding, for random spikes, silence and full trains."""
    rng = np.random.default_rng(0)
    spikes, labels = 1.0 * (rng.random((3, 3, 10)) < 0.3), [0, 2, 1]
    options = {"lengths": [10, 7, 0], "weight": [1, 2, 3]}
    for x in (spikes, 0 * spikes, 0 * spikes + 1):
        check(QuantileError(0.9, time_axis=-1), x, rng.random((3, 3)), **options)
        check(LateSquaredError(time_axis=-1), x, rng.random((3, 3)), **options)
        check(FocalLoss(time_axis=-1, moving_window=5), x, labels, **options)
        check(LogCoshTrains(time_axis=-1), x - 2, spikes, **options)
        check(LogCoshTrains(time_axis=-1), x, spikes, **options)


def test_values():
    """Compare with values computed by hand, for counts of 3 and 1 in four steps."""
    spikes = np.asarray([[[1.0, 0, 1, 1], [0, 0, 1, 0]]])
    p = 1 / (1 + math.exp(1 - 3))
    for loss, target, value in (
        (
            QuantileError(0.9, time_axis=-1),
            [[0.5, 0.5]],
            (0.1 * 0.25 + 0.9 * 0.25) / 2,
        ),
        # the readings are 5/4 and 2/4
        (LateSquaredError(time_axis=-1), [[1.0, 0.0]], (0.25**2 + 0.5**2) / 2),
        (FocalLoss(time_axis=-1), [0], -((1 - p) ** 2) * math.log(p)),
        (LogCoshTrains(time_axis=-1), 0 * spikes, 4 * math.log(math.cosh(1)) / 8),
        (LogCoshTrains(time_axis=-1), -999 * spikes, 4 * (1000 - math.log(2)) / 8),
    ):
        np.testing.assert_allclose(loss(spikes, target), value)


def test_second_derivative():
    """Compare second derivatives with finite differences, in PyTorch."""
    import torch

    x = torch.rand((2, 3, 4), dtype=torch.float64, requires_grad=True)
    focal = FocalLoss(time_axis=-1)
    assert torch.autograd.gradgradcheck(lambda x: focal(x, [0, 2]), x)
    target = (x > 0.5).double()
    log_cosh = LogCoshTrains(time_axis=-1)
    assert torch.autograd.gradgradcheck(lambda x: log_cosh(x, target), x)
