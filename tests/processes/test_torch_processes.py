"""A batch that is split over two processes of PyTorch has the loss and gradient of the whole."""

import numpy as np
import pytest

pytest.importorskip("torch.distributed")

from _support.processes import (
    CASES,
    EACH_LOSS,
    HARDEST,
    SPARSITY,
    assert_equal_one_process,
    launch,
)

pytestmark = pytest.mark.compiles

CASES_OF = {
    "ddp": {**CASES, **SPARSITY},
    "fsdp": {name: CASES[name] for name in EACH_LOSS},
    "accumulated": {name: CASES[name] for name in EACH_LOSS},
}
QUICK = {
    "ddp": (HARDEST, "SparsityEnforcer-min"),
    "fsdp": ("SpikeMoid-groups-rate-window-mean",),
    "accumulated": ("SpikeLatency-times-groups-mean",),
}


def test_recipes_equal_one_process(pytestconfig, tmp_path):
    """With DDP, FSDP, and micro-batches in each process: all cases in one group of processes."""
    batches = CASES_OF
    if not pytestconfig.getoption("--slow"):
        batches = {kind: {n: CASES_OF[kind][n] for n in names} for kind, names in QUICK.items()}
    results, found = launch("run_torch.py", tmp_path, batches, OMP_NUM_THREADS="1"), {}
    for key in results[0]:
        values, (first, second) = zip(*(result[key] for result in results), strict=True)
        assert np.array_equal(first, second), key  # the gradient is the same in each
        by = 2 if key[-1] in SPARSITY else 1  # each process has twice the term of the whole
        found[key] = np.mean(values) / by, first
    assert_equal_one_process(found)
