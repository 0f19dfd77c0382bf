"""The lines of the tables of `docs/frameworks.md` have the same value and gradient.

They run on random numbers. Other files of this folder have networks of some of the frameworks. The
rows of jaxsnn and the recordings are not compared here.
"""

import importlib.metadata
import importlib.util
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.pages import DOCS
from _support.peers import REQUIRED
from _support.side_by_side import (
    assert_match,
    import_peer,
    labels,
    potentials,
    torch,
    trains,
)

STEPS, BATCH, CLASSES = 20, 16, 5
LABEL = labels(CLASSES, (BATCH,))
SIZES = {"time": STEPS, "batch": BATCH, "class": CLASSES}


def rows(*modules):
    """Return the layout and both lines of the rows whose line there begins with a module."""
    text = (DOCS / "frameworks.md").read_text(encoding="utf-8")
    first, rest = text.split("\nThese give recordings")
    found = []
    for line in first.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| [") and cells[3].startswith("`"):
            found.append((cells[0], cells[1], cells[3], cells[4]))
    rockpool = rest.split("\n## Rockpool\n")[1].split("\n## ")[0]
    for lines in re.findall(r"^\| (`.*`) \| (`.*`) \|$", rockpool, re.M):
        found.append(("[Rockpool]", "`[batch, time, class]`", *lines))
    return [
        pytest.param(layout, there.strip("`"), here.strip("`"), id=f"{name}-{there}")
        for name, layout, there, here in found
        if there.strip("`").partition(".")[0] in modules
    ]


def outputs(layout):
    """Return an output of the network, in the layout of the table."""
    shape = tuple(SIZES[axis] for axis in re.search(r"\[(.*)\]", layout)[1].split(", "))
    return potentials(shape) if "potentials" in layout else trains(shape)


@pytest.mark.parametrize(("layout", "there", "here"), rows("F", "SF", "slayer"))
def test_lines_in_pytorch_match(layout, there, here):
    names = {"F": torch.nn.functional, "sx": sx, "y": LABEL, "C": CLASSES, "T": STEPS}
    if there.startswith("SF."):
        names["SF"] = import_peer("snntorch.functional")
    elif there.startswith("slayer."):
        names["slayer"] = import_peer("lava.lib.dl.slayer")
    assert_match(
        *(lambda x, line=line: eval(line, names | {"x": x}) for line in (there, here)),
        outputs(layout),
    )


def losses_of_spyx():
    """Load the module of the losses of Spyx without the rest of the package."""
    try:
        files = importlib.metadata.files("spyx")
    except importlib.metadata.PackageNotFoundError:
        if "spyx" in REQUIRED:
            raise
        pytest.skip("spyx is not installed")
    (file,) = (f for f in files or () if f.parts == ("spyx", "fn.py"))
    spec = importlib.util.spec_from_file_location("spyx_fn", file.locate())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("layout", "there", "here"), rows("optax", "fn"))
def test_lines_in_jax_match(layout, there, here):
    jax, optax = pytest.importorskip("jax"), import_peer("optax")
    label = jax.numpy.asarray(LABEL.numpy())
    one_hot = jax.numpy.asarray(np.eye(CLASSES)[LABEL])
    names = {"optax": optax, "sx": sx, "y": label}
    names["one_hot"] = jax.numpy.broadcast_to(one_hot, (STEPS, BATCH, CLASSES))
    if there.startswith("fn."):
        names["fn"] = losses_of_spyx()
    x = jax.numpy.asarray(outputs(layout).numpy())
    (value, gradient), (our_value, our_gradient) = (
        jax.value_and_grad(lambda x, line=line: eval(line, names | {"x": x}))(x)
        for line in (there, here)
    )
    np.testing.assert_allclose(our_value, value, rtol=2e-5)
    np.testing.assert_allclose(our_gradient, gradient, atol=2e-5 * np.abs(gradient).max())
