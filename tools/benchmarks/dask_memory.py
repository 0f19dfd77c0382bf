"""Print the memory that a worker of a Dask cluster needs for a gradient, as docs/dask.md quotes it.

``python tools/benchmarks/dask_memory.py`` takes a minute, and works only on Linux. There are two
workers with one thread each.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.distributed import Client, LocalCluster
from timing import forget_peak, peak_bytes

import spikeloss_xp as sx

CHUNKS = 4
TIMEOUT = 300  # seconds; a worker may hang when its memory is full
LOSS = sx.SpikeTime(time_constant=5, length=100, time_axis=-1, reduction="sum")


def trains(entries: int, seed: int, *, cut_in_time: bool = False) -> da.Array:
    """Return spikes of many trials, or of a single trial, in chunks of millions of `entries`."""
    shape, chunks = (CHUNKS * entries // 1_000_000, 50, 20_000), (entries // 1_000_000, -1, -1)
    if cut_in_time:
        shape, chunks = (1, 200, CHUNKS * entries // 200), (-1, -1, entries // 200)
    random = da.random.default_rng(seed)
    return random.integers(50, size=shape, chunks=chunks, dtype=np.uint8) == 0


@contextlib.contextmanager
def two_workers(memory_limit: str) -> Iterator[Client]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(memory_limit=memory_limit, **options) as cluster,
        Client(cluster) as client,
    ):
        client.run(lambda: __import__("spikeloss_xp"))
        yield client


def compute(client: Client, lazy: da.Array) -> tuple[Any, tuple[float, float]]:
    """Compute an array; return it, and the initial and peak memory of a worker in MB."""
    client.run(forget_peak)
    base = client.run(peak_bytes)
    computed = client.compute(lazy).result(timeout=TIMEOUT)
    peaks = client.run(peak_bytes)
    assert peaks.keys() == base.keys(), "a worker was killed"
    worker = max(peaks, key=lambda worker: peaks[worker] - base[worker])
    return computed, (base[worker] / 1e6, peaks[worker] / 1e6)


def main(entries: int = 20_000_000) -> None:
    _, gradient = sx.value_and_grad(LOSS)(trains(entries, 0), trains(entries, 1))
    with two_workers("3GB") as client:
        # Sum the gradient, because collecting it would take memory for the whole array.
        _, memory = compute(client, gradient.sum(axis=1))
    print("{:.0f} → {:.0f} MB".format(*memory))


if __name__ == "__main__":
    main()
