"""Measure how many networks learn after their layers are scaled to a firing rate.

``python tools/training/advice.py [PATTERN]`` trains random networks on the tasks whose names
contain the pattern, such as "digits, dense". The first networks that
fail, and the first that learn, are trained again in several ways, with the same seed. The results
are written to tests/data/verdict.json and to docs/repair-measured.md. The required packages are
those of measure.py.
"""

import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple

import networks
import repair_page
import runs
import verdict
from networks import WIDE, Settings
from verdict import Task

from spikeloss_xp.torch.scaling import RECURRENT

OTHER_DATA = "MNIST", "speech"  # for which no limit or step of the advice was chosen
RATE = 0.002  # the learning rate for weights that are not scaled
TASKS = {
    "digits": verdict.DIGITS,
    "timing": Task("randman 40", 640, 10, 64, fails=0.35, learns=0.6),
    "mnist1d": Task("mnist1d image", 2000, 12, 128, fails=0.2, learns=0.45),
    "mnist1d 40": Task("mnist1d image", 2000, 40, 128, fails=0.2, learns=0.45),
    "MNIST": verdict.MNIST,
    "speech": verdict.SPEECH,
}


class Way(NamedTuple):
    """How a network is trained again: the step of scaled weights, if any, and its warm-up.

    Recurrent weights are multiplied by a factor before they are scaled.
    """

    step: float | None = 0.03
    warm_up: int = 20
    narrower: int = 1
    bounds: bool | None = None  # as drawn
    recurrent: float = RECURRENT


WAYS = {  # all of them for the rows in VARIED, and the first two for the others
    "wide": Way(step=None),
    "3 %": Way(),
    "2 %": Way(0.02),
    "4 %": Way(0.04),
    "no warm-up": Way(warm_up=1),
    "narrower": Way(narrower=5),
    "narrower, default weights": Way(step=None, narrower=5),
}
BOUNDS = {  # all of them for the rows of other data with recurrent networks, and two for the others
    "scaled": Way(bounds=False),
    "scaled, bounds": Way(bounds=True),
    "scaled, bounds, all recurrent weights": Way(bounds=True, recurrent=1),
}
# The settings of each kind of networks, made from settings that were drawn.
KINDS: dict[str, Callable[[Settings], Settings]] = {
    "dense": lambda drawn: drawn,
    "recurrent": lambda drawn: drawn._replace(recurrent=True),
    "width 50": lambda drawn: drawn._replace(width=50),
    "width 400": lambda drawn: drawn._replace(width=400),
    "deep": lambda drawn: drawn._replace(depth=drawn.depth + 5),
    "convolution": lambda drawn: drawn._replace(normalised=False),
    "batch norm": lambda drawn: drawn._replace(normalised=True),
    "SGD": lambda drawn: drawn._replace(optimiser="SGD"),
}
FRAMEWORKS = ("plain", "snnTorch", "SpikingJelly", "Norse")
# The sets of each row of the page, and the most networks that fail, and that learn.
ROWS = {
    ("digits", "dense"): (FRAMEWORKS, 15),
    ("timing", "dense"): (("plain", "snnTorch"), 8),
    ("timing", "recurrent"): (("plain",), 8),
    **{("digits", kind): (("plain",), 4) for kind in ("convolution", "batch norm", "deep")},
    **{("digits", kind): (("plain",), 6) for kind in ("width 400", "width 50", "SGD")},
    ("mnist1d", "dense"): (("plain", "snnTorch"), 6),
    ("mnist1d 40", "dense"): (("plain",), 2),
    ("MNIST", "dense"): (("plain",), 8),
    ("speech", "recurrent"): (("speech",), 6),
}
VARIED = (("digits", "dense", "plain"), ("timing", "recurrent", "plain"))
MOST = 200  # networks that are drawn for a set


def changed(drawn: Settings, way: Way) -> Settings:
    """Return the settings with a wide surrogate and default weights."""
    slope = 2 if drawn.cell == "SpikingJelly" else 1
    slope *= way.narrower / drawn.threshold
    surrogate = next(iter(WIDE[drawn.cell]))
    bounds = drawn.bounds if way.bounds is None else way.bounds
    return drawn._replace(surrogate=surrogate, slope=slope, scale=1, rate=RATE, bounds=bounds)


def trained(settings: Settings, task: Task, way: Way | None = None) -> float:
    """Return the mean test accuracy over seeds; it is 0 if a network cannot be scaled."""
    settings, found = changed(settings, way) if way else settings, []
    for seed in range(settings.seed, settings.seed + task.seeds):
        try:
            found.append(verdict.trained(settings._replace(seed=seed), task, way))
        except ValueError:  # its firing rate cannot be reached
            found.append(0.0)
    return round(statistics.fmean(found), 4)


def ways_of(row: tuple[str, str, str]) -> dict[str, Way]:
    """Return the ways in which the networks of a row are trained again."""
    if row[0] == "speech":
        return {name: way._replace(narrower=5) for name, way in BOUNDS.items()}
    if row[0] == "MNIST":
        return {name: way for name, way in BOUNDS.items() if way.recurrent == RECURRENT}
    return WAYS if row in VARIED else {way: WAYS[way] for way in ("wide", "3 %")}


def measured(row: tuple[str, str, str]) -> runs.Records:
    """Return the results of the first networks of a task, kind and set in each group.

    On other data, these are the first networks, whatever their group. Networks with a detached
    layer are left out.
    """
    (name, kind, of_set), (_, most) = row, ROWS[row[:2]]
    other, task, found = name in OTHER_DATA, TASKS[name], []
    left = dict.fromkeys(repair_page.GROUPS if other else ("fails", "learns"), most)
    for index in range(MOST):
        if other and len(found) == most:
            break
        drawn = networks.draw(of_set, "advice", index)
        convolution = kind in ("convolution", "batch norm")
        if drawn.convolution != convolution or drawn.detached is not None or not any(left.values()):
            continue
        settings = KINDS[kind](drawn)
        if other:
            settings = settings._replace(bounds=False)
        accuracy = {"as drawn": trained(settings, task)}
        group = task.group(accuracy["as drawn"])
        if left.get(group):
            left[group] -= 1
            if other:
                accuracy["as drawn, bounds"] = trained(settings._replace(bounds=True), task)
            accuracy |= {each: trained(settings, task, way) for each, way in ways_of(row).items()}
            key = {"task": name, "kind": kind, "set": of_set, "index": index}
            found.append(key | {"group": group, "accuracy": accuracy})
    return found


def main() -> None:
    """Measure the chosen rows, and replace them in the record."""
    pattern = sys.argv[1] if len(sys.argv) > 1 else ""
    rows = [(*row, name) for row, (names, _) in ROWS.items() for name in names]
    chosen = [row for row in rows if pattern in ", ".join(row)]
    record, every = runs.read("verdict"), runs.run(measured, chosen)
    kept = [x for x in record["advice"] if (x["task"], x["kind"], x["set"]) not in chosen]
    record["advice"] = kept + [one for found in every for one in found]
    record["tasks"] |= {name: task._asdict() for name, task in TASKS.items()}
    runs.write(repair_page, record)


if __name__ == "__main__":
    main()
