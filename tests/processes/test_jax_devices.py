"""A batch over devices or processes of JAX has the loss and the gradient of the whole."""

import re

import pytest

pytest.importorskip("jax")

from _support.processes import (
    CASES,
    HARDEST,
    MEANS,
    SPARSITY,
    assert_equal_one_process,
    free_port,
    launch,
)

pytestmark = pytest.mark.compiles

ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
VIRTUAL = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
BOUNDS = "CrossEntropy-bounds-count-mean"
DEVICES = {  # all cases of a recipe, and that of the quick run
    "gradient_outside": ([HARDEST, *MEANS], HARDEST),
    "gradient_inside": (MEANS, "SpikeMoid-groups-rate-window-mean"),
    "whole": (MEANS, "SpikeRate-rate-window-per-step-mean"),
    "whole-replicated": ([BOUNDS, *MEANS], BOUNDS),  # the target is whole on each device
    "sparsity_over_devices": (list(SPARSITY), "SparsityEnforcer-min"),
}


def test_devices_equal_one_process(pytestconfig, tmp_path):
    """Four virtual devices, of which only sums cross: no spikes."""
    slow = pytestconfig.getoption("--slow")
    chosen = ((r, n) for r, (names, quick) in DEVICES.items() for n in (names if slow else [quick]))
    batches = [(r, n, {**CASES, **SPARSITY}[n]) for r, n in chosen]
    (results,) = launch("run_jax.py", tmp_path, batches, **{**ENVIRONMENT, **VIRTUAL})
    assert_equal_one_process({key: got for key, (got, _) in results.items()})
    for (recipe, name), (_, collectives) in results.items():
        if recipe == "sparsity_over_devices":
            continue
        neurons = CASES[name].spikes.shape[1]
        for collective in collectives:  # the sum, the weight and the gradient of the parameters
            shapes = re.findall(r"f64\[([\d,]*)\]", collective)
            assert collective.startswith("all-reduce"), (recipe, name, collective)
            assert set(shapes) <= {"", f"{neurons},{neurons}"}, (recipe, name, collective)


@pytest.mark.slow
def test_processes_equal_one_process(tmp_path):
    batches = [("processes", name, CASES[name]) for name in MEANS]
    address = f"localhost:{free_port()}"
    for results in launch("run_jax.py", tmp_path, batches, address, number=2, **ENVIRONMENT):
        assert_equal_one_process({key: got for key, (got, *_) in results.items()})
