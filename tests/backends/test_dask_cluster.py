"""Dask on a cluster: workers evaluate more spikes than fit into their memory at once."""

from pathlib import Path

import numpy as np
import pytest

import spikeloss_xp as sx

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

pytestmark = pytest.mark.slow

MEMORY_LIMIT = "300MB"  # a worker without any data takes 90 MB
TRIALS, RECORDING = (16, 50, 25_000), (4, 20, 250_000)
CHUNK = 40  # MB of a chunk in float64; it has 5e6 entries
CALLS = {  # a loss, the shape and the chunks of the spikes, and the target
    "window": (sx.SpikeMax(20, reduction="mean"), TRIALS, (4, -1, -1), np.arange(16)),
    "time-in-chunks": (sx.SpikeTime(5, 100), RECORDING, (-1, -1, 62_500), "Dask"),
    "numpy-target": (sx.SpikeTime(5, 100), TRIALS, (4, -1, -1), "NumPy"),
}


@pytest.fixture(scope="module")
def client():
    settings = {"distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=MEMORY_LIMIT, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def random_spikes(shape, chunks, seed):
    numbers = da.random.default_rng(seed).integers(50, size=shape, chunks=chunks, dtype=np.uint8)
    return numbers == 0


def peak_above_base(client, lazy):
    """Compute some arrays; return them, and the growth of a worker's memory, None if unknown."""

    def reset():
        Path("/proc/self/clear_refs").write_text("5")

    def peak():  # in MB; after a reset, the memory in use
        lines = Path("/proc/self/status").read_text().splitlines()
        (size,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(size) / 1000

    if not Path("/proc/self/clear_refs").exists():
        return dask.compute(*lazy), None
    client.run(reset)
    base = client.run(peak)
    computed = dask.compute(*lazy)
    peaks = client.run(peak)
    assert peaks.keys() == base.keys()  # no worker was killed
    return computed, max(peaks[worker] - base[worker] for worker in peaks)


@pytest.mark.filterwarnings("ignore:Sending large graph")  # the graph has the target of NumPy in it
@pytest.mark.parametrize("call", CALLS)
def test_workers_need_memory_for_a_few_chunks(client, call):
    """For the value, of spikes; for the gradient, of the dtype computed in."""
    loss, shape, chunks, target = CALLS[call]
    spikes = random_spikes(shape, chunks, 0)
    on_host = spikes.compute()
    targets = (target, target)
    if isinstance(target, str):
        lazy = random_spikes(shape, chunks, 1)
        targets = (lazy if target == "Dask" else lazy.compute(), lazy.compute())
    expected, expected_gradient = sx.value_and_grad(loss)(on_host, targets[1])

    value, gradient = sx.value_and_grad(loss)(spikes, targets[0])
    got, growth_of_value = peak_above_base(client, [value])
    np.testing.assert_allclose(got[0], expected, rtol=1e-12)
    # Added up, chunk by chunk, because a gradient that is collected needs memory for all of it.
    got, growth_of_gradient = peak_above_base(client, [gradient.sum(axis=1)])
    added = expected_gradient.sum(axis=1)
    np.testing.assert_allclose(got[0], added, rtol=0, atol=1e-12 * np.abs(added).max())
    print(call, growth_of_value, growth_of_gradient)
    if growth_of_value is not None:
        assert growth_of_value < 1.5 * CHUNK
        assert growth_of_gradient < 2.5 * CHUNK
