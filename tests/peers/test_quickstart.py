"""The training loops of docs/quickstart.md run, and reach the accuracies that the page states."""

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.processes import RECIPES, recipes
from _support.root import ROOT
from _support.side_by_side import evaluate_line, import_peer

PAGE = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
ROW = r"^\| `(train_\w+)` \| ([\d.]+) \|(?: `([^`]+)`)? \|(?: ([\d.]+))? \|$"
ROWS = re.findall(ROW, PAGE, flags=re.M)
FILES = sorted(path.stem for path in RECIPES.glob("train_*.py"))

# One sample is 0.28 of these points. A rounding, which another processor makes, can change which
# neuron fires, and so the run: seeds differ by 3 points, and means of three by fewer.
POINTS = 2


def source(name: str) -> str:
    return (RECIPES / f"{name}.py").read_text(encoding="utf-8")


def own_loss(name: str) -> Any:
    """Return the loss that a file trains with if it is run."""
    called = re.search(r"    print\(train\((sx\..*)\)\)\n$", source(name))
    assert called, name
    return eval(called[1], {"sx": sx})


def load(name: str) -> ModuleType:
    """Return a file of the page as a module, or skip the test if it needs a missing library."""
    try:
        return recipes(name)
    except ModuleNotFoundError as error:
        return import_peer(str(error.name))


def usual_loss(line: str) -> Callable[[Any, Any], Any]:
    """Return the loss of another library, from a cell of the table."""
    modules = {"F": "torch.nn.functional", "SF": "snntorch.functional", "optax": "optax"}
    names = {name: import_peer(module) for name, module in modules.items() if f"{name}." in line}
    return lambda x, y: evaluate_line(line, names | {"x": x, "y": y})


def mean_accuracy(module: ModuleType, loss: Callable[[Any, Any], Any]) -> float:
    return 100 * float(np.mean([module.train(loss, seed=seed) for seed in range(3)]))


def test_table_and_tabs_have_every_file():
    assert sorted(row[0] for row in ROWS) == FILES
    shown = re.findall(r"^```\{literalinclude\} recipes/(train_\w+)\.py$", PAGE, flags=re.M)
    assert sorted(shown) == FILES


@pytest.mark.parametrize("name", FILES)
def test_two_epochs_are_better_than_chance(name):
    # Ten classes, and 360 samples: chance is 10 points, with a standard deviation of 1.6. The
    # outputs of SpikingJelly are silent for most of the first epoch.
    assert load(name).train(own_loss(name), epochs=2) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ours", "line", "theirs"), ROWS, ids=[row[0] for row in ROWS])
def test_accuracies_are_those_of_the_page(name, ours, line, theirs):
    module = load(name)
    assert mean_accuracy(module, own_loss(name)) == pytest.approx(float(ours), abs=POINTS)
    if line:
        assert mean_accuracy(module, usual_loss(line)) == pytest.approx(float(theirs), abs=POINTS)
