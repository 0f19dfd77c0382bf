"""Measure how many failing networks learn after the advice of `diagnose`.

``python tools/training/advice.py`` trains random dense networks on two data sets. The first
networks that fail are trained again after each change that the advice suggests, with the same seed.
The results of each network are stored in build/advice.jsonl, so that an interrupted run can be
continued. The required packages are those of measure.py.
"""

import argparse
import itertools
import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import random_networks as networks
import runs
import verdict
from random_networks import SETS, Settings
from verdict import Task

RATE = 0.002  # the advised learning rate
# The advised surrogate of each cell, and its slope.
WIDE = {
    "plain": ("fast sigmoid", 1.0),
    "JAX": ("fast sigmoid", 1.0),
    "Spyx": ("superspike", 1.0),
    "snnTorch": ("fast_sigmoid", 1.0),
    "SpikingJelly": ("ATan", 2.0),
    "Norse": ("super", 1.0),
}


TASKS = {
    "digits": verdict.TASK,
    "mnist1d": Task("mnist1d image", 2000, 12, 128, fails=0.2, learns=0.45, failing=10),
}


class Key(NamedTuple):
    """The task, set and index that identify a network."""

    task: str
    set: str
    index: int


class Change(NamedTuple):
    """A change of a network: its new settings, and the rate to which its layers are scaled.

    If `learning_rates` is true, the learning rate of each layer is scaled like its weights.
    """

    settings: Settings
    rate: float | None = None
    learning_rates: bool = False


def keys(task: str, name: str) -> Iterator[Key]:
    """Yield the keys of the dense networks of a set, without those that have a detached layer."""
    for index in itertools.count():
        drawn = networks.draw(name, "advice", index)
        if not drawn.convolution and drawn.detached is None:
            yield Key(task, name, index)


def changes(drawn: Settings) -> dict[str, Change]:
    """Return the changes of a failing network, by name; in plain PyTorch, also their parts."""
    surrogate, slope = WIDE[drawn.cell]
    step = drawn._replace(rate=RATE)
    wide = step._replace(surrogate=surrogate, slope=slope)
    weights = wide._replace(scale=1.5)
    threshold = weights._replace(threshold=min(drawn.threshold, 1))
    start = threshold._replace(decay=min(drawn.decay, 0.9))
    usual = wide._replace(scale=1)  # the factors are those of PyTorch's default weights
    advised = {
        "start values": Change(start),
        "scaled": Change(usual, 0.05),
        "scaled with learning rates": Change(usual, 0.05, learning_rates=True),
    }
    if drawn.cell != "plain":
        return advised
    return advised | {
        "learning rate alone": Change(step),
        "surrogate alone": Change(wide._replace(rate=drawn.rate)),
        "weights alone": Change(drawn._replace(scale=1.5)),
        "learning rate and surrogate": Change(wide),
        "and weights": Change(weights),
        "and threshold": Change(threshold),
        "scaled to 10 %": Change(usual, 0.1),
        "scaled, surrogate as drawn": Change(step, 0.05),
    }


def measured(key: Key, known: dict[str, Any]) -> dict[str, Any]:
    """Train a network, and train it again after each change if it fails.

    `known` are the results of the changes that were measured before.
    """
    started, task = time.perf_counter(), TASKS[key.task]
    drawn = networks.draw(key.set, "advice", key.index)
    results = {"as drawn": known.get("as drawn") or trained(Change(drawn), task)}
    if results["as drawn"]["accuracy"] < task.fails:
        for name, change in changes(drawn).items():
            results[name] = known.get(name) or trained(change, task)
    seconds = round(time.perf_counter() - started, 2)
    return key._asdict() | {"settings": drawn._asdict(), "results": results, "seconds": seconds}


def trained(change: Change, task: Task) -> dict[str, Any]:
    """Return the test accuracy of a network, and what its first batch shows before training."""

    def scale(network: Any, x: Any) -> None:
        if change.rate is not None:
            network.scale(x, change.rate, learning_rates=change.learning_rates)

    found = verdict.trained(change.settings, task, scale, every_epoch=False)
    (look,) = found["looks"]
    rates = [layer["rate"] for layer in look["layers"]]
    return {"accuracy": found["accuracy"], "rates": rates, "problems": look["problems"]}


def complete(record: dict[str, Any]) -> bool:
    """Return whether all changes of a network were measured."""
    expected = changes(Settings(**record["settings"])) if fails(record) else {}
    return expected.keys() <= record["results"].keys()


def key_of(record: dict[str, Any]) -> Key:
    return Key(*(record[field] for field in Key._fields))


def fails(record: dict[str, Any]) -> bool:
    return record["results"]["as drawn"]["accuracy"] < TASKS[record["task"]].fails


def main() -> None:
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    known = {key_of(each): each for each in runs.kept("advice")}
    for name, of in itertools.product(options.tasks, options.sets):
        bar = tqdm(total=TASKS[name].failing, desc=f"{name}, {of}")
        every = keys(name, of)
        while bar.n < bar.total:
            chosen = list(itertools.islice(every, options.processes))
            left = [key for key in chosen if key not in known or not complete(known[key])]
            calls = [(key, known[key]["results"] if key in known else {}) for key in left]
            for record in runs.run("advice", measured, calls, options.processes):
                known[key_of(record)] = record
            bar.update(sum(fails(known[key]) for key in chosen))


if __name__ == "__main__":
    main()
