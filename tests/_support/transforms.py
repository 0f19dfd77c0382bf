"""The losses and arrays that the transforms of PyTorch, JAX and MLX are tested on, of NumPy."""

import functools
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import Call, take_samples, with_everything
from _support.cases import close
from _support.contract import FORMS

BATCH, CLASSES, STEPS = 4, 3, 30
LABELS = np.asarray([0, 2, 1, 2])
MULTI_HOT = np.asarray([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])
PROBABILITIES = np.asarray([[0.5, 0.25, 0.25], [0, 0, 1], [0, 0, 0], [1, 1, 0.5]])


def random_spikes(steps: int = STEPS) -> np.ndarray:
    """Return random spikes with a silent neuron, a saturated one and a silent labelled one."""
    spikes = np.random.default_rng(0).random((BATCH, CLASSES, steps)) < 0.2
    spikes[0, 1], spikes[0, 2], spikes[1, 2] = False, True, False
    return spikes.astype(float)


SPIKES = random_spikes()
DESIRED = np.roll(SPIKES, 1, axis=-1)
TANGENT = np.random.default_rng(1).normal(size=SPIKES.shape)
TAPS = (0.0, 1.0, 0.75, -0.25, 0.125)
_entropy = functools.partial(sx.CrossEntropy, time_axis=-1, reduction="sum")
_latency = functools.partial(sx.SpikeLatency, time_axis=-1, reduction="sum")
_squared = sx.SquaredError(time_axis=-1, moving_window=1, reduction="sum")

LOSSES = {  # every filter, readout and criterion
    "SpikeTime": (sx.SpikeTime(time_constant=4.5, time_axis=-1, reduction="sum"), DESIRED),
    "SpikeTime, order 2": (
        sx.SpikeTime(time_constant=3, length=20, filter_order=2, time_axis=-1, reduction="sum"),
        DESIRED,
    ),
    "SpikeTime, taps": (sx.SpikeTime(kernel=TAPS, time_axis=-1, reduction="sum"), DESIRED),
    "SpikeRate, window": (
        sx.SpikeRate(0.2, 0.03, moving_window=7, time_axis=-1, reduction="sum"),
        LABELS,
    ),
    "SpikeMax": (sx.SpikeMax(time_axis=-1, reduction="sum"), LABELS),
    "SpikeMax, window": (sx.SpikeMax(moving_window=7, time_axis=-1, reduction="sum"), LABELS),
    "CrossEntropy, root": (_entropy(readout="sqrt_count", rates=(0.5, 0.02)), LABELS),
    "CrossEntropy, each step": (_entropy(moving_window=1, label_smoothing=0.1), PROBABILITIES),
    "CrossEntropy, softmax sum": (_entropy(readout="softmax_sum"), LABELS),
    "CrossEntropy, latency": (_entropy(readout="latency", temperature=3), LABELS),
    "SquaredError, each step": (_squared, DESIRED),
    "SpikeLatency": (_latency(true_time=2, tolerance=0.75), LABELS),
    "SpikeMoid, window": (
        sx.SpikeMoid(
            moving_window=7,
            pos_weight=(0.5, 2.0, 8.0),
            alpha=1,
            theta=0,
            time_axis=-1,
            reduction="sum",
        ),
        MULTI_HOT,
    ),
    "PoissonNLL": (sx.PoissonNLL(time_axis=-1, constant=True), DESIRED),
    "NegativeBinomialNLL": (
        sx.NegativeBinomialNLL(time_axis=-1, dispersion=(0.25, 1.0, 0.0), constant=True),
        DESIRED,
    ),
    "BernoulliNLL": (sx.BernoulliNLL(time_axis=-1), DESIRED),
    "BernoulliNLL, hazard": (sx.BernoulliNLL(time_axis=-1, link="hazard"), DESIRED),
    "SparsityEnforcer": (sx.SparsityEnforcer(time_axis=-1), None),
}
QUICK = ("SpikeTime", "SpikeRate, window", "SpikeMax", "SparsityEnforcer")
"""One loss for each path of the code: a filter, a window, a term of all classes, and the loss whose
terms are not those of samples. The quick run has those where a transform takes long."""
slow = pytest.mark.slow


def every(name: str, values: Iterable[str], quick: Collection[str]) -> pytest.MarkDecorator:
    """Run a test with each of these values, of which some are in the quick run."""
    cases = [x if x in quick else pytest.param(x, marks=slow) for x in values]
    return pytest.mark.parametrize(name, cases)


class Case:
    """A loss with its arrays, which a library makes of NumPy's, and what NumPy computes of them."""

    def __init__(self, name: str, asarray: Callable[[np.ndarray], Any], rtol: float) -> None:
        self.loss, target = LOSSES[name]
        self.rtol = rtol
        arrays = [SPIKES] if target is None else [SPIKES, target]
        evaluate = sx.value_and_grad(self.loss)
        self.value, self.gradient = evaluate(*arrays)
        samples = [evaluate(*(x[i : i + 1] for x in arrays)) for i in range(BATCH)]
        self.values, self.gradients = map(np.stack, zip(*samples, strict=True))
        self.spikes, *self.targets = self.arrays = [asarray(x) for x in arrays]

    def __call__(self, spikes: Any) -> Any:
        return self.loss(spikes, *self.targets)

    def of_sample(self, sample: Any, *target: Any) -> Any:
        return self.loss(sample[None], *(t[None] for t in target))

    def check_value(self, value: Any) -> None:
        close(np.asarray(value), self.value, self.rtol)

    def check(self, gradient: Any) -> None:
        """Compare a gradient with the closed form."""
        close(np.asarray(gradient), self.gradient, self.rtol)

    def check_each(self, values: Any, gradients: Any) -> None:
        """Compare values and gradients of the samples, each by itself, with the closed form."""
        close(np.asarray(values), self.values, self.rtol)
        close(np.asarray(gradients), self.gradients[:, 0], self.rtol)

    def check_jvp(self, derivative: Any) -> None:
        """Compare a derivative along `TANGENT` with the closed form."""
        # The terms of the sum may cancel, so the tolerance scales with the sum of their magnitudes.
        products = self.gradient * TANGENT
        assert abs(derivative - products.sum()) <= self.rtol * abs(products).sum()


def check_symmetric(hessian: Any, rtol: float) -> None:
    """Assert that the Hessian of a loss is finite and symmetric."""
    hessian = np.asarray(hessian)
    hessian = hessian.reshape(math.isqrt(hessian.size), -1)
    assert np.isfinite(hessian).all()
    close(hessian, hessian.T, rtol)


WITH_OPTIONS = (  # forms of the contract
    *("SpikeTime-order2", "SpikeRate-per-class-count", "SpikeMax-window"),
    *("CrossEntropy-groups-cold-sqrt_count", "CrossEntropy-groups-cold-softmax_sum"),
    *("CrossEntropy-probabilities-groups-cold-rate", "CrossEntropy-latency"),
    *("SpikeLatency-times-groups", "SpikeMoid-groups-rate-window"),
)
QUICK_OPTIONS = ("CrossEntropy-probabilities-groups-cold-rate",)


def call_with_options(form: str) -> Call:
    """Return a call with masks, lengths and weights, of twelve samples."""
    return take_samples(with_everything(FORMS[form]), [*range(5), *range(5), 0, 2])
