"""The losses and arrays that the transforms of PyTorch and JAX are tested on, as NumPy arrays."""

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.cases import close

BATCH, CLASSES, STEPS = 4, 3, 30
LABELS = np.asarray([0, 2, 1, 2])
IGNORING = np.asarray([0, 2, -100, 2])
MULTI_HOT = np.asarray([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])


def random_spikes(steps: int = STEPS) -> np.ndarray:
    """Return random spikes with a silent neuron, a saturated one and a silent labelled one."""
    spikes = np.random.default_rng(0).random((BATCH, CLASSES, steps)) < 0.2
    spikes[0, 1], spikes[0, 2], spikes[1, 2] = False, True, False
    return spikes.astype(float)


SPIKES = random_spikes()
DESIRED = np.roll(SPIKES, 1, axis=-1)
PROBABILITIES = np.asarray([[0.5, 0.25, 0.25], [0, 0, 1], [0, 0, 0], [1, 1, 0.5]])
TAPS = (0.0, 1.0, 0.75, -0.25, 0.125)
POS_WEIGHT = (0.5, 2.0, 8.0)
_entropy = functools.partial(sx.CrossEntropy, time_axis=-1, reduction="sum")
_latency = functools.partial(sx.SpikeLatency, time_axis=-1, reduction="sum")

LOSSES = {
    "SpikeTime": (sx.SpikeTime(4.5), DESIRED),
    "SpikeTime, order 2": (sx.SpikeTime(3, 20, 2), DESIRED),
    "SpikeTime, order 3": (sx.SpikeTime(3, 20, 3), DESIRED),
    "SpikeTime, taps": (sx.SpikeTime(kernel=TAPS), DESIRED),
    "SpikeRate": (sx.SpikeRate(0.2, 0.03), LABELS),
    "SpikeRate, window": (sx.SpikeRate(0.2, 0.03, 7), LABELS),
    "SpikeMax": (sx.SpikeMax(), LABELS),
    "SpikeMax, window": (sx.SpikeMax(7), LABELS),
    "SpikeMax, softmax": (sx.SpikeMax(mode="softmax"), LABELS),
    "SpikeMax, softmax, window": (sx.SpikeMax(7, "softmax"), LABELS),
    "CrossEntropy": (_entropy(), LABELS),
    "CrossEntropy, root": (_entropy(readout="sqrt_count"), LABELS),
    "CrossEntropy, root, window": (_entropy(readout="sqrt_count", moving_window=7), LABELS),
    "CrossEntropy, probabilities": (_entropy(), PROBABILITIES),
    "CrossEntropy, each step": (_entropy(moving_window=1, label_smoothing=0.1), PROBABILITIES),
    "CrossEntropy, softmax sum": (_entropy(readout="softmax_sum"), LABELS),
    "CrossEntropy, latency": (_entropy(readout="latency", temperature=3), LABELS),
    "SquaredError, each step": (
        sx.SquaredError(time_axis=-1, moving_window=1, reduction="sum"),
        DESIRED,
    ),
    "SpikeLatency": (_latency(true_time=2, tolerance=0.75), LABELS),
    "SpikeLatency, times": (_latency(), 30 * MULTI_HOT),
    "SpikeMoid": (sx.SpikeMoid(alpha=0.2, theta=0.1), MULTI_HOT),
    "SpikeMoid, pos_weight": (sx.SpikeMoid(pos_weight=POS_WEIGHT, theta=0), MULTI_HOT),
    "SpikeMoid, window": (sx.SpikeMoid(7, theta=0), MULTI_HOT),
    "SparsityEnforcer": (sx.SparsityEnforcer(), None),
}
ONE_OF_EACH = (
    *("SpikeTime", "SpikeRate, window", "SpikeMax", "SpikeLatency", "SpikeMoid"),
    *("CrossEntropy, root", "SparsityEnforcer"),
)
EACH_READOUT = (
    *(*ONE_OF_EACH, "SpikeTime, taps", "CrossEntropy, softmax sum", "CrossEntropy, latency"),
    *("SpikeMoid, window", "CrossEntropy, each step"),
)
"""Every readout and criterion once, for what takes long to compile."""
slow = pytest.mark.slow


