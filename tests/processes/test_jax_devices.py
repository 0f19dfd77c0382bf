"""A batch that is sharded over devices or processes of JAX has the loss and gradient of the whole.

Each case is compiled by itself, so the quick run has one form of each loss.
"""

import re

import pytest

pytest.importorskip("jax")

from _support.processes import (
    CASES,
    COMPILED,
    EACH_LOSS,
    RTOL,
    SPARSITY,
    SPLIT_MATTERS,
    error,
    free_port,
    launch,
    one_process,
)

# Without LLVM's optimizations, which take half of the time of a compilation.
VIRTUAL = {
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
}
COMMON = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
MEANS = [name for name in EACH_LOSS if name.endswith("-mean")]
UNCHECKED = "SpikeMax-smoothed-count-window-mean"
QUICK = {"outside": EACH_LOSS, "inside": MEANS, "sharded": MEANS, "processes": MEANS}


def every_case(*recipes):
    """Run a test for recipes and cases, of which those not in `QUICK` are slow."""
    cases = [
        pytest.param(r, name, marks=[] if name in QUICK[r] else pytest.mark.slow, id=f"{r}-{name}")
        for r in recipes
        for name in COMPILED
    ]
    return pytest.mark.parametrize(("recipe", "name"), cases)


def chosen(request, *recipes):
    """Return the recipes and cases that this run has."""
    slow = request.config.getoption("--slow")
    return [(r, n, CASES[n]) for r in recipes for n in (COMPILED if slow else QUICK[r])]


@pytest.fixture(scope="module")
def devices(request, tmp_path_factory):
    """Run the recipes for one process with four virtual devices."""
    folder = tmp_path_factory.mktemp("devices")
    batches = chosen(request, "outside", "inside", "sharded")
    batches += [("sparsity", *item) for item in SPARSITY.items()]
    batches += [("unchecked", UNCHECKED, CASES[UNCHECKED])]
    batches += [("naive", name, CASES[name]) for name in SPLIT_MATTERS]
    batches += [("naive sparsity", *item) for item in SPARSITY.items()]
    (results,) = launch("run_jax.py", folder, batches, **COMMON, **VIRTUAL)
    return results


@pytest.fixture(scope="module")
def processes(request, tmp_path_factory):
    """Run the recipe for two processes."""
    folder, address = tmp_path_factory.mktemp("processes"), f"localhost:{free_port()}"
    batches = chosen(request, "processes")
    return launch("run_jax.py", folder, batches, address, number=2, **COMMON)


@every_case("outside", "inside", "sharded")
def test_devices_equal_one_process(devices, recipe, name):
    assert error(devices[recipe, name][0], one_process(CASES[name])) < RTOL


@every_case("outside", "inside", "sharded")
def test_only_sums_cross_devices(devices, recipe, name):
    """The sum, the weight and the gradient of the parameters; no spikes."""
    neurons = CASES[name].spikes.shape[1]
    for collective in devices[recipe, name][1]:
        shapes = re.findall(r"f64\[([\d,]*)\]", collective)
        assert collective.startswith("all-reduce"), collective
        assert set(shapes) <= {"", f"{neurons},{neurons}"}, collective


def test_unchecked_shard_map_needs_a_sum_of_the_gradient(devices):
    got, _ = devices["unchecked", UNCHECKED]
    assert error(got, one_process(CASES[UNCHECKED])) < RTOL


@pytest.mark.parametrize("name", SPARSITY)
def test_sparsity_of_the_whole_equals_one_process(devices, name):
    assert error(devices["sparsity", name][0], one_process(SPARSITY[name])) < RTOL


@every_case("processes")
def test_processes_equal_one_process(processes, recipe, name):
    for results in processes:
        assert error(results[recipe, name][0], one_process(CASES[name])) < RTOL


@pytest.mark.parametrize("name", [*SPLIT_MATTERS, *SPARSITY])
def test_mean_over_devices_is_another(devices, name):
    """The cases tell a right recipe from a wrong one."""
    recipe, batch = ("naive", CASES[name]) if name in CASES else ("naive sparsity", SPARSITY[name])
    assert error(devices[recipe, name][0], one_process(batch)) > 1e-3
