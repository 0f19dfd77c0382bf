"""A batch and a model to split over processes. It imports no framework: that is for its users."""

from dataclasses import dataclass
from typing import Any

import numpy as np

import spikeloss_xp as sx
from spikeloss_xp.losses import ClassLoss

PARTS = (slice(0, 5), slice(5, 8))
"""The samples of each of two processes: not as many in one as in the other."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A loss and the NumPy arrays that it is called with, with time as the last axis."""

    loss: Any
    spikes: np.ndarray
    target: Any
    options: dict[str, np.ndarray]

    def part(self, samples: slice) -> "Batch":
        """Return some samples of the batch; class weights belong to all."""
        target = None if self.target is None else self.target[samples]
        options = {k: x if k == "weight" else x[samples] for k, x in self.options.items()}
        return Batch(self.loss, self.spikes[samples], target, options)


def bits(batch: Batch, asarray: Any) -> list[bytes]:
    """Return the value and the gradient as bytes. Those of tensors are from a backward pass."""
    spikes, options = asarray(batch.spikes), {k: asarray(x) for k, x in batch.options.items()}
    target = () if batch.target is None else (asarray(batch.target),)
    if isinstance(spikes, np.ndarray):
        results = sx.value_and_grad(batch.loss)(spikes, *target, **options)
    else:
        value = batch.loss(spikes.requires_grad_(), *target, **options)
        value.backward()
        results = value.detach(), spikes.grad
    return [np.asarray(x).tobytes() for x in results]


def mixing(neurons: int) -> np.ndarray:
    """Return the matrix of the model: positive, and its outputs are means, so none is above 1."""
    matrix = np.random.default_rng(5).uniform(0.05, 0.3, size=(neurons, neurons)) + np.eye(neurons)
    return matrix / matrix.sum(axis=1, keepdims=True)


def mixed(matrix: Any, spikes: Any) -> Any:
    """Return the output of the model, given spikes ``[batch, neuron, time]``."""
    return matrix @ spikes


@dataclass(frozen=True)
class Count(ClassLoss):
    """A loss with a readout of its own: the sum of the numbers of spikes."""

    def read(self, trains):
        steps = trains.time.length(trains.values)
        u = trains.time.sum(trains.values)
        return trains.reading(u), lambda cotangent: trains.time.spread(cotangent, steps)

    def criterion(self, reading, labels):
        return reading.u, lambda cotangent: cotangent


@dataclass(frozen=True)
class SquaredCount(Count):
    """The squared distance of the numbers of spikes from 3 for the label, and 0 for the others."""

    def criterion(self, reading, labels):
        missing = 3 * reading.xp.astype(labels.one_hot(reading), reading.u.dtype) - reading.u
        return missing**2, lambda cotangent: -2 * cotangent * missing
