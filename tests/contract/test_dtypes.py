"""Losses accept arguments of the listed dtypes, and sum spikes of half precision without loss.

The random calls of test_differential.py have spikes of every dtype.
"""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import WITH_TARGET, example, one_jax
from _support.cases import close
from _support.contract import FLOATS, FORMS, INTEGERS, LABELS

WITH_EACH_TARGET = {FORMS[name].contract.name: name for name in WITH_TARGET}.values()
LISTED = {"lengths": INTEGERS, "weight": (*INTEGERS, *FLOATS)}


@one_jax
@pytest.mark.parametrize(
    ("form", "argument"),
    [*((form, "target") for form in WITH_EACH_TARGET), *(("SpikeRate-count", x) for x in LISTED)],
)
def test_arguments_accept_listed_dtypes_and_reject_others(backend, form, argument):
    contract, call = FORMS[form].contract, example(FORMS[form])
    call = call.replace(lengths=np.asarray([6, 5, 0, 3, 6]))
    if "weight" in contract.call:
        call = call.replace(weight=np.asarray([1, 2, 0, 4]))
    if contract.target is not LABELS:  # values that bool and integers represent exactly
        call = call.replace(target=np.round(call.target / np.max(call.target)))
    arguments = {"target": call.target, **call.options}
    spikes, listed = backend.asarray(call.spikes), LISTED.get(argument, contract.target.dtypes)

    def evaluate(*arrays):
        return [call.loss(spikes, **arguments | {argument: x}) for x in arrays]

    arrays = [backend.asarray(arguments[argument], x) for x in filter(backend.has, listed)]
    for value in backend.compiled(evaluate)(*arrays):
        assert value.dtype == spikes.dtype
        close(backend.numpy(value), call.value(), backend.rtol)
    for dtype in filter(backend.has, {"bool", *INTEGERS, *FLOATS} - set(listed)):
        with pytest.raises(TypeError, match=rf"{argument} must .*{dtype}"):
            evaluate(backend.asarray(arguments[argument], dtype))


@one_jax
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_sums_over_many_steps_stay_accurate(backend, dtype):
    """Summed in the dtype of the input, float16 counts stall at 2048 and bfloat16 counts at 256."""
    if not backend.has(dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    steps = 70000  # above the maximum of float16
    losses = [
        sx.SpikeRate(1, 0, readout="count", time_axis=-1, reduction="sum"),
        sx.SpikeMax(time_axis=-1),
        sx.SpikeRate(0.5, 0.25, num_classes=1, time_axis=-1),
    ]
    sparsity = sx.SparsityEnforcer(0.25, per="neuron", time_axis=-1)

    def run(spikes, label, lengths):
        terms = [loss(spikes, label, lengths=lengths) for loss in losses]
        return [*terms, sparsity(spikes, lengths=lengths)]

    spikes = np.ones((1, 2, steps))
    spikes[0, 1, ::2] = 0  # a rate of 1/2
    arrays = backend.asarray(spikes, dtype), backend.asarray([0]), backend.asarray([steps - 2])
    got = [float(value) for value in backend.compiled(run)(*arrays)]
    expected = [(steps / 2 - 1) ** 2, np.log(1.5), 0.25**2, (0.75**2 + 0.25**2) / 2]
    np.testing.assert_allclose(got, expected, rtol=1e-5)  # as `Backend.rtol` of float32
