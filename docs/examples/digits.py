"""Handwritten digits as spikes, and what the network is to make of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

import spikeloss_xp as sx

CLASSES = 10
STEPS = 32


@dataclass(frozen=True)
class Digits:
    """Images ``[sample, pixel]`` with values from 0 to 1, and labels, for training and testing."""

    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def load(cls):
        """Return scikit-learn's handwritten digits of 8 by 8 pixels, a fifth kept for the test."""
        pixels, labels = load_digits(return_X_y=True)
        parts = train_test_split(
            pixels / 16, labels, test_size=0.2, random_state=0, stratify=labels
        )
        return cls(*parts)

    def linear_accuracy(self):
        """Return the share of the test that a linear classifier of the pixels gets right."""
        model = LogisticRegression(max_iter=1000).fit(self.train, self.train_labels)
        return model.score(self.test, self.test_labels)


def encode(pixels):
    """Return spikes ``[time, sample, pixel]``, evenly spaced, at the rate that a pixel is bright.

    By step t a pixel of brightness v has fired floor(t v) times. There is no chance in it.
    """
    fired = np.floor(np.arange(STEPS + 1)[:, None, None] * pixels)
    return np.diff(fired, axis=0)


def patterns():
    """Return the spikes wanted for each class, ``[time, class, neuron]``.

    The neuron of the class fires every four steps and the next neuron every eight.
    """
    wanted = np.zeros((STEPS, CLASSES, CLASSES))
    for label in range(CLASSES):
        wanted[3::4, label, label] = 1
        wanted[7::8, label, (label + 1) % CLASSES] = 1
    return wanted


@dataclass(frozen=True)
class Task:
    """A loss, and the step size of the gradient descent on it."""

    loss: sx.losses.Loss
    learning_rate: float

    def target(self, labels) -> Any:
        """Return what the loss compares spikes with: here the labels themselves."""
        return labels

    def classify(self, spikes):
        """Return the class that output spikes, ``[time, sample, neuron]``, stand for."""
        return sx.Rate(time_axis=0)(spikes)


class PatternTask(Task):
    """A task with a spike pattern for each class."""

    def target(self, labels):
        """Return the patterns of the labels, ``[time, sample, neuron]``."""
        return patterns()[:, labels]

    def classify(self, spikes):
        """Return the class whose pattern is nearest, by the distance that the loss is made of."""
        distance = sx.SpikeTime(reduction="none", time_axis=0)
        samples = spikes.shape[1]
        to_each = [
            distance(spikes, self.target([label] * samples)).sum((0, 2)) for label in range(CLASSES)
        ]
        return np.argmin(to_each, axis=0)


# Time first, as the network has it, and the mean, so that a step size does not depend on the batch.
TASKS = {
    "SpikeRate": Task(sx.SpikeRate(0.5, 0.02, reduction="mean", time_axis=0), 2.0),
    "SpikeMax": Task(sx.SpikeMax(reduction="mean", time_axis=0), 0.002),
    "SpikeTime": PatternTask(sx.SpikeTime(reduction="mean", time_axis=0), 0.1),
}
