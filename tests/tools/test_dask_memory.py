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


@pytest.mark.parametrize("cut_in_time", [False, True])
def test_workers_need_memory_for_a_few_chunks(cut_in_time):
    """The target of many trials is an array of NumPy."""
    spikes, target = (dask_memory.trains(ENTRIES, i, cut_in_time=cut_in_time) for i in range(2))
    target = target if cut_in_time else target.compute()
    value, gradient = sx.value_and_grad(dask_memory.LOSS)(spikes, target)
    with dask_memory.two_workers(LIMIT) as client:
        # In a first computation, both workers import what takes memory.
        small = (dask_memory.trains(1_000_000, i) for i in range(2))
        _, gradient_of_small = sx.value_and_grad(dask_memory.LOSS)(*small)
        dask_memory.compute(client, gradient_of_small)
        # Added up in the workers, because a gradient that is collected takes memory for all of it.
        for lazy, most in ((value, HELD + CHUNK / 2), (gradient.sum(axis=1), HELD + 2 * CHUNK)):
            got, (before, peak) = dask_memory.compute(client, lazy)
            expected = lazy.compute(scheduler="synchronous")
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
            assert peak - before < most
