"""The examples of the documentation run, in a short form."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

for library in ("jax", "matplotlib", "sklearn", "torch"):
    pytest.importorskip(library)

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def example():
    """Return a function that imports a module of the example, from beside the script."""
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module
    sys.path.remove(str(EXAMPLES))


def test_the_short_form_trains_the_same_everywhere_and_draws(tmp_path):
    picture = tmp_path / "training.png"
    script = EXAMPLES / "train_digits.py"
    done = subprocess.run(
        [sys.executable, script, "--short", "--figure", picture],
        env=ONE_THREAD, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("never") == 9, done.stdout  # three losses, three frameworks
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["SpikeRate", "SpikeMax", "SpikeTime"])
def test_the_curves_coincide_and_fall(example, name):
    training, frameworks = example("train_digits"), example("network").FRAMEWORKS
    digits = example("digits").Digits.load()
    task = example("digits").TASKS[name]
    with example("threadpoolctl").threadpool_limits(1):
        runs = {n: training.train(f, task, digits, epochs=1) for n, f in frameworks.items()}
    for run in runs.values():
        # Some roundings a step, of 2e-16 each; one spike that differs would show as 1e-5 or more.
        np.testing.assert_allclose(run.losses, runs["NumPy"].losses, rtol=1e-12)
        np.testing.assert_array_equal(run.after, runs["NumPy"].after)
        assert run.losses[-1, -10:].mean() < 0.9 * run.losses[0, 0]


@pytest.mark.parametrize("name", ["SpikeRate", "SpikeMax", "SpikeTime"])
@pytest.mark.parametrize("framework", ["PyTorch", "JAX"])
def test_back_propagation_written_out_is_what_autodiff_gives(example, framework, name):
    network, data = example("network"), example("digits")
    digits, task = data.Digits.load(), data.TASKS[name]
    weights = network.initial_weights(np.random.default_rng(1), 64, 100, 10)
    x, target = data.encode(digits.train[:32]), task.target(digits.train_labels[:32])
    _, expected = network.NumPy.value_and_grad(task.loss)(weights, x, target)

    library = network.FRAMEWORKS[framework]
    with library.scope("float64"):
        placed = [library.asarray(w) for w in weights]
        _, got = library.value_and_grad(task.loss)(placed, library.asarray(x), target)
        got = [np.asarray(g) for g in got]
    for gradient, wanted in zip(got, expected, strict=True):
        # Sums of a thousand terms, of 2e-16 each, relative to the largest entry.
        assert np.max(np.abs(gradient - wanted)) < 1e-10 * np.max(np.abs(wanted))
        assert np.any(wanted)
