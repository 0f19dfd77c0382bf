"""Compare losses on spike times and distances with elephant and with plain code, on one thread.

``OMP_NUM_THREADS=1 python tools/benchmarks/spike_times.py [--write]`` times:

- losses on pairs of trains against elephant, PySpike and the loop that a user would write,
- the cross entropy of first spikes against the plain line,
- the error of binned distances, for which elephant has the exact values.

With ``--write``, the program also writes docs/benchmarks.md and docs/distances.md. It requires
elephant, pyspike and optax.
"""

import sys
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import neo
import numpy as np
import optax
import pyspike
import quantities as pq
import torch
import torch.nn.functional as F  # noqa: N812
from contenders import called, with_gradient
from elephant.spike_train_dissimilarity import van_rossum_distance, victor_purpura_distance
from timing import medians

import spikeloss_xp as sx
from spikeloss_xp import distances

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from _support import pages, reference

TAU, COST = 20.0, 0.1  # in ms and per ms
PAIRS, SPIKES, DURATION = (32, 10), 30, 1000.0
SIZES = ((100, 10), (256, 20, 30))  # [batch, class, spike]
TEMPERATURE, SILENT = 2.0, 20.0


def loop_victor_purpura(x, y):
    return reference.victor_purpura(SimpleNamespace(cost=COST), x, y)


elephant_van_rossum = partial(van_rossum_distance, time_constant=TAU * pq.ms)
elephant_victor_purpura = partial(victor_purpura_distance, cost_factor=COST / pq.ms)


def neo_trains(trains, duration):
    return [neo.SpikeTrain(train * pq.ms, t_stop=duration * pq.ms) for train in trains]


# Trains in pairs -----------------------------------------------------------------------------


def loop_van_rossum(x, y):
    def product(a, b):
        return np.exp(-np.abs(a[:, None] - b) / TAU).sum()

    return product(x, x) - 2 * product(x, y) + product(y, y)


def contenders(loss, elephant, plain):
    """Return a run of each program, which computes all pairs; ours are also run with gradients."""
    x, y = np.sort(np.random.default_rng(0).uniform(0, DURATION, (2, *PAIRS, SPIKES)))
    pairs = list(zip(x.reshape(-1, SPIKES), y.reshape(-1, SPIKES), strict=True))
    trains = [neo_trains(pair, DURATION) for pair in pairs]
    others = [[pyspike.SpikeTrain(t, (0, DURATION)) for t in pair] for pair in pairs]
    for got in (sum(map(elephant, trains)), sum(plain(*pair) for pair in pairs)):
        np.testing.assert_allclose(got, loss(x, y), rtol=1e-9)
    return {
        "elephant": lambda: [elephant(pair) for pair in trains],
        "PySpike, SPIKE distance": lambda: [pyspike.spike_distance(*pair) for pair in others],
        "a loop in Python": lambda: [plain(*pair) for pair in pairs],
        "NumPy": called("NumPy", loss, x, y),
        "NumPy, gradient": with_gradient("NumPy", loss, x, y),
        "PyTorch, gradient": with_gradient("PyTorch", loss, x, y),
        "JAX, gradient, float32": with_gradient("JAX", loss, x.astype("f"), y.astype("f")),
    }


def paired_table():
    """Return a table with the run time of each program relative to our loss in NumPy."""
    van_rossum = sx.times.SpikeTime(time_constant=TAU, reduction="sum")
    victor_purpura = sx.times.VictorPurpura(cost=COST, reduction="sum")
    columns = {
        "van Rossum": contenders(
            van_rossum, lambda pair: elephant_van_rossum(pair)[0, 1] ** 2, loop_van_rossum
        ),
        "Victor-Purpura": contenders(
            victor_purpura, lambda pair: elephant_victor_purpura(pair)[0, 1], loop_victor_purpura
        ),
    }
    found = [medians(runs, "NumPy") for runs in columns.values()]
    rows = [
        (program, *(f"{column[program][1]:.3g}" for column in found))
        for program in found[0]
        if program != "NumPy"
    ]
    return pages.table(("program", *columns), rows)


# The cross entropy of first spikes -----------------------------------------------------------


def jax_line(x, y):
    first = jnp.minimum(x if x.ndim == 2 else x.min(-1), SILENT)
    return optax.softmax_cross_entropy_with_integer_labels(-first / TEMPERATURE, y).mean()


def torch_line(x, y):
    first = (x if x.ndim == 2 else x.amin(-1)).clamp(max=SILENT)
    return F.cross_entropy(-first / TEMPERATURE, y)


def first_spikes(library, shape):
    """Return our run time relative to the plain line, for value and gradient in float32."""
    loss = sx.times.CrossEntropy(temperature=TEMPERATURE, silent_time=SILENT)
    given = np.random.default_rng(0).uniform(0, SILENT, shape), np.arange(shape[0]) % shape[1]
    lines = {"ours": loss, "plain": jax_line if library == "JAX" else torch_line}
    runs = {n: with_gradient(library, x, given[0].astype("f"), given[1]) for n, x in lines.items()}
    np.testing.assert_allclose(runs["ours"]()[1], runs["plain"]()[1], atol=1e-6)
    _, ratio = medians(runs, "plain")["ours"]
    return ratio


def entropy_in_words():
    words = []
    for library in ("PyTorch", "compiled PyTorch", "JAX"):
        first, second = (first_spikes(library, shape) for shape in SIZES)
        words.append(f"{first:.2g} and {second:.2g} in {library}")
    return f"{', '.join(words[:-1])}, and {words[-1]}"


# Distances between all trains ----------------------------------------------------------------


def random_times(trains, duration, rate):
    """Return spike times in ms of Poisson trains, for a duration in ms and a rate in Hz."""
    random = np.random.default_rng(0)
    counts = random.poisson(rate * duration / 1000, size=trains)
    return [np.sort(random.uniform(0, duration, size=count)) for count in counts]


def binning_table():
    """Return a table with the relative error of a distance for several bin sizes."""
    trains = random_times(100, 1000, 20)
    exact = elephant_van_rossum(neo_trains(trains, 1000))
    different, rows = ~np.eye(len(trains), dtype=bool), []
    for ratio in (0.5, 0.1, 0.05, 0.01):
        width = ratio * TAU
        binned = sx.bin_spikes(trains, neurons=100, steps=round(1000 / width), time_step=width)
        got = distances.van_rossum(binned, time_constant=1 / ratio)
        error = np.abs(got[different] / exact[different] - 1)
        rows.append((f"{ratio:g}", f"{np.median(error):.2g}", f"{error.max():.2g}"))
    return pages.table(("bin / time constant", "median error", "largest error"), rows)


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    of_times, entropy, of_distances = paired_table(), entropy_in_words(), binning_table()
    print("\n\n".join([of_times, entropy, of_distances]))
    if "--write" in sys.argv:
        page = pages.DOCS / "benchmarks.md"
        text = pages.with_tables(page.read_text(encoding="utf-8"), {"## Spike times": [of_times]})
        figures = {r"(?<=^For these two shapes, the ratios are ).*(?=\.$)": entropy}
        page.write_text(pages.with_figures(text, figures), encoding="utf-8")
        pages.write(pages.DOCS / "distances.md", {"## Comparison with elephant": [of_distances]})


if __name__ == "__main__":
    main()
