"""Dask on a cluster: workers evaluate losses in memory for a few chunks."""

import sys

import numpy as np
import pytest

import spikeloss_xp as sx

pytest.importorskip("dask.array")
pytest.importorskip("distributed")
dask_memory = pytest.importorskip("dask_memory")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc"),
    pytest.mark.filterwarnings("ignore:Sending large graph"),  # it has the target of NumPy in it
]

ENTRIES = 5_000_000
CHUNK = 40  # MB, in float64
HELD = 50  # MB: chunks of spikes and targets, and the pieces in a cache
LIMIT = "300MB"  # a worker without any data takes 90 MB


@pytest.fixture(scope="module")
def client():
    with dask_memory.two_workers(LIMIT) as client:
        yield client


@pytest.mark.parametrize(
    "name", ["`SpikeMax(20)`", "the same, its target from NumPy", "the same, time in chunks"]
)
def test_workers_need_memory_for_a_few_chunks(client, name):
    loss, arguments = dask_memory.WORK[name]
    spikes, target = arguments(ENTRIES)
    on_numpy = spikes.compute(), target if isinstance(target, np.ndarray) else target.compute()
    expected, expected_gradient = sx.value_and_grad(loss)(*on_numpy)

    value, gradient = sx.value_and_grad(loss)(spikes, target)
    got, memory = dask_memory.compute(client, value)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    # Added up in the workers, because a gradient that is collected takes memory for all of it.
    got, memory_of_gradient = dask_memory.compute(client, gradient.sum(axis=1))
    added = expected_gradient.sum(axis=1)
    np.testing.assert_allclose(got, added, rtol=0, atol=1e-12 * np.abs(added).max())
    assert memory[1] - memory[0] < HELD + CHUNK / 2
    assert memory_of_gradient[1] - memory_of_gradient[0] < HELD + 2 * CHUNK
