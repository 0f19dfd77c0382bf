"""Measure what `diagnose` finds in networks that learn and in networks that do not.

``nice python tools/training/verdict.py chosen`` takes about fifteen minutes on one core, for the
data on which the limits of the report were chosen, and ``verdict.py unseen`` about half an hour
for other data. The results are written to tests/data/verdict.json and to the tables in
docs/diagnosis-measured.md. The required packages are those of measure.py, and these, which hold the
time series::

    python -m pip install --no-deps aeon==1.6.0 sktime==1.2.0 tslearn==0.10.0
"""

import itertools
import sys
from typing import Any, NamedTuple

import networks
import numpy as np
import runs
import training_data as data
import verdict_page
from networks import Settings
from runs import Record, Records

import spikeloss_xp as sx

INSPECTED = 128  # samples


class Task(NamedTuple):
    """A data set, and how the networks of advice.py are trained on it.

    A network fails if its accuracy is below `fails`, and learns if it is above `learns`. This is
    the mean accuracy of several seeds. Padded samples end with zeros.
    """

    data: str
    samples: int
    epochs: int
    batch: int
    fails: float
    learns: float
    seeds: int = 1
    padded: bool = False

    def group(self, accuracy: float) -> str:
        """Return whether a network with this accuracy fails, learns or is between the two."""
        if accuracy < self.fails:
            return "fails"
        return "learns" if accuracy > self.learns else "between"


DIGITS = Task("digits 15", 640, 6, 64, fails=0.35, learns=0.7)
MNIST = Task("MNIST 15", 2000, 3, 64, fails=0.35, learns=0.7, seeds=3)
SPEECH = Task("speech 2", 270, 15, 45, fails=0.35, learns=0.7, seeds=3, padded=True)


def trained(settings: Settings, task: Task, way: Any = None) -> float:
    """Return the test accuracy. The weights are first scaled, if the `way` of advice.py says so."""
    (x, label), (test, test_label) = data.load(task.data)
    x, label = x[:, : task.samples], label[: task.samples]
    lengths, of_test = (data.lengths_of(of) if task.padded else None for of in (x, test))
    network = networks.Network(settings, x.shape[2])
    loss = sx.CrossEntropy(time_axis=0, rates=(0.5, 0.02) if settings.bounds else None)
    if way and way.step:
        options = {"lengths": lengths[:INSPECTED]} if task.padded else {}
        first = x[:, :INSPECTED], label[:INSPECTED]
        network.scale(loss, *first, way.step, way.warm_up, way.recurrent, **options)
    list(networks.train(network, loss, x, label, task.epochs, task.batch, lengths=lengths))
    options = {} if of_test is None else {"lengths": of_test.numpy()}
    return round(float(loss.accuracy(network.output(test), test_label.numpy(), **options)), 4)


# The verdict --------------------------------------------------------------------------------------

ALL = ("dense", "recurrent", "convolution")
CHOSEN = {  # the kinds of networks for each data set, and the number of networks
    **{"digits 15": (ALL, 36), "MNIST 15": (("dense", "convolution"), 24)},
    **{"speech 2": (ALL[:2], 24), "series BasicMotions": (ALL[:2], 24)},
    **{"series ArrowHead": (ALL, 24), "trains 8": (ALL[:2], 20)},
}
UNSEEN = {
    **{f"series {x}": (ALL, 44) for x in ("GunPoint", "ItalyPowerDemand", "OSULeaf", "PLAID")},
    **{"series Trace": (ALL, 44), "features wine": (ALL[:2], 44)},
    **{"features breast_cancer": (ALL[:2], 44), "trains 12": (ALL[:2], 20)},
    "features diabetes": (ALL[:2], 20),
}
DATA = CHOSEN | UNSEEN
JUDGED, UPDATES, SAMPLES, BATCH = 100, 200, 500, 40
LOOKS = (0, JUDGED, UPDATES)
SLOPES = {True: 5, False: 1}  # times the threshold, in recurrent networks and in others


