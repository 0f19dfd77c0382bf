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
        loss, arguments = dask_memory.WORK["`SpikeMax()`"]
        small, _ = sx.value_and_grad(loss)(*arguments(1_000_000))
        dask_memory.compute(client, small)  # imports what takes memory in a first computation
        yield client


@pytest.mark.parametrize("name", ["the same, its target from NumPy", "the same, time in chunks"])
def test_workers_need_memory_for_a_few_chunks(client, name):
    loss, arguments = dask_memory.WORK[name]
    value, gradient = sx.value_and_grad(loss)(*arguments(ENTRIES))
    # Added up in the workers, because a gradient that is collected takes memory for all of it.
    for lazy, most in ((value, HELD + CHUNK / 2), (gradient.sum(axis=1), HELD + 2 * CHUNK)):
        got, (before, peak) = dask_memory.compute(client, lazy)
        expected = lazy.compute(scheduler="synchronous")
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        assert peak - before < most
