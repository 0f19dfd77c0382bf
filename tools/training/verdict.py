"""Measure what `diagnose` finds in networks that learn and in networks that do not.

``python tools/training/verdict.py`` takes about half an hour on two free cores, and with ``ended``
five minutes, for what the report says after training if it gets the `earlier` loss. It writes the
results to tests/data/verdict.json and to the tables in docs/diagnosis-measured.md. The required
packages are those of measure.py.
"""

import itertools
import sys
from collections import Counter
from typing import Any, NamedTuple

import networks
import runs
import training_data as data
import verdict_page
from networks import Settings
from runs import Record, Records

import spikeloss_xp as sx

INSPECTED = 128  # samples


class Task(NamedTuple):
    """A data set, and how networks are trained on it.

    A network fails if its accuracy is below `fails`, and learns if it is above `learns`. In
    advice.py this is the mean accuracy of several seeds. Padded samples end with zeros.
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
TIMING = Task("randman 40", 640, 12, 64, fails=0.35, learns=0.6)
MNIST = Task("MNIST 15", 2000, 3, 64, fails=0.35, learns=0.7, seeds=3)
SPEECH = Task("speech 2", 270, 15, 45, fails=0.35, learns=0.7, seeds=3, padded=True)
OTHERS = {"timing": TIMING, "MNIST": MNIST, "speech": SPEECH}  # all other sets are on the digits
DATA = {"timing": "spike times", "MNIST": "MNIST", "speech": "speech"}  # their names on the page
NUMBERS = {"plain": 200, "snnTorch": 120, "SpikingJelly": 120, "timing": 160}
ENDED = {"plain": 45, "SpikingJelly": 45, "timing": 45, "MNIST": 40, "speech": 40}


def measured(key: tuple[str, int]) -> Record:
    """Train the network with this set and index, and return its group and findings."""
    name, index = key
    task = OTHERS.get(name, DIGITS)
    accuracy, looks = trained(networks.draw(name, "reported", index), task, every_epoch=True)
    return {"set": name, "group": task.group(accuracy), "looks": looks}


def ended(key: tuple[str, int]) -> Record:
    """Train the network with this set and index, and return its group and its problems."""
    name, index = key
    task = OTHERS.get(name, DIGITS)
    settings = networks.draw("plain" if name == "MNIST" else name, "reported", index)
    accuracy, (before, after) = trained(settings, task, at_end=True)
    codes = {"before": before["problems"], "after": after["problems"]}
    return {"set": name, "group": task.group(accuracy)} | codes


def trained(
    settings: Settings,
    task: Task,
    way: Any = None,
    *,
    every_epoch: bool = False,
    at_end: bool = False,
) -> tuple[float, list[dict[str, Any]]]:
    """Return the test accuracy, and the problems of a batch before training and at later times.

    These are the end of each epoch, or only `at_end`, where the report gets the loss before
    training. The weights are first scaled on that batch, if the `way` of advice.py says so.
    """
    (x, label), (test, test_label) = data.load(task.data)
    x, label = x[:, : task.samples], label[: task.samples]
    lengths, of_test = (data.lengths_of(of) if task.padded else None for of in (x, test))
    network = networks.Network(settings, x.shape[2])
    loss = sx.CrossEntropy(time_axis=0, rates=(0.5, 0.02) if settings.bounds else None)
    first = x[:, :INSPECTED], label[:INSPECTED]
    options = {"lengths": lengths[:INSPECTED]} if task.padded else {}
    if way and way.step:
        network.scale(loss, *first, way.step, way.warm_up, way.recurrent, **options)
    looks = [problems(network, loss, *first, **options)]
    for _ in networks.train(network, loss, x, label, task.epochs, task.batch, lengths=lengths):
        if every_epoch:
            looks.append(problems(network, loss, *first, **options))
    if at_end:
        looks.append(problems(network, loss, *first, looks[0]["loss"], **options))
    options = {} if of_test is None else {"lengths": of_test.numpy()}
    accuracy = float(loss.accuracy(network.output(test), test_label.numpy(), **options))
    return round(accuracy, 4), looks


def problems(
    network: Any,
    loss: sx.CrossEntropy,
    x: Any,
    label: Any,
    earlier: float | None = None,
    **lengths: Any,
) -> dict[str, Any]:
    """Return the codes of the problems that the report on a batch names, and its loss."""
    *hidden, output = network.layers(x)
    value = loss(output, label, **lengths)
    gradients, found = network.gradients(value), {"loss": value.item()}
    options = lengths | {"hidden": hidden, "earlier": earlier}
    for name, more in (("problems", {"gradients": gradients}), ("without gradients", {})):
        report = sx.diagnose(loss, output, label, **options, **more)
        found[name] = [each.code for each in report.findings if each.severity == "problem"]
    return found


def of_sets(records: Records) -> Record:
    """Return the counts of networks, flagged networks and codes, by set and group.

    The flagged networks are counted at each look: before training and after each epoch. The codes
    are those of problems before training.
    """
    found: Record = {one["set"]: {} for one in records}
    for name, of in itertools.product(found, verdict_page.GROUPS):
        chosen = [one["looks"] for one in records if (one["set"], one["group"]) == (name, of)]
        codes = Counter(code for looks in chosen for code in set(looks[0]["problems"]))
        epochs = zip(*chosen, strict=True)
        found[name][of] = {
            "networks": len(chosen),
            "flagged": [sum(bool(look["problems"]) for look in epoch) for epoch in epochs],
            "without gradients": sum(bool(looks[0]["without gradients"]) for looks in chosen),
            "codes": dict(codes.most_common()),
        }
    return found


def of_ended(records: Records) -> Record:
    """Return the numbers of networks with a problem before and after training, by data."""
    found: Record = {}
    for one in records:
        data = DATA.get(one["set"], "digits")
        numbers = found.setdefault(data, {}).setdefault(one["group"], Counter())
        without = {*one["after"]} - {"quiet-output", "not-moved"}
        looks = {"before": one["before"], "without earlier": without, "reported": one["after"]}
        numbers.update({"networks": 1} | {name: bool(codes) for name, codes in looks.items()})
    return found


def main() -> None:
    only_ended = sys.argv[1:] == ["ended"]
    sizes = ENDED if only_ended else NUMBERS
    keys = [(name, index) for name, size in sizes.items() for index in range(size)]
    record = runs.read("verdict")
    if only_ended:
        record["ended"] = of_ended(runs.run(ended, keys))
    else:
        record["verdict"] |= of_sets(runs.run(measured, keys))
    runs.write(verdict_page, record)


if __name__ == "__main__":
    main()
