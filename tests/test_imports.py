"""Importing the library is cheap, and brings in no array library that the caller does not hold."""

import subprocess
import sys

import pytest

FRAMEWORKS = {
    "array_api_strict", "chainer", "cupy", "cupyx", "dask", "flax", "jax", "jaxlib", "mlx",
    "ndonnx", "optax", "paddle", "sparse", "tensorflow", "tinygrad", "torch",
}  # fmt: skip

EVALUATE = """
import numpy as np
import spikeloss_xp as sx
train = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]], dtype="float32")
losses = [(sx.SpikeTime(), train), (sx.SpikeRate(0.5, 0.0, moving_window=2), [0])]
losses += [(sx.SpikeMax(), [0]), (sx.SpikeMoid(), [[True, False]]), (sx.SparsityEnforcer(),)]
def evaluate(spikes):
    for loss, *target in losses:
        loss(spikes, *target)
        sx.value_and_grad(loss)(spikes, *target)
    sx.MovingWindow(2)(spikes), sx.Rate().confidence(spikes)
"""


def python(program: str, *options: str) -> str:
    """Run a program in a fresh interpreter, where any warning is an error.

    With -P it finds the library where this one does, rather than in the current folder.
    """
    command = [sys.executable, "-P", "-W", "error", *options, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def frameworks_after(program: str) -> set[str]:
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return FRAMEWORKS & set(python(f"{program}\n{report}").split())


def test_the_import_loads_no_framework():
    assert frameworks_after("import spikeloss_xp") == set()


def test_the_import_warns_of_nothing():
    assert python("import spikeloss_xp", "-X", "dev") == ""


def test_losses_on_numpy_arrays_load_no_framework():
    assert frameworks_after(f"{EVALUATE}\nevaluate(train); evaluate(train > 0)") == set()


@pytest.mark.parametrize(
    ("library", "arrays"),
    {
        "torch": "import torch\nevaluate(torch.asarray(train))",
        "jax": "import jax.numpy as jnp\nevaluate(jnp.asarray(train))",
        "array_api_strict": "import array_api_strict as xp\nevaluate(xp.asarray(train))",
    }.items(),
)
def test_losses_load_nothing_that_the_array_library_does_not(library, arrays):
    pytest.importorskip(library)
    assert frameworks_after(EVALUATE + arrays) == frameworks_after(f"import {library}")


def test_the_import_takes_milliseconds():
    # The part of the import that is not NumPy's is timed alone, in the interpreter that does it:
    # the difference of two processes would have the noise of both. Whatever else runs on the
    # machine, and a cold disk cache, only add to it, so the least of several is nearest the truth.
    program = (
        "import time, numpy; start = time.perf_counter()\n"
        "import spikeloss_xp; print(time.perf_counter() - start)"
    )
    least = min(float(python(program)) for _ in range(5))
    assert least < 0.120  # one tenth of a second is where a user begins to notice