class Case:
    """A loss with its arrays, which a library makes of NumPy's, and what NumPy computes of them."""

    def __init__(self, name: str, asarray: Callable[[np.ndarray], Any], rtol: float) -> None:
        self.loss, target = LOSSES[name]
        self.rtol = rtol
        arrays = [SPIKES] if target is None else [SPIKES, target]
        self.value, self.gradient = sx.value_and_grad(self.loss)(*arrays)
        self.spikes, *self.targets = self.arrays = [asarray(x) for x in arrays]

    def __call__(self, spikes: Any) -> Any:
        return self.loss(spikes, *self.targets)

    def of_sample(self, sample: Any, *target: Any) -> Any:
        return self.loss(sample[None], *(t[None] for t in target))

    def check(self, gradient: Any) -> None:
        """Compare a gradient with the closed form."""
        close(np.asarray(gradient), self.gradient, self.rtol)

    def check_jvp(self, derivative: Any, tangent: np.ndarray) -> None:
        # The terms of the sum may cancel, so the tolerance scales with the sum of their magnitudes.
        products = self.gradient * tangent
        assert abs(derivative - products.sum()) <= self.rtol * abs(products).sum()


TANGENT = np.random.default_rng(1).normal(size=SPIKES.shape)


def check_symmetric(hessian: Any, rtol: float) -> None:
    """Assert that the Hessian of a loss is finite and symmetric."""
    hessian = np.asarray(hessian).reshape(SPIKES.size, -1)
    assert np.isfinite(hessian).all()
    close(hessian, hessian.T, rtol)


def every(names: Iterable[str], quick: Collection[str]) -> pytest.MarkDecorator:
    """Run a test for each of these losses, of which some are in the quick run."""
    cases = [name if name in quick else pytest.param(name, marks=slow) for name in names]
    return pytest.mark.parametrize("name", cases)


every_loss = every(LOSSES, ONE_OF_EACH)
every_readout = every(EACH_READOUT, ONE_OF_EACH)
every_label_loss = every(
    [name for name, (_, target) in LOSSES.items() if target is LABELS],
    (*ONE_OF_EACH, "CrossEntropy, softmax sum"),
)

# Options of a call: a length for each sample, a mask value for each entry, a weight for each class.
OPTIONS = {
    "lengths": np.asarray([STEPS, 0, 17, 30]),
    "where": np.random.default_rng(2).random(SPIKES.shape) < 0.8,
}
WEIGHT = np.asarray([1.0, 0.5, 0.0])
LOSSES_WITH_OPTIONS = {
    "SpikeTime": (sx.SpikeTime(3, 20, reduction="mean"), DESIRED, None),
    "SpikeTime, taps": (sx.SpikeTime(kernel=TAPS), DESIRED, None),
    "CrossEntropy, softmax sum": (_entropy(readout="softmax_sum"), LABELS, WEIGHT),
    "CrossEntropy, root": (_entropy(readout="sqrt_count", reduction="mean"), IGNORING, WEIGHT),
    "CrossEntropy, probabilities": (
        _entropy(label_smoothing=0.1, reduction="mean"), PROBABILITIES, WEIGHT),
    "CrossEntropy, last": (
        _entropy(readout="last", temperature=2.0, reduction="batchmean"), LABELS, WEIGHT),
    "CrossEntropy, latency": (
        _entropy(readout="latency", label_smoothing=0.1), IGNORING, WEIGHT),
    "SpikeMoid, pos_weight": (sx.SpikeMoid(pos_weight=POS_WEIGHT, theta=0), MULTI_HOT, WEIGHT),
    "SpikeRate": (sx.SpikeRate((0.2, 0.3, 0.4), 0, readout="count"), LABELS, WEIGHT),
    "SpikeMax": (sx.SpikeMax(reduction="mean"), LABELS, WEIGHT),
    "SpikeMax, window": (sx.SpikeMax(7, pseudo_count=1.5), IGNORING, WEIGHT),
    "SpikeLatency": (_latency(num_classes=1), 15 * MULTI_HOT[:, 2:], WEIGHT[:1]),
    "SpikeMoid": (sx.SpikeMoid(num_classes=1, theta=0), MULTI_HOT[:, 2:], WEIGHT[:1]),
}  # fmt: skip
every_loss_with_options = every(  # in the quick run, every readout and every criterion
    LOSSES_WITH_OPTIONS,
    (
        *("SpikeTime", "SpikeRate", "SpikeMax, window", "CrossEntropy, softmax sum"),
        *("CrossEntropy, latency", "CrossEntropy, probabilities", "SpikeLatency", "SpikeMoid"),
    ),
)


def arguments(name: str) -> tuple[Any, np.ndarray, dict[str, np.ndarray]]:
    """Return a loss of `LOSSES_WITH_OPTIONS`, its target, and the options of its call."""
    loss, target, weight = LOSSES_WITH_OPTIONS[name]
    return loss, target, OPTIONS | ({} if weight is None else {"weight": weight})
