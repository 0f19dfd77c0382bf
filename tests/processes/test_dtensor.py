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


TIME_FIRST = (
    *("SpikeTime", "SpikeRate-rate-window-per-step", "SpikeMax-rate", "SpikeMoid-rate"),
    *("SpikeMax-softmax-latency", "SpikeLatency", "SpikeLatency-times-groups"),
)
EQUAL = {  # cases: a batch, the axis that is sharded, and the kind of target and options
    **{f"{name}-batch": (batch, 0, "numpy") for name, batch in UNEVEN.items()},
    **{f"{name}-batch-distributed": (UNEVEN[name], 0, "distributed") for name in FEW},
    **{f"{name}-whole": (UNEVEN[name], None, "numpy") for name in FEW},
    **{f"{name}-whole-distributed": (UNEVEN[name], None, "distributed") for name in FEW},
    **{f"{name}-one-sample": (CASES[name].part(slice(0, 1)), 0, "numpy") for name in EACH_LOSS},
    **{f"{name}-time-first": (time_first(name), 1, "numpy") for name in TIME_FIRST},
    "SpikeTime-mean-class": (UNEVEN["SpikeTime-mean"], 1, "numpy"),
}
REFUSED = {
    **{f"{name}-time": (UNEVEN[name], 2, "numpy") for name in EACH_LOSS},
    **{
        f"{name}-class": (UNEVEN[name], 1, "numpy") for name in EACH_LOSS if "SpikeTime" not in name
    },
    "SpikeTime-batchmean-class": (UNEVEN["SpikeTime-batchmean"], 1, "numpy"),
}
TERMS = {name: (of_terms(name), 0, "numpy") for name in EACH_LOSS if name.endswith("-sum")}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Run all cases in one group of processes; the results are those of the first."""
    folder = tmp_path_factory.mktemp("dtensor")
    launched = launch(
        "run_dtensor.py", folder, {**EQUAL, **REFUSED, **TERMS}, number=2, OMP_NUM_THREADS="1"
    )
    return launched[0]


@pytest.mark.parametrize("name", EQUAL)
def test_distributed_tensor_equals_one_process(results, name):
    batch, _, kind = EQUAL[name]
    target = () if batch.target is None else (batch.target,)
    value = batch.loss(batch.spikes, *target, **batch.options)
    cotangent = {"cotangent": np.ones(value.shape)} if value.ndim else {}
    expected = sx.value_and_grad(batch.loss)(batch.spikes, *target, **batch.options, **cotangent)
    found = results[name]
    assert not isinstance(found, str), found
    assert error(found[:2], expected) < RTOL
    assert error((found[0], found[2]), expected) < RTOL
    forward, backward = found[3:]
    if VERSION >= (2, 11):  # before, PyTorch gathers in the backward pass of some operations
        assert backward == {}
    if kind == "numpy" and "one-sample" not in name:  # PyTorch gathers a batch of one
        assert set(forward) <= {"all_reduce"}  # of the sum and the weight


@pytest.mark.parametrize("name", REFUSED)
def test_sharded_time_or_class_raises(results, name):
    assert "sharded along its samples" in results[name]


@pytest.mark.parametrize("name", TERMS)
def test_terms_of_a_distributed_tensor_raise(results, name):
    assert "input.to_local()" in results[name]
