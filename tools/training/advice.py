"""Measure how many networks learn after their layers are scaled to a firing rate.

``python tools/training/advice.py digits --sets plain --kinds dense`` trains random networks. The
first 15 networks that fail, and the first 15 that learn, are trained again in several ways, with
the same seed. The results of each network are stored in build/advice.jsonl, so that an interrupted
run can be continued. The required packages are those of measure.py.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import random_networks as networks
import runs
import verdict
from random_networks import SETS, Scaling, Settings
from verdict import Task

RATE = 0.002  # the learning rate for weights that are not scaled
# The wide surrogate of each cell, and its slope at a threshold of 1.
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
    "timing": Task("randman 40", 640, 10, 64, fails=0.35, learns=0.6),
    "mnist1d": Task("mnist1d image", 2000, 12, 128, fails=0.2, learns=0.45),
    "mnist1d 40": Task("mnist1d image", 2000, 40, 128, fails=0.2, learns=0.45),
    "iris": Task("iris", 100, 30, 20, fails=0.5, learns=0.7),
}
# The ways to train a network again; those in MAIN are measured by default.
WAYS = {
    "wide": None,
    "recipe": Scaling(step=None, warm_up=1),
    "3 %": Scaling(),
    "2 %": Scaling(0.02),
    "4 %": Scaling(0.04),
    "no warm-up": Scaling(warm_up=1),
    "narrower": Scaling(),
    "narrower, default weights": None,
    "fluctuations": Scaling(fluctuations=True),
}
MAIN = ("wide", "recipe", "3 %")
# The settings of each kind of networks, made from settings that were drawn.
KINDS: dict[str, Callable[[Settings], Settings]] = {
    "dense": lambda drawn: drawn,
    "recurrent": lambda drawn: drawn._replace(recurrent=True, depth=min(drawn.depth, 3)),
    "width 50": lambda drawn: drawn._replace(width=50),
    "width 400": lambda drawn: drawn._replace(width=400),
    "deep": lambda drawn: drawn._replace(depth=drawn.depth + 5),
    "convolution": lambda drawn: drawn._replace(normalised=False),
    "batch norm": lambda drawn: drawn._replace(normalised=True),
    "SGD": lambda drawn: drawn._replace(optimiser="SGD"),
}


class Key(NamedTuple):
    """The task, kind, set and index that identify a network."""

    task: str
    kind: str
    set: str
    index: int


def keys(task: str, kind: str, name: str) -> Iterator[Key]:
    """Yield the keys of the networks of a kind, without those that have a detached layer."""
    convolution = kind in ("convolution", "batch norm")
    for index in itertools.count():
        drawn = networks.draw(name, "advice", index)
        if drawn.convolution == convolution and drawn.detached is None:
            yield Key(task, kind, name, index)


def settings_of(key: Key) -> Settings:
    drawn = networks.draw(key.set, "advice", key.index)
    if key.task != "iris":
        return KINDS[key.kind](drawn)
    surrogate, slope = WIDE[drawn.cell]
    usual = drawn._replace(surrogate=surrogate, slope=slope, scale=1, threshold=1, rate=RATE)
    return usual._replace(depth=1, classes=3, decay=0.9, decay_input=False, bounds=False)


def changed(drawn: Settings, way: str) -> Settings:
    """Return the settings with default weights and a surrogate as wide as the threshold.

    The recipe of former versions did not adapt the surrogate to the threshold, and two of the
    ways have a surrogate that is five times as narrow.
    """
    surrogate, slope = WIDE[drawn.cell]
    slope *= 5 if way.startswith("narrower") else 1
    slope /= 1 if way == "recipe" else drawn.threshold
    return drawn._replace(surrogate=surrogate, slope=slope, scale=1, rate=RATE)


def trained(settings: Settings, task: Task, scaling: Scaling | None = None) -> dict[str, Any]:
    """Return the test accuracy of a network, and what its first batch shows before training.

    If the rate cannot be reached, the accuracy is 0.
    """

    def prepare(network: Any, *batch: Any) -> None:
        if scaling is not None:
            network.scale(scaling, *batch)

    try:
        found = verdict.trained(settings, task, prepare, every_epoch=False)
    except ValueError as error:
        return {"accuracy": 0.0, "rates": [], "problems": [], "error": str(error)}
    (look,) = found["looks"]
    rates = [layer["rate"] for layer in look["layers"]]
    return {"accuracy": found["accuracy"], "rates": rates, "problems": look["problems"]}


def measured(key: Key, known: dict[str, Any], ways: tuple[str, ...]) -> dict[str, Any]:
    """Train a network as drawn, and in those of the ways that are not known."""
    started, task, drawn = time.perf_counter(), TASKS[key.task], settings_of(key)
    results = dict(known)
    if "as drawn" not in known:
        results["as drawn"] = trained(drawn, task)
    for way in ways:
        if way not in known:
            results[way] = trained(changed(drawn, way), task, WAYS[way])
    seconds = round(time.perf_counter() - started, 2)
    return key._asdict() | {"settings": drawn._asdict(), "results": results, "seconds": seconds}


def group(record: dict[str, Any]) -> str:
    """Return whether a network fails, learns or is between the two as it was drawn."""
    accuracy, task = record["results"]["as drawn"]["accuracy"], TASKS[record["task"]]
    return "fails" if accuracy < task.fails else "learns" if accuracy > task.learns else "between"


def key_of(record: dict[str, Any]) -> Key:
    return Key(*(record[field] for field in Key._fields))


def measure(
    every: Iterator[Key], known: dict[Key, Any], ways: tuple[str, ...], wanted: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield the new results of networks, until there are as many of each group as wanted."""
    left = dict(wanted)
    for key in every:
        if not any(left.values()):
            return
        results = known[key]["results"] if key in known else {}
        record = measured(key, results, ()) if not results else known[key]
        enough = not left.get(group(record))
        if not enough:
            left[group(record)] -= 1
            record = measured(key, record["results"], ways)
        if record["results"].keys() != results.keys():
            yield record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="+", choices=TASKS)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["dense"])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=MAIN)
    parser.add_argument("--fail", type=int, default=15, help="how many networks that fail")
    parser.add_argument("--learn", type=int, default=15, help="how many networks that learn")
    parser.add_argument("--most", type=int, default=200, help="how many networks at most")
    options = parser.parse_args()
    runs.one_thread()
    known = {key_of(each): each for each in runs.kept("advice")}
    wanted = {"fails": options.fail, "learns": options.learn}
    for task, kind, name in itertools.product(options.tasks, options.kinds, options.sets):
        every = itertools.islice(keys(task, kind, name), options.most)
        for record in measure(every, known, tuple(options.ways), wanted):
            runs.keep("advice", record)
            accuracies = {way: each["accuracy"] for way, each in record["results"].items()}
            print(*key_of(record), accuracies, record["seconds"], flush=True)


if __name__ == "__main__":
    main()
