"""Importing the library loads few modules, and no array library that the caller has not loaded."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import array_api_compat
import numpy
import pytest

import spikeloss_xp
from _support.programs import run_python
from spikeloss_xp import backends

FRAMEWORKS = {"array_api_strict", "cupy", "dask", "dpnp", "jax", "mlx", "ndonnx", "torch"}

EVALUATE = """
import numpy as np
import spikeloss_xp as sx
train = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]], dtype="float32")
losses = [(sx.SpikeTime(time_axis=-1), train), (sx.SpikeRate(0.5, 0.0, time_axis=-1), [0])]
losses += [(sx.SpikeMoid(alpha=0.1, theta=0.2, time_axis=-1), [[True, False]])]
losses += [(sx.SpikeMax(time_axis=-1), [0]), (sx.SparsityEnforcer(),)]
def evaluate(spikes):
    for loss, *target in losses:
        loss(spikes, *target)
        sx.value_and_grad(loss)(spikes, *target)
    sx.SpikeMax(time_axis=-1, moving_window=2).predict(spikes, per_step=True)
"""


def modules_loaded_by(program: str) -> set[str]:
    """Return the modules that are loaded after a program has run."""
    return set(run_python(f"{program}\nimport sys; print(*sys.modules)").split())


@pytest.mark.compiles
@pytest.mark.parametrize(
    ("library", "arrays"),
    [
        ("numpy", "evaluate(train); evaluate(train > 0)"),
        pytest.param("torch", "evaluate(torch.asarray(train))", marks=pytest.mark.slow),
        pytest.param("jax", "jax.jit(evaluate)(jax.numpy.asarray(train))", marks=pytest.mark.slow),
    ],
)
def test_losses_load_only_the_framework_of_their_input(library, arrays):
    pytest.importorskip(library)
    loaded = modules_loaded_by(f"{EVALUATE}import {library}\n{arrays}")
    alone = modules_loaded_by(f"import {library}")
    packages = [{name.partition(".")[0] for name in names} for names in (loaded, alone)]
    assert FRAMEWORKS & packages[0] == FRAMEWORKS & packages[1]
    assert f"spikeloss_xp.backends._{library}" in loaded
    assert "torch._dynamo" not in loaded  # importing it takes longer than the rest of a first call


def test_import_loads_few_modules_and_gives_no_warnings():
    """Counts modules, because the time of an import depends on what else the machine does."""
    program = (
        "import sys, numpy; before = set(sys.modules)\n"
        "import spikeloss_xp; print(*sorted(set(sys.modules) - before))"
    )
    loaded = run_python(program, "-X", "dev").split()
    own = [name for name in loaded if name.startswith("spikeloss_xp")]
    assert not [name for name in own if re.search("cli|slayer|torch", name)]
    others = [name for name in loaded if name not in own]
    standard = [name for name in others if name.partition(".")[0] in sys.stdlib_module_names]
    assert {name.partition(".")[0] for name in set(others) - set(standard)} == {"array_api_compat"}
    assert len(standard) <= 10, standard


@pytest.mark.parametrize("missing", ["spikeloss_xp.backends", "numpy"])
def test_import_without_installation_says_how_to_install(tmp_path, missing):
    core, adapters = (Path(module.__file__).parent for module in (spikeloss_xp, backends))
    shutil.copytree(core, tmp_path / "spikeloss_xp", ignore=shutil.ignore_patterns("backends"))
    paths = [tmp_path]
    if missing == "numpy":
        shutil.copytree(adapters, tmp_path / "spikeloss_xp" / "backends")
    else:  # as in a copy of the repository
        paths += [Path(numpy.__file__).parents[1], Path(array_api_compat.__file__).parents[1]]
    program = f"import sys; sys.path[:0] = {[str(path) for path in paths]}; import spikeloss_xp"
    # Without `site`, only these paths and the standard library.
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    last = done.stderr.splitlines()[-1]
    assert f"cannot import {missing}." in last
    assert last.endswith("python -m pip install .")
