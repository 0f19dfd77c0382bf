"""Measure what `diagnose` finds in networks that learn and in networks that do not.

``python tools/training/verdict.py tuning`` trains the networks on which the thresholds of the
findings are chosen, and ``python tools/training/verdict.py reported`` trains other networks, on
which the verdict is measured. The results of each network are stored in build/, so that an
interrupted run can be continued. A network takes about three seconds. The required packages are
those of measure.py.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import random_networks as networks
import torch
import training_data as data
from random_networks import Batch, Settings

import spikeloss_xp as sx

ROOT = Path(__file__).resolve().parents[2]
DATA, TRAINING = "digits 15", 640  # steps, and training samples
EPOCHS, BATCH, INSPECTED = 6, 64, 128
FAILS, LEARNS = 0.35, 0.7  # the accuracy below which a network fails, and above which it learns
NUMBERS = {
    "tuning": {"plain": 200, "snnTorch": 100, "SpikingJelly": 100, "JAX": 100},
    "reported": {"plain": 200, "snnTorch": 120, "SpikingJelly": 120, "JAX": 110},
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
    started, settings = time.perf_counter(), networks.draw(*key)
    result = trained(settings)
    seconds = round(time.perf_counter() - started, 2)
    return key._asdict() | {"settings": settings._asdict()} | result | {"seconds": seconds}


def trained(settings: Settings, name: str = DATA) -> dict[str, Any]:
    """Return the test accuracy, and what a batch shows before training and after each epoch."""
    (x, label), (test, test_label) = data.load(name)
    x, label = x[:, :TRAINING], label[:TRAINING]
    network, loss = networks.build(settings, x.shape[2]), loss_of(settings)

    def look() -> dict[str, Any]:
        first = x[:, :INSPECTED], label[:INSPECTED]
        return observed(loss, network.inspect(loss, *first), first[1])

    looks = [look()]
    for _ in epochs(network, loss, x, label, EPOCHS, BATCH):
        looks.append(look())
    accuracy = float(loss.accuracy(network.output(test), test_label.numpy()))
    return {"accuracy": round(accuracy, 4), "looks": looks}


def epochs(
    network: Any,
    loss: sx.CrossEntropy,
    x: torch.Tensor,
    label: torch.Tensor,
    number: int,
    size: int,
) -> Iterator[None]:
    """Train a network in batches of this size, and yield after each epoch."""
    generator = torch.Generator().manual_seed(network.settings.seed)
    for _ in range(number):
        for chosen in torch.randperm(len(label), generator=generator).split(size):
            network.step(loss, x[:, chosen], label[chosen])
        yield


def observed(loss: sx.CrossEntropy, batch: Batch, label: torch.Tensor) -> dict[str, Any]:
    """Return what the report on a batch shows, and the problems that it names without gradients."""
    label = label if isinstance(batch.output, torch.Tensor) else label.numpy()
    given = loss, batch.output, label
    report = sx.diagnose(*given, hidden=batch.hidden, gradients=batch.gradients)
    return {
        "loss": report.numbers["loss"],
        "layers": [layer._asdict() for layer in report.layers],
        "gradients": [gradient._asdict() for gradient in report.gradients],
        "problems": problems(report),
        "without gradients": problems(sx.diagnose(*given, hidden=batch.hidden)),
    }


def problems(report: Any) -> list[str]:
    """Return the codes of the problems of a report."""
    return [finding.code for finding in report.findings if finding.severity == "problem"]


def one_thread() -> None:
    torch.set_num_threads(1)
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = flags


def record_of(path: Path) -> list[dict[str, Any]]:
    """Return the records of all networks that were trained before."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", choices=NUMBERS)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    kept = ROOT / "build" / f"verdict-{options.stream}.jsonl"
    known = {Key(*(each[field] for field in Key._fields)) for each in record_of(kept)}
    left = [key for key in keys(options.stream) if key not in known]
    with (
        multiprocessing.get_context("spawn").Pool(options.processes, one_thread) as pool,
        kept.open("a", encoding="utf-8") as file,
    ):
        for record in tqdm(pool.imap_unordered(measured, left), total=len(left)):
            print(json.dumps(record), file=file, flush=True)


if __name__ == "__main__":
    main()
