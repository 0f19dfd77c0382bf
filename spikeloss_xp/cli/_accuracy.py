"""How many labels the readings of a loss predict."""

from dataclasses import replace
from typing import Any, ClassVar, cast

import numpy as np

from spikeloss_xp._input.prepared import PreparedInput
from spikeloss_xp._typing import Array
from spikeloss_xp.classifiers import Classifier, without_masked
from spikeloss_xp.losses import RateLoss
from spikeloss_xp.readouts import Reading


class LossClassifier(Classifier):
    """Predict the class with the largest reading of a loss; for a latency, with the smallest."""

    def __init__(self, loss: RateLoss) -> None:
        self._loss = loss
        self.num_classes, self.time_axis = loss.num_classes, loss.time_axis
        self.ignore_index = ignored_label(loss)

    def _read(
        self, spikes: Array, where: Any, lengths: Any
    ) -> tuple[PreparedInput, Reading, Array]:
        prepared = self._prepare(spikes, where, lengths)
        library, labels = prepared.library, cast(Any, None)  # which no reading needs
        reading, _ = self._loss._read(library, prepared.values, prepared.mask, labels)
        score = -reading.u if self._loss._reads_latency else reading.u
        return prepared, reading, without_masked(library, score, reading)


class StepClassifier(LossClassifier):
    """Predict a class at each step, by the readings in the moving window of a loss."""

    _per_step: ClassVar[bool] = True


def loss_classifier(loss: RateLoss, *, per_step: bool) -> Classifier:
    """Return the classifier of a loss: by its moving window at each step, or over all of time."""
    if per_step:
        return StepClassifier(loss)
    if loss.moving_window is not None:
        loss = replace(cast(Any, loss), moving_window=None)
    return LossClassifier(loss)


def ignored_label(loss: RateLoss) -> int:
    """Return the label that a loss leaves out."""
    return int(getattr(loss, "ignore_index", -100))


def count_right(
    predicted: np.ndarray,
    label: np.ndarray,
    lengths: np.ndarray | None,
    losses: np.ndarray,
    ignored: int,
) -> tuple[int, int]:
    """Return how many labels are predicted, and how many there are.

    `predicted` and `label` are both ``[batch]`` or both ``[batch, time]``. Labels that are ignored
    or masked do not count; those of a sample whose loss is NaN count as not predicted.
    """
    counted = label != ignored
    right = (predicted == label) & _per_label(~np.isnan(losses), label)
    if lengths is not None:
        steps = np.arange(label.shape[1]) if label.ndim > 1 else 0
        counted &= steps < _per_label(lengths.reshape(-1), label)
    return int((right & counted).sum()), int(counted.sum())


def _per_label(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return values of the samples with an axis for the steps of labels that have one."""
    return values[:, None] if label.ndim > 1 else values
