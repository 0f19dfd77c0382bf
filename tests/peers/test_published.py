"""Each row of docs/published-code.md: the published formula and our line are equal.

They have the same value and gradient in float64, in PyTorch and in JAX. `functions` has the
functions in the formulas that neither library has.
"""

import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import published
from _support.side_by_side import assert_match, import_peer, torch

STEPS, BATCH, CLASSES, NEURONS = 12, 6, 5, 7
ROWS = list(published.rows())
SCALARS = {
    "math": math, "sx": sx, "T": STEPS, "B": BATCH, "C": CLASSES, "N": NEURONS, "end": 9.0,
    "eta": 0.05, "fan_out": 40, "xi": 0.4, "tau": 2.5, "tau_1": 6.4, "alpha": 3e-3,
    "t_correct": 1.0, "t_wrong": 3.0, "delta": 2.0,
    "k": [lag / 3 * math.exp(1 - lag / 3) for lag in range(STEPS)],
}  # fmt: skip
FUNCTIONS_OF_JAX = ("log_softmax", "logsumexp", "relu", "sigmoid", "softmax", "softplus")


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


def assert_row_matches(row, there, names, join):
    """Compare both lines of a row, and their gradients with respect to the variables `row.of`."""
    shapes = {name: names[name].shape for name in row.of.split()}
    sizes = [math.prod(shape) for shape in shapes.values()]

    def evaluate(line, flat):
        parts, start = {}, 0
        for (name, shape), size in zip(shapes.items(), sizes, strict=True):
            parts[name] = flat[start : start + size].reshape(shape)
            start += size
        return eval(line, names | parts)

    theirs, ours = (lambda flat, line=line: evaluate(line, flat) for line in (there, row.here))
    assert_match(theirs, ours, join([names[name].reshape(-1) for name in shapes]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names[0])
def test_published_loss_and_our_line_match_in_pytorch(row):
    names = {name: torch.from_numpy(array) for name, array in arrays().items()}
    names |= SCALARS | functions(torch, torch.Tensor.detach)
    names |= {"xp": torch, "torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    names |= {"sigmoid": torch.sigmoid, "log_softmax": lambda x: x.log_softmax(-1)}
    names["steps"] = torch.full((BATCH,), STEPS)
    names["lengths"] = torch.ones(BATCH, dtype=torch.int64)
    assert_row_matches(row, row.there, names, torch.cat)


@pytest.mark.slow(but=12)  # JAX compiles each row
@pytest.mark.parametrize("row", [r for r in ROWS if r.jax], ids=lambda row: row.names[0])
def test_published_loss_and_our_line_match_in_jax(row):
    jax = import_peer("jax")
    jnp, nn = jax.numpy, jax.nn
    with jax.enable_x64(True):
        names = {name: jnp.asarray(array) for name, array in arrays().items()}
        names |= SCALARS | functions(jnp, jax.lax.stop_gradient)
        names |= {"xp": jnp, "jnp": jnp}
        names |= {name: getattr(nn, name) for name in FUNCTIONS_OF_JAX}
        names["cross_entropy"] = lambda scores, y: (
            -jnp.take_along_axis(nn.log_softmax(scores), y[:, None], 1).mean()
        )
        names["lgamma"] = jax.scipy.special.gammaln
        names["smooth_l1"] = lambda d: jnp.where(jnp.abs(d) < 1, d**2 / 2, jnp.abs(d) - 0.5)
        assert_row_matches(row, row.jax, names, jnp.concatenate)


def test_rows_are_written_in_jax_too():
    """`F.ctc_loss` has no equivalent in JAX itself."""
    assert [row.names[0] for row in ROWS if not row.jax] == ["CTC"]


def test_names_of_losses_are_unique():
    names = [name for row in (*ROWS, *published.MISSING) for name in row.names]
    assert len(names) == len(set(names))
