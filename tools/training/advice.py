"""Measure how many networks learn after their layers are scaled to a firing rate.

``python tools/training/advice.py digits --sets plain --kinds dense`` trains random networks. The
first 15 networks that fail, and the first 15 that learn, are trained again in several ways, with
the same seed. The results of each network are stored in build/advice.jsonl, so that an interrupted
run can be continued. The required packages are those of measure.py.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import networks
import runs
import verdict
from networks import SETS, Scaling, Settings
from verdict import Task

DRAWN = "as drawn"
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


def trained(key: Key, way: str) -> float | None:
    """Return the test accuracy of a network, or None if its firing rate cannot be reached."""

    def prepare(network: Any, *batch: Any) -> None:
        if WAYS.get(way) is not None:
            network.scale(WAYS[way], *batch)

    drawn = settings_of(key)
    settings = drawn if way == DRAWN else changed(drawn, way)
    try:
        return verdict.trained(settings, TASKS[key.task], prepare, every_epoch=False)[0]
    except ValueError:
        return None


def measured(key: Key, known: dict[str, Any] | None, ways: tuple[str, ...]) -> dict[str, Any]:
    """Train a network as drawn and in other ways, except in those that are known."""
    known = known or {"accuracy": {}, "unreached": []}
    found = {way: trained(key, way) for way in (DRAWN, *ways) if way not in known["accuracy"]}
    accuracy = known["accuracy"] | {way: x or 0.0 for way, x in found.items()}
    return key._asdict() | {
        "depth": settings_of(key).depth,
        "group": TASKS[key.task].group(accuracy[DRAWN]),
        "accuracy": accuracy,
        "unreached": known["unreached"] + [way for way, x in found.items() if x is None],
    }


def measure(
    every: Iterator[Key], known: dict[Key, Any], ways: tuple[str, ...], wanted: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield the new results of networks, until there are as many of each group as wanted."""
    left = dict(wanted)
    for key in every:
        if not any(left.values()):
            return
        record = measured(key, known.get(key), ())
        if left.get(record["group"]):
            left[record["group"]] -= 1
            record = measured(key, record, ways)
        if record != known.get(key):
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
    known = {runs.key_of(Key, each): each for each in runs.kept("advice")}
    wanted = {"fails": options.fail, "learns": options.learn}
    for task, kind, name in itertools.product(options.tasks, options.kinds, options.sets):
        every = itertools.islice(keys(task, kind, name), options.most)
        for record in measure(every, known, tuple(options.ways), wanted):
            runs.keep("advice", record)
            print(*runs.key_of(Key, record), record["accuracy"], flush=True)


if __name__ == "__main__":
    main()
