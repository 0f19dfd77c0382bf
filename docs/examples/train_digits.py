"""One training run, three frameworks, one curve.

A small spiking network learns handwritten digits three times from the same weights, in NumPy, in
PyTorch and in JAX, with the same loss object.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from digits import CLASSES, TASKS, Digits, encode
from network import FRAMEWORKS, initial_weights
from threadpoolctl import threadpool_limits

BATCH = 32
HIDDEN = 100
MOMENTUM = 0.9
SHORT_EPOCHS = 1
TOLERANCE = 1e-12
"""By how much the curves of a short run in float64 may differ, as a fraction of the loss.

Sums in another order differ by a few roundings, of 2e-16 each, and were seen to stay below 1e-14.
An output spike that is there in one framework and not in another changes it by 1e-5 or more.
"""


@dataclass(frozen=True)
class Run:
    """What came of training in one framework, in NumPy arrays."""

    losses: np.ndarray
    """The loss of each step, ``[epoch, step]``."""
    before: np.ndarray
    """Output spikes for the test digits, ``[time, sample, neuron]``, with the initial weights."""
    after: np.ndarray
    accuracy: float
    seconds: float

    def differences(self, other):
        """Return the relative differences of all losses, in order, from those of another run."""
        return np.abs(self.losses - other.losses).ravel() / other.losses.ravel()

    def parted(self, other, dtype):
        """Return the first step whose loss differs by more than roundings, or None."""
        apart = self.differences(other) > 1000 * np.finfo(dtype).eps
        return int(np.argmax(apart)) + 1 if np.any(apart) else None

    def spikes_apart(self, other):
        """Return how many output spikes for the test digits are not those of another run."""
        return int(np.sum(self.after != other.after))


def batches(digits, task, epochs, dtype):
    """Yield encoded images and targets, in the same order for everyone."""
    rng = np.random.default_rng(0)
    spikes = encode(digits.train).astype(dtype)
    for _ in range(epochs):
        order = rng.permutation(len(digits.train))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            yield spikes[:, chosen], task.target(digits.train_labels[chosen])


def train(framework, task, digits, epochs, dtype="float64", report=lambda step, loss: None):
    """Train by gradient descent with momentum, in one of the frameworks."""
    with framework.scope(dtype):
        initial = initial_weights(np.random.default_rng(1), digits.train.shape[1], HIDDEN, CLASSES)
        weights = [framework.asarray(w.astype(dtype)) for w in initial]
        velocity = [0 * w for w in weights]
        test = framework.asarray(encode(digits.test).astype(dtype))
        before = np.asarray(framework.fire(weights, test))
        evaluate = framework.value_and_grad(task.loss)

        start = time.perf_counter()
        losses = []
        for x, target in batches(digits, task, epochs, dtype):
            value, gradients = evaluate(weights, framework.asarray(x), target)
            velocity = [MOMENTUM * v + g for v, g in zip(velocity, gradients, strict=True)]
            weights = [w - task.learning_rate * v for w, v in zip(weights, velocity, strict=True)]
            losses.append(float(value))
            report(len(losses), losses[-1])
        seconds = time.perf_counter() - start

        after = np.asarray(framework.fire(weights, test))
    accuracy = np.mean(task.classify(after) == digits.test_labels)
    return Run(np.reshape(losses, (epochs, -1)), before, after, float(accuracy), seconds)


def progress(name):
    """Return a function that shows the loss as training goes on, where somebody can see it."""

    def report(step, loss):
        if step % 10 == 0 and sys.stderr.isatty():
            print(f"\r{name}: step {step}, loss {loss:.4f}   ", end="", file=sys.stderr, flush=True)

    return report


def train_everywhere(name, digits, epochs, dtype):
    """Return the run of each framework for one loss."""
    return {
        library: train(
            framework, TASKS[name], digits, epochs, dtype, progress(f"{name} in {library}")
        )
        for library, framework in FRAMEWORKS.items()
    }


def show(results, digits, dtype):
    """Print the table."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    row = "{:10} {:9} {:>10} {:>9} {:>12} {:>8} {:>12} {:>8}"
    print(f"{dtype}; compared with NumPy:")
    print(row.format("", "", "loss, last", "test", "largest rel.", "parted", "test spikes", ""))
    heads = (
        "loss",
        "framework",
        "epoch",
        "accuracy",
        "difference",
        "at step",
        "that differ",
        "time",
    )
    print(row.format(*heads))
    for name, runs in results.items():
        for library, run in runs.items():
            same = runs["NumPy"]
            values = (
                f"{run.losses[-1].mean():.5f}",
                f"{run.accuracy:.1%}",
                f"{run.differences(same).max():.1e}",
                run.parted(same, dtype) or "never",
                f"{run.spikes_apart(same)}",
                f"{run.seconds:.1f} s",
            )
            print(row.format(name, library, *values))
    print(f"A linear classifier of the same pixels: {digits.linear_accuracy():.1%}")


def check(results):
    """Raise unless the curves coincide and fall."""
    for name, runs in results.items():
        for library, run in runs.items():
            difference = run.differences(runs["NumPy"]).max()
            if not difference < TOLERANCE:
                raise SystemExit(f"{name}: {library} differs from NumPy by {difference:.1e}")
            if not run.losses[-1, -10:].mean() < 0.9 * run.losses[0, 0]:
                raise SystemExit(f"{name}: the loss does not fall in {library}")


def main(arguments=None):
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--short", action="store_true", help="one epoch, and check the outcome")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64")
    parser.add_argument("--loss", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--figure", type=Path, help="where to draw the curves and the spikes")
    options = parser.parse_args(arguments)
    if options.short and options.dtype != "float64":
        parser.error("--short checks that the curves coincide, which they do in float64")

    digits = Digits.load()
    epochs = SHORT_EPOCHS if options.short else options.epochs
    with threadpool_limits(1):  # the matrices are small: more threads would wait for one another
        results = {n: train_everywhere(n, digits, epochs, options.dtype) for n in options.loss}
    show(results, digits, options.dtype)
    if options.figure:
        from figure import draw

        draw(results, digits, options.figure)
    if options.short:
        check(results)
        print(f"The curves coincide to {TOLERANCE:.0e}.")


if __name__ == "__main__":
    main()
