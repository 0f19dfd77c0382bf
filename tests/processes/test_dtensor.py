"""A loss of a distributed tensor of PyTorch has the value and the gradient of the whole."""

import dataclasses
from importlib import metadata

import numpy as np
import pytest

pytest.importorskip("torch.distributed.tensor")

import spikeloss_xp as sx
from _support.calls import moved, with_everything
from _support.contract import FORMS
from _support.processes import CASES, EACH_LOSS, RTOL, SPARSITY, error, launch
from _support.split import Batch

pytestmark = pytest.mark.compiles

VERSION = tuple(map(int, metadata.version("torch").split(".")[:2]))
SEVEN = slice(0, 7)  # samples: not as many in one process as in the other
UNEVEN = {name: batch.part(SEVEN) for name, batch in {**CASES, **SPARSITY}.items()}
FEW = (*EACH_LOSS, *SPARSITY)


def time_first(name):
    call = moved(with_everything(FORMS[name]), 0)
    return Batch(call.loss, call.spikes, call.target, call.options)


def of_terms(name):
    batch = UNEVEN[name]
    loss = dataclasses.replace(batch.loss, reduction="none")
    return dataclasses.replace(batch, loss=loss)


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
    **{f"{name}-batch": (batch, 0, "numpy") for name, batch in UNEVEN.items()},
    **{f"{name}-batch-distributed": (UNEVEN[name], 0, "distributed") for name in FEW},
    **{f"{name}-whole": (UNEVEN[name], None, "numpy") for name in FEW},
    **{f"{name}-whole-distributed": (UNEVEN[name], None, "distributed") for name in FEW},
    **{f"{name}-one-sample": (CASES[name].part(slice(0, 1)), 0, "numpy") for name in EACH_LOSS},
    **{f"{name}-time-first": (time_first(name), 1, "numpy") for name in TIME_FIRST},
    "SpikeTime-mean-class": (UNEVEN["SpikeTime-mean"], 1, "numpy"),
    **{name: (batch, 0, "numpy") for name, batch in TIMES.items()},
    **{f"{name}-whole": (batch, None, "distributed") for name, batch in TIMES.items()},
}
REFUSED = {
    **{f"{name}-time": (UNEVEN[name], 2, "numpy") for name in EACH_LOSS},
    **{
        f"{name}-class": (UNEVEN[name], 1, "numpy") for name in EACH_LOSS if "SpikeTime" not in name
    },
    "SpikeTime-batchmean-class": (UNEVEN["SpikeTime-batchmean"], 1, "numpy"),
}
TERMS = {name: (of_terms(name), 0, "numpy") for name in EACH_LOSS if name.endswith("-sum")}


QUICK = (  # one case of each kind
    *("CrossEntropy-groups-cold-count-window-per-step-mean-batch", "SparsityEnforcer-min-batch"),
    *("SpikeMoid-groups-rate-window-mean-batch-distributed", "SpikeTime-mean-class"),
    "CrossEntropy-groups-cold-sqrt_count-window-mean-whole",
    "SpikeLatency-times-groups-mean-whole-distributed",
    "SpikeRate-rate-window-per-step-mean-one-sample",
    *("SpikeMoid-rate-time-first", "SpikeRate-rate-window-per-step-sum"),
    *(
        "CrossEntropy-groups-cold-sqrt_count-window-mean-time",
        "SpikeMoid-groups-rate-window-mean-class",
    ),
    *("SpikeTime-batchmean-class", *TIMES),
)


def test_distributed_tensor_equals_one_process(pytestconfig, tmp_path):
    """All cases in one group of processes: equal, or refused with a message."""
    chosen = {**EQUAL, **REFUSED, **TERMS}
    if not pytestconfig.getoption("--slow"):
        chosen = {name: chosen[name] for name in QUICK}
    results = launch("run_dtensor.py", tmp_path, chosen, OMP_NUM_THREADS="1")[0]
    wrong = {name: why for name in chosen if (why := what_is_wrong(name, results[name]))}
    assert not wrong, f"{len(wrong)} cases of {len(chosen)}: {wrong}"


def what_is_wrong(name, found):
    """Return why the result of a case is wrong, or an empty string if it is right."""
    if name in REFUSED or name in TERMS:
        message = "sharded along its samples" if name in REFUSED else "input.to_local()"
        return "" if isinstance(found, str) and message in found else f"not refused: {found}"
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
