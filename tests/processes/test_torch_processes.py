"""A batch over two processes, split with recipes or a `DTensor`, has the results of the whole."""

from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest

pytest.importorskip("torch.distributed.tensor")

import spikeloss_xp as sx
from _support.calls import moved, with_everything
from _support.contract import FORMS
from _support.processes import (
    CASES,
    EACH_LOSS,
    HARDEST,
    MEANS,
    RTOL,
    SPARSITY,
    assert_equal_one_process,
    error,
    launch,
)
from _support.split import PARTS, Batch

pytestmark = pytest.mark.compiles

VERSION = tuple(map(int, metadata.version("torch").split(".")[:2]))
SEVEN = slice(0, 7)  # samples: not as many in one process as in the other
UNEVEN = {name: batch.part(SEVEN) for name, batch in {**CASES, **SPARSITY}.items()}
EMPTY = {f"{name}, empty": each.part(PARTS[0]) for name, each in {**CASES, **SPARSITY}.items()}
"""Batches with all of their samples in the first process."""
WITH_EMPTY = ["SpikeTime-mean, empty", "CrossEntropy-probabilities-count-mean, empty"]
RECIPES = {  # all cases, and those of the quick run
    "ddp": (
        [HARDEST, *EACH_LOSS, *SPARSITY, *EMPTY],
        [HARDEST, "SparsityEnforcer-min", *WITH_EMPTY, "SparsityEnforcer-min, empty"],
    ),
    "fsdp": ([*MEANS, *WITH_EMPTY], ["SpikeMoid-groups-rate-window-mean", WITH_EMPTY[0]]),
    "accumulated": (
        [*EACH_LOSS, *WITH_EMPTY],
        ["SpikeLatency-times-groups-mean", WITH_EMPTY[0]],
    ),
}


def of_times(loss, paired):
    random = np.random.default_rng(0)
    times, wanted = random.uniform(0, 9, size=(2, 7, 4, 3))
    times[random.random(times.shape) < 0.3] = np.nan
    target = wanted if paired else random.integers(4, size=7)
    return Batch(loss, times, target, {"where": np.arange(7) != 2})


WINDOW, PER_STEP = "SpikeMoid-groups-rate-window-mean", "SpikeRate-rate-window-per-step-mean"
COLD = "CrossEntropy-groups-cold-sqrt_count-window-mean"
VICTOR_PURPURA = sx.times.VictorPurpura(cost=0.5)
TIMES = {  # and whether the target is other times
    sx.times.CrossEntropy(temperature=2, silent_time=8): False,
    sx.times.SpikeLatency(true_time=1, silent_time=8): False,
    sx.times.SpikeTime(time_constant=2): True,
    VICTOR_PURPURA: True,
}
EQUAL = {  # cases: a batch, the axis that is sharded, and the kind of target and options
    HARDEST: (UNEVEN[HARDEST], 0, "numpy"),
    "sparsity": (UNEVEN["SparsityEnforcer-min"], 0, "numpy"),
    "all distributed": (UNEVEN[WINDOW], 0, "distributed"),
    "whole in each": (UNEVEN[COLD], None, "numpy"),
    "all whole in each": (UNEVEN["SpikeLatency-times-groups-mean"], None, "distributed"),
    "one sample": (CASES[PER_STEP].part(slice(0, 1)), 0, "numpy"),
    "time first": (moved(with_everything(FORMS["SpikeMoid-rate"]), 0), 1, "numpy"),
    "by class": (UNEVEN["SpikeTime-mean"], 1, "numpy"),
    **{
        f"times, {type(loss).__name__}": (of_times(loss, target), 0, "numpy")
        for loss, target in TIMES.items()
    },
    "times, whole in each": (of_times(VICTOR_PURPURA, True), None, "distributed"),
}
SLOW = {  # every form, because PyTorch shards each operation by a rule of its own
    f"{name}, sharded": (UNEVEN[name], 0, "numpy")
    for name in (*(name for name in CASES if name.endswith("-mean")), *EACH_LOSS, *SPARSITY)
}
TERMS_LOSS = replace(UNEVEN[PER_STEP].loss, reduction="none")
SHARDED, TERMS = "sharded along its samples", "input.to_local()"
REFUSED = {  # a batch, the axis that is sharded, and the message
    "by time": (UNEVEN[COLD], 2, SHARDED),
    "classes": (UNEVEN[WINDOW], 1, SHARDED),
    "trains by class, per sample": (UNEVEN["SpikeTime-batchmean"], 1, SHARDED),
    "terms": (replace(UNEVEN[PER_STEP], loss=TERMS_LOSS), 0, TERMS),
}


@pytest.fixture(scope="module")
def results(pytestconfig, tmp_path_factory):
    """Run all cases in one group of processes; return what each process found."""
    slow, batches = pytestconfig.getoption("--slow"), {**CASES, **SPARSITY, **EMPTY}
    cases = [((kind, n), (batches[n],)) for kind in RECIPES for n in RECIPES[kind][not slow]]
    tensors = {**EQUAL, **REFUSED, **(SLOW if slow else {})}
    cases += [(("tensor", name), case) for name, case in tensors.items()]
    return launch("run_torch.py", tmp_path_factory.mktemp("torch"), cases, OMP_NUM_THREADS="1")


def test_recipes_equal_one_process(results):
    """With DDP, FSDP, and micro-batches in each process."""
    found = {}
    for key in (key for key in results[0] if key[0] != "tensor"):
        values, (first, second) = zip(*(result[key] for result in results), strict=True)
        assert np.array_equal(first, second), key  # the gradient is the same in each
        # Each process has twice the term of the whole batch.
        by = 2 if key[-1].removesuffix(", empty") in SPARSITY else 1
        found[key] = np.mean(values) / by, first
    assert_equal_one_process(found, EMPTY)


def test_distributed_tensor_equals_one_process(results):
    """Equal, or refused with a message."""
    tensors = {name: got for (kind, name), got in results[0].items() if kind == "tensor"}
    for name, (*_, message) in REFUSED.items():
        assert message in tensors.pop(name), name
    assert tensors
    for name, found in tensors.items():
        assert not isinstance(found, str), (name, found)
        value, gradient, native, forward, backward = found
        batch, _, kind = {**EQUAL, **SLOW}[name]
        target = () if batch.target is None else (batch.target,)
        expected = sx.value_and_grad(batch.loss)(batch.spikes, *target, **batch.options)
        assert error((value, gradient), expected) < RTOL, name
        assert error((value, native), expected) < RTOL, name
        if VERSION >= (2, 11):  # before, PyTorch gathers in some backward passes
            assert not backward, name
        if kind == "numpy" and name != "one sample":  # PyTorch gathers a batch of one
            assert set(forward) <= {"all_reduce"}, name
