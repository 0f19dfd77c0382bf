"""Batches that are split over processes, devices or micro-batches, and what one process gets.

Every recipe of docs/processes.md is tested on them. The model is a matrix that mixes the neurons,
and the gradient is that with respect to the matrix.
"""

import importlib.util
import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import spikeloss_xp as sx
from _support.calls import Call, example, with_everything
from _support.contract import FORMS
from _support.split import Batch, SquaredCount, mixed, mixing

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
SAMPLES = [0, 1, 2, 3, 4, 4, 3, 2]
"""The samples of the examples in a batch of 8, of which no two parts have the same weight."""
RTOL = 1e-10
"""Relative to the largest entry, in float64: a thousand roundings of sums of a few hundred."""


def _batch(call: Call) -> Batch:
    options = {name: np.asarray(x) for name, x in call.options.items()}
    return Batch(call.loss, call.spikes, call.target, options).part(SAMPLES)


def _cases() -> dict[str, Batch]:
    forms = {name: form for name, form in FORMS.items() if form.contract.target is not None}
    batches = {name: _batch(with_everything(form)) for name, form in forms.items()}
    plain, options = _batch(example(FORMS["SpikeMax"])), batches["SpikeMax"].options
    options = {name: options[name] for name in ("lengths", "weight")}  # it takes no mask by class
    batches |= {
        "no-mask": plain,
        "nothing-counts": replace(plain, options={"lengths": np.zeros(8, dtype=int)}),
        "half-ignored": replace(plain, target=np.where(np.arange(8) < 4, plain.target, -100)),
        "own-readout": replace(plain, loss=SquaredCount(time_axis=-1), options=options),
    }
    return {
        f"{name}-{reduction}": replace(batch, loss=replace(batch.loss, reduction=reduction))
        for name, batch in batches.items()
        for reduction in ("sum", "mean", "batchmean")
    }


def _sparsity_cases() -> dict[str, Batch]:
    batches = {}
    for name, form in FORMS.items():
        # Terms of samples add up without the sums of the rest of the batch.
        if form.contract.target is None and "sample" not in form.loss().per:
            batch = _batch(with_everything(form))
            # Many zeros, where the derivative depends on whether events are too many or too few.
            spikes = np.where(batch.spikes > np.median(batch.spikes), 2 * batch.spikes, 0)
            batches[name] = replace(batch, spikes=spikes)
            batches[f"{name}-no-mask"] = replace(batch, spikes=spikes, options={})
    return batches


CASES = _cases()
SPARSITY = _sparsity_cases()
FEW = (
    *("SpikeTime", "SpikeRate-rate-window-per-step", "CrossEntropy-latency", "own-readout"),
    *("CrossEntropy-groups-cold-sqrt_count-window", "CrossEntropy-probabilities-count"),
    *("SpikeLatency-times-groups", "SpikeMoid-groups-rate-window", "no-mask", "nothing-counts"),
)
EACH_LOSS = [name for name in CASES if name.rpartition("-")[0] in FEW]
"""One form of each loss, in each reduction: what takes long is tested on these."""
MEANS = [name for name in EACH_LOSS if name.endswith("-mean")]
HARDEST = "CrossEntropy-groups-cold-count-window-per-step-mean"
"""Class weights, a mask for each entry, lengths, ignored labels, and two neurons for each class."""


def one_process(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return the loss of the whole batch and its gradient, computed by NumPy."""
    output = mixed(mixing(batch.spikes.shape[1]), batch.spikes)
    target = () if batch.target is None else (batch.target,)
    value, gradient = sx.value_and_grad(batch.loss)(output, *target, **batch.options)
    return value, np.einsum("bct,bnt->cn", gradient, batch.spikes)


def error(got: tuple[Any, Any], expected: tuple[Any, Any]) -> float:
    """Return the largest error of value and gradient, relative to the largest entry of each.

    It is NaN if an entry is.
    """
    errors = []
    for found, wanted in zip(got, expected, strict=True):
        assert np.shape(found) == np.shape(wanted)
        scale = float(np.max(np.abs(wanted))) or 1.0
        errors.append(np.max(np.abs(np.asarray(found) - wanted)) / scale)
    return float(np.max(errors))


def assert_equal_one_process(
    found: dict[Any, tuple[Any, Any]], more: dict[str, Batch] | None = None
) -> None:
    """Assert that results have the value and the gradient that one process gets.

    Their keys are names of cases, or tuples that end with one. A failure lists all that differ.
    """
    assert found
    batches, errors = {**CASES, **SPARSITY, **(more or {})}, {}
    for key, got in found.items():
        errors[key] = error(got, one_process(batches[key[-1] if isinstance(key, tuple) else key]))
    wrong = {key: value for key, value in errors.items() if not value < RTOL}
    assert not wrong, f"errors of {len(wrong)} cases of {len(found)}: {wrong}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return int(listener.getsockname()[1])


def launch(
    program: str, folder: Path, batches: Any, *arguments: Any, number: int = 1, **environment: str
) -> list[dict[str, Any]]:
    """Run a program of tests/processes in a number of processes, and return what each rank found.

    Each gets the folder, its rank, and the other arguments. It reads the pickled batches from the
    folder, and writes results there: ``results-RANK.pickle``. A program may also fork into ranks.
    """
    (folder / "batches.pickle").write_bytes(pickle.dumps(batches))
    path = os.pathsep.join([str(RECIPES), *filter(None, sys.path)])
    command = [sys.executable, str(Path(__file__).parents[1] / "processes" / program), str(folder)]

    def run(rank: int) -> subprocess.CompletedProcess[str]:
        variables = {"PYTHONPATH": path, "LOCAL_RANK": str(rank), **environment}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "timeout": 600}
        given = [*command, str(rank), *map(str, arguments)]
        return subprocess.run(given, env=os.environ | variables, text=True, **options)

    with ThreadPoolExecutor(number) as threads:
        failed = [ran.stdout for ran in threads.map(run, range(number)) if ran.returncode]
    assert not failed, "\n".join(failed)
    files = sorted(folder.glob("results-*.pickle"))
    return [pickle.loads(file.read_bytes()) for file in files]


def recipes(name: str) -> Any:
    """Import a file of recipes, some of which import others."""
    if str(RECIPES) not in sys.path:
        sys.path.append(str(RECIPES))
    spec: Any = importlib.util.spec_from_file_location(name, RECIPES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