class Study:
    """A network, its training set and its loss."""

    def __init__(self, name: str, index: int, **changes: Any) -> None:
        (x, label), _ = data.load(name)
        self.x = x[:, :SAMPLES]
        self.label = label[:, :SAMPLES] if label.ndim == x.ndim else label[:SAMPLES]
        self.lengths = data.lengths_of(self.x) if name.startswith("speech") else None
        self.has_classes = not self.label.is_floating_point()
        outputs = int(label.max()) + 1 if self.has_classes else label.shape[-1]
        potentials = self.label.ndim == 2
        drawn = networks.draw_for_verdict(
            *([*DATA].index(name), index, DATA[name][0], outputs), potentials=potentials
        )
        for key, value in changes.items():
            drawn = drawn._replace(**{key: value(drawn) if callable(value) else value})
        self.settings = drawn
        self.network = networks.Network(drawn, x.shape[2])
        rates = (0.5, 0.02) if drawn.bounds else None
        self.loss: Any = sx.CrossEntropy(time_axis=0, rates=rates)
        if potentials:
            self.loss = sx.SquaredError(time_axis=0, readout="last")
        elif not self.has_classes:
            self.loss = sx.SpikeTime(time_axis=0, time_constant=5)

    def report(self, earlier: Any = None, updates: int = JUDGED) -> sx.diagnosis.Report:
        """Return the report on the first samples."""
        first, last = slice(INSPECTED), -1 if self.label.ndim < 3 else None
        label = self.label[first] if last else self.label[:, first]
        lengths = {} if self.lengths is None else {"lengths": self.lengths[first]}
        *hidden, output = self.network.layers(self.x[:, first])
        gradients = self.network.gradients(self.loss(output, label, **lengths))
        options = lengths | {"hidden": hidden, "gradients": gradients}
        return sx.diagnose(self.loss, output, label, **options, earlier=earlier, updates=updates)

    def updated(self) -> Any:
        """Return an iterator that pauses after each update."""
        every = networks.train(
            self.network, self.loss, self.x, self.label, UPDATES, BATCH, lengths=self.lengths
        )
        return itertools.islice(every, UPDATES)

    def score(self) -> float:
        """Return the part of the way from a constant answer to the best that has been covered."""
        output = self.network.output(self.x)
        label = self.label.numpy()
        if self.has_classes:
            lengths = {} if self.lengths is None else {"lengths": self.lengths.numpy()}
            accuracy = float(self.loss.accuracy(output, label, **lengths))
            chance = np.bincount(label).max() / len(label)
            return float((accuracy - chance) / (1 - chance))
        constant = 0 * output
        if self.settings.potentials:
            constant = constant + label.mean(0)
        return 1 - float(self.loss(output, label) / self.loss(constant, label))


def codes_of(report: sx.diagnosis.Report) -> dict[str, list[str]]:
    """Return the codes of the problems and of the notes in a report, in order and once each."""
    found: dict[str, list[str]] = {"problem": [], "note": []}
    for each in report.findings:
        if each.code not in found[each.severity]:
            found[each.severity].append(each.code)
    return found


def judged(key: tuple[str, int]) -> Record:
    """Train the network with this data and index, and return its score and its reports."""
    study = Study(*key)
    first = study.report()
    looks = [codes_of(first)]
    for updates, _ in enumerate(study.updated(), 1):
        if updates in LOOKS:
            looks.append(codes_of(study.report(first, updates)))
    return {
        **{"data": key[0], "index": key[1], "kind": DATA[key[0]][0][key[1] % len(DATA[key[0]][0])]},
        **{"score": round(study.score(), 4), "looks": looks},
    }


def _wide(drawn: Settings) -> float:
    return SLOPES[drawn.recurrent] / drawn.threshold


WIDE = {"surrogate": "fast sigmoid", "slope": _wide}
REMOVED: dict[str, tuple[dict[str, Any], bool]] = {  # new settings, and whether layers are scaled
    **dict.fromkeys(("silent-hidden", "busy-hidden", "silent-output"), ({}, True)),
    **dict.fromkeys(("vanishing-gradient", "no-gradient"), (WIDE, False)),
    "exploding-gradient": (WIDE, True),
    "quiet-output": ({"bounds": True}, False),
}


def without(key: tuple[str, int, str]) -> float:
    """Train a network again without one cause, and return its score; it is 0 if that fails."""
    name, index, cause = key
    changes, is_scaled = REMOVED[cause]
    study = Study(name, index, **changes)
    if is_scaled:
        lengths = None if study.lengths is None else study.lengths[:INSPECTED]
        try:
            study.network.scale_layers(study.x[:, :INSPECTED], lengths)
        except ValueError:  # its firing rate cannot be reached
            return 0.0
    for _ in study.updated():
        pass
    return round(study.score(), 4)


def with_groups(records: Records) -> Records:
    """Add to each record whether the network fails: it is below half of the way to the best."""
    for one in records:
        best = max(each["score"] for each in records if each["data"] == one["data"])
        one["best"], one["fails"] = best, not one["score"] >= best / 2
    return records


def add_causes(records: Records) -> None:
    """Add what happens to failing networks if the first cause after 100 updates is removed."""
    named = []
    for one in records:
        causes = [code for code in one["looks"][1]["problem"] if code in REMOVED]
        if one["fails"] and causes:
            named.append((one, causes[0]))
    scores = runs.run(without, [(one["data"], one["index"], cause) for one, cause in named])
    for (one, cause), score in zip(named, scores, strict=True):
        one["without"] = {"cause": cause, "score": score, "learns": score >= one["best"] / 2}


def main() -> None:
    record = runs.read("verdict")
    for name, sets in (("chosen", CHOSEN), ("unseen", UNSEEN)):
        if name in sys.argv[1:]:
            keys = [(data, index) for data, (_, size) in sets.items() for index in range(size)]
            record[name] = with_groups(runs.run(judged, keys))
    if "unseen" in sys.argv[1:]:
        add_causes(record["unseen"])
    runs.write(verdict_page, record)


if __name__ == "__main__":
    main()
