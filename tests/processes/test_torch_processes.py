"""A batch that is split over two processes of PyTorch has the loss and gradient of the whole."""

import numpy as np
import pytest

pytest.importorskip("torch.distributed")

from _support.processes import (
    CASES,
    EACH_LOSS,
    RTOL,
    SPARSITY,
    SPLIT_MATTERS,
    error,
    launch,
    one_process,
)

BATCHES = {
    "ddp": {**CASES, **SPARSITY},
    "fsdp": {name: CASES[name] for name in EACH_LOSS},
    "accumulated": {name: CASES[name] for name in EACH_LOSS},
    "naive": {**{name: CASES[name] for name in SPLIT_MATTERS}, **SPARSITY},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run all cases in one group of processes."""
    folder = tmp_path_factory.mktemp("processes")
    return launch("run_torch.py", folder, BATCHES, number=2, OMP_NUM_THREADS="1")


def of_recipe(results, recipe, name):
    """Return the mean of the losses of the processes, and the gradient, the same in each."""
    values, (first, second) = zip(*(found[recipe, name] for found in results), strict=True)
    assert np.array_equal(first, second)
    return np.mean(values), first


@pytest.mark.parametrize("name", CASES)
def test_ddp_equals_one_process(results, name):
    assert error(of_recipe(results, "ddp", name), one_process(CASES[name])) < RTOL


@pytest.mark.parametrize("name", EACH_LOSS)
def test_micro_batches_in_each_process_equal_one_process(results, name):
    assert error(of_recipe(results, "accumulated", name), one_process(CASES[name])) < RTOL


@pytest.mark.parametrize("name", EACH_LOSS)
def test_fsdp_equals_one_process(results, name):
    assert error(of_recipe(results, "fsdp", name), one_process(CASES[name])) < RTOL


@pytest.mark.parametrize("name", SPARSITY)
def test_sparsity_of_the_whole_equals_one_process(results, name):
    value, gradient = of_recipe(results, "ddp", name)
    assert error((value / 2, gradient), one_process(SPARSITY[name])) < RTOL


@pytest.mark.parametrize("name", [*SPLIT_MATTERS, *SPARSITY])
def test_loss_in_each_process_is_another(results, name):
    """The cases tell a right recipe from a wrong one."""
    batch = {**CASES, **SPARSITY}[name]
    assert error(of_recipe(results, "naive", name), one_process(batch)) > 1e-3
