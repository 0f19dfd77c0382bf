"""Each row of docs/published-code.md: the published formula and our line are equal.

The tests read the formulas from the page. Our line has the value and the gradient of the formula in
float64, in PyTorch and in JAX. `functions` has the functions in the formulas that neither library
has.
"""

import math
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.root import ROOT
from _support.side_by_side import close_to, import_peer, torch, value_and_gradient

STEPS, BATCH, CLASSES, NEURONS = 12, 6, 5, 7
PAGE = (ROOT / "docs" / "published-code.md").read_text(encoding="utf-8")
NAME = re.compile(r"\{index\}`!(.*?)`")
ROWS = [  # names of the loss, its formula in PyTorch, and our line
    (NAME.findall(names), there, here)
    for names, there, here in re.findall(
        r"^\| (.*?) \| .* \| `([^|]+)` \| `([^|]+)` \|$", PAGE, re.M
    )
]
VARIABLES = ("x", "v", "t", "z", "u", "p")
"""The arrays that a gradient is taken with respect to, if our line contains them."""
SCALARS = {
    "math": math, "sx": sx, "T": STEPS, "B": BATCH, "C": CLASSES, "N": NEURONS, "end": 9.0,
    "eta": 0.05, "fan_out": 40, "xi": 0.4, "tau": 2.5, "tau_1": 6.4, "alpha": 3e-3,
    "t_correct": 1.0, "t_wrong": 3.0, "delta": 2.0,
    "k": [lag / 3 * math.exp(1 - lag / 3) for lag in range(STEPS)],
}  # fmt: skip


def arrays():
    """Return the arrays of the page, in NumPy."""
    rng = np.random.default_rng(4)
    shape, hidden, y = (STEPS, BATCH, CLASSES), (STEPS, BATCH, NEURONS), np.arange(BATCH) % CLASSES
    teacher, same = rng.exponential(size=shape), y[:, None] == y
    teacher /= teacher.sum(-1, keepdims=True)
    return {
        "x": (rng.random(shape) < 0.3) + 0.0,
        "trains": (rng.random(shape) < 0.3) + 0.0,
        "counts": rng.poisson(1, shape) + 0.0,
        "m": rng.random(shape) < 0.3,
        "v": rng.normal(size=shape) - 0.7,  # some classes stay below the threshold of 1
        "signal": rng.random(shape),
        "p": rng.uniform(0.1, 0.9, shape),
        "q": rng.uniform(0.1, 0.9, shape),
        "teacher": teacher,
        "soft": teacher[0],
        "z": (rng.random(hidden) < 0.2) * (np.arange(NEURONS) != 3) + 0.0,  # one is silent
        "u": rng.normal(size=hidden) - 1,
        "t": SCALARS["end"] * rng.random((BATCH, CLASSES)),
        "n": rng.poisson(2, (BATCH, CLASSES)) + 0.0,
        "y": y,
        "hot": np.eye(CLASSES)[y],
        "real": np.arange(BATCH) % 2 == 0,
        "advantage": rng.normal(size=BATCH),
        "returns": rng.normal(size=BATCH),
        "features": rng.random((BATCH, NEURONS)),
        "w": np.exp(-np.arange(STEPS) / STEPS)[:, None, None],
        "same": same & ~np.eye(BATCH, dtype=bool),
        "other": ~same,
        "words": y[:, None] % 4 + 1,
    }


def functions(xp, constant):
    """Return functions that formulas name, from their definitions, for arrays of a library."""

    def convolve(x, taps):
        lags = np.arange(len(x))[:, None] - np.arange(len(x))
        matrix = np.where(lags >= 0, np.asarray(taps)[np.abs(lags)], 0)
        return (xp.asarray(matrix) @ x.reshape(len(x), -1)).reshape(x.shape)

    def windows(x, width):
        return xp.stack([x[max(0, t + 1 - width) : t + 1].sum(0) for t in range(len(x))])

    def psp(x):
        state, states = 0.0 * x[0], []
        for step in x:
            state = state + (step - state) / 2
            states.append(state)
        return xp.stack(states)

    def filtered(x):  # until the response to the last step has decayed, [batch, time * class]
        longer = xp.concatenate([x, xp.zeros((150, *x.shape[1:]), dtype=x.dtype)])
        taps = [math.exp(-lag / 3) for lag in range(len(longer))]
        return xp.swapaxes(convolve(longer, taps), 0, 1).reshape(BATCH, -1)

    def unit(x):
        return filtered(x) / xp.sqrt((filtered(x) ** 2).sum(1))[:, None]

    def squared_distances(x):
        difference = filtered(x)[:, None] - filtered(x)
        return (difference**2).sum(-1) * (1 - math.exp(-2 / 3))

    def relative_targets(t, y, gamma=3.0):  # of S4NN
        first = xp.amin(t, 1)[:, None]
        later = xp.where(t - first < gamma, (first + gamma).clip(max=SCALARS["end"]), t)
        return constant(xp.where(xp.arange(CLASSES) == y[:, None], first, later))

    return {name: found for name, found in locals().items() if callable(found)}


def evaluated(line, of, names, join):
    """Return the value of a line and its gradient with respect to the variables `of`."""
    shapes = {name: names[name].shape for name in of}
    sizes = [math.prod(shape) for shape in shapes.values()]

    def evaluate(flat):
        parts, start = {}, 0
        for (name, shape), size in zip(shapes.items(), sizes, strict=True):
            parts[name] = flat[start : start + size].reshape(shape)
            start += size
        return eval(line, names | parts)

    return value_and_gradient(evaluate, join([names[name].reshape(-1) for name in shapes]))


def in_pytorch(line, of):
    names = {name: torch.from_numpy(array) for name, array in arrays().items()}
    names |= SCALARS | functions(torch, torch.Tensor.detach)
    names |= {"xp": torch, "torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    names |= {"sigmoid": torch.sigmoid, "log_softmax": lambda x: x.log_softmax(-1)}
    names["steps"] = torch.full((BATCH,), STEPS)
    names["lengths"] = torch.ones(BATCH, dtype=torch.int64)
    return evaluated(line, of, names, torch.cat)


def in_jax(line, of):
    jax = import_peer("jax")
    with jax.enable_x64(True):
        names = {name: jax.numpy.asarray(array) for name, array in arrays().items()}
        names |= SCALARS | functions(jax.numpy, jax.lax.stop_gradient)
        names |= {"xp": jax.numpy, "sigmoid": jax.nn.sigmoid, "log_softmax": jax.nn.log_softmax}
        return evaluated(line, of, names, jax.numpy.concatenate)


def assert_row_matches(row, evaluate):
    _, there, here = row
    of = [name for name in VARIABLES if re.search(rf"\b{name}\b", here)]
    close_to(evaluate(here, of), in_pytorch(there, of))


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=lambda row: row[0][0])


@each(ROWS)
def test_published_loss_and_our_line_match_in_pytorch(row):
    assert_row_matches(row, in_pytorch)


@pytest.mark.slow(but=12)  # JAX compiles each row
@each([row for row in ROWS if "F.ctc_loss" not in row[2]])
def test_published_loss_and_our_line_match_in_jax(row):
    assert_row_matches(row, in_jax)


def test_every_row_of_the_page_is_read_and_names_are_unique():
    tested, _, _ = PAGE.partition("## Losses that cannot be written")
    assert len(ROWS) == tested.count("\n| {index}")
    names = NAME.findall(PAGE)
    assert len(names) == len(set(names))
