"""Print the tables of docs/distances.md.

With one thread: ``OMP_NUM_THREADS=1 python tools/benchmarks/distances.py``.

The distances of elephant, side by side with those of this library, and how far bins of some length
change the van Rossum distance.
"""

import functools
import statistics
import warnings

import neo
import numpy as np
import quantities as pq
import torch
from elephant.spike_train_dissimilarity import van_rossum_distance, victor_purpura_distance
from timing import measure_seconds, time_ratio

from spikeloss_xp import distances

TIME_CONSTANT = 20.0  # ms
COST = 0.1  # for each ms


def random_times(trains, duration, rate):
    """Return the spike times of Poisson trains, in ms; the duration is in ms, the rate in Hz."""
    random = np.random.default_rng(0)
    counts = random.poisson(rate * duration / 1000, size=trains)
    return [np.sort(random.uniform(0, duration, size=count)) for count in counts]


def counts(times, duration, bin_size=1.0):
    """Return the number of spikes in each bin."""
    binned = np.zeros((len(times), round(duration / bin_size)), np.float64)
    for row, train in zip(binned, times, strict=True):
        np.add.at(row, np.floor(train / bin_size).astype(int), 1)
    return binned


def elephant(times, duration):
    return [neo.SpikeTrain(train * pq.ms, t_stop=duration * pq.ms) for train in times]


def binned_distances(x):
    """Return a contender for each library and dtype."""
    return {
        f"{name}, {dtype}": functools.partial(
            distances.van_rossum, make(x.astype(dtype)), time_constant=TIME_CONSTANT
        )
        for name, make in (("NumPy", np.asarray), ("PyTorch", torch.asarray))
        for dtype in ("float32", "float64")
    }


def rows():
    """Yield the name of each row, the contenders, elephant first, and the ratio wanted."""
    for trains, duration, rate, wanted in ((200, 1000, 20, 100), (300, 60000, 5, 1)):
        times = random_times(trains, duration, rate)
        peer = elephant(times, duration)
        contenders = {"elephant": lambda p=peer: van_rossum_distance(p, TIME_CONSTANT * pq.ms)}
        contenders |= binned_distances(counts(times, duration))
        name = f"van Rossum, {trains} trains of {duration / 1000:g} s at {rate} Hz, bins of 1 ms"
        yield name, contenders, wanted
    times = random_times(60, 1000, 20)
    peer, tensors = elephant(times, 1000), [torch.asarray(train) for train in times]
    yield (
        "Victor-Purpura, 60 trains of 1 s at 20 Hz",
        {
            "elephant": lambda: victor_purpura_distance(peer, COST / pq.ms),
            "NumPy, float64": lambda: distances.victor_purpura(times, cost=COST),
            "PyTorch, float64": lambda: distances.victor_purpura(tensors, cost=COST),
        },
        8,
    )


def binning_errors():
    """Yield the relative bin size, and the median and the largest relative error of a distance."""
    times = random_times(100, 1000, 20)
    exact = van_rossum_distance(elephant(times, 1000), TIME_CONSTANT * pq.ms)
    different = ~np.eye(len(times), dtype=bool)
    for ratio in (0.5, 0.2, 0.1, 0.05, 0.01):
        size = ratio * TIME_CONSTANT
        got = distances.van_rossum(counts(times, 1000, size), time_constant=1 / ratio)
        error = np.abs(got / np.where(different, exact, 1) - 1)[different]
        yield ratio, np.median(error), error.max()


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| work, one thread | elephant | here | elephant takes, times as long | wanted |")
    print("|---|---|---|---|---|")
    for work, contenders, wanted in rows():
        seconds = measure_seconds(contenders)
        first = f"{statistics.median(seconds['elephant']) * 1e3:.3g} ms"
        for name in list(contenders)[1:]:
            here = f"{name}: {statistics.median(seconds[name]) * 1e3:.3g} ms"
            ratio = time_ratio(seconds, "elephant", name)
            print(f"| {work} | {first} | {here} | {ratio:.3g} | {wanted} |", flush=True)
            work = first = ""
    print("\n| bin / time constant | median error | largest error |\n|---|---|---|")
    for ratio, median, largest in binning_errors():
        print(f"| {ratio:g} | {median:.2g} | {largest:.2g} |")


if __name__ == "__main__":
    main()
