"""A batch over two processes, split with recipes or a `DTensor`, has the results of the whole."""

import dataclasses
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
    RTOL,
    SPARSITY,
    assert_equal_one_process,
    error,
    launch,
)
from _support.split import Batch

pytestmark = pytest.mark.compiles

VERSION = tuple(map(int, metadata.version("torch").split(".")[:2]))
SEVEN = slice(0, 7)  # samples: not as many in one process as in the other
UNEVEN = {name: batch.part(SEVEN) for name, batch in {**CASES, **SPARSITY}.items()}
MEANS = [name for name in EACH_LOSS if name.endswith("-mean")]
FEW = (*MEANS, *SPARSITY)
RECIPES = {  # all cases, and those of the quick run
    "ddp": ([HARDEST, *EACH_LOSS, *SPARSITY], [HARDEST, "SparsityEnforcer-min"]),
    "fsdp": (MEANS, ["SpikeMoid-groups-rate-window-mean"]),
    "accumulated": (EACH_LOSS, ["SpikeLatency-times-groups-mean"]),
}


def time_first(name):
    call = moved(with_everything(FORMS[name]), 0)
    return Batch(call.loss, call.spikes, call.target, call.options)


def of_terms(name):
    loss = dataclasses.replace(UNEVEN[name].loss, reduction="none")
    return dataclasses.replace(UNEVEN[name], loss=loss)


def of_times(loss, paired):
    random = np.random.default_rng(0)
    times, wanted = random.uniform(0, 9, size=(2, 7, 4, 3))
    times[random.random(times.shape) < 0.3] = np.nan
    target = wanted if paired else random.integers(4, size=7)
    return Batch(loss, times, target, {"where": np.arange(7) != 2})


TIMES = {
    "times-CrossEntropy": of_times(sx.times.CrossEntropy(temperature=2, silent_time=8), False),
    "times-SpikeLatency": of_times(sx.times.SpikeLatency(true_time=1, silent_time=8), False),
    "times-SpikeTime": of_times(sx.times.SpikeTime(time_constant=2), True),
    "times-VictorPurpura": of_times(sx.times.VictorPurpura(cost=0.5), True),
}
TIME_FIRST = (
    *("SpikeTime", "SpikeRate-rate-window-per-step", "SpikeMax", "SpikeMoid-rate"),
    *("CrossEntropy-latency", "SpikeLatency", "SpikeLatency-times-groups"),
)
EQUAL = {  # cases: a batch, the axis that is sharded, and the kind of target and options
    # Every form, because PyTorch shards each operation by a rule of its own.
    **{f"{name}-batch": (UNEVEN[name], 0, "numpy") for name in UNEVEN if "-mean" in name},
    **{f"{name}-batch": (UNEVEN[name], 0, "numpy") for name in (*EACH_LOSS, *SPARSITY)},
    **{f"{name}-batch-distributed": (UNEVEN[name], 0, "distributed") for name in FEW},
    **{f"{name}-whole": (UNEVEN[name], None, "numpy") for name in FEW},
    **{f"{name}-whole-distributed": (UNEVEN[name], None, "distributed") for name in FEW},
    **{f"{name}-one-sample": (CASES[name].part(slice(0, 1)), 0, "numpy") for name in MEANS},
    **{f"{name}-time-first": (time_first(name), 1, "numpy") for name in TIME_FIRST},
    "SpikeTime-mean-class": (UNEVEN["SpikeTime-mean"], 1, "numpy"),
    **{name: (batch, 0, "numpy") for name, batch in TIMES.items()},
    **{f"{name}-whole": (batch, None, "distributed") for name, batch in TIMES.items()},
}
SHARDED, TERMS = "sharded along its samples", "input.to_local()"
CLASSES = [name for name in MEANS if name != "SpikeTime-mean"]
REFUSED = {  # and the message
    **{f"{name}-time": (UNEVEN[name], 2, SHARDED) for name in MEANS},
    **{f"{name}-class": (UNEVEN[name], 1, SHARDED) for name in (*CLASSES, "SpikeTime-batchmean")},
    **{f"{name}-terms": (of_terms(name), 0, TERMS) for name in MEANS},
}
QUICK = (  # one case of each kind
    *(f"{HARDEST}-batch", "SparsityEnforcer-min-batch", "SpikeTime-mean-class", *TIMES),
    "SpikeMoid-groups-rate-window-mean-batch-distributed",
    "CrossEntropy-groups-cold-sqrt_count-window-mean-whole",
    "SpikeLatency-times-groups-mean-whole-distributed",
    "SpikeRate-rate-window-per-step-mean-one-sample",
    *("SpikeMoid-rate-time-first", "SpikeRate-rate-window-per-step-mean-terms"),
    "CrossEntropy-groups-cold-sqrt_count-window-mean-time",
    *("SpikeMoid-groups-rate-window-mean-class", "SpikeTime-batchmean-class"),
)


@pytest.fixture(scope="module")
def results(pytestconfig, tmp_path_factory):
    """Run all cases in one group of processes; return what each process found."""
    slow, batches = pytestconfig.getoption("--slow"), {**CASES, **SPARSITY}
    cases = [((kind, n), (batches[n],)) for kind in RECIPES for n in RECIPES[kind][not slow]]
    tensors = {**EQUAL, **REFUSED}
    cases += [(("tensor", name), tensors[name]) for name in (tensors if slow else QUICK)]
    return launch("run_torch.py", tmp_path_factory.mktemp("torch"), cases, OMP_NUM_THREADS="1")


def test_recipes_equal_one_process(results):
    """With DDP, FSDP, and micro-batches in each process."""
    found = {}
    for key in (key for key in results[0] if key[0] != "tensor"):
        values, (first, second) = zip(*(result[key] for result in results), strict=True)
        assert np.array_equal(first, second), key  # the gradient is the same in each
        by = 2 if key[-1] in SPARSITY else 1  # each process has twice the term of the whole
        found[key] = np.mean(values) / by, first
    assert_equal_one_process(found)


def test_distributed_tensor_equals_one_process(results):
    """Equal, or refused with a message."""
    tensors = {name: got for (kind, name), got in results[0].items() if kind == "tensor"}
    wrong = {name: why for name, got in tensors.items() if (why := what_is_wrong(name, got))}
    assert tensors
    assert not wrong, f"{len(wrong)} cases of {len(tensors)}: {wrong}"


def what_is_wrong(name, found):
    """Return why the result of a case is wrong, or an empty string if it is right."""
    if name in REFUSED:
        refused = isinstance(found, str) and REFUSED[name][-1] in found
        return "" if refused else f"not refused: {found}"
    if isinstance(found, str):
        return found
    batch, _, kind = EQUAL[name]
    target = () if batch.target is None else (batch.target,)
    value, gradient, native, forward, backward = found
    expected = sx.value_and_grad(batch.loss)(batch.spikes, *target, **batch.options)
    errors = error((value, gradient), expected), error((value, native), expected)
    if not np.max(errors) < RTOL:
        return f"errors {errors}"
    if VERSION >= (2, 11) and backward:  # before, PyTorch gathers in some backward passes
        return f"collectives {backward} of the backward pass"
    if kind == "numpy" and "one-sample" not in name and not set(forward) <= {"all_reduce"}:
        return f"collectives {forward} of the forward pass"  # PyTorch gathers a batch of one
    return ""
