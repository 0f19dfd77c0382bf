"""The programs of docs/recipes that train on several devices, or in segments of time."""

import os
import re
import subprocess
import sys

import pytest

from _support.processes import RECIPES, recipes
from _support.root import ROOT

TORCHRUN = "-m torch.distributed.run --standalone --no-python --nproc-per-node"
DOUBLE = "import runpy, torch; torch.set_default_dtype(torch.float64); runpy.run_path"
# A thread of the group that frees a tensor while Python ends aborts the process: none may be left.
NAMES = "open(p).read() for p in glob.glob('/proc/self/task/*/comm')"  # on Linux
THREADS = f"import glob; assert 'gloo' not in ' '.join({NAMES})"
PAGE = (ROOT / "docs" / "segments.md").read_text(encoding="utf-8")
SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("truncated_jax", "segment_errors")]
SEGMENTS = ["truncated_torch", "segment_identities", "online", "one_step_jax", *SLOW]


def printed(name, number):
    """Return what a program prints on so many devices or processes, in float64."""
    path, command = str(RECIPES / f"{name}.py"), [sys.executable]
    if name == "ddp_torch":
        command += [*TORCHRUN.split(), str(number), *command, "-c"]
        path = f"{DOUBLE}({path!r}, run_name='__main__'); {THREADS}"
    devices = f"--xla_force_host_platform_device_count={number}"
    variables = os.environ | {"OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1", "XLA_FLAGS": devices}
    return subprocess.check_output([*command, path], env=variables, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.compiles
@pytest.mark.parametrize("name", ["devices_jax", "ddp_torch"])
def test_loss_and_accuracy_are_those_of_one_device(name):
    pytest.importorskip(name.rpartition("_")[-1])
    expected = printed(name, 1)
    assert float(expected.split()[-1].rstrip("%")) > 90
    assert printed(name, 2) == expected


@pytest.mark.compiles
@pytest.mark.parametrize("name", SEGMENTS)
def test_segments_equal_the_whole_train(name, capsys):
    """Each program raises an error if they differ. The errors that it prints are on the page."""
    for library in re.findall(r"^import (\w+)", (RECIPES / f"{name}.py").read_text(), flags=re.M):
        pytest.importorskip(library)
    recipes(name).main()
    printed = capsys.readouterr().out
    shown = [f"{error} %" for error in re.findall(r"([1-9]\d*)%", printed)]
    if without := [int(error) for error in re.findall(r" (\d+) +\d+$", printed, flags=re.M)]:
        shown.append(f"{min(without)} to {max(without)} %")
    for error in shown:
        assert error in " ".join(PAGE.split())
