"""Measure what `diagnose` finds in networks that learn and in networks that do not.

``python tools/training/verdict.py tuning`` trains the networks on which the thresholds of the
findings are chosen, and ``python tools/training/verdict.py reported`` trains other networks, on
which the verdict is measured. The results of each network are stored in build/, so that an
interrupted run can be continued. A network takes about three seconds. The required packages are
those of measure.py.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import networks
import runs
import torch
import training_data as data
from networks import Inspected, Settings

import spikeloss_xp as sx

INSPECTED = 128  # samples


class Task(NamedTuple):
    """A data set, and how networks are trained on it.

    A network fails if its accuracy is below `fails`, and learns if it is above `learns`.
    """

    data: str
    samples: int
    epochs: int
    batch: int
    fails: float
    learns: float

    def group(self, accuracy: float) -> str:
        """Return whether a network with this accuracy fails, learns or is between the two."""
        return (
            "fails" if accuracy < self.fails else "learns" if accuracy > self.learns else "between"
        )


TASK = Task("digits 15", 640, 6, 64, fails=0.35, learns=0.7)
TIMING = Task("randman 40", 640, 12, 64, fails=0.35, learns=0.6)
NUMBERS = {
    "tuning": {"plain": 200, "snnTorch": 100, "SpikingJelly": 100, "JAX": 100, "timing": 100},
    "reported": {"plain": 200, "snnTorch": 120, "SpikingJelly": 120, "JAX": 110, "timing": 160},
}


class Key(NamedTuple):
    """The set, stream and index that identify a network."""

    set: str
    stream: str
    index: int


def keys(stream: str) -> list[Key]:
    """Return the keys of all networks, with the sets interleaved in proportion to their size."""
    found = [Key(name, stream, i) for name, size in NUMBERS[stream].items() for i in range(size)]
    return sorted(found, key=lambda key: key.index / NUMBERS[stream][key.set])


def loss_of(settings: Settings) -> sx.CrossEntropy:
    return sx.CrossEntropy(time_axis=0, rates=(0.5, 0.02) if settings.bounds else None)


def measured(key: Key) -> dict[str, Any]:
    """Train a network and return its record."""
    settings, task = networks.draw(*key), TIMING if key.set == "timing" else TASK
    accuracy, looks = trained(settings, task)
    found = {"accuracy": accuracy, "group": task.group(accuracy), "looks": looks}
    return key._asdict() | {"settings": settings._asdict()} | found


def trained(
    settings: Settings,
    task: Task = TASK,
    prepare: Callable[..., None] = lambda network, *batch: None,
    *,
    every_epoch: bool = True,
) -> tuple[float, list[dict[str, Any]]]:
    """Return the test accuracy, and what a batch shows before training and after each epoch.

    `prepare` gets the new network, the loss, and the inputs and labels of that batch. If
    `every_epoch` is false, the batch is observed only before training.
    """
    (x, label), (test, test_label) = data.load(task.data)
    x, label = x[:, : task.samples], label[: task.samples]
    network, loss = networks.build(settings, x.shape[2]), loss_of(settings)
    first = x[:, :INSPECTED], label[:INSPECTED]
    prepare(network, loss, *first)
    looks = [observed(loss, network.inspect(loss, *first), first[1])]
    generator = torch.Generator().manual_seed(settings.seed)
    for _ in range(task.epochs):
        for chosen in torch.randperm(len(label), generator=generator).split(task.batch):
            network.step(loss, x[:, chosen], label[chosen])
        if every_epoch:
            looks.append(observed(loss, network.inspect(loss, *first), first[1]))
    accuracy = float(loss.accuracy(network.output(test), test_label.numpy()))
    return round(accuracy, 4), looks


def observed(loss: sx.CrossEntropy, inspected: Inspected, label: torch.Tensor) -> dict[str, Any]:
    """Return what the report on a batch shows, and the problems that it names without gradients."""
    _, (*hidden, output), gradients = inspected
    given = loss, output, label if isinstance(output, torch.Tensor) else label.numpy()
    report = sx.diagnose(*given, hidden=hidden, gradients=gradients)
    return {
        "loss": report.numbers["loss"],
        "layers": [layer._asdict() for layer in report.layers],
        "gradients": [gradient._asdict() for gradient in report.gradients],
        "problems": problems(report),
        "without gradients": problems(sx.diagnose(*given, hidden=hidden)),
    }


def problems(report: Any) -> list[str]:
    """Return the codes of the problems of a report."""
    return [finding.code for finding in report.findings if finding.severity == "problem"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", choices=NUMBERS)
    parser.add_argument("--sets", nargs="+", choices=networks.SETS, default=list(networks.SETS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen = [key for key in keys(options.stream) if key.set in options.sets]
    runs.run(f"verdict-{options.stream}", measured, chosen, options.processes)


if __name__ == "__main__":
    main()
