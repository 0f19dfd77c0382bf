"""The data that the networks of measure.py learn, made by this file or by packages."""

import functools

import numpy as np
import torch

Part = tuple[torch.Tensor, torch.Tensor]  # spikes or signals [time, sample, input], and labels


def digits(steps: int) -> tuple[Part, Part]:
    """Return the digits of scikit-learn as spikes: at each step a pixel fires by chance.

    The probability is its grey level, from 0 to 1. The last 360 of 1797 are the test.
    """
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    chance = np.random.default_rng(0).random((steps, *grey.shape))
    return parts(chance < grey / 16, labels, 1437)


def randman() -> tuple[Part, Part]:
    """Return spike times on smooth random manifolds, one a class, as Zenke and Vogels made them.

    A unit fires once, at a time that is a smooth function of two numbers of the sample. The
    function is a product of two sums of eight sines, whose amplitudes fall with the square of the
    frequency. A fifth of the samples is the test.
    """
    steps, classes, units, samples = 100, 10, 20, 160
    random, order = np.random.default_rng(0), np.arange(8)
    times = np.ones((classes, samples, units))
    for of_class in times:
        for point in random.random((2, samples, 1, 1)):
            amplitude, frequency, phase = random.random((3, units, 8))
            waves = np.sin(2 * np.pi * (order * frequency * point + phase))
            of_class *= (amplitude / (order + 1) ** 2 * waves).sum(-1)
    times = times.reshape(-1, units)
    times = (times - times.min(0)) / (times.max(0) - times.min(0))
    step = np.minimum((steps * times).astype(int), steps - 1)
    spikes = 3 * (np.arange(steps)[:, None, None] == step)  # there are few, so each is large
    mixed = random.permutation(len(times))
    return parts(spikes[:, mixed], mixed // samples, len(times) * 4 // 5)


def mnist1d(window: int | None) -> tuple[Part, Part]:
    """Return signals of 40 steps, a window of them at each step, or as an image of 20 steps."""
    from mnist1d.data import get_dataset_args, make_dataset

    made = make_dataset(get_dataset_args())
    signals = np.concatenate([made["x"], made["x_test"]])
    if window is None:
        signals = np.broadcast_to(signals, (20, *signals.shape))
    else:
        padded = np.pad(signals, ((0, 0), (window - 1, 0)))
        signals = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1).swapaxes(0, 1)
    return parts(signals, np.concatenate([made["y"], made["y_test"]]), len(made["x"]))


def parts(inputs: np.ndarray, labels: np.ndarray, training: int) -> tuple[Part, Part]:
    """Return the training part and the test part."""
    x, y = torch.tensor(inputs.astype(np.float32)), torch.tensor(labels.astype(np.int64))
    return (x[:, :training], y[:training]), (x[:, training:], y[training:])


@functools.cache
def load(name: str) -> tuple[Part, Part]:
    """Return data by the name that measure.py has for them."""
    kind, _, rest = name.partition(" ")
    if kind == "digits":
        return digits(int(rest))
    return randman() if kind == "randman" else mnist1d(None if rest else 10)
