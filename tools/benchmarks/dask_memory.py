"""Print the table of docs/dask.md: the memory of the workers of a Dask cluster, on Linux.

``python tools/benchmarks/dask_memory.py`` takes some minutes. Each of the two workers has
one thread.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
from dask.distributed import Client, KilledWorker, LocalCluster

import spikeloss_xp as sx

CHUNKS = 4
LIMIT = "3GB"
TIMEOUT = 300  # seconds; a worker whose memory is full may stop for ever


class Work(NamedTuple):
    """A loss, how its spikes are cut, and the library of its target if that is spike trains."""

    loss: Any
    axis: str
    target: str | None = None

    def arguments(self, entries: int) -> tuple[da.Array, Any]:
        """Return spikes and target, in chunks of so many entries: millions of them."""
        if self.axis == "time":
            shape, chunks = (1, 200, CHUNKS * entries // 200), (-1, -1, entries // 200)
        else:
            trials = entries // 1_000_000
            shape, chunks = (CHUNKS * trials, 50, 20_000), (trials, -1, -1)
        spikes = random_spikes(shape, chunks, seed=0)
        if self.target is None:
            return spikes, np.arange(shape[0]) % shape[1]
        trains = random_spikes(shape, chunks, seed=1)
        return spikes, trains.compute() if self.target == "NumPy" else trains


WORK = {
    "`SpikeMax()`": Work(sx.SpikeMax(reduction="mean"), "batch"),
    "`SpikeMax(20)`": Work(sx.SpikeMax(20, reduction="mean"), "batch"),
    "`SpikeTime(5, 100)`": Work(sx.SpikeTime(5, 100), "batch", "Dask"),
    "the same, its target from NumPy": Work(sx.SpikeTime(5, 100), "batch", "NumPy"),
    "the same, time in chunks": Work(sx.SpikeTime(5, 100), "time", "Dask"),
}


def random_spikes(shape: tuple[int, ...], chunks: tuple[int, ...], seed: int) -> da.Array:
    random = da.random.default_rng(seed)
    return random.integers(50, size=shape, chunks=chunks, dtype=np.uint8) == 0


@contextlib.contextmanager
def two_workers(memory_limit: str) -> Iterator[Client]:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=memory_limit, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        client.run(lambda: __import__("spikeloss_xp"))
        yield client


def compute(client: Client, lazy: da.Array) -> tuple[Any, tuple[float, float] | None]:
    """Compute an array. Return it, and a worker's memory before and at most, None if unknown."""

    def reset() -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def peak() -> float:  # in MB; after a reset, that of the memory in use
        lines = Path("/proc/self/status").read_text().splitlines()
        (size,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(size) * 1024 / 1e6

    if not Path("/proc/self/clear_refs").exists():
        return client.compute(lazy).result(timeout=TIMEOUT), None
    client.run(reset)
    base = client.run(peak)
    computed = client.compute(lazy).result(timeout=TIMEOUT)
    peaks = client.run(peak)
    assert peaks.keys() == base.keys(), "a worker was killed"
    worker = max(peaks, key=lambda worker: peaks[worker] - base[worker])
    return computed, (base[worker], peaks[worker])


def main(entries: int) -> None:
    print(f"Chunks of {entries // 1_000_000} MB, {entries * 8 // 1_000_000} MB in float64\n")
    print("| loss | value | gradient |\n| --- | --- | --- |")
    with two_workers(LIMIT) as client:
        for name, work in WORK.items():
            spikes, target = work.arguments(entries)
            value, gradient = sx.value_and_grad(work.loss)(spikes, target)
            # The gradient is added up, because collecting it takes memory for all of it.
            cells = []
            for lazy in (value, gradient.sum(axis=1)):
                try:
                    _, memory = compute(client, lazy)
                    cells.append("{1:.0f} MB, {0:.0f} of them before".format(*memory))
                except KilledWorker:
                    cells.append(f"killed at {LIMIT}")
                    client.wait_for_workers(2, timeout=TIMEOUT)  # Dask starts it again
                    client.run(lambda: __import__("spikeloss_xp"))
            print("|", " | ".join([name, *cells]), "|", flush=True)


if __name__ == "__main__":
    main(20_000_000)
