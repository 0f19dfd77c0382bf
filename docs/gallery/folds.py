"""Draw the picture of the guide to cross-validation: ``python docs/gallery/folds.py``.

It runs the code of the guide, so that the picture shows the same data and the same model.
"""

import re
from pathlib import Path

import numpy as np
import pictures
from glance import plt

from losses import counts_and_rate, save

DOCS = Path(__file__).parents[1]
TRIAL, FOLD = 1, slice(8)  # a trial, and its fold
TRUE = {"color": pictures.INK, "linestyle": (0, (3, 2)), "linewidth": 1.2}


def names():
    """Return what the code of the guide defines."""
    page = DOCS / "guides" / "cross-validation.md"
    found = {}
    for block in re.findall(
        r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S
    ):
        exec(block, found)
    return found


def draw(guide, predicted, **options):
    """Return a picture of the trial, with a panel for each neuron that the model predicts."""
    plt.rcParams.update(pictures.STYLE | {"font.size": 9, "axes.titlesize": 9.5})
    figure, axes = plt.subplots(
        **options, dpi=200, layout="constrained", sharex=True
    )
    for row, ax in enumerate(axes.flat):
        bars, line = counts_and_rate(ax, guide["target"][TRIAL, row], predicted[row])
        (true,) = ax.plot(guide["rates"][TRIAL, 12 + row], label="true rate", **TRUE)
        ax.set_title(f"neuron {12 + row}")
        ax.yaxis.get_major_locator().set_params(integer=True)
    for ax in np.atleast_2d(axes.T).T[-1]:
        ax.set_xlabel("time (steps)")
    figure.legend(handles=[bars, line, true], loc="outside lower center", ncols=3)
    return figure


def main():
    """Write the pictures."""
    guide = names()
    train = guide["recorded"].copy()
    train[FOLD] = False
    predicted = np.exp(guide["fit"](train)[TRIAL])
    shapes = {
        "cross-validation": {"nrows": 2, "ncols": 2, "figsize": (7.2, 3.8)},
        "cross-validation-narrow": {"nrows": 4, "figsize": (4.2, 6)},
    }
    for name, shape in shapes.items():
        save(draw(guide, predicted, **shape), DOCS / "images" / f"{name}.png")


if __name__ == "__main__":
    main()
