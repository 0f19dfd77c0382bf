"""Print the tables of docs/benchmarks.md on spike times; with ``--write``, write them there too.

``OMP_NUM_THREADS=1 python tools/benchmarks/spike_times.py`` times the losses that compare trains in
pairs beside elephant, PySpike and the loop that a user would write, and the cross entropy of first
spikes beside the plain line. It needs elephant, pyspike and optax.
"""

import functools
import statistics
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import neo
import numpy as np
import optax
import pyspike
import quantities as pq
import torch
import torch.nn.functional as F  # noqa: N812
from elephant.spike_train_dissimilarity import van_rossum_distance, victor_purpura_distance
from timing import measure_seconds, time_ratio

import spikeloss_xp as sx

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from _support import pages

TAU, COST, DURATION = 20.0, 0.1, 1000.0  # ms
PAIRS, SPIKES = (32, 10), 30
SIZES = ((100, 10), (256, 10, 5), (256, 20, 30), (1000, 100))  # [batch, class, spike]
TEMPERATURE, SILENT = 2.0, 20.0


# Trains in pairs -----------------------------------------------------------------------------


def loop_van_rossum(x, y):
    def product(a, b):
        return np.exp(-np.abs(a[:, None] - b) / TAU).sum()

    return product(x, x) - 2 * product(x, y) + product(y, y)


def loop_victor_purpura(x, y):
    table = np.zeros((len(x) + 1, len(y) + 1))
    table[:, 0], table[0] = np.arange(len(x) + 1), np.arange(len(y) + 1)
    for i, a in enumerate(x, 1):
        for j, b in enumerate(y, 1):
            edits = table[i - 1, j] + 1, table[i, j - 1] + 1
            table[i, j] = min(*edits, table[i - 1, j - 1] + COST * abs(a - b))
    return table[-1, -1]


def contenders(loss, elephant, plain):
    """Return a run for each program: the sum over all pairs; ours also with the gradient."""
    random = np.random.default_rng(0)
    x, y = np.sort(random.uniform(0, DURATION, (2, *PAIRS, SPIKES)))
    pairs = list(zip(x.reshape(-1, SPIKES), y.reshape(-1, SPIKES), strict=True))
    trains = [[neo.SpikeTrain(t * pq.ms, t_stop=DURATION * pq.ms) for t in pair] for pair in pairs]
    others = [[pyspike.SpikeTrain(t, (0, DURATION)) for t in pair] for pair in pairs]
    leaf, wanted = torch.tensor(x, requires_grad=True), torch.tensor(y)
    compiled = jax.jit(jax.value_and_grad(loss))
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)

    def backward():
        leaf.grad = None
        loss(leaf, wanted).backward()

    expected = loss(x, y)
    for got in (sum(map(elephant, trains)), sum(plain(*pair) for pair in pairs)):
        np.testing.assert_allclose(got, expected, rtol=1e-9)
    return {
        "elephant": lambda: [elephant(pair) for pair in trains],
        "PySpike, SPIKE distance": lambda: [pyspike.spike_distance(*pair) for pair in others],
        "a loop in Python": lambda: [plain(*pair) for pair in pairs],
        "NumPy": lambda: loss(x, y),
        "NumPy, gradient": lambda: sx.value_and_grad(loss)(x, y),
        "PyTorch, gradient": backward,
        "JAX, gradient, float32": lambda: jax.block_until_ready(compiled(*arrays)),
    }


def paired_table():
    """Return how long each program takes, and how many times as long as NumPy here."""
    columns = {
        "van Rossum": contenders(
            sx.times.SpikeTime(time_constant=TAU, reduction="sum"),
            lambda pair: van_rossum_distance(pair, TAU * pq.ms)[0, 1] ** 2,
            loop_van_rossum,
        ),
        "Victor-Purpura": contenders(
            sx.times.VictorPurpura(cost=COST, reduction="sum"),
            lambda pair: victor_purpura_distance(pair, COST / pq.ms)[0, 1],
            loop_victor_purpura,
        ),
    }
    seconds = {name: measure_seconds(runs) for name, runs in columns.items()}
    cells = [
        (
            program,
            *(
                f"{statistics.median(seconds[name][program]) * 1e3:.3g} ms, "
                f"{time_ratio(seconds[name], program, 'NumPy'):.3g}"
                for name in columns
            ),
        )
        for program in columns["van Rossum"]
    ]
    return pages.table((f"{PAIRS[0] * PAIRS[1]} pairs of {SPIKES} spikes", *columns), cells)


# The cross entropy of first spikes -----------------------------------------------------------


def first_spikes(library, shape):
    """Return our run and that of the plain line, value and gradient, in float32."""
    loss = sx.times.CrossEntropy(temperature=TEMPERATURE, silent_time=SILENT)
    x = np.random.default_rng(0).uniform(0, SILENT, shape).astype("f")
    label = np.arange(shape[0]) % shape[1]
    if library == "JAX":

        def plain(x, y):
            first = jnp.minimum(x if x.ndim == 2 else x.min(-1), SILENT)
            logit = -first / TEMPERATURE
            return optax.softmax_cross_entropy_with_integer_labels(logit, y).mean()

        arrays = jnp.asarray(x), jnp.asarray(label)
        runs = {n: jax.jit(jax.value_and_grad(f)) for n, f in (("ours", loss), ("plain", plain))}
        np.testing.assert_allclose(runs["ours"](*arrays)[1], runs["plain"](*arrays)[1], atol=1e-6)
        return {
            name: functools.partial(lambda f: jax.block_until_ready(f(*arrays)), run)
            for name, run in runs.items()
        }

    leaf, y = torch.tensor(x, requires_grad=True), torch.tensor(label)

    def line(x, y):
        first = (x if x.ndim == 2 else x.amin(-1)).clamp(max=SILENT)
        return F.cross_entropy(-first / TEMPERATURE, y)

    ours, plain = loss, line
    if library == "PyTorch, compiled":
        ours, plain = (torch.compile(f, dynamic=False) for f in (ours, plain))

    def backward(function):
        leaf.grad = None
        function(leaf, y).backward()
        return leaf.grad

    np.testing.assert_allclose(backward(ours), backward(plain), atol=1e-6)
    return {
        "ours": lambda: backward(ours),
        "plain": lambda: backward(plain),
    }


def entropy_table():
    rows = []
    for library in ("PyTorch", "PyTorch, compiled", "JAX"):
        runs = [measure_seconds(first_spikes(library, shape)) for shape in SIZES]
        rows.append((library, *(f"{time_ratio(run, 'ours', 'plain'):.2f}" for run in runs)))
    return pages.table(("", *(str(list(shape)) for shape in SIZES)), rows)


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    tables = [paired_table(), entropy_table()]
    print("\n\n".join(tables))
    if "--write" in sys.argv:
        page = pages.DOCS / "benchmarks.md"
        text = pages.with_tables(page.read_text(encoding="utf-8"), {"## Spike times": tables})
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
